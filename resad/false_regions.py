"""How many separate regions of a map lie above any level, and the levels that healthy photographs pass so often.

The level of findings is stated in false regions per healthy photograph, the unit of FROC curves: at 0.25 one in
four healthy photographs shows a finding, at 1 each shows one on average.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

RATES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False regions per healthy photograph for which levels are stated."""
USUAL: Final = 0.25
"""The rate where none is asked for."""
_MOST: Final = 64
"""Regions that are kept of a photograph: the highest ones, far more than any stated rate needs."""


@dataclass(frozen=True)
class RegionHeights:
    """The separate regions of one photograph's map, as its patches show them.

    peaks: the heights at which regions appear, falling.  merges: the heights at which one of them joins a higher
    one, falling.  Above a level there are as many regions as peaks less merges above it.  floor: below it there
    may be regions that are not kept.
    """

    peaks: tuple[float, ...]
    merges: tuple[float, ...]
    floor: float

    def count(self, level: float) -> int:
        """Regions strictly above `level`, at least as many below the floor."""
        return _above(self.peaks, level) - _above(self.merges, level)


@dataclass(frozen=True)
class FindingLevel:
    """Healthy photographs show at most `rate` regions above `value` on average; no value: too few photographs."""

    rate: Annotated[float, Field(gt=0)]
    value: float | None


def region_heights(
    distances: NDArray[np.float32], cells: NDArray[np.int16], grid: tuple[int, int]
) -> RegionHeights:
    """The regions of the map of these patches; patches that touch at a corner are connected.

    Args:
        distances: float32 (N,), at least 0.
        cells: int16 (N, 2), (y, x) on the grid of (h, w) cells.
    """
    from skimage.morphology import max_tree  # takes long to import, and refusals need no regions

    values = np.full(grid, -1.0, np.float32)
    values[tuple(cells.T)] = distances
    parents, order = max_tree(values, connectivity=2)
    height, parent = values.ravel(), parents.ravel()
    # A node is a region at some level; its first pixel stands for it.
    root = int(order[0])
    first = height != height[parent]
    first[root] = True
    nodes = np.flatnonzero(first & (height >= 0))
    children = np.bincount(parent[nodes[nodes != root]], minlength=height.size)
    peaks = np.sort(height[nodes[children[nodes] == 0]])[::-1]
    joined = nodes[children[nodes] > 1]
    merges = np.sort(np.repeat(height[joined], children[joined] - 1))[::-1]
    floor = float(peaks[_MOST]) if peaks.size > _MOST else 0.0
    return RegionHeights(tuple(peaks[peaks > floor].tolist()), tuple(merges[merges > floor].tolist()), floor)


def finding_levels(photos: Sequence[RegionHeights]) -> tuple[FindingLevel, ...]:
    """The level of each rate of `RATES` on these healthy photographs."""
    return tuple(FindingLevel(rate, _level(photos, rate)) for rate in RATES)


def _level(photos: Sequence[RegionHeights], rate: float) -> float | None:
    """The lowest level such that there and everywhere above are at most `rate` regions a photograph."""
    # As with p-values one photograph more is counted, with the regions that would be too many.
    allowed = rate * (len(photos) + 1) - 1
    if allowed < 0 or not photos:
        return None
    heights = np.concatenate([[*photo.peaks, *photo.merges] for photo in photos])
    if not heights.size:
        return 0.0  # maps without any height: nothing is above 0
    steps = np.concatenate([[1] * len(photo.peaks) + [-1] * len(photo.merges) for photo in photos])
    falling = np.argsort(-heights, kind="stable")
    heights, counts = heights[falling], np.cumsum(steps[falling])
    # Regions strictly above a height: those of all greater heights.
    greater = np.searchsorted(-heights, -heights, side="left")
    above = np.where(greater > 0, counts[np.maximum(greater - 1, 0)], 0)
    too_many = np.flatnonzero(above > allowed)
    last = too_many[0] - 1 if too_many.size else heights.size - 1
    level = float(heights[last])
    return level if level >= max(photo.floor for photo in photos) else None


def _above(falling: Sequence[float], level: float) -> int:
    return int(np.searchsorted(-np.asarray(falling), -level, side="left"))
