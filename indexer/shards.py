"""The greedy's points with their distances to the nearest center, in shards, here or elsewhere.

A shard does three things: `farthest`, `take` and `update`.  Products are made in blocks of fixed shape, so that
shards cut at multiples of `indexer.points.BLOCK_ROWS` hold the same values however they are cut, and wherever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.points import HeldPoints, Points
from resad.search.full_float32 import full_float32


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
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
        """The squared distances (N,), for `Progress`."""

    def take_up(self, progress: Progress) -> None:
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


class HeldShards:
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

    def take_up(self, progress: Progress) -> None:
        """As `Shards.take_up`."""
        if progress.squared is None:
            replay(self, progress)
            return
        start = 0
        for shard in self._shards:
            shard.squared.copy_(torch.from_numpy(progress.squared[start : start + len(shard)]))
            start += len(shard)


def replay(shards: Shards, progress: Progress) -> None:
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


def shards_of(points: Tensor, size: int) -> HeldShards:
    """`points` (n, d), centered, as shards of `size` rows."""
    centered = points - points.mean(dim=0)
    return HeldShards([Shard(HeldPoints(centered[start : start + size]), start)
                       for start in range(0, len(points), size)])  # fmt: skip
