"""Builds an index: photographs -> patch features -> coreset -> memory bank -> calibration -> version.

The same steps run in this process (`LocalWorkers`) and over a cluster, whose package has workers of its own.
"""

import copy
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.text import counted

from indexer.build.extraction import batch_size, extract
from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import (
    AnyForecast,
    Forecast,
    PhotoCounts,
    Sample,
    check_count,
    encode_sample,
    forecast_build,
)
from indexer.build.progress import Advance, Stages
from indexer.build.publication import VersionContent, publish_version
from indexer.build.references import (
    Reference,
    check_enough,
    near_duplicates_of,
    new_records,
    number_patients,
    photo_id,
    screen_purged,
)
from indexer.build.search_choice import choose_search
from indexer.build.state import BuildState, Inputs, build_inputs, file_sha256
from indexer.calibration.leave_out import LeftOut, PatchDistances, left_out_distances, score_left_out
from indexer.calibration.normals import far_outliers, normals_to_use
from indexer.coreset.k_center import Checkpoint
from indexer.coreset.selection import Selection, memory_count, select
from indexer.photos.listing import (
    Duplicate,
    NearDuplicate,
    PatientCounts,
    ReferencePhoto,
    Skipped,
    check_listed,
    list_references,
)
from indexer.settings import SearchChoice
from resad import index, runtime
from resad.backbone import Backbone, load_backbone
from resad.config import CoresetConfig, MethodConfig, PhotoLimits
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.errors import SettingError
from resad.index import staging_folder
from resad.manifest import Manifest
from resad.memory_bank import MemoryBank
from resad.near_duplicates import DuplicatePair, group_photos, near_duplicate_pairs
from resad.pictures.evidence import file_name
from resad.search.plan import SearchRecord


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What to build, and where.

    photos: a folder or a CSV.  weights: as for `load_backbone`.  strict: refuse instead of skipping photographs.
    keep_names: write file names into the index.  keep_crops: keep the photographs' squares, for evidence.
    more_devices: they encode and select besides `device`, which alone searches.  resume: continue an interrupted
    build.  max_memory: bytes to hold at most.  search: `auto` takes the faster exact search.
    keep_features: keep all patch features in the index, so that adding and removing photographs loses nothing.
    set_aside: content hashes of listed photographs that stay out of the bank and the calibration.
    set_aside_outliers: the same for photographs whose scores lie far above the rest.
    """

    photos: Path
    root: Path
    name: str
    config: MethodConfig
    weights: str
    device: torch.device
    strict: bool = False
    keep_names: bool = False
    keep_crops: bool = False
    search: SearchChoice = "auto"
    limits: PhotoLimits = PhotoLimits()
    more_devices: tuple[torch.device, ...] = ()
    resume: bool = False
    max_memory: int | None = None
    keep_features: bool = False
    set_aside: frozenset[str] = frozenset()
    set_aside_outliers: bool = False

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All devices, `device` first."""
        return (self.device, *self.more_devices)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The version that was built, and the photographs that were not used or show the same as others.

    named: id -> file, of outliers and of photographs that were set aside, which have the ids after the others.
    """

    version: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    people: PatientCounts
    named: Mapping[str, Path]

    @classmethod
    def of(
        cls,
        version: Path,
        manifest: Manifest,
        references: Sequence[Reference],
        unused: Sequence[Skipped | Duplicate],
        pairs: Sequence[DuplicatePair],
        set_aside: Sequence[Path],
    ) -> "BuildReport":
        """The report, with the unused photographs sorted by reason."""
        paths = [*(reference.source.path for reference in references), *set_aside]
        outliers, aside = manifest.calibration.outliers, manifest.calibration.set_aside
        named = {*aside, *(photo.id for photo in (outliers.photos if outliers else ()))}
        return cls(
            version,
            manifest,
            tuple(photo for photo in unused if isinstance(photo, Skipped)),
            tuple(photo for photo in unused if isinstance(photo, Duplicate)),
            near_duplicates_of(references, pairs),
            PatientCounts.of(reference.source.patient for reference in references),
            {name: path for number, path in enumerate(paths, start=1) if (name := photo_id(number)) in named},
        )


class BuildRun(Protocol):
    """The photographs and features of a running build, and the steps that compute on the features."""

    @property
    def references(self) -> Sequence[Reference]:
        """Photographs of the index, in order, once `encode` has returned."""

    @property
    def unused(self) -> Sequence[Skipped | Duplicate]:
        """The other listed photographs."""

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """int64 (photos + 1,): the row at which each photograph's patches begin; last the number of patches."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patch grid (h, w) of the photographs."""

    @property
    def encoder(self) -> Encoder:
        """An encoder on this machine, which also scores the probe photograph."""

    @property
    def store(self) -> FeatureStore | None:
        """The store of all features, if they are on this machine."""

    def encode(self, advance: Callable[[int], None], on_forecast: Callable[[AnyForecast], None]) -> None:
        """Extract all features; forecasts after the first ones, and refuses a build that is too large."""

    def sample(self) -> AnyForecast | None:
        """Encode the first photographs and forecast the build; None if none of them can be used."""

    def first_photos(self, scratch: Path) -> FeatureStore:
        """A store that begins with the first two photographs.  scratch: a folder for it."""

    def select(self, config: CoresetConfig, advance: Advance, checkpoint: Checkpoint) -> Selection:
        """Choose the memories."""

    def left_out_distances(
        self, groups: Sequence[frozenset[int]], bank: MemoryBank, neighbors: int, advance: Callable[[int], None]
    ) -> tuple[Sequence[PatchDistances], float]:
        """As `indexer.calibration.leave_out.left_out_distances`, of all photographs."""

    def without(self, photos: frozenset[int], scratch: Path) -> "BuildRun":
        """This run without some photographs, by number, after `encode`.  scratch: an empty folder for it.

        Raises `SettingError` where the features are elsewhere.
        """


class BuildWorkers(Protocol):
    """Where a build computes: in this process, or on a cluster.

    batch: photographs encoded together.  device: the kind of device that encodes, `cpu` or `cuda`.
    """

    @property
    def batch(self) -> int:
        """Photographs encoded together."""

    @property
    def device(self) -> str:
        """Kind of the device that encodes: `cpu` or `cuda`."""

    def check(self, options: BuildOptions) -> None:
        """Raise `SettingError` for an option that these workers do not have."""

    def start(
        self, options: BuildOptions, backbone: Backbone, inputs: Inputs, state: BuildState, *, sample: bool
    ) -> AbstractContextManager[BuildRun]:
        """Start the workers of a build; they stop at the end of the context.  sample: only for a forecast."""


def build(
    options: BuildOptions,
    stages: Stages,
    on_forecast: Callable[[AnyForecast], None] = lambda _: None,
    workers: BuildWorkers | None = None,
) -> BuildReport:
    """Build a version of an index and make it live; after any error no part of a version remains.

    `indexer.build.state` says when an interrupted build leaves a state with which it can continue.

    Args:
        on_forecast: called with the forecast of the whole build, after the first few photographs.
        workers: where to compute; this process by default.
    Raises:
        SettingError: settings or photographs from which no index can be made, or more than the host has.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        ArtifactError: weights that are missing or do not fit.
    """
    workers = workers or LocalWorkers(options.devices)
    listed, set_aside, backbone, inputs = _prepare(options, workers)
    place = options.root / options.name
    with (
        staging_folder(options.root, options.name) as scratch,
        BuildState(place / index.WORK, inputs, listed, resume=options.resume, batch=workers.batch) as state,
    ):
        with workers.start(options, backbone, inputs, state, sample=False) as run:
            with stages.stage("encode", len(listed), "photos") as advance:
                run.encode(advance, on_forecast)
            made = _select_and_calibrate(options, run, backbone, set_aside, scratch, stages, state.checkpoint())
            outliers = far_outliers(made.left_out.calibration) if options.set_aside_outliers else frozenset()
            if outliers:
                rows = [row for row in range(len(run.references)) if photo_id(row + 1) in outliers]
                set_aside = (*set_aside, *(run.references[row].source.path for row in rows))
                run = run.without(frozenset(rows), scratch / "without")
                checkpoint = Checkpoint(scratch / "without/coreset.npz")
                made = _select_and_calibrate(options, run, backbone, set_aside, scratch, stages, checkpoint)
            references = run.references
            patients = [photo.source.patient for photo in references]
            names = patients if options.keep_names else number_patients(patients)
            records = new_records(references, made.left_out, names, keep_names=options.keep_names)
            grid, store = run.grid, run.store if options.keep_features else None
            pictures = _pictures(state.crops, outliers, len(references))
        with stages.stage("publish", 1, "version") as advance:
            content = VersionContent(
                backbone, run.encoder, made.bank, made.selection, made.left_out, records, grid, made.search, store,
                pictures,
            )  # fmt: skip
            version, manifest = publish_version(content, scratch / "version", place, options.weights, stages.done)
            advance(1)
        return BuildReport.of(version, manifest, references, run.unused, made.pairs, set_aside)


@dataclass(frozen=True, slots=True, eq=False)
class _BankAndScores:
    """What follows from the features of a build's photographs.  pairs: photographs that show the same."""

    pairs: tuple[DuplicatePair, ...]
    selection: Selection
    bank: MemoryBank
    search: SearchRecord | None
    left_out: LeftOut


def _select_and_calibrate(
    options: BuildOptions,
    run: BuildRun,
    backbone: Backbone,
    set_aside: Sequence[Path],
    scratch: Path,
    stages: Stages,
    checkpoint: Checkpoint,
) -> _BankAndScores:
    """Choose the memories of all photographs of `run` and score each left out.

    Args:
        set_aside: photographs that are not among them on request.
    """
    config, references = options.config, run.references
    pairs = near_duplicate_pairs(references)
    groups = group_photos([photo.source.patient for photo in references], pairs)
    check_enough(options.photos, groups, run.unused)
    patches = int(run.first_rows[-1])
    memories = memory_count(config.coreset, patches)
    with stages.stage("coreset", memories or patches, "memories") as advance:
        selection = run.select(config.coreset, advance, checkpoint)
    bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(options.device))
    first_masks = [photo.mask(config.preparation) for photo in references[:2]]
    bank, search = choose_search(bank, run.first_photos(scratch), first_masks, config, options.search, stages)
    with stages.stage("calibrate", len(references), "photos") as advance:
        distances, radius = run.left_out_distances(groups, bank, config.search.neighbors, advance)
        masks = (photo.mask(config.preparation) for photo in references)
        cameras = [photo.source.camera for photo in references]
        ids = [photo_id(number) for number in range(1, len(references) + len(set_aside) + 1)]
        left_out = score_left_out(
            distances, radius, masks, config, cameras,
            ids=ids[: len(references)], use=normals_to_use(references, backbone), set_aside=ids[len(references) :],
        )  # fmt: skip
    return _BankAndScores(pairs, selection, bank, search, left_out)


def _pictures(crops: Path | None, outliers: frozenset[str], count: int) -> dict[str, Path]:
    """Name in the version -> path of the photographs' squares, if they are kept.

    Args:
        crops: the folder of `evidence/`, whose names count the outliers.
        outliers: ids, as they are counted there, of photographs that are not in the version.
        count: of the photographs in the version.
    """
    if crops is None:
        return {}
    ids = (photo_id(number) for number in range(1, count + len(outliers) + 1))
    kept = [name for name in ids if name not in outliers]
    return {file_name(photo_id(number)): crops / file_name(name) for number, name in enumerate(kept, start=1)}


def forecast_only(options: BuildOptions, workers: BuildWorkers | None = None) -> AnyForecast:
    """Encode the first few photographs and forecast the whole build; leaves nothing.  Raises as `build`."""
    workers = workers or LocalWorkers(options.devices)
    listed, _, backbone, inputs = _prepare(options, workers)
    with (
        staging_folder(options.root, options.name) as scratch,
        BuildState(scratch / "work", inputs, listed, resume=False, batch=workers.batch) as state,
        workers.start(options, backbone, inputs, state, sample=True) as run,
    ):
        forecast = run.sample()
        if forecast is None:
            check_enough(options.photos, (), run.unused)
    assert forecast is not None  # check_enough raises for no photographs
    return forecast


def _prepare(
    options: BuildOptions, workers: BuildWorkers
) -> tuple[tuple[ReferencePhoto, ...], tuple[Path, ...], Backbone, Inputs]:
    """The photographs to use, those that are set aside, the trunk, and what a continued build must agree on."""
    workers.check(options)
    listed, set_aside = _without_set_aside(list_references(options.photos), options)
    check_listed(options.photos, listed, options.config)
    backbone = load_backbone(options.config.backbone, options.weights)
    inputs = build_inputs(
        options.config, options.limits, backbone.weights_sha256, workers.device, listed, crops=options.keep_crops
    )
    return listed, set_aside, backbone, inputs


def _without_set_aside(
    listed: tuple[ReferencePhoto, ...], options: BuildOptions
) -> tuple[tuple[ReferencePhoto, ...], tuple[Path, ...]]:
    """The listed photographs that are used, and the others; raises `SettingError` if one is not listed."""
    if not options.set_aside:
        return listed, ()
    contents = [file_sha256(photo.path) for photo in listed]
    if missing := options.set_aside - set(contents):
        raise SettingError(
            f"{len(missing)} of {counted(len(options.set_aside), 'photograph')} to set aside not in "
            f"{options.photos} (SHA-256 {min(missing)[:12]}...)"
        )
    marked = [(photo, content in options.set_aside) for photo, content in zip(listed, contents, strict=True)]
    return (
        tuple(photo for photo, aside in marked if not aside),
        tuple(photo.path for photo, aside in marked if aside),
    )


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """Builds in this process, on its own devices."""

    devices: tuple[torch.device, ...]

    @property
    def batch(self) -> int:
        """As `BuildWorkers.batch`."""
        return batch_size(self.devices)

    @property
    def device(self) -> str:
        """As `BuildWorkers.device`."""
        return self.devices[0].type

    def check(self, options: BuildOptions) -> None:
        """This process has every option."""

    def start(
        self, options: BuildOptions, backbone: Backbone, inputs: Inputs, state: BuildState, *, sample: bool
    ) -> AbstractContextManager[BuildRun]:
        """As `BuildWorkers.start`."""
        return nullcontext(_LocalRun(options, backbone, state))


class _LocalRun:
    """As `BuildRun`, in this process."""

    def __init__(self, options: BuildOptions, backbone: Backbone, state: BuildState) -> None:
        self._options, self._backbone, self._state = options, backbone, state
        self._encoders = [Encoder(Trunk(backbone, options.config, device)) for device in options.devices]
        self._points: Path | None = None
        self._references: Sequence[Reference] = state.references
        self._store = state.store

    @property
    def references(self) -> Sequence[Reference]:
        return self._references

    @property
    def unused(self) -> Sequence[Skipped | Duplicate]:
        return self._state.unused

    @property
    def first_rows(self) -> NDArray[np.int64]:
        return self.store.first_rows

    @property
    def grid(self) -> tuple[int, int]:
        return self.store.photo(0).grid

    @property
    def encoder(self) -> Encoder:
        return self._encoders[0]

    @property
    def store(self) -> FeatureStore:
        return self._store

    def encode(self, advance: Callable[[int], None], on_forecast: Callable[[AnyForecast], None]) -> None:
        advance(self._state.done)
        with closing(self._extract(advance)) as extraction:
            forecast = self._forecast(encode_sample(extraction, len(self._encoders)))
            if forecast is not None:
                on_forecast(forecast)
                forecast.check()
                self._points = self._state.points if forecast.points_on_disk else None
            deque(extraction, maxlen=0)

    def sample(self) -> AnyForecast | None:
        with closing(self._extract(lambda _: None)) as extraction:
            forecast = self._forecast(encode_sample(extraction, len(self._encoders)))
        if forecast is not None:
            forecast.check()
        return forecast

    def first_photos(self, scratch: Path) -> FeatureStore:
        return self.store

    def select(self, config: CoresetConfig, advance: Advance, checkpoint: Checkpoint) -> Selection:
        return select(self.store, config, self._options.devices, advance, file=self._points, checkpoint=checkpoint)

    def left_out_distances(
        self, groups: Sequence[frozenset[int]], bank: MemoryBank, neighbors: int, advance: Callable[[int], None]
    ) -> tuple[Sequence[PatchDistances], float]:
        return left_out_distances(self.store, groups, bank, neighbors, advance)

    def without(self, photos: frozenset[int], scratch: Path) -> "_LocalRun":
        part = copy.copy(self)
        part._store = FeatureStore(scratch)
        kept = [number for number in range(len(self._references)) if number not in photos]
        for number in kept:
            part._store.share(self._store, number)
        part._references = [self._references[number] for number in kept]
        part._points = None if self._points is None else scratch / "points"
        return part

    def _extract(self, advance: Callable[[int], None]) -> Generator[list[PatchFeatures], None, None]:
        options = self._options
        screen = screen_purged(options.root / options.name)
        return extract(self._encoders, options.limits, self._state, advance, strict=options.strict, screen=screen)

    def _forecast(self, sample: Sample) -> Forecast | None:
        """The forecast; None if no photograph could be used so far."""
        options, state = self._options, self._state
        if not sample.features and len(state.store):
            sample = Sample(0.0, (state.store.photo(0),))
        if not sample.features:
            return None
        check_count(options.config.coreset, len(state.listed), sample.features[0].grid)
        counts = PhotoCounts(len(state.listed), len(state.references), len(state.unused))
        return forecast_build(
            options.config, self._backbone, options.devices, state.folder, options.max_memory, sample, counts
        )
