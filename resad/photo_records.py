"""What a version of an index says of its reference photos: `photos.jsonl`."""

from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resad.errors import IndexInvalid, first_fault
from resad.field_of_view import FieldOfView
from resad.quality import QualityMeasures

PHOTOS_FILE: Final = "photos.jsonl"
CALIBRATION_FILE: Final = "calibration.jsonl"
"""There where an index was calibrated anew: the photographs that it was calibrated on."""

Standing = Literal["measured", "bound", "stale"]
"""What the patch distances that a normal's score comes from are worth in the version that states it.

measured: in this version's memory bank.  bound: in an earlier one that has only gained memories since; here they
are these or smaller, so that the score errs upwards and p with it, on the safe side for false alarms.  stale: in
an earlier one that has lost memories; they may be larger here, and p too low.
"""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReferenceRecord:
    """One reference photo: a line of `photos.jsonl`.

    id: opaque.  content_sha256: of the file.  perceptual_hash: 64 hex digits.  width, height: px.
    score, peak: left out of its own memory bank, feature units.  standing: of its distances.
    patient: a running number, or the id that was given where names are kept.
    name: of the file, only where names are kept.
    """

    id: str
    content_sha256: str
    perceptual_hash: str
    width: int
    height: int
    field_of_view: FieldOfView
    patches: int
    score: float
    peak: float
    quality: QualityMeasures
    patient: str | None = None
    eye: str | None = None
    camera: str | None = None
    name: str | None = None
    standing: Standing = "measured"


_RECORD: Final = TypeAdapter(ReferenceRecord)


def write_records(records: tuple[ReferenceRecord, ...], path: Path) -> None:
    """Write one line of JSON per reference photo, in the order of the memory bank's `Provenance.photo`."""
    path.write_bytes(b"".join(_RECORD.dump_json(record) + b"\n" for record in records))


def read_records(path: Path) -> tuple[ReferenceRecord, ...]:
    """The inverse of `write_records`; raises `IndexInvalid`, naming the line."""
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            records.append(_RECORD.validate_json(line))
        except ValidationError as error:
            raise IndexInvalid(f"{path}, line {number}: {first_fault(error)}") from error
    return tuple(records)
