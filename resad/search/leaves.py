"""Memories in an order in which what is alike lies together: halved, again and again, across where they spread."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

_TURNS: Final = 3
"""Power iterations for a direction; a rough one divides as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Groups of memories that are alike, and groups beside each other somewhat so.

    order: int64 (M,), place -> row.  starts: int64 (L + 1,), the places where the groups begin, and M.
    """

    order: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    def slices(self) -> Iterator[slice]:
        """The places of each group."""
        return (slice(start, stop) for start, stop in pairwise(self.starts.tolist()))

    def kept(self, rows: Tensor) -> "Leaves":
        """The same for a bank of these `rows`, int64, ascending, which are numbered anew; empty groups go."""
        number = torch.full((len(self.order),), -1, dtype=torch.int64, device=rows.device)
        number[rows] = torch.arange(len(rows), device=rows.device)
        order = number[self.order]
        here = order >= 0
        before = torch.cat([here.new_zeros(1, dtype=torch.int64), here.cumsum(0)])
        return Leaves(order[here], torch.unique_consecutive(before[self.starts]))


def grow(points: Tensor, size: int) -> Leaves:
    """Leaves of at most `size` points, float32 (M, W).  Where the cuts lie costs time, never exactness."""
    parts = list(_divided(points, torch.arange(len(points), device=points.device), size))
    ends = torch.tensor([0, *map(len, parts)], device=points.device).cumsum(0)
    return Leaves(torch.cat(parts), ends)


def _divided(points: Tensor, rows: Tensor, size: int) -> Iterator[Tensor]:
    if len(rows) <= size:
        yield rows
        return
    some = points[rows]
    some -= some.mean(dim=0)
    direction = some[some.square().sum(dim=1).argmax()]
    for _ in range(_TURNS):
        direction = torch.nn.functional.normalize((some @ direction) @ some, dim=0)
    ranked = rows[(some @ direction).argsort(stable=True)]
    middle = len(rows) // 2
    yield from _divided(points, ranked[:middle], size)
    yield from _divided(points, ranked[middle:], size)
