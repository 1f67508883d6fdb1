"""`resad-indexer audit`: an index's reference photographs, the least healthy-looking first.

Each photograph is ranked by its score against the others.  A diseased photograph among the normals stands out, unless a
second one has the same rare signs: each then lowers the other's score, and both may rank lower than alone
(docs/results.md).  So look beyond the first, and audit again after removing some.
"""

import base64
import csv
import io
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from rich.markup import escape
from rich.table import Table

from indexer.tables import four_digits
from resad.calibration import USUAL_RATE, p_value, threshold
from resad.config import PhotoLimits
from resad.detector import measure
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest, ReferenceRecord
from resad.photo import read_photo
from resad.pictures.overlay import draw_panels, map_scale
from resad.preparation import prepare
from resad.quality import Reason, poor_reasons
from resad.result import INTENDED_USE


@dataclass(frozen=True)
class AuditedPhoto:
    """One reference photograph.

    rank: 1 for the highest score.  id: in the index.  score: left out of its own memory bank, feature units.
    p: its rank among the other reference photographs, in (0, 1]; of healthy ones one in n has 1 / n.
    spreads: how far above the median, in median absolute deviations made comparable to standard deviations.
    reasons: limits of quality that it does not keep.  place: the file, where the photographs were given; else the
    name that the index keeps, if any.
    """

    rank: int
    id: str
    score: float
    p: float
    spreads: float
    reasons: tuple[Reason, ...]
    patient: str | None
    camera: str | None
    place: str | None


@dataclass(frozen=True)
class Audit:
    """Of one version.  matched: photographs that were found among the given ones; None where none were given."""

    name: str
    version: str
    matched: int | None
    photos: tuple[AuditedPhoto, ...]
    intended_use: str = INTENDED_USE


def audit(manifest: Manifest, records: Sequence[ReferenceRecord], places: Mapping[str, Path] | None) -> Audit:
    """Rank the reference photographs.

    Args:
        places: where the photographs lie, by content hash.
    """
    scores = [record.score for record in records]
    middle = median(scores)
    spread = 1.4826 * median(abs(score - middle) for score in scores)
    order = sorted(range(len(records)), key=lambda row: (-scores[row], row))
    photos = []
    for rank, row in enumerate(order, start=1):
        record = records[row]
        others = tuple(sorted(scores[:row] + scores[row + 1 :]))
        place = (places or {}).get(record.content_sha256)
        photos.append(
            AuditedPhoto(
                rank=rank,
                id=record.id,
                score=record.score,
                p=p_value(record.score, others),
                spreads=(record.score - middle) / spread if spread > 0 else 0.0,
                reasons=poor_reasons(record.quality, manifest.photo_quality),
                patient=record.patient,
                camera=record.camera,
                place=str(place) if place else record.name,
            )
        )
    matched = None if places is None else sum(record.content_sha256 in places for record in records)
    if matched == 0:
        raise SettingError("none of the given photographs is in the index (compared by content)")
    return Audit(manifest.name, manifest.version, matched, tuple(photos))


def audit_json(found: Audit) -> str:
    """`found` as indented JSON."""
    return TypeAdapter(Audit).dump_json(found, indent=2).decode()


def audit_csv(found: Audit) -> str:
    """A line per photograph, highest score first."""
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(("rank", "id", "score", "p", "spreads", "reasons", "patient", "camera", "place"))
    for one in found.photos:
        lines.writerow(
            (one.rank, one.id, repr(one.score), repr(one.p), repr(one.spreads), " ".join(one.reasons), one.patient,
             one.camera, one.place)
        )  # fmt: skip
    return file.getvalue()


_WIDTH: Final = 900
_QUALITY: Final = 82


def audit_picture(loaded: LoadedIndex, together: Collection[int], place: Path, limits: PhotoLimits) -> str:
    """Photograph | anomaly map against the others' memories, as the data URL of a JPEG.

    Args:
        together: rows in `loaded.photos` that are left out for it, its own among them.
    """
    detector, config = loaded.detector, loaded.manifest.config
    with naming(place):
        photo = prepare(place, config.preparation, limits)
        pixels = _reduced(read_photo(place, limits).pixels)
    others = detector.bank.without_photos(np.array(sorted(together), dtype=np.int32))
    detection = measure(detector.encoder.encode([photo])[0], photo.mask, others, config)
    height, width = pixels.shape[:2]
    calibration = loaded.manifest.calibration
    level = threshold(calibration.peaks, USUAL_RATE).value
    dense = photo.frame.map_to_photo(detection.anomaly_map, width, height)
    picture = draw_panels(pixels, dense, map_scale(calibration, level), [], None)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most half of the picture's width."""
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDTH // 2, _WIDTH // 2), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(image)


_WORDS: Final = ("photo", "quality", "file")


def audit_table(found: Audit, count: int) -> Table:
    """The first `count` reference photographs."""
    table = Table(
        title=f"{found.name} {found.version}: {len(found.photos)} reference photographs, highest score first",
        title_justify="left",
    )
    for heading in ("rank", "photo", "score", "p", "spreads", "quality", "file"):
        table.add_column(heading, overflow="fold", justify="left" if heading in _WORDS else "right")
    for one in found.photos[:count]:
        numbers = (four_digits(one.score), f"{one.p:.4f}", f"{one.spreads:+.1f}")
        name = Path(one.place).name if one.place else "-"
        table.add_row(str(one.rank), one.id, *numbers, ", ".join(one.reasons) or "-", escape(name))
    return table


_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } .use { border-left: 4px solid #b34700; padding-left: .8rem; }
figure { margin: 2rem 0; } figure img { width: 100%; background: #000; }
figcaption b { font-size: 1.1rem; margin-right: .8rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr { border-bottom: 1px solid #ddd; }
code { overflow-wrap: anywhere; }
"""
_HEADINGS: Final = ("rank", "photograph", "score", "p", "spreads", "quality", "patient", "camera", "file")
_NUMBERS: Final = ("rank", "score", "p", "spreads")


def audit_page(found: Audit, pictures: Mapping[str, str]) -> str:
    """The page.

    Args:
        pictures: data URLs by the photographs' ids; those with one are shown first, in the order of their ranks.
    """
    title = f"Audit of {found.name} {found.version}"
    shown = "".join(_figure(one, pictures[one.id]) for one in found.photos if one.id in pictures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<h1>{escape(title)}</h1>
<p class="use"><strong>{escape(found.intended_use)}</strong></p>
<p>{len(found.photos)} reference photographs, each scored against the memories of the others; the highest first.
{_matched(found)} <b>p</b> is the rank among the others: of healthy photographs, too, one is the highest.
<b>Spreads</b> tell more: the distance from the median score, in robust standard deviations. Two photographs with
the same rare signs vouch for each other and rank lower: look beyond the first, and audit again after removing
some.</p>
{shown}
<h2>All photographs</h2>
{_table(found)}
</body>
</html>
"""


def _matched(found: Audit) -> str:
    if found.matched is None:
        return "The photographs were not given, so that none is shown."
    return f"{found.matched} of them were found among the given photographs."


def _figure(one: AuditedPhoto, url: str) -> str:
    words = f"score {one.score:#.4g}, {one.spreads:+.1f} spreads, p {one.p:.4f}"
    named = escape(one.place or one.id)
    return (
        f'<figure id="{escape(one.id)}"><figcaption><b>{one.rank}. {escape(one.id)}</b>{words}'
        f"{''.join(f', {escape(reason)}' for reason in one.reasons)}<br><code>{named}</code></figcaption>"
        f'<img src="{url}" alt="{named} and its anomaly map"></figure>\n'
    )


def _table(found: Audit) -> str:
    head = "".join(f"<th{_class(name)}>{name}</th>" for name in _HEADINGS)
    rows = "\n".join(_row(one) for one in found.photos)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def _row(one: AuditedPhoto) -> str:
    cells = (
        str(one.rank), one.id, f"{one.score:#.4g}", f"{one.p:.4f}", f"{one.spreads:+.1f}", ", ".join(one.reasons),
        one.patient or "", one.camera or "", one.place or "",
    )  # fmt: skip
    filled = zip(_HEADINGS, cells, strict=True)
    return "<tr>" + "".join(f"<td{_class(name)}>{escape(cell)}</td>" for name, cell in filled) + "</tr>"


def _class(name: str) -> str:
    return ' class="number"' if name in _NUMBERS else ""
