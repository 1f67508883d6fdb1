"""The photographs that an index was calibrated on anew: a line of `calibration.jsonl` each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from resad.photo_records import CALIBRATION_FILE
from resad.quality import QualityMeasures


@dataclass(frozen=True)
class CalibrationRecord:
    """One photograph of the calibration: a line of `calibration.jsonl`; fields as in `ReferenceRecord`."""

    id: str
    content_sha256: str
    perceptual_hash: str
    score: float
    peak: float
    quality: QualityMeasures
    patient: str | None
    camera: str | None


_RECORD: Final = TypeAdapter(CalibrationRecord)


def calibration_records(version: Path) -> tuple[CalibrationRecord, ...]:
    """The photographs that a version was calibrated on anew; none where its own references are."""
    file = version / CALIBRATION_FILE
    return tuple(map(_RECORD.validate_json, file.read_bytes().splitlines())) if file.is_file() else ()


def write_calibration_records(records: Sequence[CalibrationRecord], path: Path) -> None:
    """A line for each."""
    path.write_bytes(b"".join(_RECORD.dump_json(record) + b"\n" for record in records))
