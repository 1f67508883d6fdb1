"""Greedy k-centre selection, exact, block by block (Sener & Savarese 2018).

D[x] is the distance from x to its nearest chosen center.  D only falls, so a stale D is an upper bound.  A round
takes the T points with the largest D as candidates and tau, the largest D of all others; it runs the greedy among
the candidates while the farthest of them is beyond tau, since each such pick is the farthest point of all; then it
updates every point against the round's picks with one matrix product.  The picks are those of the textbook loop.

Points lie in shards, which may be on other machines.  The host finds the picks of a round from the candidates'
distances to each other, wherever these were computed: a step takes two microseconds there, and tens if it starts a
GPU's kernels.  So a device is waited for a few times a round, never for a pick.
Ties go to the lowest row.  In float64 the order of the picks is the textbook's.  In float32 a near-tie may fall
the other way, and once every distinct point is a center its doubles may follow; but the same way every time:
products are made in blocks of fixed shape, so that shards split at multiples of `BLOCK_ROWS` give the same picks,
however many there are, wherever they are, and however often the greedy was interrupted and resumed.
"""

import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.files import replacing
from torch import Tensor

from indexer.coreset.projected_features import MemoryPoints, Points
from resad.device import full_float32
from resad.errors import SettingError


@dataclass(frozen=True, slots=True, eq=False)
class GreedyState:
    """The greedy between two rounds, with which it resumes as if it had never stopped.

    rows: int64 (m,), the picks so far.  squared: (N,), every point's squared distance to the nearest pick; None if
    the rounds are to be repeated instead.  candidates: T of the next round.  rounds: picks of each round, counted.
    """

    rows: NDArray[np.int64]
    squared: NDArray[np.floating] | None
    candidates: int
    rounds: tuple[int, ...] = ()


class Farthest(NamedTuple):
    """The points farthest from their nearest center: global rows, int64 (t,) ascending; squared distances (t,)."""

    rows: Tensor
    squared: Tensor


class Shards(Protocol):
    """All points of a greedy, on any machine; rows are global."""

    @property
    def total(self) -> int:
        """Number of points, N."""

    def farthest(self, count: int) -> Farthest:
        """The `count` points (or all) with the largest distance; of equal ones the lowest rows."""

    def take(self, rows: Tensor) -> Tensor:
        """The points (t, d) at `rows` (t,)."""

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """Add the points `centers` (b, d) at `rows` (b,) to the centers."""

    def distances(self) -> NDArray[np.floating] | None:
        """The squared distances (N,), for `GreedyState`."""

    def restore(self, state: GreedyState) -> None:
        """Set the distances of fresh points to those of `state`."""


class Shard:
    """Points with the squared distance to their nearest center so far.

    Args:
        points: (n, d), centered by the caller so that little cancels.
        first_row: the global row of the first point.
    """

    def __init__(self, points: Points, first_row: int) -> None:
        self._points = points
        with full_float32():
            self._norms = torch.cat([torch.einsum("nd,nd->n", block, block) for _, block in points.blocks()])
        self.first_row = first_row
        self.squared = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)

    def __len__(self) -> int:
        return len(self._points)

    def farthest(self, count: int) -> Farthest:
        """The `count` points (or all) with the largest distance; ties by row."""
        count, size = min(count, len(self)), len(self)
        floor = torch.topk(self.squared, count, sorted=False).values.min()
        # topk may take any of several equal values; ties at the floor must go to the lowest rows.  How many lie
        # above it is left to the device, which else would have to be waited for: `size` stands for no row.
        higher = self.squared > floor
        above = torch.nonzero_static(higher, size=count, fill_value=size)[:, 0]
        level = torch.nonzero_static(self.squared == floor, size=count, fill_value=size)[:, 0]
        places = torch.arange(count, device=level.device)
        level = level.masked_fill(places >= count - higher.sum(), size)
        local = torch.cat([above, level]).sort().values[:count]
        return Farthest(local + self.first_row, self.squared[local])

    def take(self, rows: Tensor) -> Tensor:
        """The points (t, d) at global rows of this shard."""
        return self._points.take(rows.to(self.squared.device) - self.first_row)

    @full_float32()
    def update(self, rows: Tensor, centers: Tensor) -> None:
        """Add the points `centers` (b, d) at the global `rows` (b,) to the centers."""
        center_norms = torch.einsum("bd,bd->b", centers, centers)
        products = torch.empty(0, dtype=self.squared.dtype, device=self.squared.device)
        for rows_of_block, block in self._points.blocks():
            if len(products) < len(block):
                products = products.new_empty((len(block), len(centers)))
            product = products[: len(block)]  # one buffer for all blocks: these are the largest of the greedy
            torch.addmm(
                center_norms, block, centers.T, alpha=-2, out=product
            )  # (rows, b), without the rows' norms
            nearest = product.amin(dim=1) + self._norms[rows_of_block]
            self.squared[rows_of_block] = torch.minimum(self.squared[rows_of_block], nearest.clamp_(min=0))
        # The product leaves a center a rounding error away from itself; nothing may be picked twice.  Rows of
        # other shards change nothing, which needs no look at where they are and so no wait for the device.
        local = rows - self.first_row
        inside = (local >= 0) & (local < len(self))
        zero = torch.zeros(len(rows), dtype=self.squared.dtype, device=self.squared.device)
        zero.masked_fill_(~inside, torch.inf)
        self.squared.scatter_reduce_(0, local.clamp(0, len(self) - 1), zero, "amin")


class LocalShards:
    """Shards of this process; without a cluster these are all shards.

    Args:
        shards: at least one, each with a fresh distance (no center yet).
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._device = shards[0].squared.device

    @property
    def total(self) -> int:
        """As `Shards.total`, of these shards."""
        return sum(map(len, self._shards))

    def farthest(self, count: int) -> Farthest:
        """As `Shards.farthest`."""
        return farthest_of([shard.farthest(count) for shard in self._shards], count, self._device)

    def take(self, rows: Tensor) -> Tensor:
        """As `Shards.take`; all rows must be in these shards."""
        host_rows, parts, places = rows.cpu(), [], []
        for shard in self._shards:
            inside = (host_rows >= shard.first_row) & (host_rows < shard.first_row + len(shard))
            place = torch.nonzero(inside)[:, 0]
            if len(place):
                parts.append(shard.take(host_rows[place]).to(self._device))
                places.append(place)
        return torch.cat(parts)[torch.cat(places).argsort().to(self._device)]

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """As `Shards.update`."""
        # Once to each device, and all copies before any work: a copy waits for what its device was given before.
        devices = {shard.squared.device for shard in self._shards}
        copies = {device: (rows.to(device), centers.to(device)) for device in devices}
        for shard in self._shards:
            shard.update(*copies[shard.squared.device])

    def distances(self) -> NDArray[np.floating]:
        """As `Shards.distances`."""
        return np.concatenate([shard.squared.cpu().numpy() for shard in self._shards])

    def restore(self, state: GreedyState) -> None:
        """As `Shards.restore`."""
        if state.squared is None:
            replay(self, state)
            return
        start = 0
        for shard in self._shards:
            shard.squared.copy_(torch.from_numpy(state.squared[start : start + len(shard)]))
            start += len(shard)


def replay(shards: Shards, state: GreedyState) -> None:
    """Repeat the rounds of `state`, each with the same matrix product: the same distances to the bit."""
    for picks in torch.split(torch.from_numpy(state.rows), list(state.rounds)):
        shards.update(picks, shards.take(picks))


def farthest_of(parts: Sequence[Farthest], count: int, device: torch.device) -> Farthest:
    """The `count` farthest points of several shards.  parts: the `count` farthest of each shard."""
    rows = torch.cat([part.rows.to(device) for part in parts])
    by_row = rows.argsort()
    rows, squared = rows[by_row], torch.cat([part.squared.to(device) for part in parts])[by_row]
    best = torch.sort(squared, descending=True, stable=True).indices[:count].sort().values  # ties by row
    return Farthest(rows[best], squared[best])


def shards_of(points: Tensor, size: int, *, block: int | None = None) -> LocalShards:
    """`points` (n, d), centered, as shards of `size` rows.  block: rows in a block; `BLOCK_ROWS` unless given."""
    centered = points - points.mean(dim=0)
    return LocalShards([Shard(MemoryPoints(centered[start : start + size], block), start)
                       for start in range(0, len(points), size)])  # fmt: skip


_MIN_CANDIDATES: Final = 128
_MAX_CANDIDATES: Final = 2048
"""Bounds of the number of candidates T: there are (T, T) distances in memory."""
_POINTS_A_CANDIDATE: Final = 400
"""Points for each candidate at the least: where a round has many points to read, more candidates make fewer rounds
(20 in place of 41 with 1.3 million points and 1,300 picks, 22 in place of 38 with 434,000 and 868)."""


class Coreset(NamedTuple):
    """rows: int64 (m,), global rows in the order of the picks.

    radius: the largest distance from any point to its nearest pick (covering radius), feature units.
    """

    rows: NDArray[np.int64]
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of a round: global rows, int64 (t,) ascending; squared distances (t,); points (t, d).

    Rows and distances are on the host, the points on the shards' device.
    """

    rows: Tensor
    squared: Tensor
    points: Tensor


def greedy_k_center(
    shards: Shards,
    first: int,
    *,
    count: int | None = None,
    radius: float | None = None,
    on_picks: Callable[[int], None] = lambda _: None,
    resume_from: GreedyState | None = None,
    on_round: Callable[[Callable[[], GreedyState]], None] = lambda _: None,
) -> Coreset:
    """Pick centers until there are `count`, or until none is farther than `radius` from its nearest.

    Args:
        shards: all points, with fresh distances (no center yet).
        first: the global row of the first center.
        on_picks: called with the number of new picks after every round.
        resume_from: the state of an earlier call with the same points and `first`, or that of
            `from_existing_centers`, which needs no first center.
        on_round: called after every round with a function that makes the `GreedyState`.
    Raises:
        SettingError: neither or both limits, or more centers than points.
    """
    total = shards.total
    if (count is None) == (radius is None):
        raise SettingError("the greedy stops at a count or at a radius, one of the two")
    if count is not None and not 1 <= count <= total:
        raise SettingError(f"a coreset of {count} of {total} patches: the count lies between 1 and {total}")
    limit = total if count is None else count
    floor = 0.0 if radius is None else radius**2
    state = _first_center(shards, first) if resume_from is None else _restored(shards, resume_from)
    fewest = min(max(total // _POINTS_A_CANDIDATE, _MIN_CANDIDATES), _MAX_CANDIDATES)
    picks, candidates, rounds = state.rows.tolist(), max(state.candidates, fewest), list(state.rounds)
    del state, resume_from  # as long as the points, and in the shards now
    on_picks(len(picks))
    while len(picks) < limit:
        pool, tau = _candidates(shards, candidates)
        if float(pool.squared.max()) <= floor:
            break
        chosen = _greedy_among(pool, max(tau, floor), limit - len(picks))
        picks += pool.rows[chosen].tolist()
        rounds.append(len(chosen))
        shards.update(pool.rows[chosen], pool.points[chosen])
        candidates = _adapt(candidates, len(chosen), fewest)
        on_round(partial(_state, shards, picks, candidates, rounds))
        on_picks(len(chosen))
    return Coreset(np.asarray(picks, dtype=np.int64), float(shards.farthest(1).squared) ** 0.5)


def from_existing_centers(squared: NDArray[np.floating]) -> GreedyState:
    """Start from existing centers that are not among the points.

    squared: (N,), each point's squared distance to the nearest of them.
    """
    return GreedyState(np.empty(0, dtype=np.int64), squared, _MIN_CANDIDATES)


def _first_center(shards: Shards, first: int) -> GreedyState:
    if not 0 <= first < shards.total:
        raise SettingError(f"the first pick {first} is not one of the {shards.total} patches")
    row = torch.tensor([first])
    shards.update(row, shards.take(row))
    return GreedyState(row.numpy(), None, _MIN_CANDIDATES, (1,))


def _restored(shards: Shards, state: GreedyState) -> GreedyState:
    shards.restore(state)
    return state


def _state(shards: Shards, picks: Sequence[int], candidates: int, rounds: Sequence[int]) -> GreedyState:
    return GreedyState(np.asarray(picks, dtype=np.int64), shards.distances(), candidates, tuple(rounds))


def _adapt(candidates: int, accepted: int, fewest: int) -> int:
    """More candidates while many of them are accepted, fewer when few are."""
    if accepted * 4 > candidates:
        return min(2 * candidates, _MAX_CANDIDATES)
    if accepted * 16 < candidates:
        return max(candidates // 2, fewest)
    return candidates


def _candidates(shards: Shards, count: int) -> tuple[Candidates, float]:
    """The `count` farthest points, by row, and the largest squared distance of all other points."""
    rows, squared = (values.cpu() for values in shards.farthest(count + 1))
    tau = -torch.inf
    if len(rows) > count:
        order = torch.sort(squared, descending=True, stable=True).indices  # ties by row
        tau = float(squared[order[count]])
        best = order[:count].sort().values
        rows, squared = rows[best], squared[best]
    return Candidates(rows, squared, shards.take(rows)), tau


@full_float32()
def _greedy_among(pool: Candidates, tau: float, most: int) -> Tensor:
    """The textbook loop among the candidates while the farthest is beyond `tau`: int64, at least one pick."""
    norms = torch.einsum("nd,nd->n", pool.points, pool.points)
    products = torch.addmm(norms[:, None] + norms[None, :], pool.points, pool.points.T, alpha=-2)
    between = _to_host(products.clamp_(min=0))  # (t, t)
    squared = pool.squared.numpy().copy()
    chosen: list[int] = []
    farthest = int(squared.argmax())  # the first of several equal ones: the lowest row
    while len(chosen) < most and (not chosen or squared[farthest] > tau):
        chosen.append(farthest)
        np.minimum(squared, between[farthest], out=squared)
        squared[farthest] = 0
        farthest = int(squared.argmax())
    return torch.tensor(chosen)


def _to_host(values: Tensor) -> NDArray[np.floating]:
    """Copy into pinned memory, at the full rate of the bus; torch keeps that memory for the next copy."""
    if values.device.type != "cpu":
        values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)
    array: NDArray[np.floating] = values.numpy()
    return array


_SECONDS: Final = 20.0
"""Between two checkpoints, of 4 bytes a patch; at most this much work is repeated."""

_UNREADABLE: Final = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
"""Errors of NumPy for a damaged file; zip files have two more."""


class Checkpoint:
    """A file with the last `GreedyState` of a running greedy, so that an interrupted build resumes in its round.

    Args:
        path: of the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Callable[[], GreedyState] | None = None
        self._written = time.monotonic()

    def read(self, points: int, first: int) -> GreedyState | None:
        """The last state, if it is intact and of a greedy over so many points that started at `first`.

        It is read from disk every time and not kept: it has 4 bytes a patch.
        """
        state = _read(self._path)
        return state if state is not None and _fits(state, points, first) else None

    def on_round(self, make: Callable[[], GreedyState]) -> None:
        """Remember the state of this round; write it if it is time."""
        self._last = make
        if time.monotonic() - self._written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the last state that was remembered."""
        if self._last is None:
            return
        state = self._last()
        with replacing(self._path) as part, part.open("wb") as file:
            rows, rounds = state.rows, np.array(state.rounds, dtype=np.int64)
            if state.squared is None:
                np.savez(file, rows=rows, rounds=rounds, candidates=state.candidates)
            else:
                np.savez(file, rows=rows, rounds=rounds, candidates=state.candidates, squared=state.squared)
        self._last, self._written = None, time.monotonic()


def _read(path: Path) -> GreedyState | None:
    """None for a damaged file: the greedy then starts over, which costs only time."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            squared = arrays.get("squared")
            return GreedyState(
                arrays["rows"], squared, int(arrays["candidates"]), tuple(arrays["rounds"].tolist())
            )
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error):
        return None


def _fits(state: GreedyState, points: int, first: int) -> bool:
    rows, squared = state.rows, state.squared
    if squared is None or state.rounds:
        rounds_fit = sum(state.rounds) == len(rows) and min(state.rounds, default=0) > 0
        if not rounds_fit:
            return False
    if squared is not None and not _are_distances(squared, points):
        return False
    return bool(
        rows.ndim == 1
        and np.issubdtype(rows.dtype, np.integer)
        and 0 < len(rows) <= points
        and rows[0] == first
        and rows.min() >= 0
        and rows.max() < points
        and state.candidates > 0
    )


def _are_distances(squared: NDArray[np.floating], points: int) -> bool:
    """Whether these are squared distances of so many points; false for NaN."""
    return bool(squared.shape == (points,) and np.issubdtype(squared.dtype, np.floating) and squared.min() >= 0)
