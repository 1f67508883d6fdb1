"""How many separate regions of a map lie above any level, and the levels that healthy photographs pass so often.

The level of findings is stated in false regions per healthy photograph, the unit of FROC curves: at 0.25 one in
four healthy photographs shows a finding, at 1 each shows one on average.
"""

import dataclasses
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
_MOST: Final = 512
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

    def scaled(self, factor: float) -> "RegionHeights":
        """The regions of the same map with every height multiplied by `factor`."""
        peaks, merges = (tuple(height * factor for height in heights) for heights in (self.peaks, self.merges))
        return RegionHeights(peaks, merges, self.floor * factor)


@dataclass(frozen=True)
class FindingLevel:
    """Healthy photographs show at most `rate` regions above `value` on average.

    No value: too few photographs for the rate, or they never show so many separate regions.
    """

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
    values = np.full(grid, -1.0, np.float32)
    values[tuple(cells.T)] = distances
    tree = region_tree(values)
    peaks, merges = tree.changes(np.ones(tree.heights.size, np.bool_))
    peaks, merges = np.sort(peaks)[::-1], np.sort(merges)[::-1]
    floor = float(peaks[_MOST]) if peaks.size > _MOST else 0.0
    return RegionHeights(tuple(peaks[peaks > floor].tolist()), tuple(merges[merges > floor].tolist()), floor)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RegionTree:
    """The regions of a map above all its levels: each node is one as it is just below the node's height.

    heights: float32 (n,).  parents: (n,), the node in which a node's region is contained next, n for none.
    node_of: (h, w), the node of each cell, n outside the map.
    """

    heights: NDArray[np.float32]
    parents: NDArray[np.intp]
    node_of: NDArray[np.intp]

    def containing(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool (n,): the nodes whose regions have a cell of `cells`, bool (h, w)."""
        n = self.heights.size
        contains = np.zeros(n + 1, np.bool_)
        contains[self.node_of[cells]] = True
        # Each round doubles the distance to the farthest ancestor that is known.
        ancestors = np.append(self.parents, n)
        while not (ancestors == n).all():
            contains[ancestors[contains]] = True
            ancestors = ancestors[ancestors]
        return contains[:n]

    def changes(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The heights at which regions of the nodes `chosen`, bool (n,), appear, and at which two of them join.

        With a node all nodes above it in the tree, its parents, must be chosen.
        """
        n = self.heights.size
        children = np.bincount(self.parents[chosen], minlength=n + 1)[:n]
        joined = np.maximum(children - 1, 0) * chosen
        return self.heights[chosen & (children == 0)], np.repeat(self.heights, joined)


def region_tree(values: NDArray[np.float32]) -> RegionTree:
    """The tree of a map (h, w) that is negative where there is none; cells that touch at a corner connect."""
    from skimage.morphology import max_tree  # takes long to import, and refusals need no regions

    parents, order = max_tree(values, connectivity=2)  # type: ignore[no-untyped-call]
    height, parent = values.ravel(), parents.ravel()
    # The first cell of a node stands for it; the other cells have it as their parent.
    first = height != height[parent]
    first[order[0]] = True
    node_cell = np.where(first, np.arange(height.size), parent)
    nodes = np.flatnonzero(first & (height >= 0))
    number = np.full(height.size, nodes.size)
    number[nodes] = np.arange(nodes.size)
    above = np.where(parent[nodes] == nodes, nodes.size, number[parent[nodes]])
    return RegionTree(height[nodes], above, number[node_cell].reshape(values.shape))


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
        return None
    steps = np.concatenate([[1] * len(photo.peaks) + [-1] * len(photo.merges) for photo in photos])
    falling = np.argsort(-heights, kind="stable")
    heights, counts = heights[falling], np.cumsum(steps[falling])
    # Regions just below each height: those of all heights that are as great.
    last_of_equal = np.diff(heights, append=-np.inf) < 0
    heights, below = heights[last_of_equal], counts[last_of_equal]
    too_many = np.flatnonzero(below > allowed)
    if not too_many.size:
        return None  # they never show so many: at lower levels regions only run together
    level = float(heights[too_many[0]])
    return level if level >= max(photo.floor for photo in photos) else None


def _above(falling: Sequence[float], level: float) -> int:
    return int(np.searchsorted(-np.asarray(falling), -level, side="left"))
