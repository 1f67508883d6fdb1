"""A build's workers on a cluster: the same steps and the same numbers as in one process.

`indexer.build.build.build(..., workers=ClusterWorkers(...))` builds with them.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.files import write_atomically

from cluster.features import ClusterFeatures
from cluster.scheduling import split
from cluster.shards import RemoteShards
from cluster.worker import BuildTask, BuildWorker, ChunkResult
from cluster.worker_pool import Call, PoolOptions, WorkerPool
from indexer.build.build import BuildOptions, BuildRun
from indexer.build.extraction import batch_size
from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import (
    AnyForecast,
    Forecast,
    HostResources,
    bank_bytes,
    format_bytes,
    host_resources,
)
from indexer.build.progress import Advance
from indexer.build.references import Reference, screen_purged
from indexer.build.state import BuildState, Inputs
from indexer.calibration.leave_out import PatchDistances
from indexer.coreset import projected_features
from indexer.coreset.k_center import Checkpoint
from indexer.coreset.selection import Selection, run_greedy, sample_of, selection_of
from indexer.photos.listing import Duplicate, Skipped
from resad.backbone import Backbone, save_backbone
from resad.config import CoresetConfig
from resad.encoder import Encoder, Trunk
from resad.errors import SettingError
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


_SET_ASIDE: Final = (
    "--set-aside-outliers: over a cluster build without it, then again with --set-aside for those that it names"
)


@dataclass(frozen=True, slots=True)
class ClusterWorkers:
    """`indexer.build.build.BuildWorkers` on a cluster; builds the same version even if workers are lost.

    on_features, on_shards: called with the features before they are made, and with the greedy's shards before it
    begins.  points_on_disk: leave the greedy's points on the workers' disks even where they fit into memory.
    """

    pool_options: PoolOptions
    on_features: Callable[[ClusterFeatures], None] = lambda _: None
    on_shards: Callable[[RemoteShards], None] = lambda _: None
    points_on_disk: bool = False

    @property
    def batch(self) -> int:
        """Photographs that a worker encodes together."""
        return batch_size([torch.device(self.pool_options.device)])

    @property
    def device(self) -> str:
        """Kind of the workers' devices."""
        return self.pool_options.device

    def check(self, options: BuildOptions) -> None:
        """Raise `SettingError` for options that need all features on this machine."""
        if options.keep_features or options.keep_crops:
            raise SettingError(
                f"--keep-{'features' if options.keep_features else 'crops'}: over a cluster features and pictures "
                "stay on the workers' disks and go with them"
            )
        if options.set_aside_outliers:
            raise SettingError(_SET_ASIDE)

    @contextmanager
    def start(
        self, options: BuildOptions, backbone: Backbone, inputs: Inputs, state: BuildState, *, sample: bool
    ) -> Iterator[BuildRun]:
        """Start at most a worker for each chunk.

        Raises `SettingError` where no worker starts, too many are lost, or machines do not compute alike.
        """
        encoder = Encoder(Trunk(backbone, options.config, options.device))
        chunks = split(state.listed, self.pool_options.count, self.batch)
        if sample:
            chunks = chunks[: _FORECAST_CHUNKS * self.pool_options.count]
        with _build_pool(self.pool_options, options, state, inputs, backbone, len(chunks)) as pool:
            screen = screen_purged(options.root / options.name)
            features = ClusterFeatures(pool, chunks, strict=options.strict, screen=screen)
            self.on_features(features)
            yield _ClusterRun(
                options, state, encoder, features, self.on_shards, points_on_disk=self.points_on_disk
            )


class _ClusterRun:
    """As `indexer.build.build.BuildRun`, each step on the workers that have the features."""

    store = None

    def __init__(
        self,
        options: BuildOptions,
        state: BuildState,
        encoder: Encoder,
        features: ClusterFeatures,
        on_shards: Callable[[RemoteShards], None],
        *,
        points_on_disk: bool,
    ) -> None:
        self.encoder = encoder
        self._options, self._state, self._features, self._on_shards = options, state, features, on_shards
        self._points_on_disk = points_on_disk

    @property
    def references(self) -> Sequence[Reference]:
        return self._features.references

    @property
    def unused(self) -> Sequence[Skipped | Duplicate]:
        return self._features.unused

    @property
    def first_rows(self) -> NDArray[np.int64]:
        return self._features.first_rows

    @property
    def grid(self) -> tuple[int, int]:
        return self._features.grid

    def encode(self, advance: Callable[[int], None], on_forecast: Callable[[AnyForecast], None]) -> None:
        features, state = self._features, self._state
        forecasts: list[ClusterForecast] = []
        chunks = 0
        first_chunks = min(_FORECAST_CHUNKS * features.pool.count, len(features.chunks))

        def on_result(result: ChunkResult) -> None:
            nonlocal chunks
            chunks += 1
            state.references.extend(result.references)  # from the first one on, an interrupted build can continue
            if not forecasts and chunks >= first_chunks:
                forecast = _forecast(features.pool, len(state.listed), self._options)
                if forecast is not None:
                    forecasts.append(forecast)
                    on_forecast(forecast)
                    forecast.check()

        features.extract(advance, on_result)
        self._points_on_disk |= bool(forecasts and forecasts[0].points_on_disk)
        features.number_photos()
        state.references, state.unused = features.references, features.unused

    def sample(self) -> AnyForecast | None:
        self._features.extract(lambda _: None)
        forecast = _forecast(self._features.pool, len(self._state.listed), self._options)
        if forecast is None:
            self._features.number_photos()
        return forecast

    def first_photos(self, scratch: Path) -> FeatureStore:
        store = FeatureStore(scratch / "first-two")
        for patches in self._features.first_photos(2):
            store.append(patches)
        return store

    def select(self, config: CoresetConfig, advance: Advance, checkpoint: Checkpoint) -> Selection:
        features = self._features
        patches = int(features.first_rows[-1])
        sample = sample_of(config, patches)
        shards = RemoteShards(features, config, sample, on_disk=self._points_on_disk)
        self._on_shards(shards)
        coreset = run_greedy(shards, config, patches, advance, checkpoint)
        shards.release()
        return selection_of(coreset, sample, features, config)

    def left_out_distances(
        self, groups: Sequence[frozenset[int]], bank: MemoryBank, neighbors: int, advance: Callable[[int], None]
    ) -> tuple[Sequence[PatchDistances], float]:
        features = self._features
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
        return distances, max(results[chunk][1] for chunk in chunks)

    def without(self, photos: frozenset[int], scratch: Path) -> BuildRun:
        raise SettingError(_SET_ASIDE)


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
