"""Random textures and soft edges, the material of the drawing.

A texture is drawn on a coarse grid of so many cells per picture height and enlarged, so that one seed gives
one picture at every size, and quickly.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Texture: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]


def enlarge(field: Texture, shape: tuple[int, int]) -> Texture:
    """`field` float32 (h, w) resampled bicubically to `shape` (H, W)."""
    image = Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def fineness(height: int) -> int:
    """How many times finer than the photograph (`height` px) a canvas for sharp edges is."""
    return min(max(round(2048 / height), 2), 8)


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Texture:
    """Smooth noise, mean about 0 and deviation about 0.8: float32 (H, W), `cells` grid cells per height."""
    columns = max(2, round(cells * shape[1] / shape[0]))
    return enlarge(rng.standard_normal((cells, columns), dtype=np.float32), shape)


def polar_noise(
    rng: np.random.Generator, u: Texture, v: Texture, *, spokes: int, rings: float, sway: float
) -> Texture:
    """Noise that runs along the rays from u = v = 0: float32 (H, W) for u (1, W) and v (H, 1).

    `spokes` cells around, `rings` cells per unit of distance; `sway` bends the rays, in cells.
    """
    distance = np.hypot(u, v)
    reach = math.ceil(float(distance.max()) * rings) + 2
    grid = rng.standard_normal((reach, spokes), dtype=np.float32)
    bend = noise(rng, (distance.shape[0], distance.shape[1]), 7) * np.float32(sway)
    around = np.arctan2(v, u) * np.float32(spokes / (2 * math.pi)) + bend
    # "grid-wrap" closes the circle; along the rays the grid is longer than any distance.
    sampled = ndimage.map_coordinates(grid, [distance * np.float32(rings), around], order=1, mode="grid-wrap")
    return np.asarray(sampled, dtype=np.float32)


def ramp(low: float, high: float, value: Texture) -> Texture:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` falls instead of rising."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1))
    smooth: Texture = t * t * (np.float32(3) - np.float32(2) * t)
    return smooth


def bell(value: Texture, width: float) -> Texture:
    """exp(-(value / width)^2)."""
    hump: Texture = np.exp(-np.square(value / np.float32(width)))
    return hump
