"""`resad-indexer audit`: the photographs that an index rests on, the least healthy-looking first.

These are its reference photographs, and those that calibrate it, if others do.  Each is ranked by its score among
its own kind: a reference photograph was scored against the others, one of the calibration against all memories.
A diseased photograph among the normals stands out, unless a second one has the same rare signs: each then lowers
the other's score, and both may rank lower than alone (docs/results.md).  So look beyond the first, and audit again
after removing some.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from resad_client.csv_text import csv_row
from resad_client.records import INTENDED_USE, QualityReason
from resad_client.text import counted, printable
from rich.markup import escape
from rich.table import Table

from indexer.calibration.calibrate import CalibrationRecord
from indexer.tables import four_digits
from lab.report.page import render
from lab.report.pictures import jpeg_url, usual_scale
from resad.calibration import p_value
from resad.config import PhotoLimits
from resad.detector import measure
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest, ReferenceRecord
from resad.photo import read_photo
from resad.pictures.overlay import draw_panels
from resad.preparation import prepare
from resad.quality import poor_reasons

_PICTURE_WIDTH: Final = 900
"""px; of the two panels of a picture."""
_PAGE_COLUMNS: Final = ("rank", "photograph", "score", "p", "spreads", "quality", "patient", "camera", "file")
_TEXT_COLUMNS: Final = ("photo", "quality", "file")


@dataclass(frozen=True)
class AuditedPhoto:
    """A photograph of the index and its rank.

    rank: 1 for the one that lies farthest above its kind.  id: in the index, r-... for a reference photograph,
    c-... for one of a separate calibration.  score: in the bank without its own memories, feature units.
    p: its rank among the others of its kind, in (0, 1]; of n healthy ones the highest has 1 / n.
    spreads: distance of the score from their median in robust standard deviations (1.4826 times the median
    absolute deviation).  reasons: limits of quality that it fails.  place: the file, where the photographs were
    given; else the name that the index keeps, if any.
    """

    rank: int
    id: str
    score: float
    p: float
    spreads: float
    reasons: tuple[QualityReason, ...]
    patient: str | None
    camera: str | None
    place: str | None


@dataclass(frozen=True)
class Audit:
    """The photographs that a version rests on, the least healthy-looking first.

    references, calibrating: how many of each kind.  matched: number of photographs found among the given files;
    None where no files were given.
    """

    name: str
    version: str
    matched: int | None
    photos: tuple[AuditedPhoto, ...]
    references: int
    calibrating: int
    intended_use: str = INTENDED_USE

    @property
    def kinds(self) -> str:
        """How many photographs of which kind, in words."""
        references = counted(self.references, "reference photograph")
        return f"{references} and {self.calibrating} of the calibration" if self.calibrating else references


def audit(
    manifest: Manifest,
    records: Sequence[ReferenceRecord],
    places: Mapping[str, Path] | None,
    calibration: Sequence[CalibrationRecord] = (),
) -> Audit:
    """Rank the photographs by their stored scores; no photograph is read.

    Args:
        places: file by content hash; None where no files were given.
        calibration: photographs of a separate calibration.
    Raises:
        SettingError: files were given, and none of them is in the index.
    """
    photos = [*_among_their_kind(manifest, records, places or {})]
    photos += _among_their_kind(manifest, calibration, places or {})
    photos.sort(key=lambda photo: (-photo.spreads, -photo.score))
    contents = [*(record.content_sha256 for record in records), *(record.content_sha256 for record in calibration)]
    matched = None if places is None else sum(content in places for content in contents)
    if matched == 0:
        raise SettingError("none of the given photographs is in the index (compared by content)")
    ranked = tuple(replace(photo, rank=rank) for rank, photo in enumerate(photos, start=1))
    return Audit(manifest.name, manifest.version, matched, ranked, len(records), len(calibration))


def _among_their_kind(
    manifest: Manifest, records: Sequence[ReferenceRecord | CalibrationRecord], places: Mapping[str, Path]
) -> Iterator[AuditedPhoto]:
    """Each photograph among the others that were scored as it was, not ranked yet."""
    scores = [record.score for record in records]
    middle = median(scores or [0.0])
    spread = 1.4826 * median([abs(score - middle) for score in scores] or [0.0])
    for row, record in enumerate(records):
        place = places.get(record.content_sha256)
        name = record.name if isinstance(record, ReferenceRecord) else None
        yield AuditedPhoto(
            rank=0,
            id=record.id,
            score=record.score,
            p=p_value(record.score, tuple(sorted(scores[:row] + scores[row + 1 :]))),
            spreads=(record.score - middle) / spread if spread > 0 else 0.0,
            reasons=poor_reasons(record.quality, manifest.photo_quality),
            patient=record.patient,
            camera=record.camera,
            place=printable(str(place)) if place else name,
        )


def audit_json(result: Audit) -> str:
    """The audit as indented JSON."""
    return TypeAdapter(Audit).dump_json(result, indent=2).decode()


def audit_csv(result: Audit) -> str:
    """The audit as CSV: a row per photograph, highest score first."""
    head = ("rank", "id", "score", "p", "spreads", "reasons", "patient", "camera", "place")
    rows = (
        (photo.rank, photo.id, photo.score, photo.p, photo.spreads, " ".join(photo.reasons), photo.patient,
         photo.camera, photo.place)
        for photo in result.photos
    )  # fmt: skip
    return "".join(map(csv_row, (head, *rows)))


def audit_table(result: Audit, count: int) -> Table:
    """The first `count` photographs as the command line prints them."""
    table = Table(
        title=f"{result.name} {result.version}: {result.kinds}, highest score first",
        title_justify="left",
    )
    for heading in ("rank", "photo", "score", "p", "spreads", "quality", "file"):
        table.add_column(heading, overflow="fold", justify="left" if heading in _TEXT_COLUMNS else "right")
    for photo in result.photos[:count]:
        numbers = (four_digits(photo.score), f"{photo.p:.4f}", f"{photo.spreads:+.1f}")
        name = Path(photo.place).name if photo.place else "-"
        table.add_row(str(photo.rank), photo.id, *numbers, ", ".join(photo.reasons) or "-", escape(name))
    return table


def audit_page(result: Audit, pictures: Mapping[str, str]) -> str:
    """The audit as an HTML page that needs no other file.

    Args:
        pictures: data URL by the photograph's id; photographs with one are shown first, in the order of ranks.
    """
    rows = [
        (str(photo.rank), photo.id, f"{photo.score:#.4g}", f"{photo.p:.4f}", f"{photo.spreads:+.1f}",
         ", ".join(photo.reasons), photo.patient or "", photo.camera or "", photo.place or "")
        for photo in result.photos
    ]  # fmt: skip
    values = {
        "title": f"Audit of {result.name} {result.version}",
        "audit": result,
        "pictures": pictures,
        "headings": _PAGE_COLUMNS,
        "rows": rows,
    }
    return render("audit.html.jinja", values)


def audit_picture(loaded: LoadedIndex, group: Collection[int], place: Path, limits: PhotoLimits) -> str:
    """Photograph and anomaly map against the memories of the other photographs: data URL of a JPEG.

    Args:
        group: rows of `loaded.photos` that are left out together, this photograph's row among them; none for a
            photograph that is not in the bank.
    """
    detector, config = loaded.detector, loaded.manifest.config
    with naming(place):
        photo = prepare(place, config.preparation, limits)
        pixels = _reduced(read_photo(place, limits).pixels)
    bank = detector.bank.without_photos(np.array(sorted(group), dtype=np.int32))
    detection = measure(detector.encoder.encode([photo])[0], photo.mask, bank, config)
    height, width = pixels.shape[:2]
    anomaly_map = photo.frame.map_to_photo(detection.anomaly_map, width, height)
    return jpeg_url(draw_panels(pixels, anomaly_map, usual_scale(loaded.manifest.calibration), [], None))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photograph at half of the picture's width, or smaller."""
    image = Image.fromarray(pixels)
    image.thumbnail((_PICTURE_WIDTH // 2, _PICTURE_WIDTH // 2), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(image)
