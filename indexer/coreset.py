"""Greedy k-centre selection, exact, block by block (Sener & Savarese 2018).

D[x] is the distance from x to its nearest chosen center.  D only falls, so a stale D is an upper bound.  A round
takes the T points with the largest D as candidates and tau, the largest D of all others; it runs the greedy among
the candidates while the farthest of them is beyond tau, since each such pick is the farthest point of all; then it
updates every point against the round's picks with one matrix product.  The picks are those of the textbook loop.

Points lie in shards.  A shard does two things, `farthest` and `update`, so that shards can live elsewhere.
Ties go to the lowest row.  In float64 the order of the picks is the textbook's.  In float32 a near-tie may fall
the other way, and once every distinct point is a center its doubles may follow; but the same way every time:
products are made in blocks of fixed shape, so that shards cut at multiples of `BLOCK_ROWS` give the same picks
however many there are, wherever they are kept, and however often the greedy was stopped and taken up again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.points import HeldPoints, Points
from resad.errors import SettingError

_FEWEST: Final = 128
_MOST: Final = 2048
"""Bounds of the number of candidates T: (T, T) distances are held."""
_STEPS: Final = 32
"""Picks between two looks at whether the inner loop is over, on a device that would have to be waited for."""


class Coreset(NamedTuple):
    """rows: int64 (m,), global rows in the order of the picks.

    radius: the largest distance from any point to its nearest pick (covering radius), feature units.
    """

    rows: NDArray[np.int64]
    radius: float


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """The greedy between two rounds: all that is needed to go on as if it had never stopped.

    rows: int64 (m,), the picks so far.  squared: (N,), every point's squared distance to the nearest of them.
    candidates: T of the next round.
    """

    rows: NDArray[np.int64]
    squared: NDArray[np.floating]
    candidates: int


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Points of one shard: their rows (int64, global, (t,)), squared distances (t,) and vectors (t, d)."""

    rows: Tensor
    squared: Tensor
    points: Tensor


class Shard:
    """Points with the squared distance to their nearest center so far.

    Args:
        points: (n, d), centered by the caller so that little cancels.
        first_row: the global row of the first.
    """

    def __init__(self, points: Points, first_row: int) -> None:
        self._points = points
        self._norms = torch.cat([torch.einsum("nd,nd->n", block, block) for _, block in points.blocks()])
        self._first_row = first_row
        self.squared = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)

    def farthest(self, count: int) -> Candidates:
        """The `count` points (or all) with the largest distance; ties by row."""
        count = min(count, len(self._points))
        floor = torch.topk(self.squared, count, sorted=False).values.min()
        # topk may take any of several equal values; ties at the floor must go to the lowest rows.
        above = torch.nonzero(self.squared > floor)[:, 0]
        level = torch.nonzero(self.squared == floor)[: count - len(above), 0]
        local = torch.cat([above, level]).sort().values
        return Candidates(local + self._first_row, self.squared[local], self._points.take(local))

    def update(self, rows: Tensor, centers: Tensor) -> None:
        """Let the points `centers` (b, d) at the global `rows` (b,) join the chosen ones."""
        center_norms = torch.einsum("bd,bd->b", centers, centers)
        for some, block in self._points.blocks():
            apart = torch.addmm(center_norms, block, centers.T, alpha=-2)  # (rows, b), less the rows' norms
            nearest = apart.amin(dim=1) + self._norms[some]
            self.squared[some] = torch.minimum(self.squared[some], nearest.clamp_(min=0))
        # The product leaves a center a rounding error away from itself; nothing may be picked twice.  Rows of
        # other shards change nothing, which needs no look at where they are and so no wait for the device.
        local = rows - self._first_row
        here = (local >= 0) & (local < len(self._points))
        zero = torch.zeros(len(rows), dtype=self.squared.dtype, device=self.squared.device)
        self.squared.scatter_reduce_(
            0, local.clamp(0, len(self._points) - 1), zero.masked_fill_(~here, torch.inf), "amin"
        )

    def point(self, row: int) -> Tensor | None:
        """The point (1, d) at a global row, if it is in this shard."""
        local = row - self._first_row
        if not 0 <= local < len(self._points):
            return None
        return self._points.take(torch.tensor([local], device=self._points.device))


def shards_of(points: Tensor, size: int) -> list[Shard]:
    """`points` (n, d), centered, as shards of `size` rows."""
    centered = points - points.mean(dim=0)
    return [Shard(HeldPoints(centered[start : start + size]), start) for start in range(0, len(points), size)]


def greedy_k_center(
    shards: Sequence[Shard],
    first: int,
    *,
    count: int | None = None,
    radius: float | None = None,
    on_picks: Callable[[int], None] = lambda _: None,
    begun: Progress | None = None,
    on_round: Callable[[Callable[[], Progress]], None] = lambda _: None,
) -> Coreset:
    """Pick centers until there are `count`, or until none is farther than `radius` from its nearest.

    Args:
        shards: together all points, each with a fresh distance (no center yet).
        first: the global row of the first center.
        on_picks: told the number of new picks after every round.
        begun: where an earlier call with the same points was, `first` among its picks; or `beside`, which needs
            no first one.
        on_round: given, after every round, what makes the `Progress` to write down.
    Raises:
        SettingError: neither or both limits, or more centers than points.
    """
    total = sum(len(shard.squared) for shard in shards)
    if (count is None) == (radius is None):
        raise SettingError("the greedy stops at a count or at a radius, one of the two")
    if count is not None and not 1 <= count <= total:
        raise SettingError(f"a coreset of {count} of {total} patches: the count lies between 1 and {total}")
    limit = total if count is None else count
    floor = 0.0 if radius is None else radius**2
    begun = begun or _first_pick(shards, first, total)
    _restore(shards, begun.squared)
    picks, candidates = begun.rows.tolist(), begun.candidates
    del begun  # as long as the points, and in the shards now
    on_picks(len(picks))
    while len(picks) < limit:
        field, tau = _candidates(shards, candidates)
        if float(field.squared.max()) <= floor:
            break
        chosen = _greedy_among(field, max(tau, floor), limit - len(picks))
        picks += field.rows[chosen].tolist()
        _update_all(shards, field.rows[chosen], field.points[chosen])
        candidates = _adapt(candidates, len(chosen))
        on_round(partial(_progress, shards, picks, candidates))
        on_picks(len(chosen))
    covering = max(float(shard.squared.max()) for shard in shards) ** 0.5
    return Coreset(np.asarray(picks, dtype=np.int64), covering)


def beside(squared: NDArray[np.floating]) -> Progress:
    """A greedy whose centers so far are no points of its own: their squared distance to every point, (N,)."""
    return Progress(np.empty(0, dtype=np.int64), squared, _FEWEST)


def _first_pick(shards: Sequence[Shard], first: int, total: int) -> Progress:
    start = next((point for shard in shards if (point := shard.point(first)) is not None), None)
    if start is None:
        raise SettingError(f"the first pick {first} is not one of the {total} patches")
    _update_all(shards, torch.tensor([first], device=start.device), start)
    return _progress(shards, [first], _FEWEST)


def _progress(shards: Sequence[Shard], picks: Sequence[int], candidates: int) -> Progress:
    squared = np.concatenate([shard.squared.cpu().numpy() for shard in shards])
    return Progress(np.asarray(picks, dtype=np.int64), squared, candidates)


def _restore(shards: Sequence[Shard], squared: NDArray[np.floating]) -> None:
    start = 0
    for shard in shards:
        shard.squared.copy_(torch.from_numpy(squared[start : start + len(shard.squared)]))
        start += len(shard.squared)


def _adapt(candidates: int, accepted: int) -> int:
    """More candidates while many of them are accepted, fewer when few are."""
    if accepted * 4 > candidates:
        return min(2 * candidates, _MOST)
    if accepted * 16 < candidates:
        return max(candidates // 2, _FEWEST)
    return candidates


def _update_all(shards: Sequence[Shard], rows: Tensor, centers: Tensor) -> None:
    for shard in shards:
        device = shard.squared.device
        shard.update(rows.to(device), centers.to(device))


def _candidates(shards: Sequence[Shard], count: int) -> tuple[Candidates, float]:
    """The `count` farthest points of all shards, by row, and the largest squared distance among the others."""
    found = [shard.farthest(count + 1) for shard in shards]
    device = found[0].squared.device
    rows = torch.cat([part.rows.to(device) for part in found])
    squared = torch.cat([part.squared.to(device) for part in found])
    points = torch.cat([part.points.to(device) for part in found])
    # Rows ascend within and across shards, so a stable sort breaks ties by row.
    order = torch.sort(squared, descending=True, stable=True).indices
    tau = float(squared[order[count]]) if len(order) > count else -torch.inf
    best = order[:count].sort().values
    return Candidates(rows[best], squared[best], points[best]), tau


def _greedy_among(field: Candidates, tau: float, most: int) -> Tensor:
    """The textbook loop among the candidates while the farthest is beyond `tau`: int64, at least one pick."""
    norms = torch.einsum("nd,nd->n", field.points, field.points)
    pairwise = torch.addmm(norms[:, None] + norms[None, :], field.points, field.points.T, alpha=-2)
    pairwise = pairwise.clamp_(min=0)  # (t, t)
    if pairwise.device.type == "cpu":
        return _among_in_numpy(pairwise, field.squared, tau, most)
    return _among_on_device(pairwise, field.squared, tau, most)


def _among_in_numpy(pairwise: Tensor, distances: Tensor, tau: float, most: int) -> Tensor:
    """NumPy's calls on short rows cost a fraction of torch's."""
    between, squared = pairwise.numpy(), distances.numpy().copy()
    chosen: list[int] = []
    farthest = int(squared.argmax())  # the first of several equal ones: the lowest row
    while len(chosen) < most and (not chosen or squared[farthest] > tau):
        chosen.append(farthest)
        np.minimum(squared, between[farthest], out=squared)
        squared[farthest] = 0
        farthest = int(squared.argmax())
    return torch.tensor(chosen)


def _among_on_device(pairwise: Tensor, distances: Tensor, tau: float, most: int) -> Tensor:
    """The same picks without a wait for the device at each: it goes on idly until somebody looks."""
    squared, steps = distances.clone(), min(most, len(distances))
    picks = torch.zeros(steps, dtype=torch.int64, device=squared.device)
    going = torch.ones((), dtype=torch.bool, device=squared.device)
    accepted = torch.zeros((), dtype=torch.int64, device=squared.device)
    for step in range(steps):
        farthest = squared.argmax().view(1)  # of several equal ones the first, on every device
        if step:
            going = going & (squared[farthest] > tau).view(())
        picks[step] = farthest[0]
        accepted += going
        nearer = torch.minimum(squared, pairwise[farthest][0]).index_fill_(0, farthest, 0)
        squared = torch.where(going, nearer, squared)
        if step % _STEPS == _STEPS - 1 and not bool(going):
            break
    return picks[: int(accepted)]
