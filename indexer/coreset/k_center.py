"""Greedy k-centre selection, exact, block by block (Sener & Savarese 2018).

D[x] is the distance from x to its nearest chosen center.  D only falls, so a stale D is an upper bound.  A round
takes the T points with the largest D as candidates and tau, the largest D of all others; it runs the greedy among
the candidates while the farthest of them is beyond tau, since each such pick is the farthest point of all; then it
updates every point against the round's picks with one matrix product.  The picks are those of the textbook loop.

Points lie in shards (`indexer.coreset.k_center`), which can live elsewhere.  The picks of a round are found on the host,
from the candidates' distances to each other, wherever these were computed: a step takes two microseconds there,
and tens where it only starts a GPU's kernels.  So a device is waited for a few times a round, never for a pick.
Ties go to the lowest row.  In float64 the order of the picks is the textbook's.  In float32 a near-tie may fall
the other way, and once every distinct point is a center its doubles may follow; but the same way every time:
products are made in blocks of fixed shape, so that shards cut at multiples of `BLOCK_ROWS` give the same picks
however many there are, wherever they are kept, and however often the greedy was stopped and taken up again.
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
from torch import Tensor

from indexer.coreset.projected_features import MemoryPoints, Points
from resad.device import full_float32
from resad.errors import SettingError


@dataclass(frozen=True, slots=True, eq=False)
class GreedyState:
    """The greedy between two rounds: all that is needed to go on as if it had never stopped.

    rows: int64 (m,), the picks so far.  squared: (N,), every point's squared distance to the nearest of them;
    None where the rounds are done again instead.  candidates: T of the next round.  rounds: picks of each round,
    in order.
    """

    rows: NDArray[np.int64]
    squared: NDArray[np.floating] | None
    candidates: int
    rounds: tuple[int, ...] = ()


class Farthest(NamedTuple):
    """The points that are farthest from their nearest center: global rows, int64 (t,) ascending; squared (t,)."""

    rows: Tensor
    squared: Tensor


class Shards(Protocol):
    """All points of a greedy, wherever they are; rows are global."""

    @property
    def total(self) -> int:
        """N."""

    def farthest(self, count: int) -> Farthest:
        """The `count` points (or all) with the largest distance; of equal ones the lowest rows."""

    def take(self, rows: Tensor) -> Tensor:
        """The points (t, d) at `rows` (t,)."""

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """Let the points `centers` (b, d) at `rows` (b,) join the chosen ones."""

    def distances(self) -> NDArray[np.floating] | None:
        """The squared distances (N,), for `GreedyState`."""

    def take_up(self, progress: GreedyState) -> None:
        """Bring fresh points to where `progress` was."""


class Shard:
    """Points with the squared distance to their nearest center so far.

    Args:
        points: (n, d), centered by the caller so that little cancels.
        first_row: the global row of the first.
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
        """Let the points `centers` (b, d) at the global `rows` (b,) join the chosen ones."""
        center_norms = torch.einsum("bd,bd->b", centers, centers)
        products = torch.empty(0, dtype=self.squared.dtype, device=self.squared.device)
        for some, block in self._points.blocks():
            if len(products) < len(block):
                products = products.new_empty((len(block), len(centers)))
            apart = products[: len(block)]  # one buffer for all blocks: these are the largest of the greedy
            torch.addmm(center_norms, block, centers.T, alpha=-2, out=apart)  # (rows, b), less the rows' norms
            nearest = apart.amin(dim=1) + self._norms[some]
            self.squared[some] = torch.minimum(self.squared[some], nearest.clamp_(min=0))
        # The product leaves a center a rounding error away from itself; nothing may be picked twice.  Rows of
        # other shards change nothing, which needs no look at where they are and so no wait for the device.
        local = rows - self.first_row
        here = (local >= 0) & (local < len(self))
        zero = torch.zeros(len(rows), dtype=self.squared.dtype, device=self.squared.device)
        self.squared.scatter_reduce_(0, local.clamp(0, len(self) - 1), zero.masked_fill_(~here, torch.inf), "amin")


class LocalShards:
    """Shards of this process, as `Shards`; on one machine they are all there are.

    Args:
        shards: at least one, each with a fresh distance (no center yet).
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._device = shards[0].squared.device

    @property
    def total(self) -> int:
        """As `Shards.total`: of what is here."""
        return sum(map(len, self._shards))

    def farthest(self, count: int) -> Farthest:
        """As `Shards.farthest`."""
        return farthest_of([shard.farthest(count) for shard in self._shards], count, self._device)

    def take(self, rows: Tensor) -> Tensor:
        """As `Shards.take`; all rows must be here."""
        asked, parts, places = rows.cpu(), [], []
        for shard in self._shards:
            here = torch.nonzero((asked >= shard.first_row) & (asked < shard.first_row + len(shard)))[:, 0]
            if len(here):
                parts.append(shard.take(asked[here]).to(self._device))
                places.append(here)
        return torch.cat(parts)[torch.cat(places).argsort().to(self._device)]

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """As `Shards.update`."""
        # Once to each device, and all copies before any work: a copy waits for what its device was given before.
        devices = {shard.squared.device for shard in self._shards}
        there = {device: (rows.to(device), centers.to(device)) for device in devices}
        for shard in self._shards:
            shard.update(*there[shard.squared.device])

    def distances(self) -> NDArray[np.floating]:
        """As `Shards.distances`."""
        return np.concatenate([shard.squared.cpu().numpy() for shard in self._shards])

    def take_up(self, progress: GreedyState) -> None:
        """As `Shards.take_up`."""
        if progress.squared is None:
            replay(self, progress)
            return
        start = 0
        for shard in self._shards:
            shard.squared.copy_(torch.from_numpy(progress.squared[start : start + len(shard)]))
            start += len(shard)


def replay(shards: Shards, progress: GreedyState) -> None:
    """Do the rounds of `progress` again, each with the product it was done with: the same distances to the bit."""
    for picks in torch.split(torch.from_numpy(progress.rows), list(progress.rounds)):
        shards.update(picks, shards.take(picks))


def farthest_of(parts: Sequence[Farthest], count: int, device: torch.device) -> Farthest:
    """The `count` farthest among those of several shards, each of which has named as many of its own."""
    rows = torch.cat([part.rows.to(device) for part in parts])
    by_row = rows.argsort()
    rows, squared = rows[by_row], torch.cat([part.squared.to(device) for part in parts])[by_row]
    best = torch.sort(squared, descending=True, stable=True).indices[:count].sort().values  # ties by row
    return Farthest(rows[best], squared[best])


def shards_of(points: Tensor, size: int) -> LocalShards:
    """`points` (n, d), centered, as shards of `size` rows."""
    centered = points - points.mean(dim=0)
    return LocalShards([Shard(MemoryPoints(centered[start : start + size]), start)
                       for start in range(0, len(points), size)])  # fmt: skip


_FEWEST: Final = 128
_MOST: Final = 2048
"""Bounds of the number of candidates T: (T, T) distances are held."""


class Coreset(NamedTuple):
    """rows: int64 (m,), global rows in the order of the picks.

    radius: the largest distance from any point to its nearest pick (covering radius), feature units.
    """

    rows: NDArray[np.int64]
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a round picks from: global rows, int64 (t,) ascending; squared distances (t,); points (t, d).

    Rows and distances are on the host, the points where the shards compute.
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
    begun: GreedyState | None = None,
    on_round: Callable[[Callable[[], GreedyState]], None] = lambda _: None,
) -> Coreset:
    """Pick centers until there are `count`, or until none is farther than `radius` from its nearest.

    Args:
        shards: all points, with fresh distances (no center yet).
        first: the global row of the first center.
        on_picks: told the number of new picks after every round.
        begun: where an earlier call with the same points was, `first` among its picks; or `from_existing_centers`, which needs
            no first one.
        on_round: given, after every round, what makes the `GreedyState` to write down.
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
    begun = _begin(shards, first) if begun is None else _go_on(shards, begun)
    picks, candidates, rounds = begun.rows.tolist(), begun.candidates, list(begun.rounds)
    del begun  # as long as the points, and in the shards now
    on_picks(len(picks))
    while len(picks) < limit:
        field, tau = _candidates(shards, candidates)
        if float(field.squared.max()) <= floor:
            break
        chosen = _greedy_among(field, max(tau, floor), limit - len(picks))
        picks += field.rows[chosen].tolist()
        rounds.append(len(chosen))
        shards.update(field.rows[chosen], field.points[chosen])
        candidates = _adapt(candidates, len(chosen))
        on_round(partial(_progress, shards, picks, candidates, rounds))
        on_picks(len(chosen))
    return Coreset(np.asarray(picks, dtype=np.int64), float(shards.farthest(1).squared) ** 0.5)


def from_existing_centers(squared: NDArray[np.floating]) -> GreedyState:
    """A greedy whose centers so far are no points of its own: their squared distance to every point, (N,)."""
    return GreedyState(np.empty(0, dtype=np.int64), squared, _FEWEST)


def _begin(shards: Shards, first: int) -> GreedyState:
    if not 0 <= first < shards.total:
        raise SettingError(f"the first pick {first} is not one of the {shards.total} patches")
    row = torch.tensor([first])
    shards.update(row, shards.take(row))
    return GreedyState(row.numpy(), None, _FEWEST, (1,))


def _go_on(shards: Shards, begun: GreedyState) -> GreedyState:
    shards.take_up(begun)
    return begun


def _progress(shards: Shards, picks: Sequence[int], candidates: int, rounds: Sequence[int]) -> GreedyState:
    return GreedyState(np.asarray(picks, dtype=np.int64), shards.distances(), candidates, tuple(rounds))


def _adapt(candidates: int, accepted: int) -> int:
    """More candidates while many of them are accepted, fewer when few are."""
    if accepted * 4 > candidates:
        return min(2 * candidates, _MOST)
    if accepted * 16 < candidates:
        return max(candidates // 2, _FEWEST)
    return candidates


def _candidates(shards: Shards, count: int) -> tuple[Candidates, float]:
    """The `count` farthest points, by row, and the largest squared distance among the others."""
    rows, squared = (some.cpu() for some in shards.farthest(count + 1))
    tau = -torch.inf
    if len(rows) > count:
        order = torch.sort(squared, descending=True, stable=True).indices  # ties by row
        tau = float(squared[order[count]])
        best = order[:count].sort().values
        rows, squared = rows[best], squared[best]
    return Candidates(rows, squared, shards.take(rows)), tau


@full_float32()
def _greedy_among(field: Candidates, tau: float, most: int) -> Tensor:
    """The textbook loop among the candidates while the farthest is beyond `tau`: int64, at least one pick."""
    norms = torch.einsum("nd,nd->n", field.points, field.points)
    apart = torch.addmm(norms[:, None] + norms[None, :], field.points, field.points.T, alpha=-2)
    between = _on_host(apart.clamp_(min=0))  # (t, t)
    squared = field.squared.numpy().copy()
    chosen: list[int] = []
    farthest = int(squared.argmax())  # the first of several equal ones: the lowest row
    while len(chosen) < most and (not chosen or squared[farthest] > tau):
        chosen.append(farthest)
        np.minimum(squared, between[farthest], out=squared)
        squared[farthest] = 0
        farthest = int(squared.argmax())
    return torch.tensor(chosen)


def _on_host(values: Tensor) -> NDArray[np.floating]:
    """What is on a device comes in pinned memory, at the full rate of the bus; torch keeps that for the next."""
    if values.device.type != "cpu":
        values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)
    here: NDArray[np.floating] = values.numpy()
    return here


_SECONDS: Final = 20.0
"""Between two writings: a file of 4 bytes a patch, and at most so much to be done again."""

_UNREADABLE: Final = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
"""What NumPy raises, by what is wrong with a file; zip files have two more."""


class Checkpoint:
    """A file that holds the last `GreedyState` that was written, if any.

    Args:
        path: of the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Callable[[], GreedyState] | None = None
        self._written = time.monotonic()

    def begun(self, points: int, first: int) -> GreedyState | None:
        """What was written last, if it can be read and is of a greedy over so many points that began at `first`.

        It is read anew and not held: it has 4 bytes a patch.
        """
        progress = _read(self._path)
        return progress if progress is not None and _fits(progress, points, first) else None

    def on_round(self, make: Callable[[], GreedyState]) -> None:
        """Note where the greedy is; written if it is time."""
        self._last = make
        if time.monotonic() - self._written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was noted last; what was written before is whole until then."""
        if self._last is None:
            return
        progress, part = self._last(), self._path.with_suffix(".part")
        with part.open("wb") as file:
            rows, rounds = progress.rows, np.array(progress.rounds, dtype=np.int64)
            if progress.squared is None:
                np.savez(file, rows=rows, rounds=rounds, candidates=progress.candidates)
            else:
                np.savez(file, rows=rows, rounds=rounds, candidates=progress.candidates, squared=progress.squared)
        part.replace(self._path)
        self._last, self._written = None, time.monotonic()


def _read(path: Path) -> GreedyState | None:
    """None for whatever cannot be read: the greedy then begins again, which costs time alone."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            squared = arrays.get("squared")
            return GreedyState(
                arrays["rows"], squared, int(arrays["candidates"]), tuple(arrays["rounds"].tolist())
            )
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error):
        return None


def _fits(progress: GreedyState, points: int, first: int) -> bool:
    rows, squared = progress.rows, progress.squared
    if squared is None or progress.rounds:
        told = sum(progress.rounds) == len(rows) and min(progress.rounds, default=0) > 0
        if not told:
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
        and progress.candidates > 0
    )


def _are_distances(squared: NDArray[np.floating], points: int) -> bool:
    """Of so many points; false for NaN."""
    return bool(squared.shape == (points,) and np.issubdtype(squared.dtype, np.floating) and squared.min() >= 0)
