"""Greedy k-centre selection, exact, block by block (Sener & Savarese 2018).

D[x] is the distance from x to its nearest chosen center.  D only falls, so a stale D is an upper bound.  A round
takes the T points with the largest D as candidates and tau, the largest D of all others; it runs the greedy among
the candidates while the farthest of them is beyond tau, since each such pick is the farthest point of all; then it
updates every point against the round's picks with one matrix product.  The picks are those of the textbook loop.

Points lie in shards (`indexer.shards`), which can live elsewhere.  The picks of a round are found on the host,
from the candidates' distances to each other, wherever these were computed: a step takes two microseconds there,
and tens where it only starts a GPU's kernels.  So a device is waited for a few times a round, never for a pick.
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

from indexer.shards import Progress, Shards
from resad.errors import SettingError
from resad.search.full_float32 import full_float32

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
    begun: Progress | None = None,
    on_round: Callable[[Callable[[], Progress]], None] = lambda _: None,
) -> Coreset:
    """Pick centers until there are `count`, or until none is farther than `radius` from its nearest.

    Args:
        shards: all points, with fresh distances (no center yet).
        first: the global row of the first center.
        on_picks: told the number of new picks after every round.
        begun: where an earlier call with the same points was, `first` among its picks; or `beside`, which needs
            no first one.
        on_round: given, after every round, what makes the `Progress` to write down.
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


def beside(squared: NDArray[np.floating]) -> Progress:
    """A greedy whose centers so far are no points of its own: their squared distance to every point, (N,)."""
    return Progress(np.empty(0, dtype=np.int64), squared, _FEWEST)


def _begin(shards: Shards, first: int) -> Progress:
    if not 0 <= first < shards.total:
        raise SettingError(f"the first pick {first} is not one of the {shards.total} patches")
    row = torch.tensor([first])
    shards.update(row, shards.take(row))
    return Progress(row.numpy(), None, _FEWEST, (1,))


def _go_on(shards: Shards, begun: Progress) -> Progress:
    shards.take_up(begun)
    return begun


def _progress(shards: Shards, picks: Sequence[int], candidates: int, rounds: Sequence[int]) -> Progress:
    return Progress(np.asarray(picks, dtype=np.int64), shards.distances(), candidates, tuple(rounds))


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
