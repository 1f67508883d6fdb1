"""What distance is usual at a place: healthy retinas differ more at the disc, the vessels and the rim.

A patch is as unusual as its distance to the memory bank exceeds what healthy photographs show where it lies, in
units of how much they vary there.  The distance d at a place becomes

    m + s (d - m_place) / s_place,  at least 0

with mean and standard deviation over all healthy patches (m, s) and over those near the place: still in feature
units, and where the place is like any other, d itself.  Without it the maximum of a map tends to lie where
retinas differ anyway.  PaDiM (Defard et al. 2021) describes features place by place; here it is the distance
alone, in two numbers a place, so that a few dozen photographs settle them.

It is fitted to the left-out distances of an index's own photographs, each once as it is and once mirrored, since
left and right eyes mirror each other, and is a part of the index.  A setting, and not the default: what it gains
and costs is in benchmarks/RESULTS.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError
from scipy import ndimage

from resad.errors import IndexInvalid

FILE: Final = "usual.safetensors"
_NEAR: Final = 1 / 32
"""Standard deviation of the Gaussian that says what is near, as a share of the grid's side: 2 of 64 cells."""
_PRIOR: Final = 2.0
"""Patches of the overall mean and spread that every place is credited with: few photographs change little."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """Per cell of the patch grid, float32 (h, w): a distance d becomes max(0, gain d + offset); gain above 0."""

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def alike(cls, grid: tuple[int, int]) -> "Usual":
        """Every place like any other: distances stay what they are."""
        return cls(np.ones(grid, dtype=np.float32), np.zeros(grid, dtype=np.float32))

    def of(self, distances: NDArray[np.float32], cells: NDArray[np.int16]) -> NDArray[np.float32]:
        """Distances (N,) of patches at `cells` (N, 2), (y, x) -> the same against what is usual there."""
        y, x = cells.T
        against: NDArray[np.float32] = np.maximum(self.gain[y, x] * distances + self.offset[y, x], np.float32(0))
        return against

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return safetensors.numpy.save({"gain": self.gain, "offset": self.offset})

    @classmethod
    def load(cls, path: Path, grid: tuple[int, int]) -> "Usual":
        """The inverse of `to_bytes`; raises `IndexInvalid` where it is missing, of another kind or grid."""
        try:
            arrays = safetensors.numpy.load_file(path)
            usual = cls(arrays["gain"], arrays["offset"])
        except (OSError, KeyError, SafetensorError) as error:
            raise IndexInvalid(f"{path} does not say what distance is usual: {error}") from error
        for name, values in (("gain", usual.gain), ("offset", usual.offset)):
            if values.shape != grid or values.dtype != np.float32 or not np.isfinite(values).all():
                raise IndexInvalid(f"{path}: {name} is {values.dtype} {values.shape}, the grid {grid}, all finite")
        return usual


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Number, sum and sum of squares of distances: float64 (3, h, w) near each cell, and (3,) of all.

    They add up over photographs (`sum_of`), and what some added can be taken out again.
    """

    near: Floats
    all: Floats

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.near - other.near, self.all - other.all)


def moments(distances: NDArray[np.float32], cells: NDArray[np.int16], grid: tuple[int, int]) -> Moments:
    """Of one photograph, as it is and mirrored: distances (N,) of the patches at `cells` (N, 2)."""
    y, x = cells.T
    d = distances.astype(np.float64)
    raster = np.zeros((3, *grid))
    raster[:, y, x] = np.ones_like(d), d, d * d
    raster += raster[:, :, ::-1].copy()
    sigma = _NEAR * grid[1]
    near = np.stack([ndimage.gaussian_filter(one, sigma, mode="constant") for one in raster])
    return Moments(near, raster.sum(axis=(1, 2)))


def sum_of(parts: Iterable[Moments]) -> Moments:
    """Of several photographs together, at least one."""
    rest = iter(parts)
    first = next(rest)
    near, everywhere = first.near.copy(), first.all.copy()
    for one in rest:
        near += one.near
        everywhere += one.all
    return Moments(near, everywhere)


def usual_from(found: Moments) -> Usual:
    """What is usual, from the moments of at least one photograph."""
    mean, spread = _mean_and_spread(found.all)
    if not spread > 0:  # all patches equally far: no place is different
        _, h, w = found.near.shape
        return Usual.alike((h, w))
    credited = found.near + _PRIOR * (found.all / found.all[0])[:, None, None]
    near_mean, near_spread = _mean_and_spread(credited)
    gain = spread / near_spread
    return Usual(gain.astype(np.float32), (mean - gain * near_mean).astype(np.float32))


def _mean_and_spread(found: Floats) -> tuple[Floats, Floats]:
    """(3, ...) -> mean and standard deviation, each of the shape that remains."""
    count, total, squares = found
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 0))
