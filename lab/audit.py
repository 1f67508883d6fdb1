"""`resad-indexer audit`: an index's reference photographs, the least healthy-looking first.

Each is ranked by its score against the others, which the index keeps.  A diseased photograph among the normals
stands out so, unless another one vouches for it: two with the same rare signs are near to each other, and both
may rank lower than each would alone (measured in benchmarks/RESULTS.md).  So look beyond the first, and audit
again once some were removed.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from resad.calibration import p_value
from resad.errors import SettingError
from resad.manifest import Manifest, ReferenceRecord
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
