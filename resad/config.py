"""Settings of the method: every number with its unit and source, the presets, and the fingerprint.

A `MethodConfig` says how a photograph becomes an anomaly map and a score.  The index's manifest stores it.  Its
fingerprint, taken together with the weights' hash, says whether two indexes measure the same thing.
`PhotoLimits` only says what is refused.  It changes no number, so it is not part of the fingerprint.

"Paper" below is Niu et al., "Region and Spatial Aware Anomaly Detection for Fundus Images" (arXiv 2303.03817).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_json as to_json_bytes
from resad_client.text import did_you_mean

from resad.errors import SettingError, first_fault

_STRICT: Final = ConfigDict(extra="forbid")

Precision = Literal["exact", "half"]
Eye = Literal["left", "right"]

PAPER_GRID: Final = 98
"""Cells along a side of the paper's patch grid: 784 px over stride 8 (section 4.1)."""


@dataclass(frozen=True, config=_STRICT)
class PhotoLimits:
    """Limits beyond which a photograph is refused before it is decoded."""

    max_bytes: Annotated[int, Field(gt=0)] = 80_000_000
    """File size, bytes.  24 megapixels without compression, as in DICOM and TIFF, are 72 MB."""
    max_pixels: Annotated[int, Field(gt=0)] = 80_000_000
    """Width times height.  Below Pillow's own alarm (89 million)."""
    min_side: Annotated[int, Field(gt=0)] = 64
    """Shorter side, px.  A smaller picture shows nothing of a retina."""


@dataclass(frozen=True, config=_STRICT)
class PreparationConfig:
    """How a photograph becomes a square."""

    size: Annotated[int, Field(ge=64, le=2048, multiple_of=16)] = 784
    """Side S of the prepared square, px (paper, section 4.1)."""
    crop: Literal["field_of_view", "none"] = "field_of_view"
    """`field_of_view`: crop to the disc, pad square, resize; only patches that touch the disc exist.
    `none`: the paper's plain squash of the whole frame; every patch exists."""


@dataclass(frozen=True, config=_STRICT)
class BackboneConfig:
    """Which feature maps of which trunk."""

    name: str = "wide_resnet50_2"
    """torchvision's name (paper, section 4.3), or `bundled`: the trunk inside the package."""
    stages: Annotated[tuple[Annotated[int, Field(ge=1, le=4)], ...], Field(min_length=1)] = (2, 3)
    """Stages 1 to 4, finest first (paper, equation 2)."""

    def __post_init__(self) -> None:
        if list(self.stages) != sorted(set(self.stages)):
            raise SettingError(f"stages {self.stages}: each once, in ascending order, as in (2, 3)")


@dataclass(frozen=True, config=_STRICT)
class LevelConfig:
    """How one stage enters a patch feature, where stages differ."""

    scale: Literal["unit", "constant"] = "unit"
    """`unit`: length 1 at every position.  `constant`: the length that the trunk gives, which it has divided by a
    constant measured on healthy photographs."""
    weight: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Of the stage in a squared distance."""
    region: bool = True
    """Add the region-aware map of this stage (equation 3)."""
    spatial: bool = True
    """Add the spatial-aware map of this stage (equation 4)."""


@dataclass(frozen=True, config=_STRICT)
class ReSCConfig:
    """Region-and-Spatial-Aware feature Combination (paper, section 3.2, equations 3 to 5)."""

    normalize: bool = True
    """Scale each stage's feature vector to length 1 at every position, before anything else."""
    pool: Literal[1, 3, 5] = 1
    """Side of the average pooling over each stage; 1 is none, 3 is PatchCore's."""
    region: bool = True
    """Add the region-aware map R (equation 3)."""
    region_radius: Annotated[int, Field(ge=1, le=PAPER_GRID)] = 21
    """Radius r in cells of the paper's 98 x 98 grid; scaled with the grid elsewhere."""
    spatial: Literal["none", "softmax"] = "softmax"
    """Add the spatial-aware map P (equation 4), read as softmax(scale F F^T) F."""
    attention_scale: Annotated[float, Field(gt=0, le=1e4)] = 20.0
    """Factor in front of F F^T."""
    levels: tuple[LevelConfig, ...] = ()
    """One for each stage in use, in place of `normalize`, `region` and `spatial`: each stage is combined on its
    own grid and then resized to the finest.  Empty: all stages are combined on the finest grid, as in the
    paper."""


@dataclass(frozen=True, config=_STRICT)
class SearchConfig:
    """How far a patch is from the memory bank (paper, equation 7)."""

    neighbors: Annotated[int, Field(ge=1, le=50)] = 3
    """k: a patch's distance is the mean L2 distance to its k nearest memories."""
    mirrored: bool = True
    """Search the mirror image, too: a patch's distance is the smaller of the two, because left and right eyes
    mirror each other.  Not in the paper; takes twice the time."""


@dataclass(frozen=True, config=_STRICT)
class ScoreConfig:
    """How distances become a map and one number (paper, section 3.3)."""

    kind: Literal["max", "top_mean"] = "top_mean"
    """Maximum of the map, or the mean of its highest values."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.001
    """For `top_mean`: how many values, as a share of the field of view."""


@dataclass(frozen=True, config=_STRICT)
class CoresetConfig:
    """How the memory bank is thinned: greedy k-center until one of the three limits (paper, section 3.2)."""

    share: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    """Memories as a share of the patches (paper, section 4.3)."""
    count: Annotated[int, Field(gt=0)] | None = None
    """Memories as a number."""
    radius: Annotated[float, Field(gt=0)] | None = None
    """Stop when every patch is this near to a memory.  Measured after the projection, which distorts distances:
    the radius in feature units, which the manifest states, comes out somewhat different."""
    most: Annotated[int, Field(gt=0)] | None = None
    """With a share: at most so many memories, since a photograph takes time for each."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.90
    """Distortion of the sparse random projection in which the greedy measures; its dimension follows from the
    Johnson-Lindenstrauss lemma (paper, section 4.3)."""
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the patches, drawn at random, that the greedy chooses from.  Below 1 it is faster in proportion and
    covers less well.  The covering radius in the manifest is over all patches in any case."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Random seed of the projection, the sample and the first pick."""

    def __post_init__(self) -> None:
        if sum(limit is not None for limit in (self.share, self.count, self.radius)) != 1:
            raise SettingError("a coreset takes exactly one of share, count and radius")
        if self.most is not None and self.share is None:
            raise SettingError(f"coreset.most={self.most} limits a share, and none is set")


@dataclass(frozen=True, config=_STRICT)
class MethodConfig:
    """Everything that changes a number, in the order of the steps."""

    preparation: PreparationConfig = PreparationConfig()
    backbone: BackboneConfig = BackboneConfig()
    precision: Precision = "exact"
    """`exact`: float32 throughout, TF32 off.  `half`: the trunk in float16 on a GPU (bfloat16 on a CPU),
    and on a GPU the attention's two products."""
    resc: ReSCConfig = ReSCConfig()
    coreset: CoresetConfig = CoresetConfig()
    search: SearchConfig = SearchConfig()
    score: ScoreConfig = ScoreConfig()

    def __post_init__(self) -> None:
        levels, stages = self.resc.levels, self.backbone.stages
        if levels and len(levels) != len(stages):
            raise SettingError(f"resc.levels has {len(levels)} levels for the {len(stages)} stages {stages}")


_METHOD: Final = TypeAdapter(MethodConfig)


def to_json(config: MethodConfig) -> str:
    """`config` as JSON, keys in the order of the fields."""
    return _METHOD.dump_json(config, indent=2).decode()


def from_json(text: str) -> MethodConfig:
    """The inverse of `to_json`; raises `SettingError` naming the first field that does not fit."""
    try:
        return _METHOD.validate_json(text)
    except ValidationError as error:
        raise SettingError(first_fault(error)) from error


def _paths(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every setting of a document, as in `resc.region_radius`."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def updated(config: MethodConfig, path: str, value: str) -> MethodConfig:
    """`config` with one setting replaced, as in `updated(config, "resc.region_radius", "8")`.

    Args:
        path: section and field, or the field alone at the top.
        value: JSON, or a bare word.
    Raises:
        SettingError: no such setting, or a value it cannot have.
    """
    document = json.loads(to_json(config))
    *names, field = path.split(".")
    section = document
    for name in names:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or field not in section:
        raise SettingError(f"there is no setting {path!r}{did_you_mean(path, _paths(document))}")
    try:
        section[field] = json.loads(value)
    except json.JSONDecodeError:
        section[field] = value
    return from_json(json.dumps(document))


Preset = Literal["resad", "paper", "patchcore"]
Part = Literal["region", "spatial", "resc"]


def preset(name: Preset, backbone: str | None = None) -> MethodConfig:
    """The settings of the preset `name` with the trunk `backbone`, by default the preset's own.

    resad: the default.  With the trunk `bundled` (its own) each stage has its level: the lesion features keep
    their magnitude on a fine grid, the texture features are ReSC features on coarser ones.  With a ResNet it is a
    reading of equations 3 to 5 that is better by image and by pixel, where `paper` is worse by pixel
    (docs/results.md).
    paper: the paper to the letter.  patchcore: the paper's baseline (Roth et al. 2022), 3 x 3 pooling, no ReSC.
    """
    literal = MethodConfig(
        preparation=PreparationConfig(crop="none"),
        backbone=BackboneConfig(backbone or BackboneConfig().name),
        resc=ReSCConfig(normalize=False, region_radius=12, attention_scale=1.0),
        search=SearchConfig(neighbors=1, mirrored=False),
        score=ScoreConfig(kind="max"),
    )
    match name:
        case "resad":
            if backbone in (None, "bundled"):
                return _WITH_LESION_FEATURES
            return MethodConfig(backbone=literal.backbone)
        case "paper":
            return literal
        case "patchcore":
            plain = ReSCConfig(normalize=False, pool=3, region=False, spatial="none")
            return replace(literal, resc=plain)


_WITH_LESION_FEATURES: Final = MethodConfig(
    preparation=PreparationConfig(size=512),
    backbone=BackboneConfig("bundled", (1, 2, 3)),
    resc=ReSCConfig(
        levels=(
            LevelConfig("constant", 1.0, region=False, spatial=False),
            LevelConfig("unit", 1500.0, region=True, spatial=False),
            LevelConfig("unit", 1500.0, region=True, spatial=False),
        )
    ),
    coreset=CoresetConfig(share=0.002, most=1300),
    search=SearchConfig(mirrored=False),
)
"""Chosen on painted photographs and on the choosing sets (docs/results.md)."""


def without(config: MethodConfig, part: Part) -> MethodConfig:
    """`config` with one part of ReSC left out, as in the paper's table 3."""
    resc = config.resc
    if part in ("region", "resc"):
        resc = replace(resc, region=False, levels=tuple(replace(level, region=False) for level in resc.levels))
    if part in ("spatial", "resc"):
        resc = replace(resc, spatial="none", levels=tuple(replace(level, spatial=False) for level in resc.levels))
    return replace(config, resc=resc)


@dataclass(frozen=True, slots=True)
class _RemovedSetting:
    """A setting that older indexes state: it comes after `after` in its section, and `neutral` had no effect."""

    section: Literal["resc", "score", "coreset"]
    after: str
    name: str
    neutral: float | str | None


_REMOVED: Final = (
    _RemovedSetting("resc", "normalize", "whitening", None),
    _RemovedSetting("score", "share", "smoothing", 0.0),
    _RemovedSetting("score", "smoothing", "margin", 0.0),
    _RemovedSetting("coreset", "radius", "projection", "johnson-lindenstrauss"),
)


def _read_stored(document: object) -> object:
    """Settings as an index states them -> settings of today; raises `SettingError` for a removed one in use."""
    if not isinstance(document, dict):
        return document
    document = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
    for removed in _REMOVED:
        section = document.get(removed.section)
        if isinstance(section, dict) and section.pop(removed.name, removed.neutral) != removed.neutral:
            raise SettingError(f"{removed.section}.{removed.name} is a setting that this version no longer has")
    resc, search = document.get("resc"), document.get("search")
    if isinstance(resc, dict) and (spatial := resc.get("spatial")) in ("gate", "cosine"):
        raise SettingError(f"resc.spatial={spatial} is a value that this version no longer has")
    if isinstance(search, dict):
        document["search"] = {"mirrored": False} | search
    return document


StoredMethodConfig = Annotated[MethodConfig, BeforeValidator(_read_stored)]
"""Settings in a manifest.

`search.mirrored` is younger than some manifests: a missing one is false, because nothing was mirrored then.
Removed settings are dropped where they had no effect.
"""


def fingerprint(config: MethodConfig, weights_sha256: str) -> str:
    """`sha256:...` of everything that changes a patch's features or a score: settings and weights.

    `search.mirrored` is left out if it is false, and removed settings are written with their neutral values: an
    index has the same fingerprint as an older one that measures the same.  So are `resc.levels` and `coreset.most`
    if there are none.
    """
    return _hash(config, weights_sha256, with_mirrored=config.search.mirrored)


def is_fingerprint(stated: str, config: MethodConfig, weights_sha256: str) -> bool:
    """Whether `stated` is the `fingerprint` of these, or the same with a false `search.mirrored` written out.

    The latter is in indexes from the first days of that setting.
    """
    return stated in {fingerprint(config, weights_sha256), _hash(config, weights_sha256, with_mirrored=True)}


def _hash(config: MethodConfig, weights_sha256: str, *, with_mirrored: bool) -> str:
    document: dict[str, Any] = _METHOD.dump_python(config, mode="json")
    if not with_mirrored:
        del document["search"]["mirrored"]
    if not config.resc.levels:
        del document["resc"]["levels"]
    if config.coreset.most is None:
        del document["coreset"]["most"]
    for removed in _REMOVED:
        items = list(document[removed.section].items())
        place = [name for name, _ in items].index(removed.after) + 1
        document[removed.section] = dict([*items[:place], (removed.name, removed.neutral), *items[place:]])
    # The empty last line was the hash of a whitening, a part of the method that is gone.
    text = to_json_bytes(document) + f"\n{weights_sha256}\n".encode()
    return "sha256:" + hashlib.sha256(text).hexdigest()
