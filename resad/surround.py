"""A patch against its surroundings: what is raised all over a photo says less than what stands out.

A shining nerve fiber layer, a haze or a shadow raises distances over a wide area of a healthy photograph; lesions
are small.  From each patch's distance a share of the mean distance around it is taken away,

    d - share * mean around it, at least 0,

the mean weighted by a Gaussian.  It is taken over a coarse lattice of patches alone: a search that is exact there
and where the score comes from gives the exact score.

A setting, and not the default: what it gains and costs is in benchmarks/RESULTS.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_REACH: Final = 1 / 8
"""Standard deviation of the Gaussian, as a share of the grid's side: wider than most lesions."""
_FAR: Final = 12.0
"""Standard deviations at which the Gaussian is cut off: beyond the grid, so that every patch has surroundings."""
_LATTICE: Final = 16
"""Lattice points along the grid's side: a standard deviation is two steps of it."""


def lattice(cells: NDArray[np.int16], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """bool (N,): which patches, at `cells` (N, 2) of the `grid` (h, w), surroundings are averaged over.

    All of them where none lies on the lattice.
    """
    step = max(1, round(grid[1] / _LATTICE))
    chosen: NDArray[np.bool_] = (cells % step == step // 2).all(axis=1)
    return chosen if chosen.any() else np.ones(len(cells), dtype=bool)


def against_surroundings(
    distances: NDArray[np.float32], cells: NDArray[np.int16], grid: tuple[int, int], share: float
) -> NDArray[np.float32]:
    """Distances (N,) of patches at `cells` (N, 2) -> the same less `share` of the mean around them."""
    y, x = cells.T
    chosen = lattice(cells, grid)
    raster = np.zeros((2, *grid))
    raster[:, y[chosen], x[chosen]] = np.ones(int(chosen.sum())), distances[chosen]
    sigma = _REACH * grid[1]
    weight, total = (ndimage.gaussian_filter(one, sigma, mode="constant", truncate=_FAR) for one in raster)
    mean = (total / weight)[y, x].astype(np.float32)
    against: NDArray[np.float32] = np.maximum(distances - np.float32(share) * mean, np.float32(0))
    return against
