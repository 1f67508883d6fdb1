"""The greedy's shards on the workers: `Shards` for the driver, whose round is three exchanges with all of them.

    farthest  in   rows and squared distances, the T + 1 largest of each worker
    take      in   the points of the T winners, each from the worker that has it
    update    out  the round's picks, rows and points

A worker that is lost takes its shards along.  Its pieces are made again elsewhere, the rounds so far are done
again on them, each with the product it was done with, and the round goes on: the picks are the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.crew import Answer, Ask, Member
from cluster.features import ClusterFeatures
from cluster.messages import Projecting
from cluster.point_worker import in_torch
from cluster.runs import Part, Run, runs_of
from indexer.coreset import projected_features
from indexer.coreset.k_center import Farthest, GreedyState, farthest_of, replay
from indexer.coreset.selection import SHARD_ROWS, projected_dimension
from resad.config import CoresetConfig

_CPU = torch.device("cpu")


@dataclass
class Traffic:
    """Bytes that the driver has received and sent: rows, distances and points, not what wraps them."""

    received: int = 0
    sent: int = 0


@dataclass
class _Held:
    """Which runs a worker holds."""

    member: Member
    runs: list[Run] = field(default_factory=list)


class RemoteShards:
    """All points of the greedy, held by the workers that made their features.

    Args:
        features: settled.
        sample: the rows that are looked at; None for all.
        on_disk: the points stay on the workers' disks.
    """

    def __init__(
        self, features: ClusterFeatures, config: CoresetConfig, sample: NDArray[np.int64] | None, *, on_disk: bool
    ) -> None:
        rows = features.piece_rows
        self._features, self._config, self._sample, self._on_disk = features, config, sample, on_disk
        self._piece_rows = rows.tolist()
        self._first_points = (rows if sample is None else np.searchsorted(sample, rows)).tolist()
        self._target = projected_dimension(config, self.total, features.dimension)
        self._held: dict[int, _Held] = {}
        self._rounds: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self.traffic = Traffic()
        self._mean = self._measure_mean()
        self._hold(range(len(features.pieces)))

    @property
    def total(self) -> int:
        """As `Shards.total`."""
        return int(self._first_points[-1])

    @property
    def runs(self) -> int:
        """How many runs of pieces are held, by all workers."""
        return sum(len(held.runs) for held in self._held.values())

    def farthest(self, count: int) -> Farthest:
        """As `Shards.farthest`."""
        found = [value for _, value in self._everywhere("farthest", lambda _: (count,))]
        self.traffic.received += sum(rows.nbytes + squared.nbytes for rows, squared in found)
        return farthest_of([Farthest(in_torch(rows), in_torch(squared)) for rows, squared in found], count, _CPU)

    def take(self, rows: Tensor) -> Tensor:
        """As `Shards.take`."""
        asked = rows.numpy()
        taken = torch.empty((len(asked), self._target))

        def here(held: _Held) -> NDArray[np.bool_]:
            inside = [(asked >= run.first) & (asked < run.stop) for run in held.runs]
            return np.asarray(np.any(inside, axis=0))

        for held, values in self._everywhere("take", lambda held: (asked[here(held)],), here):
            taken.numpy()[here(held)] = values
            self.traffic.received += values.nbytes
        return taken

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """As `Shards.update`."""
        picks = (rows.numpy().copy(), centers.numpy().copy())
        # Noted before anybody is asked: whoever is lost meanwhile comes back with this round done.
        self._rounds.append(picks)
        shared = self._share(picks)
        for _ in self._everywhere("update", lambda _: shared):
            self.traffic.sent += sum(part.nbytes for part in picks)

    def distances(self) -> None:
        """Too many to be sent: the rounds are done again instead."""
        return

    def take_up(self, progress: GreedyState) -> None:
        """As `Shards.take_up`."""
        replay(self, progress)

    def let_go(self) -> None:
        """The greedy is over: the workers need no memory for it."""
        for _ in self._everywhere("let_go", lambda _: ()):
            pass
        self._held.clear()

    def _everywhere(
        self,
        method: str,
        arguments: Callable[[_Held], tuple[Any, ...]],
        wanted: Callable[[_Held], NDArray[np.bool_]] = lambda _: np.ones(1, dtype=bool),
    ) -> list[tuple[_Held, Any]]:
        """Ask every worker that holds points (and is `wanted`); asked anew from the start where one was lost.

        Whatever is asked may be asked twice: looking changes nothing, and a center counts once.
        """
        while True:
            self._make_whole()
            asks = [
                Ask(held.member, number, method, arguments(held))
                for number, held in self._held.items()
                if wanted(held).any()
            ]
            answers: list[Answer[int]] = list(self._features.crew.ask(asks))
            if not any(answer.lost for answer in answers):
                return [(self._held[answer.key], answer.value) for answer in answers]

    def _make_whole(self) -> None:
        """Hold again what was held by workers that are no more."""
        present = {member.number for member in self._features.crew.members}
        while lost := [number for number in self._held if number not in present]:
            pieces = sorted({part.piece for number in lost for run in self._held[number].runs for part in run.own})
            for number in lost:
                del self._held[number]
            self._hold(pieces)
            present = {member.number for member in self._features.crew.members}

    def _hold(self, pieces: Iterable[int]) -> None:
        """Have runs of these pieces held, wherever their features are, with all rounds so far done on them."""
        todo = sorted(pieces)
        while todo:
            self._features.again()
            homes = {piece: self._features.homes[piece].number for piece in todo}
            members = {member.number: member for member in self._features.crew.members}
            runs = runs_of(todo, homes, self._first_points, projected_features.BLOCK_ROWS)
            failed: set[int] = set()
            for run in runs:
                number = homes[run.own[0].piece]
                if self._held_by(members[number], run):
                    self._held.setdefault(number, _Held(members[number])).runs.append(run)
                else:
                    failed |= {part.piece for part in run.own}
            todo = sorted(failed)

    def _held_by(self, member: Member, run: Run) -> bool:
        """False where the worker was lost meanwhile."""
        own_parts = tuple((self._projecting(part.piece), part.start, part.stop) for part in run.own)
        tail = tuple(self._points(part) for part in run.tail)
        hold = Ask(member, 0, "hold", (run.first, own_parts, tail, self._mean, SHARD_ROWS, self._on_disk))
        rounds = (Ask(member, 0, "update", (*self._share(picks), run.first)) for picks in self._rounds)
        # One after the other: a worker does what it is told in order.
        return all(not answer.lost for ask in (hold, *rounds) for answer in self._features.crew.ask([ask]))

    def _points(self, part: Part) -> NDArray[np.float32]:
        """The points of a part, from whoever has the piece."""
        arguments = (self._projecting(part.piece), part.start, part.stop)
        ((_, values),) = self._features.each("points", lambda _: arguments, [part.piece])
        self.traffic.received += values.nbytes
        return np.asarray(values)

    def _measure_mean(self) -> NDArray[np.float32]:
        """The mean of all points, added up photograph by photograph as on one machine."""
        asks = self._features.each("project", lambda piece: (self._projecting(piece),))
        sums = dict(asks)
        whole = torch.zeros(self._target, dtype=torch.float64)
        for piece in range(len(sums)):
            for photo in sums[piece]:
                whole += torch.from_numpy(photo.copy())
        return (whole / self.total).float().numpy()

    def _projecting(self, piece: int) -> Projecting:
        sample = None
        if self._sample is not None:
            start, stop = self._first_points[piece : piece + 2]
            sample = self._sample[start:stop] - self._piece_rows[piece]
        return Projecting(self._features.chosen(piece), self._config, self._target, sample)

    def _share(self, picks: tuple[NDArray[np.int64], NDArray[np.float32]]) -> tuple[Any, Any]:
        return self._features.crew.share(picks[0]), self._features.crew.share(picks[1])
