"""The result of one photograph: records and their JSON, the same on the command line and over HTTP."""

from typing import Final

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from resad.calibration import Interval
from resad.quality import PhotoQuality

INTENDED_USE: Final = "Research use only. Not for diagnosis."


@dataclass(frozen=True)
class IndexReference:
    """The index that scored."""

    name: str
    version: str
    fingerprint: str
    backbone: str
    weights: str


@dataclass(frozen=True)
class Disc:
    """The field of view, px of the photo."""

    cx: float
    cy: float
    radius: float


@dataclass(frozen=True)
class PhotoReference:
    """The photo that was scored; `field_of_view` is null without a disc."""

    width: int
    height: int
    field_of_view: Disc | None


@dataclass(frozen=True)
class NormalsReference:
    """The normal photographs that the photo was compared with.

    camera: theirs; null if they are all of the index's.  photos: how many.  rate: at which such normals exceed the
    threshold, 95 % interval (Clopper-Pearson).  finding_level: findings lie above it, feature units.
    reason: why they are not those of the camera that was named.
    """

    camera: str | None
    photos: int
    rate: Interval | None
    finding_level: float | None
    reason: str | None


# `mirrored` is always in an answer; the default is for reading answers of earlier versions.
@dataclass(frozen=True, config=ConfigDict(json_schema_serialization_defaults_required=True))
class Evidence:
    """A healthy patch near to a finding's peak.

    distance: feature units.  y, x: cell of the patch grid in the reference photo, not mirrored.
    mirrored: it is near to the finding's patch in the mirror image, left and right exchanged.
    """

    photo: str
    distance: float
    y: int
    x: int
    mirrored: bool = False


@dataclass(frozen=True)
class Finding:
    """A region of the map above the level that healthy photos exceed at the rate `fpr`.

    peak: feature units.  x, y, box (left, top, right, bottom), contour: px of the photo.  place: of the peak, in
    words, relative to the field of view (`resad.findings`).
    """

    rank: int
    peak: float
    p_value: float
    x: int
    y: int
    box: tuple[int, int, int, int]
    area_px: int
    area_share: float
    place: str | None
    contour: tuple[tuple[int, int], ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Timings:
    """Milliseconds.  decode: bytes to prepared square.  total: bytes to answer, waiting included."""

    decode: float
    total: float


@dataclass(frozen=True)
class Result:
    """The result of one photograph; `reason` says why p-value, threshold and verdict are null, if they are.

    fpr: the requested rate; for a requested threshold, the lowest rate that the normals support for it.
    map: the map as a data URL, if requested.
    """

    request_id: str | None
    image_score: float
    p_value: float | None
    fpr: float
    threshold: float | None
    abnormal: bool | None
    reason: str | None
    normals: NormalsReference
    index: IndexReference
    photo: PhotoReference
    quality: PhotoQuality
    findings: tuple[Finding, ...]
    map: str | None
    timings_ms: Timings
    intended_use: str = INTENDED_USE


_RESULT: Final = TypeAdapter(Result)


def result_json(result: Result) -> str:
    """`result` as indented JSON."""
    return _RESULT.dump_json(result, indent=2).decode()


def compact_json(result: Result) -> str:
    """`result` as JSON on one line."""
    return _RESULT.dump_json(result).decode()


def read_result(text: str | bytes) -> Result:
    """The inverse of `result_json` and `compact_json`; raises `ValueError` for anything else."""
    return _RESULT.validate_json(text)
