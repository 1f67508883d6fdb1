"""The process on a worker of a build: features, projected features, the greedy's shards and left-out distances.

A worker writes into one folder on its node's own disk.  It reuses a chunk that an earlier worker of the same node
left there, so that a lost process costs less than a lost machine.  No Ray in this file.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.scheduling import Chunk
from cluster.worker_pool import WorkerInfo
from indexer.build.extraction import batch_size, extract
from indexer.build.feature_store import FeatureStore
from indexer.build.forecast import (
    Forecast,
    PhotoCounts,
    Sample,
    forecast,
    host_resources,
    measure_rates,
    with_file_rates,
)
from indexer.build.references import Reference
from indexer.build.state import BuildState, Inputs, build_inputs, photo_digest
from indexer.calibration.leave_out import PatchDistances, left_out_distances
from indexer.coreset.k_center import LocalShards, Shard
from indexer.coreset.projected_features import DiskPoints, FileRows, MemoryPoints, Points, read_buffers
from indexer.coreset.selection import projected_chunks, projection
from indexer.photos.listing import Duplicate, Skipped
from resad import runtime
from resad.backbone import load_backbone
from resad.config import CoresetConfig
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.errors import SettingError
from resad.loaded_index import BACKBONE_FILE
from resad.memory_bank import MemoryBank, Provenance

_PREFIX: Final = "resad-"


@dataclass(frozen=True, slots=True, eq=False)
class BuildTask:
    """What every worker of a build gets.

    inputs: of the build.  backbone: the bytes of its file.  index, run: parts of the name of the worker's folder.
    scratch: parent of that folder; the system's temporary folder unless given.
    threads: cores of each worker.  block_rows: points in one matrix product.
    """

    inputs: Inputs
    backbone: bytes
    index: str
    run: str
    scratch: Path | None
    threads: int
    block_rows: int


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """A chunk whose features a worker has.

    dimension: of the features; 0 where there are none.  missing: a photograph that this worker cannot find.
    """

    references: tuple[Reference, ...]
    unused: tuple[Skipped | Duplicate, ...]
    dimension: int
    missing: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkSubset:
    """The photographs of a chunk that the index uses.  photos: their numbers among the chunk's features."""

    chunk: int
    photos: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionTask:
    """How a chunk's features become points of the greedy.

    sample: rows of the chunk's features, int64; None for all.  target: dimension of the points.
    """

    subset: ChunkSubset
    config: CoresetConfig
    target: int
    sample: NDArray[np.int64] | None


class BuildWorker:
    """The actor of a build: one GPU or some CPU cores, and a folder."""

    def __init__(self) -> None:
        self._states: dict[int, BuildState] = {}
        self._shards: dict[int, list[Shard]] = {}
        self._bank: tuple[str, MemoryBank] | None = None
        self._seconds, self._photos = 0.0, 0

    def start(self, task: BuildTask) -> WorkerInfo:
        """Load the trunk and make the folder; delete folders of earlier builds of the same index.

        Raises `SettingError` where this machine has other packages, another device or other weights.
        """
        config = task.inputs.config
        runtime.configure(config.precision)
        runtime.use_threads(task.threads)
        self._task = task
        self._device = runtime.pick_device("cuda" if task.inputs.device == "cuda" else "cpu")
        self._folder = _make_folder(task)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / BACKBONE_FILE
            file.write_bytes(task.backbone)
            self._backbone = load_backbone(config.backbone, str(file))
        self._encoder = Encoder(Trunk(self._backbone, config, self._device))
        weights, device = self._backbone.weights_sha256, self._device.type
        _check_same_machine(
            build_inputs(config, task.inputs.limits, weights, device, (), crops=False), task.inputs
        )
        return WorkerInfo(socket.gethostname(), os.getpid(), self._folder)

    def clean_up(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # Features

    def extract(self, chunk: Chunk) -> ChunkResult:
        """Make the features of a chunk, or find them in the folder."""
        state = self._states[chunk.number] = self._open_state(chunk)
        limits, start = self._task.inputs.limits, time.perf_counter()
        for _ in extract([self._encoder], limits, state, _ignore, strict=False, screen=lambda *_: None):
            pass
        self._seconds += time.perf_counter() - start
        self._photos += len(chunk.photos)
        skipped = (photo.path for photo in state.unused if isinstance(photo, Skipped))
        return ChunkResult(
            references=tuple(state.references),
            unused=tuple(state.unused),
            dimension=state.store.dimension,
            missing=next((path for path in skipped if not path.exists()), None),
        )

    def forecast(self, photos: int, photos_of_all: int, neighbors: int, max_memory: int | None) -> Forecast | None:
        """What a worker's share of the build takes; None while this worker has no usable photograph.

        Args:
            photos: in this worker's share.
            photos_of_all: in all shares; every worker gets all memories.
            neighbors: workers on this machine, which share its memory and its disk.
            max_memory: bytes for each worker, if limited.
        """
        store = next((state.store for state in self._states.values() if len(state.store)), None)
        if store is None:
            return None
        sample = Sample(self._seconds / self._photos, (store.photo(0),))
        counts = PhotoCounts(photos_of_all, 0, 0)
        build_size, rates = measure_rates(self._task.inputs.config, self._backbone, self._device, sample, counts)
        share = photos / photos_of_all
        size = replace(
            build_size, photos=photos, to_encode=photos, patches=ceil(share * build_size.patches),
            sampled=ceil(share * build_size.sampled), points_file=True,
        )  # fmt: skip
        machine = host_resources(self._folder, self._device, max_memory)
        memory = machine.memory if max_memory is not None else machine.memory // neighbors
        name = "a worker's share of its machine"
        resources = replace(machine, memory=memory, disk=machine.disk // neighbors, limit_name=name)
        return forecast(size, with_file_rates(rates, size, resources, self._folder), resources)

    def features(self, subset: ChunkSubset) -> list[PatchFeatures]:
        """All features of these photographs."""
        return list(self._store(subset))

    def gather(
        self, subset: ChunkSubset, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Features (M, D) and cells (M, 2) at these rows of the subset's features."""
        store = self._store(subset)
        return store.gather(rows), store.cells(rows)

    # Points and shards of the greedy

    def project(self, task: ProjectionTask) -> NDArray[np.float64]:
        """Make the points of a chunk; returns the sum of each photograph's, (photos, d), for the mean of all."""
        store, sample = self._store(task.subset), task.sample
        matrix = projection(store.dimension, task.target, task.config.seed)
        matrix = matrix if matrix is None else matrix.to(self._device)
        sums, file = [], self._points_file(task.subset.chunk)
        with file.with_suffix(".part").open("wb") as points:
            for chunk in projected_chunks(store, sample, matrix, self._device):
                sums.append(chunk.sum(dim=0, dtype=torch.float64).cpu().numpy())
                chunk.cpu().numpy().tofile(points)
        file.with_suffix(".part").replace(file)
        return np.stack(sums) if sums else np.empty((0, task.target))

    def points(self, task: ProjectionTask, start: int, stop: int) -> NDArray[np.float32]:
        """Points `start` to `stop` of a chunk, (n, d); made again where the file is not there."""
        file = self._points_file(task.subset.chunk)
        if not file.is_file():
            self.project(task)
        width = task.target
        values = np.fromfile(file, np.float32, (stop - start) * width, offset=4 * start * width)
        return values.reshape(-1, width)

    def load_shards(
        self,
        first: int,
        parts: Sequence[tuple[ProjectionTask, int, int]],
        tail: Sequence[NDArray[np.float32]],
        mean: NDArray[np.float32],
        rows: int,
        on_disk: bool,
    ) -> None:
        """Load points into the greedy's shards of `rows` points each.

        Args:
            first: global row of the first point.
            parts: of chunks on this worker, arguments of `points`.
            tail: points that follow them, of chunks on other workers.
            mean: of all points, which is subtracted.
            on_disk: leave the points on disk.
        """
        total = sum(stop - start for _, start, stop in parts) + sum(map(len, tail))
        chunks = chain((self.points(*part) for part in parts), tail)
        load = self._points_on_disk if on_disk else self._points_in_memory
        shards = load(first, chunks, total, aligned_tensor(mean).to(self._device), rows)
        self._shards[first] = [Shard(points, first + number * rows) for number, points in enumerate(shards)]

    def farthest(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and squared distances of `Shards.farthest`."""
        farthest = self._local_shards().farthest(count)
        return farthest.rows.cpu().numpy(), farthest.squared.cpu().numpy()

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """`Shards.take` for rows of this worker."""
        return self._local_shards().take(torch.from_numpy(rows.copy())).cpu().numpy()

    def update(self, rows: NDArray[np.int64], centers: NDArray[np.float32], first: int | None = None) -> None:
        """`Shards.update`; only of the shards loaded from row `first` on, where it is given."""
        shards = self._local_shards() if first is None else LocalShards(self._shards[first])
        shards.update(aligned_tensor(rows).to(self._device), aligned_tensor(centers).to(self._device))

    def release_shards(self) -> None:
        """Free the memory of the greedy."""
        self._shards.clear()

    # Calibration

    def left_out(
        self,
        subset: ChunkSubset,
        groups: Sequence[frozenset[int]],
        bank: tuple[str, NDArray[np.float32], Provenance],
    ) -> tuple[tuple[PatchDistances, ...], float]:
        """`left_out_distances` of these photographs.

        Args:
            groups: for each photograph, the photographs that are left out with it.
            bank: a token that names it, its memories and their provenance.
        """
        token, memories, provenance = bank
        if self._bank is None or self._bank[0] != token:
            copy = np.array(memories)  # Ray's arrays are read-only and not aligned
            self._bank = (token, MemoryBank(copy, provenance, gpu=runtime.gpu_number(self._device)))
        neighbors = self._task.inputs.config.search.neighbors
        return left_out_distances(self._store(subset), groups, self._bank[1], neighbors, _ignore)

    def _open_state(self, chunk: Chunk) -> BuildState:
        inputs = replace(self._task.inputs, photos=tuple(map(photo_digest, chunk.photos)))
        folder = self._chunk_folder(chunk.number)
        batch = batch_size([self._device])
        try:
            return BuildState(folder, inputs, chunk.photos, resume=True, batch=batch)
        except SettingError:  # left by another build
            return BuildState(folder, inputs, chunk.photos, resume=False, batch=batch)

    def _store(self, subset: ChunkSubset) -> FeatureStore:
        chunk_store = self._states[subset.chunk].store
        if len(subset.photos) == len(chunk_store):
            return chunk_store
        store = FeatureStore(self._chunk_folder(subset.chunk) / "features")
        for number in subset.photos:
            store.share(chunk_store, number)
        return store

    def _chunk_folder(self, number: int) -> Path:
        return self._folder / f"chunk-{number:06d}"

    def _points_file(self, number: int) -> Path:
        return self._chunk_folder(number) / "points"

    def _local_shards(self) -> LocalShards:
        return LocalShards([shard for first in sorted(self._shards) for shard in self._shards[first]])

    def _points_in_memory(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        points, filled = torch.empty((total, len(mean))), 0
        for chunk in chunks:
            points.numpy()[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        for values in torch.split(points.to(self._device), rows):
            values -= mean
            yield MemoryPoints(values, self._task.block_rows)

    def _points_on_disk(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        path = self._folder / f"run-{first}"
        with path.open("wb") as file:
            for chunk in chunks:
                chunk.tofile(file)
        source, block = FileRows(path, len(mean)), self._task.block_rows
        buffers = read_buffers(mean, block)
        for start in range(0, total, rows):
            yield DiskPoints(source, start, min(rows, total - start), mean, block, buffers)


def aligned_tensor(values: NDArray[np.generic]) -> Tensor:
    """A copy in torch's memory, aligned to 64 bytes: alignment can change how a matrix product rounds."""
    copy = torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype)
    copy.numpy()[...] = values
    return copy


def _check_same_machine(worker: Inputs, build: Inputs) -> None:
    """Raise `SettingError` where this worker would compute other numbers than the build expects."""
    versions = _versions(worker)
    for name, version in _versions(build).items():
        if versions.get(name) != version:
            raise SettingError(
                f"the worker on {socket.gethostname()} has {name} {versions.get(name)}, where the build has "
                f"{version}: all machines of a cluster take the same image"
            )


def _versions(inputs: Inputs) -> dict[str, str]:
    packages = {package.name: package.version for package in inputs.packages}
    return packages | {"device": inputs.device, "weights": inputs.weights}


def _make_folder(task: BuildTask) -> Path:
    scratch = Path(tempfile.gettempdir()) if task.scratch is None else task.scratch
    folder = scratch / f"{_PREFIX}{task.index}-{task.run}"
    for earlier in scratch.glob(f"{_PREFIX}{task.index}-*"):
        if earlier != folder:
            shutil.rmtree(earlier, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _ignore(steps: int) -> None:
    """Progress: the driver counts chunks."""
