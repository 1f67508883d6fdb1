"""What the service answers, field by field as its JSON has it.

Records are read with `resad_client.from_json` and written with `resad_client.to_json`.  A field with a default
may be missing from the JSON; every other must be there, though it may be null where its type says None.
"""

from dataclasses import dataclass
from typing import Final

INTENDED_USE: Final = "Research use only. Not for diagnosis."


@dataclass(frozen=True, slots=True)
class IndexReference:
    """Which index answered.  fingerprint, weights: SHA-256 of its settings, of its backbone's weights."""

    name: str
    version: str
    fingerprint: str
    backbone: str
    weights: str


@dataclass(frozen=True, slots=True)
class Disc:
    """The field of view, px of the photo."""

    cx: float
    cy: float
    radius: float


@dataclass(frozen=True, slots=True)
class PhotoReference:
    """The photo that was scored, px; `field_of_view` is None where no disc was found."""

    width: int
    height: int
    field_of_view: Disc | None


@dataclass(frozen=True, slots=True)
class QualityMeasures:
    """Of the green channel inside the field of view, its rim left out.

    brightness: mean, 0 to 255.  contrast: from the 5th to the 95th percentile, as a share of the brightness.
    sharpness: standard deviation of a band of fine detail, as a share of the brightness.
    completeness: share of the disc that the photo shows; 0 where none was found.
    saturated: share of pixels at 250 or more.
    """

    brightness: float
    contrast: float
    sharpness: float
    completeness: float
    saturated: float


@dataclass(frozen=True, slots=True)
class PhotoQuality:
    """Whether the score can be trusted; reasons are codes."""

    acceptable: bool
    reasons: tuple[str, ...]
    measures: QualityMeasures


@dataclass(frozen=True, slots=True)
class Interval:
    """95 %, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NormalsReference:
    """The normal photographs that the photo was compared with.

    camera: theirs; None where they are all of the index's.  photos: how many.  rate: at which such normals come
    out above the threshold, 95 % (Clopper-Pearson).  finding_level: findings lie above it, feature units.
    reason: why they are not those of the camera that was named.
    """

    camera: str | None
    photos: int
    rate: Interval | None
    finding_level: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A healthy patch near to a finding's peak.

    photo: opaque id of a reference photo.  distance: feature units.  y, x: cell of the patch grid in that photo.
    mirrored: it is near to the finding's patch as that looks in the mirror image, left and right changed; False
    from a service that does not say.
    """

    photo: str
    distance: float
    y: int
    x: int
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A region of the map above the level that healthy photos exceed at the rate `fpr`.

    rank: 1 for the strongest.  peak: feature units.  p_value: in (0, 1].  x, y (of the peak), box (left, top,
    right, bottom), contour ((x, y), ...): px of the photo.  area_share: of the scored area, in [0, 1].
    place: of the peak, in words, relative to the field of view; None from a service that does not say.
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


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds at the server.  decode: bytes to prepared square.  total: bytes to answer, waiting included."""

    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class Result:
    """One photograph's answer.

    image_score, threshold: feature units.  p_value: in (0, 1].  fpr: the rate that was asked for, in (0, 1);
    where a threshold was, the lowest one that the normals support for it.
    reason: why p_value, threshold and abnormal are None, if they are.  map: the picture as a data URL where it
    was asked for (`resad_client.map_bytes` gives its bytes).
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
    intended_use: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong (RFC 9457).  type: a URN to tell problems apart by.  status: HTTP's."""

    title: str
    status: int
    type: str = "about:blank"
    detail: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index that is known to the service; None is what it does not say, or not before a version is loaded.

    state: in a word, as in `serving`.  fault: why another version than the live one answers, if so.
    """

    name: str
    version: str | None = None
    default: bool | None = None
    state: str | None = None
    fault: str | None = None
    fingerprint: str | None = None
    backbone: str | None = None
    photos: int | None = None
    memories: int | None = None
