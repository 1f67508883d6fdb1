"""Builds an index: photographs -> patch features -> coreset -> memory bank -> calibration -> version."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from indexer.build.extraction import batch_size, extract
from indexer.build.forecast import Forecast, PhotoCounts, Sample, check_count, encode_sample, forecast_build
from indexer.build.progress import Stages
from indexer.build.publication import VersionContent, publish_version
from indexer.build.references import (
    Reference,
    check_enough,
    near_duplicates_of,
    new_records,
    number_patients,
    screen_purged,
)
from indexer.build.search_choice import choose_search
from indexer.build.state import BuildState, Inputs, build_inputs
from indexer.calibration.leave_out import leave_out
from indexer.coreset.selection import memory_count, select
from indexer.photos.listing import (
    Duplicate,
    NearDuplicate,
    PatientCounts,
    ReferencePhoto,
    Skipped,
    check_listed,
    list_references,
)
from indexer.photos.near_duplicates import DuplicatePair, group_photos, near_duplicate_pairs
from indexer.settings import SearchChoice
from resad import index, runtime
from resad.backbone import Backbone, load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.encoder import Encoder, Trunk
from resad.index import writing
from resad.manifest import Manifest
from resad.memory_bank import MemoryBank
from resad.preparation import mask_of


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What is to be built and where.

    photos: a folder or a CSV.  weights: as for `load_backbone`.  strict: refuse instead of skipping photographs.
    keep_names: write file names into the index.  keep_crops: keep the photographs' squares, for evidence.
    more_devices: they extract and select beside `device`, which alone searches.  resume: go on with what an
    interrupted build has left.  max_memory: bytes to hold at most.  search: `auto` takes the faster exact one.
    keep_features: all patch features stay in the index, so that adding and removing photographs loses nothing.
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

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All of them."""
        return (self.device, *self.more_devices)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What came of it."""

    version: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    duplicates: tuple[Duplicate, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    people: PatientCounts

    @classmethod
    def of(
        cls,
        version: Path,
        manifest: Manifest,
        references: Sequence[Reference],
        left_aside: Sequence[Skipped | Duplicate],
        alike: Sequence[DuplicatePair],
    ) -> "BuildReport":
        """What became of the listed photographs, those that were left aside told apart."""
        return cls(
            version,
            manifest,
            tuple(one for one in left_aside if isinstance(one, Skipped)),
            tuple(one for one in left_aside if isinstance(one, Duplicate)),
            near_duplicates_of(references, alike),
            PatientCounts.of(reference.source.patient for reference in references),
        )


def build(
    order: BuildOptions, stages: Stages, on_forecast: Callable[[Forecast], None] = lambda _: None
) -> BuildReport:
    """Build a version of an index and make it live; on any error no part of a version remains.

    What an interruption leaves to go on with, and when, is said in `indexer.build.state`.

    Args:
        on_forecast: told, after the first few photographs, what the whole will take.
    Raises:
        SettingError: settings or photographs from which no index can be made, or more than the host has.
        PhotoError: with `strict`, for the first photograph that cannot be used.
        ArtifactError: weights that are not to be had or do not fit.
    """
    listed, backbone, trunks = _start(order)
    place = order.root / order.name
    inputs, batch = _inputs(order, listed, backbone), batch_size(order.devices)
    with (
        writing(order.root, order.name) as scratch,
        BuildState(place / index.WORK, inputs, listed, resume=order.resume, batch=batch) as work,
    ):
        encoders = [Encoder(trunk) for trunk in trunks]
        with stages.stage("encode", len(listed), "photos") as advance:
            advance(work.done)
            extracting = extract(
                encoders, order.limits, work, advance, strict=order.strict, look_up=screen_purged(place)
            )
            with closing(extracting) as extraction:
                points = _foreseen(order, backbone, work, encode_sample(extraction, len(encoders)), on_forecast)
                deque(extraction, maxlen=0)
        references, store = work.references, work.store
        patients, alike = [one.source.patient for one in references], near_duplicate_pairs(references)
        groups = group_photos(patients, alike)
        check_enough(order.photos, groups, work.left_aside)
        patches_in_all = int(store.first_rows[-1])
        wanted = memory_count(order.config.coreset, patches_in_all)
        with stages.stage("coreset", wanted or patches_in_all, "memories") as advance:
            selection = select(
                store, order.config.coreset, order.devices, advance, file=points, checkpoint=work.checkpoint()
            )
        bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(order.device))
        preparation = order.config.preparation
        first_masks = [mask_of(one.frame, one.field_of_view, preparation) for one in references[:2]]
        bank, search = choose_search(bank, store, first_masks, order.config, order.search, stages)
        with stages.stage("calibrate", len(store), "photos") as advance:
            masks = (mask_of(one.frame, one.field_of_view, preparation) for one in references)
            cameras = [one.source.camera for one in references]
            left_out = leave_out(store, masks, groups, bank, order.config, advance, cameras)
        known = patients if order.keep_names else number_patients(patients)
        records = new_records(references, left_out, known, keep_names=order.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            kept = store if order.keep_features else None
            grid = store.photo(0).grid
            built = VersionContent(
                backbone, encoders[0], bank, selection, left_out, records, grid, search, kept, work.crops
            )
            version, manifest = publish_version(built, scratch / "version", place, order.weights, stages.done)
            advance(1)
    return BuildReport.of(version, manifest, references, work.left_aside, alike)


def forecast_only(order: BuildOptions) -> Forecast:
    """Encode the first few photographs and say what the whole would take; leaves nothing.  Raises as `build`."""
    listed, backbone, trunks = _start(order)
    inputs, batch = _inputs(order, listed, backbone), batch_size(order.devices)
    told: list[Forecast] = []
    with (
        writing(order.root, order.name) as scratch,
        BuildState(scratch / "work", inputs, listed, resume=False, batch=batch) as work,
    ):
        encoders = [Encoder(trunk) for trunk in trunks]
        extracting = extract(
            encoders, order.limits, work, lambda _: None, strict=order.strict,
            look_up=screen_purged(order.root / order.name),
        )  # fmt: skip
        with closing(extracting) as extraction:
            _foreseen(order, backbone, work, encode_sample(extraction, len(encoders)), told.append)
        if not told:
            check_enough(order.photos, (), work.left_aside)
    return told[0]


def _start(order: BuildOptions) -> tuple[tuple[ReferencePhoto, ...], Backbone, list[Trunk]]:
    listed = list_references(order.photos)
    check_listed(order.photos, listed, order.config)
    backbone = load_backbone(order.config.backbone, order.weights)
    return listed, backbone, [Trunk(backbone, order.config, device) for device in order.devices]


def _inputs(order: BuildOptions, listed: tuple[ReferencePhoto, ...], backbone: Backbone) -> Inputs:
    weights, device = backbone.weights_sha256, order.device.type
    return build_inputs(order.config, order.limits, weights, device, listed, crops=order.keep_crops)


def _foreseen(
    order: BuildOptions,
    backbone: Backbone,
    work: BuildState,
    sample: Sample,
    on_forecast: Callable[[Forecast], None],
) -> Path | None:
    """Tell the forecast, refuse what is too much, and say in which file the points lie if they must."""
    if not sample.features and len(work.store):
        sample = Sample(0.0, (work.store.photo(0),))
    if not sample.features:
        return None
    check_count(order.config.coreset, len(work.listed), sample.features[0].grid)
    progressed = PhotoCounts(len(work.listed), len(work.references), len(work.left_aside))
    told = forecast_build(order.config, backbone, order.devices, work.folder, order.max_memory, sample, progressed)
    on_forecast(told)
    told.check()
    return work.points if told.points_on_disk else None
