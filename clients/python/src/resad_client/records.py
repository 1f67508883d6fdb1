"""The records of an answer, field by field as its JSON has them; JSON -> records, and back.

The server writes these records, and clients read them.  A field with a default may be missing from the JSON; every
other must be there, though it may be null where its type allows None.  Fields that a record does not have are
ignored, so that a newer server is understood.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Final, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

from resad_client.errors import ProtocolError

INTENDED_USE: Final = "Research use only. Not for diagnosis."

QualityReason = Literal[
    "not-a-fundus-photograph",
    "no-field-of-view",
    "cut-off",
    "too-dark",
    "too-bright",
    "low-contrast",
    "blurred",
    "not-in-color",
    "channels-swapped",
    "low-resolution",
]
"""Of this version; a newer server may know others."""


IndexWarningCode = Literal["stale", "outliers", "corrected", "uncorrected"]
"""Of this version; a newer server may know others."""


@dataclass(frozen=True, slots=True)
class IndexWarning:
    """Why p-values and verdicts of an index may be wrong; `text` says it to people, and what mends it.

    code: `stale`: photographs have left the index since its normals were scored, p-values may be too low.
    `outliers`: a few normals raise the threshold.  `corrected`: the trunk was trained on normals, whose scores are
    corrected only roughly.  `uncorrected`: the same, and nothing corrects them.
    """

    code: IndexWarningCode
    text: str


FindingDoubt = Literal["at-edge", "few-pixels"]
"""Of this version; a newer server may know others."""


@dataclass(frozen=True, slots=True)
class IndexReference:
    """Which index answered, and what makes its verdicts doubtful; no warnings from servers of earlier versions."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

    name: str
    version: str
    fingerprint: str
    backbone: str
    weights: str
    warnings: tuple[IndexWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Disc:
    """The field of view, or the optic disc, px of the photo.

    radius: of an ellipse, the geometric mean of its half axes.  stretch: its height over its width; not 1 where
    the photo was resized without keeping its aspect, which the score undoes.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

    cx: float
    cy: float
    radius: float
    stretch: float = 1.0


@dataclass(frozen=True, slots=True)
class PhotoReference:
    """The photo that was scored; `field_of_view` is null where no disc was found.

    optic_disc: where it was found with some certainty; null where not, or from servers of earlier versions.
    square: left, top, right and bottom of the part that was scored, px of the photo, which it may exceed; null
    from servers of earlier versions.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

    width: int
    height: int
    field_of_view: Disc | None
    square: tuple[float, float, float, float] | None = None
    optic_disc: Disc | None = None


@dataclass(frozen=True, slots=True)
class QualityMeasures:
    """Of the prepared photograph's green channel inside the field of view, its rim left out.

    brightness: mean, 0 to 255.  contrast: from the 5th to the 95th percentile, as a share of the brightness.
    sharpness: standard deviation of a band of fine detail, as a share of the brightness.
    completeness: share of the disc that the photograph shows; 0 where none was found.
    saturated: share of pixels at 250 or more.
    color: mean saturation (HSV), 0 for gray.  order: the smaller of the binary logarithms of red over green and
    green over blue, of the means; negative where channels are not in the order of a retina's.  resolution: width
    of the disc in the photo, or of the lit region, over that of the prepared square, at most 1.  These three are
    null in indexes and from servers of earlier versions.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    """The server stores them in an index and refuses any other field there."""

    brightness: float
    contrast: float
    sharpness: float
    completeness: float
    saturated: float
    color: float | None = None
    order: float | None = None
    resolution: float | None = None


@dataclass(frozen=True, slots=True)
class PhotoQuality:
    """Whether the score can be trusted; reasons are codes."""

    acceptable: bool
    reasons: tuple[QualityReason, ...]
    measures: QualityMeasures


@dataclass(frozen=True, slots=True)
class Interval:
    """95 %, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class NormalsReference:
    """The normal photographs that the photo was compared with.

    camera: theirs; null where they are all of the index's.  photos: how many.  rate: at which such normals come
    out above the threshold, 95 % (Clopper-Pearson).  finding_level: findings lie above it, feature units; null if
    there are too few normals for it, or they never show so many regions.  false_regions: so many regions above
    that level a healthy photograph shows on average; null for indexes of earlier versions, whose level is what the
    highest point of a healthy photograph exceeds at the rate `fpr`.  source: `left-out`, the index's own
    photographs, each scored without its own patches; `separate`, photographs outside the index (`calibrate`); null
    from servers of earlier versions.  reason: why they are not those of the camera that was named.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

    camera: str | None
    photos: int
    rate: Interval | None
    finding_level: float | None
    false_regions: float | None = dataclasses.field(default=None, kw_only=True)
    source: Literal["left-out", "separate"] | None = dataclasses.field(default=None, kw_only=True)
    reason: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A healthy patch near to a finding's peak, or an example of a lesion.

    distance: feature units.  y, x: cell of the patch grid in the reference photo, as that photo is.
    mirrored: it is near to the finding's patch as that looks in the mirror image, left and right changed.
    label: what a reader called it, as `normal-variant`; null for patches of the reference photos.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

    photo: str
    distance: float
    y: int
    x: int
    mirrored: bool = False
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Resemblance:
    """The kind of lesion that a finding resembles most, by the examples that readers have marked; no diagnosis.

    share: of the votes of the nearest examples of all its patches.  votes: how many of the `of` examples nearest
    to its peak are of that kind.  distance: of the peak to the nearest one of the kind; healthy_distance: of the
    peak to healthy patches; feature units.  examples: those of the kind that are among the nearest.
    """

    kind: str
    share: float
    votes: int
    of: int
    distance: float
    healthy_distance: float
    examples: tuple[Evidence, ...]

    def __str__(self) -> str:
        return (
            f"like {self.kind.replace('-', ' ')}: {self.votes} of the {self.of} nearest examples, distance "
            f"{self.distance:.3g} against {self.healthy_distance:.3g} to healthy"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """A region of the map above the level of findings, `NormalsReference.finding_level`.

    peak: feature units.  x, y, box (left, top, right, bottom), contour: px of the photo.  place: of the peak, in
    words, relative to the field of view.  doubts: why it may be none: along the edge of what was scored, or of
    very few pixels.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"json_schema_serialization_defaults_required": True}
    """Always in an answer; the default is for answers of earlier versions."""

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
    doubts: tuple[FindingDoubt, ...] = ()
    area_mm2: float | None = None
    """On the retina; null where the photograph does not state the spacing of its pixels, as only DICOM does."""
    resembles: Resemblance | None = None
    """Null where the index has no examples of lesions, and from servers of earlier versions."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds.  decode: bytes to prepared square.  total: bytes to answer, waiting included."""

    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class ReferenceMatch:
    """The photograph of the index that shows the same as the one that was scored, whose score is then too low.

    photo: its id.  bits: of 255 in which their perceptual hashes differ; null for the very same file.  mirrored:
    it is a mirror image of it.
    """

    photo: str
    bits: int | None
    mirrored: bool

    def __str__(self) -> str:
        kind = "a mirror image of" if self.mirrored else "the same file as" if self.bits is None else "a copy of"
        return f"{kind} {self.photo} of the index: the score may be too low"


@dataclass(frozen=True, slots=True)
class Result:
    """One photograph's answer; `reason` says why p-value, threshold and verdict are null, if they are.

    fpr: the rate that was asked for; where a threshold was, the lowest one that the normals support for it.
    map: the map as a data URL, where it was asked for in the answer.
    same_as: the photograph of the index that shows the same; null if none does, or from servers of earlier
    versions.
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
    same_as: ReferenceMatch | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A region of a photograph that a reader has marked.

    id: of the journal, as `m-3f9c12ab-1`.  label: `normal-variant`, `artifact`, or a kind of lesion.  contour:
    polygon, pixel indexes of the photograph; empty where a mask was read.  patches: how many of its features are
    kept.  distance: the largest one to healthy patches when it was marked, feature units.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    """The server stores them in its journal and refuses any other field there."""

    id: str
    label: str
    contour: tuple[tuple[float, float], ...]
    patches: int
    distance: float


@dataclass(frozen=True, slots=True)
class MarkedPhoto:
    """The marks that a reader made on one photograph, as the journal of an index has them.

    id: of the photograph there, as `m-3f9c12ab`.  width, height: px.  reader: who marked.  at: ISO 8601, UTC.
    version, fingerprint: of the index that measured it.  withdrawn: ids of marks that are taken back.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    """The server stores them in its journal and refuses any other field there."""

    id: str
    content_sha256: str
    width: int
    height: int
    reader: str
    at: str
    version: str
    fingerprint: str
    marks: tuple[Mark, ...]
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MarkList:
    """The journal of marks of an index, oldest first, without marks that were taken back.

    labels: those that marks may have: of healthy regions first, then kinds of lesions.
    """

    labels: tuple[str, ...]
    photos: tuple[MarkedPhoto, ...]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index of a service; None for what the service does not say, or not before a version is loaded.

    state: one word, as `serving`.  fault: why another version than the live one answers, if so.  warnings: what
    makes its verdicts doubtful.
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
    warnings: tuple[IndexWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """A scored photograph in a table.  result: without its map and findings.  findings: how many it has."""

    label: str
    result: Result
    findings: int


Record = TypeVar("Record")

_TYPE_NAMES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    NoneType: "null",
}


def from_json(kind: type[Record], text: str | bytes) -> Record:
    """`text` as a record of type `kind`; raises `ProtocolError` with the field at fault."""
    return from_value(kind, parsed(text))


def from_value(kind: type[Record], value: object, where: str = "") -> Record:
    """As `from_json`, from parsed JSON; errors name its place `where`, such as `results[3]`."""
    return cast(Record, _record(kind, value, where))


def to_json(record: object) -> str:
    """A record as indented JSON, in the order of its fields; `from_json` gives an equal record."""
    return json.dumps(dataclasses.asdict(cast(Any, record)), indent=2, ensure_ascii=False, allow_nan=False)


def compact_json(record: object) -> str:
    """A record as JSON on one line."""
    return json.dumps(dataclasses.asdict(cast(Any, record)), ensure_ascii=False, allow_nan=False)


def read_result(text: str | bytes) -> Result:
    """A result; raises as `from_json`."""
    return from_json(Result, text)


def parsed(text: str | bytes) -> object:
    """JSON as Python objects; raises `ProtocolError` for anything else, NaN and Infinity included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer is not JSON ({len(text)} long)") from error


def items(value: object, name: str) -> list[object]:
    """The array `name` of the object `value`; raises `ProtocolError` if there is none."""
    member = value.get(name) if isinstance(value, dict) else None
    if not isinstance(member, list):
        raise ProtocolError(f"the answer has no array {name}")
    return member


def _record(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, dict):
        _refuse(value, dict, where)
    values = {}
    for field in dataclasses.fields(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            values[field.name] = _read(field.type, value[field.name], place)
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"the answer has no {place}")
    return kind(**values)


def _read(kind: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
        return _read(kind, value, where)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where)
    if get_origin(kind) is Literal:  # a newer server may send others
        kind = str
    return _plain(kind, value, where)


def _tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        _refuse(value, list, where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ProtocolError(f"the answer's {where} has {len(value)} items, not {len(kinds)}")
    return tuple(
        _read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _plain(kind: type, value: object, where: str) -> object:
    """`value` if it is exactly of type `kind`; an integer is also a number, a boolean is neither."""
    if kind is float and type(value) in (int, float):
        try:
            number = float(cast(float, value))
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ProtocolError(f"the answer's {where} is beyond any number's range")
        return number
    if type(value) is not kind:
        _refuse(value, kind, where)
    return value


def _refuse(value: object, kind: type, where: str) -> NoReturn:
    place = f"the answer's {where}" if where else "the answer"
    raise ProtocolError(f"{place} is {_TYPE_NAMES[type(value)]}, not {_TYPE_NAMES[kind]}")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
