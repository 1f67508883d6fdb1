"""The greedy's shards on the workers: `Shards` for the driver, whose round is three exchanges with all workers.

    farthest  in   rows and squared distances, the T + 1 largest of each worker
    take      in   the points of the T winners, each from the worker that has it
    update    out  the round's picks, rows and points

A lost worker takes its shards along.  Its chunks are made again elsewhere, the rounds so far are repeated on them,
each with the same matrix product, and the round goes on: the picks are the same.

The points have one order, that of all patches, cut into shards of whole blocks.  A block of `BLOCK_ROWS` points
belongs to the chunk in which it begins, so that the blocks, and with them every product of the greedy, are those
of one machine.  The last block of a run of chunks extends into the next chunk: less than a block of points moves
for each run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.features import ClusterFeatures
from cluster.worker import ProjectionTask, aligned_tensor
from cluster.worker_pool import Call, Reply, Worker
from indexer.coreset import projected_features
from indexer.coreset.k_center import Farthest, GreedyState, farthest_of, replay
from indexer.coreset.selection import SHARD_ROWS, projected_dimension
from resad.config import CoresetConfig

_CPU = torch.device("cpu")


class ChunkRange(NamedTuple):
    """Points `start` to `stop` of a chunk."""

    chunk: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Run:
    """Neighboring chunks of one worker.

    first, stop: global rows, multiples of the block (stop may be the end).  parts: the worker's own points.
    tail: the points that follow, of other chunks.
    """

    first: int
    stop: int
    parts: tuple[ChunkRange, ...]
    tail: tuple[ChunkRange, ...]


def runs_of(
    chunks: Sequence[int], owners: Mapping[int, int], first_points: Sequence[int], block: int
) -> list[Run]:
    """The runs that hold every block beginning in one of `chunks`.

    Args:
        chunks: ascending.
        owners: number of the worker of each.
        first_points: the global row at which each chunk of all begins, and the number of points.
    """
    groups: list[list[int]] = []
    for chunk in chunks:
        if groups and chunk == groups[-1][-1] + 1 and owners[chunk] == owners[groups[-1][-1]]:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    runs = (_run(group, first_points, block) for group in groups)
    return [run for run in runs if run.first < run.stop]


def _run(group: Sequence[int], first_points: Sequence[int], block: int) -> Run:
    last = group[-1]
    first = _round_up(first_points[group[0]], block)
    stop = min(_round_up(first_points[last + 1], block), first_points[-1])
    parts = tuple(_range(chunk, first, first_points[last + 1], first_points) for chunk in group)
    tail = tuple(
        _range(chunk, first_points[last + 1], stop, first_points)
        for chunk in range(last + 1, len(first_points) - 1)
    )
    return Run(first, stop, _not_empty(parts), _not_empty(tail))


def _range(chunk: int, first: int, stop: int, first_points: Sequence[int]) -> ChunkRange:
    start, end = first_points[chunk], first_points[chunk + 1]
    return ChunkRange(chunk, max(first, start) - start, min(stop, end) - start)


def _not_empty(ranges: tuple[ChunkRange, ...]) -> tuple[ChunkRange, ...]:
    return tuple(part for part in ranges if part.start < part.stop)


def _round_up(row: int, block: int) -> int:
    return -(-row // block) * block


@dataclass
class Traffic:
    """Bytes that the driver received and sent: rows, distances and points, without overhead."""

    received: int = 0
    sent: int = 0


@dataclass
class _Assignment:
    """The runs on a worker."""

    worker: Worker
    runs: list[Run] = field(default_factory=list)


class RemoteShards:
    """All points of the greedy, on the workers that made their features.

    Args:
        features: with numbered photographs.
        sample: rows that become points; None for all.
        on_disk: the points stay on the workers' disks.
    """

    def __init__(
        self, features: ClusterFeatures, config: CoresetConfig, sample: NDArray[np.int64] | None, *, on_disk: bool
    ) -> None:
        rows = features.chunk_rows
        self._features, self._config, self._sample, self._on_disk = features, config, sample, on_disk
        self._chunk_rows = rows.tolist()
        self._first_points = (rows if sample is None else np.searchsorted(sample, rows)).tolist()
        self._target = projected_dimension(config, self.total, features.dimension)
        self._assignments: dict[int, _Assignment] = {}
        self._rounds: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self.traffic = Traffic()
        self._mean = self._measure_mean()
        self._assign(range(len(features.chunks)))

    @property
    def total(self) -> int:
        """Number of points, as `Shards.total`."""
        return int(self._first_points[-1])

    @property
    def runs(self) -> int:
        """Number of runs on all workers."""
        return sum(len(assignment.runs) for assignment in self._assignments.values())

    @property
    def rounds(self) -> int:
        """Number of rounds so far."""
        return len(self._rounds)

    def farthest(self, count: int) -> Farthest:
        """As `Shards.farthest`."""
        parts = [value for _, value in self._call_all("farthest", lambda _: (count,))]
        self.traffic.received += sum(rows.nbytes + squared.nbytes for rows, squared in parts)
        tensors = [Farthest(aligned_tensor(rows), aligned_tensor(squared)) for rows, squared in parts]
        return farthest_of(tensors, count, _CPU)

    def take(self, rows: Tensor) -> Tensor:
        """As `Shards.take`."""
        numbers = rows.numpy()
        points = torch.empty((len(numbers), self._target))

        def on_worker(assignment: _Assignment) -> NDArray[np.bool_]:
            inside = [(numbers >= run.first) & (numbers < run.stop) for run in assignment.runs]
            return np.asarray(np.any(inside, axis=0))

        replies = self._call_all("take", lambda assignment: (numbers[on_worker(assignment)],), on_worker)
        for assignment, values in replies:
            points.numpy()[on_worker(assignment)] = values
            self.traffic.received += values.nbytes
        return points

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """As `Shards.update`."""
        picks = (rows.numpy().copy(), centers.numpy().copy())
        # Recorded before the calls: a worker lost meanwhile is restored with this round.
        self._rounds.append(picks)
        references = self._put(picks)
        for _ in self._call_all("update", lambda _: references):
            self.traffic.sent += sum(part.nbytes for part in picks)

    def distances(self) -> None:
        """None: there are too many distances to send; a resumed greedy repeats the rounds instead."""
        return

    def restore(self, state: GreedyState) -> None:
        """As `Shards.restore`."""
        replay(self, state)

    def release(self) -> None:
        """Free the workers' memory after the greedy."""
        for _ in self._call_all("release_shards", lambda _: ()):
            pass
        self._assignments.clear()

    def _call_all(
        self,
        method: str,
        arguments: Callable[[_Assignment], tuple[Any, ...]],
        is_needed: Callable[[_Assignment], NDArray[np.bool_]] = lambda _: np.ones(1, dtype=bool),
    ) -> list[tuple[_Assignment, Any]]:
        """Call a method on every worker with points; all calls are repeated where a worker was lost.

        A call may run twice: reading changes nothing, and a center counts once.
        """
        while True:
            self._restore()
            calls = [
                Call(assignment.worker, number, method, arguments(assignment))
                for number, assignment in self._assignments.items()
                if is_needed(assignment).any()
            ]
            replies: list[Reply[int]] = list(self._features.pool.call_all(calls))
            if not any(reply.lost for reply in replies):
                return [(self._assignments[reply.key], reply.value) for reply in replies]

    def _restore(self) -> None:
        """Assign the runs of lost workers again."""
        present = {worker.number for worker in self._features.pool.workers}
        while lost := [number for number in self._assignments if number not in present]:
            runs = [run for number in lost for run in self._assignments[number].runs]
            chunks = sorted({part.chunk for run in runs for part in run.parts})
            for number in lost:
                del self._assignments[number]
            self._assign(chunks)
            present = {worker.number for worker in self._features.pool.workers}

    def _assign(self, chunks: Iterable[int]) -> None:
        """Load the runs of these chunks on the workers that have the features, and repeat all rounds so far."""
        todo = sorted(chunks)
        while todo:
            self._features.restore()
            owners = {chunk: self._features.owners[chunk].number for chunk in todo}
            workers = {worker.number: worker for worker in self._features.pool.workers}
            runs = runs_of(todo, owners, self._first_points, projected_features.BLOCK_ROWS)
            failed: set[int] = set()
            for run in runs:
                number = owners[run.parts[0].chunk]
                if self._load(workers[number], run):
                    self._assignments.setdefault(number, _Assignment(workers[number])).runs.append(run)
                else:
                    failed |= {part.chunk for part in run.parts}
            todo = sorted(failed)

    def _load(self, worker: Worker, run: Run) -> bool:
        """Load a run; False where the worker was lost meanwhile."""
        parts = tuple((self._projection_task(part.chunk), part.start, part.stop) for part in run.parts)
        tail = tuple(self._points(part) for part in run.tail)
        load = Call(worker, 0, "load_shards", (run.first, parts, tail, self._mean, SHARD_ROWS, self._on_disk))
        rounds = (Call(worker, 0, "update", (*self._put(picks), run.first)) for picks in self._rounds)
        # One call after the other: a worker runs them in order.
        return all(not reply.lost for call in (load, *rounds) for reply in self._features.pool.call_all([call]))

    def _points(self, part: ChunkRange) -> NDArray[np.float32]:
        """Points of a chunk, from the worker that has it."""
        arguments = (self._projection_task(part.chunk), part.start, part.stop)
        ((_, values),) = self._features.call_owners("points", lambda _: arguments, [part.chunk])
        self.traffic.received += values.nbytes
        return np.asarray(values)

    def _measure_mean(self) -> NDArray[np.float32]:
        """The mean of all points, summed photograph by photograph as on one machine."""
        sums = dict(self._features.call_owners("project", lambda chunk: (self._projection_task(chunk),)))
        total = torch.zeros(self._target, dtype=torch.float64)
        for chunk in range(len(sums)):
            for photo in sums[chunk]:
                total += torch.from_numpy(photo.copy())
        return (total / self.total).float().numpy()

    def _projection_task(self, chunk: int) -> ProjectionTask:
        sample = None
        if self._sample is not None:
            start, stop = self._first_points[chunk : chunk + 2]
            sample = self._sample[start:stop] - self._chunk_rows[chunk]
        return ProjectionTask(self._features.subset(chunk), self._config, self._target, sample)

    def _put(self, picks: tuple[NDArray[np.int64], NDArray[np.float32]]) -> tuple[Any, Any]:
        return self._features.pool.put(picks[0]), self._features.pool.put(picks[1])
