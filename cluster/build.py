"""A build over a cluster: the same steps, the same numbers and the same version as `indexer.build.build`."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from cluster.features import ClusterFeatures
from cluster.scheduling import split
from cluster.shards import RemoteShards
from cluster.worker import BuildTask, BuildWorker, ChunkResult
from cluster.worker_pool import Call, PoolOptions, WorkerPool
from indexer.build.build import BuildOptions, BuildReport
from indexer.build.extraction import batch_size
from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import Forecast, HostResources, bank_bytes, format_bytes, host_resources
from indexer.build.progress import Advance, Stages
from indexer.build.publication import VersionContent, publish_version
from indexer.build.references import check_enough, new_records, number_patients, screen_purged
from indexer.build.search_choice import choose_search
from indexer.build.state import BuildState, Inputs, build_inputs
from indexer.calibration.leave_out import LeftOut, PatchDistances, score_left_out
from indexer.coreset import projected_features
from indexer.coreset.k_center import Checkpoint
from indexer.coreset.selection import Selection, memory_count, run_greedy, sample_of, selection_of
from indexer.photos.listing import ReferencePhoto, check_listed, list_references
from indexer.photos.near_duplicates import group_photos, near_duplicate_pairs
from resad import index, runtime
from resad.backbone import Backbone, load_backbone, save_backbone
from resad.config import CoresetConfig, MethodConfig
from resad.encoder import Encoder, Trunk
from resad.errors import SettingError
from resad.files import write_atomically
from resad.index import writing
from resad.loaded_index import BACKBONE_FILE
from resad.memory_bank import MemoryBank

_RUN: Final = "cluster-run"
"""File in the work folder with the name of the workers' folders."""
_FORECAST_CHUNKS: Final = 2
"""Chunks per worker before the forecast."""
_BYTES_PER_PATCH: Final = 20
"""Most bytes that the driver holds of a patch: its left-out distance and its cell (8); beside them all distances
and their copy while quantiles are taken (8), or the distances on their grids and the file made of these (8, and
half as much again for cells without a patch).
"""
_BANKS: Final = 3
"""Copies of the memories: as they came, FAISS's own, and in the cluster's object store for the workers."""


@dataclass(frozen=True, slots=True)
class ClusterForecast:
    """What a build over a cluster takes.

    share: of one worker; all are about alike.  driver: resources of this machine.  patches: of all photographs.
    """

    share: Forecast
    driver: HostResources
    patches: int

    @property
    def memory(self) -> int:
        """Most bytes that the driver holds; the picks' points, which it has during the greedy alone, are fewer."""
        growth = self.patches * _BYTES_PER_PATCH + _BANKS * bank_bytes(self.share.task)
        return max(self.driver.peak, self.driver.resident + growth)

    @property
    def points_on_disk(self) -> bool:
        """Whether the greedy's points stay on the workers' disks."""
        return self.share.points_on_disk

    def check(self) -> None:
        """Raise `SettingError` with the numbers and the remedy where a worker or the driver has too little."""
        self.share.check()
        if self.memory > self.driver.memory:
            size = self.share.task
            raise SettingError(
                f"the driver would take {format_bytes(self.memory)} of memory, and there are "
                f"{format_bytes(self.driver.memory)} ({self.driver.limit_name}): {self.patches:,} patches of "
                f"{_BYTES_PER_PATCH} bytes and {_BANKS} times {size.memories:,} memories of {size.dimension} "
                "dimensions; run it on a larger machine, or with a smaller --coreset, fewer photographs or a "
                "smaller --size"
            )

    def lines(self) -> list[str]:
        """The forecast in words, a line each."""
        memory = f"memory {format_bytes(self.memory)} of {format_bytes(self.driver.memory)}"
        return [*self.share.lines(), f"forecast: driver: {memory}, {self.patches:,} patches in all"]


def build_on(
    pool_options: PoolOptions,
    options: BuildOptions,
    stages: Stages,
    on_forecast: Callable[[ClusterForecast], None] = lambda _: None,
    on_shards: Callable[[RemoteShards], None] = lambda _: None,
) -> BuildReport:
    """Build a version over a cluster: the one that `indexer.build.build.build` makes, even if workers are lost.

    Args:
        on_forecast: called with the forecast of each worker's share and of the driver.
        on_shards: called with the greedy's shards before it begins.
    Raises:
        SettingError: also where no worker starts, too many are lost, or machines do not compute alike.
    """
    if options.keep_features or options.keep_crops:
        raise SettingError(
            f"--keep-{'features' if options.keep_features else 'crops'}: over a cluster features and pictures stay "
            "on the workers' disks and go with them"
        )
    photos, backbone, inputs = _start(pool_options, options)
    batch, place = _batch_size(pool_options), options.root / options.name
    chunks = split(photos, pool_options.count, batch)
    with (
        writing(options.root, options.name) as scratch,
        BuildState(place / index.WORK, inputs, photos, resume=options.resume, batch=batch) as state,
    ):
        encoder = Encoder(Trunk(backbone, options.config, options.device))
        with _build_pool(pool_options, options, state, inputs, backbone, len(chunks)) as pool:
            features = ClusterFeatures(pool, chunks, strict=options.strict, screen=screen_purged(place))
            with stages.stage("encode", len(photos), "photos") as advance:
                on_disk = _extract(features, options, state, advance, on_forecast)
            features.number_photos()
            references = state.references = features.references
            state.unused = features.unused
            patients, pairs = [photo.source.patient for photo in references], near_duplicate_pairs(references)
            groups = group_photos(patients, pairs)
            check_enough(options.photos, groups, features.unused)
            patches = int(features.first_rows[-1])
            memories = memory_count(options.config.coreset, patches)
            with stages.stage("coreset", memories or patches, "memories") as advance:
                selection = _select(
                    features, options.config.coreset, advance, on_shards, on_disk=on_disk,
                    checkpoint=state.checkpoint(),
                )  # fmt: skip
            bank = MemoryBank(selection.memories, selection.provenance, gpu=runtime.gpu_number(options.device))
            preparation = options.config.preparation
            first_masks = [photo.mask(preparation) for photo in references[:2]]
            first_two = FeatureStore(scratch / "first-two")
            for photo_features in features.first_photos(2):
                first_two.append(photo_features)
            bank, search = choose_search(bank, first_two, first_masks, options.config, options.search, stages)
            with stages.stage("calibrate", len(references), "photos") as advance:
                cameras = [photo.source.camera for photo in references]
                left_out = _leave_out(features, groups, bank, options.config, advance, cameras)
            names = patients if options.keep_names else number_patients(patients)
            records = new_records(references, left_out, names, keep_names=options.keep_names)
        with stages.stage("publish", 1, "version") as advance:
            content = VersionContent(backbone, encoder, bank, selection, left_out, records, features.grid, search)
            version, manifest = publish_version(content, scratch / "version", place, options.weights, stages.done)
            advance(1)
    return BuildReport.of(version, manifest, references, features.unused, pairs)


def forecast_only_on(pool_options: PoolOptions, options: BuildOptions) -> ClusterForecast:
    """Encode the first chunks and forecast each worker's share and the driver; leaves nothing.

    Raises as `build_on`.
    """
    photos, backbone, inputs = _start(pool_options, options)
    batch = _batch_size(pool_options)
    chunks = split(photos, pool_options.count, batch)[: _FORECAST_CHUNKS * pool_options.count]
    with (
        writing(options.root, options.name) as scratch,
        BuildState(scratch / "work", inputs, photos, resume=False, batch=batch) as state,
        _build_pool(pool_options, options, state, inputs, backbone, len(chunks)) as pool,
    ):
        screen = screen_purged(options.root / options.name)
        features = ClusterFeatures(pool, chunks, strict=options.strict, screen=screen)
        features.extract(lambda _: None)
        forecast = _forecast(pool, len(photos), options)
        if forecast is None:
            features.number_photos()
            check_enough(options.photos, [], features.unused)
    if forecast is None:
        raise SettingError(f"{options.photos}: none of the first photographs can be used")
    return forecast


def _start(
    pool_options: PoolOptions, options: BuildOptions
) -> tuple[tuple[ReferencePhoto, ...], Backbone, Inputs]:
    photos = list_references(options.photos)
    check_listed(options.photos, photos, options.config)
    backbone = load_backbone(options.config.backbone, options.weights)
    weights, device = backbone.weights_sha256, pool_options.device
    return photos, backbone, build_inputs(options.config, options.limits, weights, device, photos, crops=False)


def _batch_size(pool_options: PoolOptions) -> int:
    """Photographs that a worker encodes together."""
    return batch_size([torch.device(pool_options.device)])


def _build_pool(
    pool_options: PoolOptions,
    options: BuildOptions,
    state: BuildState,
    inputs: Inputs,
    backbone: Backbone,
    chunks: int,
) -> WorkerPool:
    """At most a worker for each chunk.  The name of this run's folders is kept in the work folder."""
    place = (options.root / options.name).absolute()
    run = state.folder / _RUN
    if not run.is_file():
        write_atomically(run, secrets.token_hex(4).encode())
    with TemporaryDirectory() as folder:
        save_backbone(backbone, Path(folder) / BACKBONE_FILE)
        weights = (Path(folder) / BACKBONE_FILE).read_bytes()
    task = BuildTask(
        inputs=inputs,
        backbone=weights,
        index=sha256(str(place).encode()).hexdigest()[:12],
        run=run.read_text(),
        scratch=pool_options.scratch,
        threads=pool_options.size.cpus,
        block_rows=projected_features.BLOCK_ROWS,
    )
    count = min(pool_options.count, chunks)
    return WorkerPool(pool_options.cluster, BuildWorker, task, pool_options.size, count)


def _extract(
    features: ClusterFeatures,
    options: BuildOptions,
    state: BuildState,
    advance: Advance,
    on_forecast: Callable[[ClusterForecast], None],
) -> bool:
    """Have all features made, with a forecast after the first chunks.

    Returns whether the greedy's points stay on disk.
    """
    forecasts: list[ClusterForecast] = []
    chunks = 0
    first_chunks = min(_FORECAST_CHUNKS * features.pool.count, len(features.chunks))

    def on_result(result: ChunkResult) -> None:
        nonlocal chunks
        chunks += 1
        state.references.extend(result.references)  # from the first one on, an interrupted build can go on
        if not forecasts and chunks >= first_chunks:
            forecast = _forecast(features.pool, len(state.listed), options)
            if forecast is not None:
                forecasts.append(forecast)
                on_forecast(forecast)
                forecast.check()

    features.extract(advance, on_result)
    return bool(forecasts and forecasts[0].points_on_disk)


def _forecast(pool: WorkerPool, photos: int, options: BuildOptions) -> ClusterForecast | None:
    """The forecast; None where no photograph could be used so far.  photos: in the list."""
    driver = host_resources(options.root, torch.device("cpu"), options.max_memory)
    for worker in tuple(pool.workers):
        # Not all workers may have started: those that have show how they are spread over the machines.
        same_machine = sum(neighbor.info.node == worker.info.node for neighbor in pool.workers)
        neighbors = ceil(pool.count * same_machine / len(pool.workers))
        call = Call(worker, 0, "forecast", (ceil(photos / pool.count), photos, neighbors, options.max_memory))
        for reply in pool.call_all([call]):
            if reply.value is not None:
                share: Forecast = reply.value
                return ClusterForecast(share, driver, round(share.task.patches / share.task.photos * photos))
    return None


def _select(
    features: ClusterFeatures,
    config: CoresetConfig,
    advance: Advance,
    on_shards: Callable[[RemoteShards], None],
    *,
    on_disk: bool,
    checkpoint: Checkpoint,
) -> Selection:
    patches = int(features.first_rows[-1])
    sample = sample_of(config, patches)
    shards = RemoteShards(features, config, sample, on_disk=on_disk)
    on_shards(shards)
    coreset = run_greedy(shards, config, patches, advance, checkpoint)
    shards.release()
    return selection_of(coreset, sample, features, config)


def _leave_out(
    features: ClusterFeatures,
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    config: MethodConfig,
    advance: Callable[[int], None],
    cameras: Sequence[str | None],
) -> LeftOut:
    """`indexer.calibration.leave_out.leave_out`, each photograph on the worker that has its features."""
    shared_bank = features.pool.put((secrets.token_hex(4), bank.memories, bank.provenance))

    def arguments(chunk: int) -> tuple[object, ...]:
        chunk_groups = tuple(groups[number] for number in features.photos(chunk))
        return features.subset(chunk), chunk_groups, shared_bank

    results: dict[int, tuple[tuple[PatchDistances, ...], float]] = {}
    chunks = [chunk for chunk in range(len(features.chunks)) if features.photos(chunk)]
    for chunk, result in features.call_owners("left_out", arguments, chunks):
        results[chunk] = result
        advance(len(features.photos(chunk)))
    distances = [photo for chunk in chunks for photo in results[chunk][0]]
    radius = max(results[chunk][1] for chunk in chunks)
    masks = (photo.mask(config.preparation) for photo in features.references)
    return score_left_out(distances, radius, masks, config, cameras)
