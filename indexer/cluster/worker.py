"""What runs on a worker: a piece's photographs, features, points and left-out scores.  Nothing here knows Ray.

A worker writes into one folder on its node's own disk.  What another worker of the same node has left there of a
piece is taken up, so that a lost process costs less than a lost machine.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.cluster.crew import Hello
from indexer.cluster.messages import Chosen, Made, Projecting, Task
from indexer.cluster.pieces import Piece
from indexer.extraction import batch_size, extract
from indexer.feature_store import FeatureStore
from indexer.forecast import Forecast, forecast
from indexer.foresight import Progressed, Sample, measured
from indexer.journal import Inputs, digest, inputs_of
from indexer.leave_out import left_out_distances
from indexer.photos import Skipped
from indexer.placed import Placed
from indexer.points import HeldPoints, Points, StoredPoints
from indexer.room import room
from indexer.selection import projected, projection
from indexer.shards import HeldShards, Shard
from indexer.work import Work
from resad import runtime
from resad.backbone import load_backbone
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.errors import SettingError
from resad.loaded_index import BACKBONE_FILE
from resad.memory_bank import MemoryBank, Provenance
from resad.whitening import FILE as WHITENING_FILE
from resad.whitening import Whitening

_PREFIX: Final = "resad-"


class Worker:
    """An actor: one GPU or some CPU cores, and a folder."""

    def __init__(self) -> None:
        self._works: dict[int, Work] = {}
        self._shards: dict[int, list[Shard]] = {}
        self._bank: tuple[str, MemoryBank] | None = None
        self._seconds, self._photos = 0.0, 0

    def begin(self, task: Task) -> Hello:
        """Load the trunk and make the folder; those of earlier builds of the same index go."""
        config = task.inputs.config
        runtime.configure(config.precision)
        runtime.use_threads(task.threads)
        self._task = task
        self._device = runtime.pick_device("cuda" if task.inputs.device == "cuda" else "cpu")
        self._folder = _folder(task)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / BACKBONE_FILE
            file.write_bytes(task.backbone)
            backbone = self._backbone = load_backbone(config.backbone, str(file))
            whitening = _whitening(task, Path(place))
        self._encoder = Encoder(Trunk(backbone, config, self._device), whitening)
        mine = inputs_of(config, task.inputs.limits, backbone.weights_sha256, self._device.type, (), crops=False)
        _check_alike(mine, task.inputs)
        return Hello(socket.gethostname(), os.getpid(), self._folder)

    def extract(self, piece: Piece) -> Made:
        """The features of a piece, made or found in the folder."""
        work = self._works[piece.number] = self._work(piece)
        limits, began = self._task.inputs.limits, time.perf_counter()
        for _ in extract([self._encoder], limits, work, _quietly, strict=False, look_up=lambda *_: None):
            pass
        self._seconds += time.perf_counter() - began
        self._photos += len(piece.photos)
        skipped = (one.path for one in work.left_aside if isinstance(one, Skipped))
        return Made(
            references=tuple(work.references),
            left_aside=tuple(work.left_aside),
            stored=tuple(work.stored()),
            dimension=work.store.dimension,
            unseen=next((path for path in skipped if not path.exists()), None),
        )

    def foresee(self, listed: int, in_all: int, neighbors: int, max_memory: int | None) -> Forecast | None:
        """What a worker's share of the build takes; None where it has no photograph yet.

        Args:
            listed: photographs of its share.
            in_all: photographs of all shares; the memories, which each worker gets, are those of all.
            neighbors: workers on this machine, which share its memory and its disk.
            max_memory: bytes for each worker, where it was said.
        """
        store = next((work.store for work in self._works.values() if len(work.store)), None)
        if store is None:
            return None
        sample = Sample(self._seconds / self._photos, (store.photo(0),))
        everything = Progressed(in_all, 0, 0)
        whole, rates = measured(self._task.inputs.config, self._backbone, self._device, sample, everything)
        share = listed / in_all
        task = replace(
            whole, photos=listed, to_encode=listed, patches=ceil(share * whole.patches),
            sampled=ceil(share * whole.sampled),
        )  # fmt: skip
        here = room(self._folder, self._device, max_memory)
        memory = here.memory if max_memory is not None else here.memory // neighbors
        name = "a worker's share of its machine"
        return forecast(task, rates, replace(here, memory=memory, disk=here.disk // neighbors, limit_name=name))

    def features(self, chosen: Chosen) -> list[PatchFeatures]:
        """All features of some photographs."""
        return list(self._store(chosen))

    def gather(self, chosen: Chosen, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Features (M, D) and cells (M, 2) at some rows of the piece."""
        store = self._store(chosen)
        return store.gather(rows), store.cells(rows)

    def project(self, projecting: Projecting) -> NDArray[np.float64]:
        """Make the points of a piece; the sum of each photograph's, (photos, d), for the mean of all."""
        store, sample = self._store(projecting.chosen), projecting.sample
        matrix = projection(store.dimension, projecting.target, projecting.config.seed)
        chunks = projected(store, sample, matrix if matrix is None else matrix.to(self._device), self._device)
        sums, file = [], self._points_file(projecting.chosen.piece)
        with file.with_suffix(".part").open("wb") as points:
            for chunk in chunks:
                sums.append(chunk.sum(dim=0, dtype=torch.float64).cpu().numpy())
                chunk.cpu().numpy().tofile(points)
        file.with_suffix(".part").replace(file)
        return np.stack(sums) if sums else np.empty((0, projecting.target))

    def points(self, projecting: Projecting, start: int, stop: int) -> NDArray[np.float32]:
        """Some of a piece's points, (n, d)."""
        file = self._points_file(projecting.chosen.piece)
        if not file.is_file():
            self.project(projecting)
        width = projecting.target
        values = np.fromfile(file, np.float32, (stop - start) * width, offset=4 * start * width)
        return values.reshape(-1, width)

    def hold(
        self,
        first: int,
        parts: Sequence[tuple[Projecting, int, int]],
        tail: Sequence[NDArray[np.float32]],
        mean: NDArray[np.float32],
        rows: int,
        on_disk: bool,
    ) -> None:
        """Take the points from the global row `first` on into the greedy, in shards of so many rows.

        Args:
            parts: of pieces that are here, as for `points`.
            tail: points that follow them.
            on_disk: leave them there.
        """
        total = sum(stop - start for _, start, stop in parts) + sum(map(len, tail))
        chunks = chain((self.points(*part) for part in parts), tail)
        held = self._on_disk if on_disk else self._in_memory
        points = held(first, chunks, total, in_torch(mean).to(self._device), rows)
        self._shards[first] = [Shard(some, first + number * rows) for number, some in enumerate(points)]

    def farthest(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and squared distances, as `Shards.farthest`."""
        found = self._all().farthest(count)
        return found.rows.cpu().numpy(), found.squared.cpu().numpy()

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `Shards.take`; all rows are here."""
        return self._all().take(torch.from_numpy(rows.copy())).cpu().numpy()

    def update(self, rows: NDArray[np.int64], centers: NDArray[np.float32], only: int | None = None) -> None:
        """As `Shards.update`; `only` the shards of the run that begins there."""
        shards = self._all() if only is None else HeldShards(self._shards[only])
        shards.update(in_torch(rows).to(self._device), in_torch(centers).to(self._device))

    def let_go(self) -> None:
        """The greedy is over."""
        self._shards.clear()

    def left_out(
        self,
        chosen: Chosen,
        groups: Sequence[frozenset[int]],
        bank: tuple[str, NDArray[np.float32], Provenance],
    ) -> tuple[tuple[Placed, ...], float]:
        """`left_out_distances` of the piece's photographs.  bank: a name for it, and what it is."""
        token, memories, provenance = bank
        if self._bank is None or self._bank[0] != token:
            held = np.array(memories)  # what Ray hands over cannot be written, and lies where it likes
            self._bank = (token, MemoryBank(held, provenance, gpu=runtime.gpu_number(self._device)))
        sets = [set(group) for group in groups]
        neighbors = self._task.inputs.config.search.neighbors
        return left_out_distances(self._store(chosen), sets, self._bank[1], neighbors, _quietly)

    def leave(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, piece: Piece) -> Work:
        inputs = replace(self._task.inputs, photos=tuple(map(digest, piece.photos)))
        folder = self._folder / f"piece-{piece.number:06d}"
        batch = batch_size([self._device])
        try:
            return Work(folder, inputs, piece.photos, resume=True, batch=batch)
        except SettingError:  # what lies there is of something else
            return Work(folder, inputs, piece.photos, resume=False, batch=batch)

    def _store(self, chosen: Chosen) -> FeatureStore:
        whole = self._works[chosen.piece].store
        if len(chosen.photos) == len(whole):
            return whole
        some = FeatureStore(self._folder / f"piece-{chosen.piece:06d}" / "features")
        for number in chosen.photos:
            some.take_from(whole, number)
        return some

    def _points_file(self, piece: int) -> Path:
        return self._folder / f"piece-{piece:06d}" / "points"

    def _all(self) -> HeldShards:
        return HeldShards([shard for first in sorted(self._shards) for shard in self._shards[first]])

    def _in_memory(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        whole, filled = torch.empty((total, len(mean))), 0
        for chunk in chunks:
            whole.numpy()[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        for some in torch.split(whole.to(self._device), rows):
            some -= mean
            yield HeldPoints(some, self._task.block_rows)

    def _on_disk(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        path = self._folder / f"run-{first}"
        with path.open("wb") as file:
            for chunk in chunks:
                chunk.tofile(file)
        for start in range(0, total, rows):
            yield StoredPoints(path, start, min(rows, total - start), mean, self._task.block_rows)


def _check_alike(mine: Inputs, theirs: Inputs) -> None:
    """Raise `SettingError` where this worker would compute other numbers than were asked for."""
    here = {one.name: one.version for one in mine.packages} | {"device": mine.device, "weights": mine.weights}
    asked = {one.name: one.version for one in theirs.packages} | {
        "device": theirs.device,
        "weights": theirs.weights,
    }
    for name in asked:
        if here.get(name) != asked[name]:
            raise SettingError(
                f"the worker on {socket.gethostname()} has {name} {here.get(name)}, where the build has "
                f"{asked[name]}: all machines of a cluster take the same image"
            )


def _quietly(steps: int) -> None:
    """The driver counts pieces."""


def _whitening(task: Task, place: Path) -> Whitening | None:
    if task.whitening is None:
        return None
    (place / WHITENING_FILE).write_bytes(task.whitening)
    return Whitening.load(place / WHITENING_FILE)


def in_torch(values: NDArray[np.generic]) -> Tensor:
    """A copy in torch's memory, which begins at a multiple of 64 bytes: that can change how a product rounds."""
    copy = torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype)
    copy.numpy()[...] = values
    return copy


def _folder(task: Task) -> Path:
    scratch = Path(tempfile.gettempdir()) if task.scratch is None else task.scratch
    folder = scratch / f"{_PREFIX}{task.index}-{task.run}"
    for other in scratch.glob(f"{_PREFIX}{task.index}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
