"""What the calls take and return beside `Result`, and the examples of the OpenAPI document."""

from dataclasses import replace
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from resad_client.records import (
    Disc,
    Evidence,
    Finding,
    IndexReference,
    IndexWarning,
    Interval,
    NormalsReference,
    PhotoQuality,
    PhotoReference,
    QualityMeasures,
    Result,
    Timings,
)

from resad.calibration import DecisionRule
from resad.config import Eye
from resad.engine import ScoreOptions
from resad.false_regions import RATES as FALSE_REGION_RATES
from resad.index import NAME, VERSION
from resad.manifest import Manifest
from resad.marks import LABEL, MOST_POINTS
from resad.pictures.overlay import Layout
from service.problems import PHOTO_UNREADABLE, Problem, Refusal

NAME_PATTERN: Final = f"^{NAME.pattern}$"
_VERSION_PATTERN: Final = f"^{VERSION.pattern}$"


def _check_false_regions(rate: float) -> float:
    if rate not in FALSE_REGION_RATES:
        raise ValueError(f"levels are stated for {', '.join(f'{stated:g}' for stated in FALSE_REGION_RATES)}")
    return rate


Coordinate = Annotated[float, Field(ge=-1, le=100_000, allow_inf_nan=False)]

FalseRegions = Annotated[
    float,
    AfterValidator(_check_false_regions),
    Field(json_schema_extra={"enum": [int(rate) if rate.is_integer() else rate for rate in FALSE_REGION_RATES]}),
]
"""A rate of findings, one of those that levels are stated for."""


class _Query(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Annotated[
        str | None,
        Field(pattern=NAME_PATTERN, description="Name of the index; not needed where there is one, or a default."),
    ] = None
    # From 1e-6: no index has the million photographs that a smaller rate needs.
    fpr: Annotated[
        float | None,
        Field(ge=1e-6, lt=1, description="False-positive rate of the verdict; 0.05 unless given."),
    ] = None
    threshold: Annotated[
        float | None,
        Field(
            gt=0, allow_inf_nan=False, description="Image score above which a photo is abnormal; excludes `fpr`."
        ),
    ] = None
    false_regions: Annotated[
        FalseRegions | None,
        Field(
            description="Regions above the level of findings that a healthy photo shows on average; 0.25 unless "
            "given."
        ),
    ] = None
    camera: Annotated[
        str | None,
        Field(max_length=200, description="Compare with the normals of this camera, where the index has enough."),
    ] = None
    size: Annotated[
        int | None,
        Field(ge=16, le=65_536, description="Longer side of a map, px, if shorter than the photo's."),
    ] = None

    frame: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="Of a DICOM object of several frames: the one to score, from 1."),
    ] = None
    layout: Annotated[
        Layout, Field(description="Of an overlay: the map over the photo, or the photo by itself beside that.")
    ] = "blend"

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if self.fpr is not None and self.threshold is not None:
            raise ValueError("fpr and threshold exclude each other: give one of them")
        return self

    @property
    def options(self) -> ScoreOptions:
        """How the photograph is judged."""
        return ScoreOptions(DecisionRule(self.fpr, self.threshold, self.camera, self.false_regions))


class ScoreQuery(_Query):
    """Query of `POST /v1/score`."""

    quality: Annotated[
        Literal["report", "require"],
        Field(
            description="`require` refuses a photo below the index's limits of quality: 422, naming the reasons."
        ),
    ] = "report"

    map: Annotated[
        Literal["none", "png", "overlay", "overlay-jpeg"],
        Field(description="Put into the answer as a data URL: the 16-bit map, or a picture of it (PNG or JPEG)."),
    ] = "none"
    evidence: Annotated[int, Field(ge=0, le=50, description="Healthy patches listed per finding.")] = 3
    eye: Annotated[
        Eye | None,
        Field(description="Which eye, where it is known: places are then nasal or temporal, not left or right."),
    ] = None

    @property
    def options(self) -> ScoreOptions:
        """How the photograph is judged and described."""
        require_quality = self.quality == "require"
        return replace(super().options, evidence=self.evidence, eye=self.eye, require_quality=require_quality)


class MapQuery(_Query):
    """Query of `POST /v1/anomaly-map`."""

    style: Annotated[
        Literal["map", "overlay"],
        Field(description="The map on the absolute scale, or a picture of it over the photograph."),
    ] = "map"


@dataclass(frozen=True)
class Results:
    """Answers in the order of the parts."""

    results: tuple[Result | Problem, ...]


IndexState = Literal["loading", "serving", "resting", "failed"]


@dataclass(frozen=True)
class IndexSummary:
    """An index that is served; what follows `fault` is null until a version is known.

    state: one that rests is not in memory, and is loaded when it is asked for.  fault: why the version that
    CURRENT names is not the one that answers.  warnings: what makes its verdicts doubtful.
    """

    name: str
    default: bool
    state: IndexState
    fault: str | None
    version: str | None
    fingerprint: str | None
    backbone: str | None
    photos: int | None
    memories: int | None
    warnings: tuple[IndexWarning, ...]


@dataclass(frozen=True)
class IndexList:
    """All indexes under the root."""

    indexes: tuple[IndexSummary, ...]


@dataclass(frozen=True)
class IndexDetail(IndexSummary):
    """versions: on the disk, oldest first.  manifest: of the version that answers, calibration included."""

    versions: tuple[str, ...]
    manifest: Manifest | None


class Activation(BaseModel):
    """Body of `PUT /v1/indexes/{name}/current`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[str, Field(pattern=_VERSION_PATTERN)]


class NewMark(BaseModel):
    """A region that a reader marks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: Annotated[str, Field(pattern=f"^{LABEL.pattern}$", description="One of the labels of `GET /v1/marks`.")]
    contour: Annotated[
        tuple[tuple[Coordinate, Coordinate], ...],
        Field(min_length=3, max_length=MOST_POINTS, description="Polygon, pixel indexes of the photograph."),
    ]


class NewMarks(BaseModel):
    """The part `marks` of `POST /v1/marks`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    marks: Annotated[tuple[NewMark, ...], Field(min_length=1, max_length=200)]
    reader: Annotated[
        str | None,
        Field(max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$", description="Who marked, beside the key's name."),
    ] = None


class MarksQuery(BaseModel):
    """Query of the calls on marks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Annotated[
        str | None,
        Field(pattern=NAME_PATTERN, description="Name of the index; not needed where there is one, or a default."),
    ] = None


@dataclass(frozen=True)
class Health:
    """A good answer of a probe."""

    status: Literal["live", "ready"]


REQUEST_ID: Final = "01KAPW6ZT0Q8V4M2N5E7R9X3YB"
_RESULT: Final = TypeAdapter(Result)
_RESULTS: Final = TypeAdapter(Results)


def example_result() -> Result:
    """The result of a photograph with one finding."""
    return Result(
        request_id=REQUEST_ID,
        image_score=0.5812,
        p_value=0.0196,
        fpr=0.05,
        threshold=0.5533,
        abnormal=True,
        reason=None,
        normals=NormalsReference(
            None, 134, Interval(0.0166, 0.0949), 0.5719, None, false_regions=0.25, source="left-out"
        ),
        index=IndexReference(
            name="idrid",
            version="20261122T101500Z-3f9c",
            fingerprint="sha256:" + "3f" * 32,
            backbone="wide_resnet50_2",
            weights="sha256:" + "9a" * 32,
        ),
        photo=PhotoReference(4288, 2848, Disc(2140.5, 1424.0, 1710.2)),
        quality=PhotoQuality(True, (), QualityMeasures(71.4, 0.812, 0.0198, 0.922, 0.0)),
        findings=(
            Finding(
                rank=1,
                peak=0.6021,
                p_value=0.0196,
                x=3012,
                y=1377,
                box=(2960, 1330, 3071, 1422),
                area_px=6120,
                area_share=0.0007,
                place="superior temporal",
                contour=((2960, 1377), (3012, 1330), (3071, 1380), (3010, 1422)),
                evidence=(Evidence("r-00041", 0.5987, 31, 64, mirrored=True),),
            ),
        ),
        map=None,
        timings_ms=Timings(61.0, 2350.0),
    )


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Add answers of `POST /v1/score` to the OpenAPI document; FastAPI itself would drop their nulls."""
    unreadable = Refusal(PHOTO_UNREADABLE, PHOTO_UNREADABLE.example).problem(REQUEST_ID)
    answers = {
        "one": ("One photograph", _RESULT.dump_python(example_result(), mode="json")),
        "several": (
            "Several, the second no image",
            _RESULTS.dump_python(Results((example_result(), unreadable)), mode="json"),
        ),
    }
    content = document["paths"]["/v1/score"]["post"]["responses"]["200"]["content"]["application/json"]
    content["examples"] = {name: {"summary": title, "value": value} for name, (title, value) in answers.items()}
    return document
