"""One bank in its leaves' order with its shadows: what the proved search keeps beside the memories."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from resad.search.leaves import Leaves, grow
from resad.search.shadows import Light, Shadows, cast

_AT_ONCE: Final = 16384
"""Memories whose shadows are cast together."""


@dataclass(frozen=True, slots=True, eq=False)
class Shaded:
    """What is kept of one bank: a light, the leaves, and the shadows in the leaves' order."""

    light: Light
    leaves: Leaves
    shadows: Shadows

    def kept(self, rows: Tensor) -> "Shaded":
        """The same for a bank of these `rows`, int64, ascending."""
        kept = torch.zeros(len(self.leaves.order), dtype=torch.bool, device=rows.device)
        kept[rows] = True
        return Shaded(self.light, self.leaves.kept(rows), self.shadows[kept[self.leaves.order]])


def shade(memories: Tensor, width: int, leaf: int) -> Shaded:
    """For memories, float32 (M, D): shadows of `width` numbers, leaves of at most `leaf` memories."""
    light = cast(memories, width)
    shadows = _shadows(light, memories)
    leaves = grow(shadows.digits[:, : light.basis.shape[1] + 1].float(), leaf)
    return Shaded(light, leaves, shadows[leaves.order])


def slices(total: int, size: int) -> Iterator[slice]:
    """`total` things, `size` at a time."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _shadows(light: Light, memories: Tensor) -> Shadows:
    parts = [light.of_memories(memories[some]) for some in slices(len(memories), _AT_ONCE)]
    return Shadows(
        torch.cat([part.digits for part in parts]),
        torch.cat([part.slack for part in parts]),
        torch.cat([part.half_squares for part in parts]),
    )
