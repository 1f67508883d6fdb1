"""What a version of an index states: `manifest.json`, and `photos.jsonl` with a line per reference photo."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from resad_client.records import QualityMeasures

from resad.calibration import Calibration
from resad.config import StoredMethodConfig
from resad.errors import REBUILD, IndexInvalid, SettingError, first_fault
from resad.field_of_view import FieldOfView
from resad.quality import QualityLimits
from resad.runtime import PackageVersion
from resad.search.plan import SearchRecord

Standing = Literal["measured", "bound", "stale"]
"""How far the patch distances behind a normal's score still hold in the version that states it.

measured: in this version's memory bank.  bound: in an earlier bank that has only gained memories since; distances
now are equal or smaller, so the score errs upwards and p with it, on the safe side for false alarms.  stale: in an
earlier bank that has lost memories; distances now may be larger, and p too low.
"""


PHOTOS_FILE: Final = "photos.jsonl"


CALIBRATION_FILE: Final = "calibration.jsonl"
"""The photographs of a separate calibration, if the index has one."""

EXAMPLE_RECORDS_FILE: Final = "examples.jsonl"
"""The marks that readers have taught it, if there are any."""


FORMAT: Final = 3
"""Increased when an older reader would misread the files."""
FEATURES: Final = "features"
"""The folder of all patch features, if they are kept."""
_CONFIG: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class FileRecord:
    """A file of the version.  name: relative, with slashes.  sha256: hex."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, config=_CONFIG)
class HistoryEntry:
    """The operation that made a version.

    from_version: of the same index; `also_from`, NAME/VERSION, for the second one of a merge.  at: ISO 8601, UTC.
    package_version: of this project.
    """

    operation: str
    from_version: str | None
    at: str
    package_version: str
    also_from: str | None = None


@dataclass(frozen=True, config=_CONFIG)
class Counts:
    """photos: reference photos.  patches: of them all.  grid: (h, w) cells."""

    photos: int
    patches: int
    memories: int
    dimension: int
    grid: tuple[int, int]


@dataclass(frozen=True, config=_CONFIG)
class StageTime:
    """Wall-clock seconds of one step of the build."""

    stage: str
    seconds: float


@dataclass(frozen=True, config=_CONFIG)
class Quality:
    """Measurements of the build, up to the writing of the version.

    covering_radius: the largest distance from any patch to its nearest memory, feature units.
    covering: whether that was measured over all patches, or is a bound because some features are not kept.
    projected_radius: the same where the greedy measured it, after the random projection to `projected_dimension`,
    when the index was built.
    kept_radius: the covering radius that adding and removing photographs maintain; none before the first time.
    """

    covering_radius: float
    projected_radius: float
    projected_dimension: int
    stages: tuple[StageTime, ...]
    peak_memory_bytes: int
    covering: Literal["measured", "bound"] = "measured"
    kept_radius: float | None = None

    @property
    def radius_to_keep(self) -> float:
        """The covering radius that the index was built with, feature units."""
        return self.covering_radius if self.kept_radius is None else self.kept_radius


@dataclass(frozen=True, config=_CONFIG)
class Manifest:
    """Everything about one version of an index except its photographs.

    calibrated: the worst standing among the scores of the calibration.
    numbered: the highest number that a reference photo's id ever had, so that no id is used twice; none if that is
    the number of photos.
    """

    format: int
    name: str
    version: str
    history: tuple[HistoryEntry, ...]
    config: StoredMethodConfig
    fingerprint: str
    weights: str
    weights_sha256: str
    device: str
    counts: Counts
    calibration: Calibration
    quality: Quality
    photo_quality: QualityLimits
    probe_score: float
    packages: tuple[PackageVersion, ...]
    files: tuple[FileRecord, ...]
    search: SearchRecord | None = None
    calibrated: Standing = "measured"
    numbered: int | None = None

    @property
    def keeps_features(self) -> bool:
        """Whether the version holds all patch features."""
        return any(record.name.startswith(f"{FEATURES}/") for record in self.files)


@dataclass(frozen=True)
class _OfFormat:
    """The part that manifests of all formats share."""

    format: int


_MANIFEST: Final = TypeAdapter(Manifest)
_OF_FORMAT: Final = TypeAdapter(_OfFormat)


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `manifest` as JSON."""
    path.write_bytes(_MANIFEST.dump_json(manifest, indent=2) + b"\n")


def read_manifest(path: Path) -> Manifest:
    """The inverse of `write_manifest`; raises `IndexInvalid` with the field that does not fit."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise IndexInvalid(f"{path} is missing") from error
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, where: str) -> Manifest:
    """`read_manifest` from the file's bytes; `where` names their source in messages."""
    try:
        stated = _OF_FORMAT.validate_json(text).format
        if stated != FORMAT:
            advice = REBUILD if stated < FORMAT else "a newer version wrote it"
            raise IndexInvalid(f"{where} is of format {stated}; this version reads format {FORMAT} ({advice})")
        manifest = _MANIFEST.validate_json(text)
    except SettingError as error:
        raise IndexInvalid(f"{where}: {error}; {REBUILD}") from error
    except ValidationError as error:
        raise IndexInvalid(f"{where}: {first_fault(error)}") from error
    if fault := next(_faults(manifest), None):
        raise IndexInvalid(f"{where}: {fault}; no index was written with that")
    return manifest


def _faults(manifest: Manifest) -> Iterator[str]:
    """Values that no index has: scores and maps computed with them would be wrong without any other sign."""
    document = _MANIFEST.dump_python(manifest, exclude={"files", "packages"})
    yield from (f"{path} is {value}" for path, value in _floats(document) if not math.isfinite(value))
    if not manifest.probe_score > 0:
        yield f"probe_score is {manifest.probe_score:g}, and is above 0"
    yield from _count_faults(manifest.counts, manifest.config.preparation.size)
    yield from _calibration_faults(manifest.calibration)
    names = [file.name for file in manifest.files]
    if len(set(names)) < len(names):
        yield "files: one name stands there twice"


def _count_faults(counts: Counts, size: int) -> Iterator[str]:
    rows, columns = counts.grid
    for name, value, limit in (
        ("photos", counts.photos, None),
        ("memories", counts.memories, None),
        ("dimension", counts.dimension, None),
        ("grid", rows, size),
        ("grid", columns, size),
        ("patches", counts.patches, max(counts.photos, 1) * max(rows, 1) * max(columns, 1)),
    ):
        if value < 1 or (limit is not None and value > limit):
            yield f"counts.{name} is {value}, and lies between 1 and {limit or 'what the files hold'}"


def _calibration_faults(calibration: Calibration) -> Iterator[str]:
    for where, normals in (
        ("calibration", calibration),
        *((f"calibration of camera {camera.camera!r}", camera.normals) for camera in calibration.cameras),
    ):
        for name, values in (("scores", normals.scores), ("peaks", normals.peaks)):
            if not values or values[0] < 0 or any(a > b for a, b in pairwise(values)):
                yield f"{where}: {name} are not ascending values of 0 and more"
        if len(normals.scores) != len(normals.peaks):
            yield f"{where}: {len(normals.scores)} scores and {len(normals.peaks)} peaks"
    quantiles = [(quantile.at, quantile.value) for quantile in calibration.patches]
    if not quantiles or quantiles[0][1] < 0 or any(a > b or c > d for (a, c), (b, d) in pairwise(quantiles)):
        yield "calibration.patches are not ascending distances"
    elif quantiles[-1][1] <= 0:
        yield f"calibration.patches end at {quantiles[-1][1]:g}: maps would have no scale"


def _floats(value: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Every float in nested records, with its place: `calibration.patches.10.value`."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _floats(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, below in enumerate(value):
            yield from _floats(below, f"{path}.{number}")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ReferenceRecord:
    """One reference photo: a line of `photos.jsonl`.

    id: opaque.  content_sha256: of the file.  perceptual_hash: 64 hex digits.  width, height: px.
    score, peak: scored without its own memories, feature units.  standing: of its distances.
    patient: a running number, or the given id if names are kept.
    name: of the file, only if names are kept.
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
