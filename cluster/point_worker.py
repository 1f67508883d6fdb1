"""A worker's second part: its pieces' points, and the shards of the greedy that it holds."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.feature_worker import FeatureWorker
from cluster.messages import Projecting
from indexer.coreset.k_center import LocalShards, Shard
from indexer.coreset.projected_features import FilePoints, MemoryPoints, Points
from indexer.coreset.selection import projected_chunks, projection


class PointWorker(FeatureWorker):
    """With points made of the features."""

    def __init__(self) -> None:
        super().__init__()
        self._shards: dict[int, list[Shard]] = {}

    def project(self, projecting: Projecting) -> NDArray[np.float64]:
        """Make the points of a piece; the sum of each photograph's, (photos, d), for the mean of all."""
        store, sample = self._store(projecting.chosen), projecting.sample
        matrix = projection(store.dimension, projecting.target, projecting.config.seed)
        chunks = projected_chunks(
            store, sample, matrix if matrix is None else matrix.to(self._device), self._device
        )
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
        shards = self._all() if only is None else LocalShards(self._shards[only])
        shards.update(in_torch(rows).to(self._device), in_torch(centers).to(self._device))

    def let_go(self) -> None:
        """The greedy is over."""
        self._shards.clear()

    def _points_file(self, piece: int) -> Path:
        return self._folder / f"piece-{piece:06d}" / "points"

    def _all(self) -> LocalShards:
        return LocalShards([shard for first in sorted(self._shards) for shard in self._shards[first]])

    def _in_memory(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        whole, filled = torch.empty((total, len(mean))), 0
        for chunk in chunks:
            whole.numpy()[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        for some in torch.split(whole.to(self._device), rows):
            some -= mean
            yield MemoryPoints(some, self._task.block_rows)

    def _on_disk(
        self, first: int, chunks: Iterable[NDArray[np.float32]], total: int, mean: Tensor, rows: int
    ) -> Iterator[Points]:
        path = self._folder / f"run-{first}"
        with path.open("wb") as file:
            for chunk in chunks:
                chunk.tofile(file)
        for start in range(0, total, rows):
            yield FilePoints(path, start, min(rows, total - start), mean, self._task.block_rows)


def in_torch(values: NDArray[np.generic]) -> Tensor:
    """A copy in torch's memory, which begins at a multiple of 64 bytes: that can change how a product rounds."""
    copy = torch.empty(values.shape, dtype=torch.from_numpy(np.empty(0, values.dtype)).dtype)
    copy.numpy()[...] = values
    return copy
