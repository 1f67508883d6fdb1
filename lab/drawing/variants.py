"""Normal variants painted into healthy photographs: what a trunk must not take for a lesion.

They come without a mask.  Lengths are pixels of a photograph whose field of view is 512 px wide; `scale` converts
them.  Each function returns a painted copy of `pixels`, float32 (H, W, 3), RGB in [0, 1]; `field_of_view` is bool
(H, W), and nothing is painted outside of it.
"""

import math

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

from lab.drawing.painter import Canvas, Mask, Pixels, smooth_noise, soft_spot


def paint_winding_vessels(
    rng: np.random.Generator, pixels: Pixels, field_of_view: Mask, *, scale: float = 1.0
) -> Pixels:
    """One to three thin vessels that wind."""
    canvas = Canvas(rng, pixels.copy(), field_of_view, scale)
    if canvas.is_empty:
        return canvas.pixels
    cover = np.zeros(field_of_view.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        x, y = canvas.place()
        angle, radius = rng.uniform(0, 2 * math.pi), scale * rng.uniform(0.7, 2.2)
        swing, period = rng.uniform(0.3, 1.3), rng.uniform(8, 30)
        for step in range(int(rng.integers(20, 120))):
            angle += rng.normal(0, 0.05)
            heading = angle + swing * math.sin(2 * math.pi * step / period)
            x, y = x + 1.5 * scale * math.cos(heading), y + 1.5 * scale * math.sin(heading)
            spot = soft_spot(canvas, x, y, radius, 0.9 * scale)
            if spot is not None:
                cover[spot[0]] = np.maximum(cover[spot[0]], spot[1])
    depth = -float(np.clip(0.17 * math.exp(rng.normal(0, 0.6)), 0.05, 0.7))
    return _shaded(canvas.pixels, field_of_view, cover, depth * np.array([0.45, 1, 1.1]))


def paint_choroidal_vessels(
    rng: np.random.Generator, pixels: Pixels, field_of_view: Mask, *, scale: float = 1.0
) -> Pixels:
    """The net of pale, broad, blurred bands of a tigroid fundus, over a part of the photograph."""
    shape = field_of_view.shape
    cell = scale * rng.uniform(10, 28)
    width = np.float32(rng.uniform(0.3, 0.7))
    bands = np.exp(-((smooth_noise(rng, shape, cell) / width) ** 2))
    bands = ndi.gaussian_filter(bands, scale * rng.uniform(1, 2.5)) * _part(rng, shape, scale)
    depth = rng.choice((-1, 1)) * rng.uniform(0.04, 0.2)
    return _shaded(pixels, field_of_view, bands, depth * np.array([0.6, 1, 0.8]))


def paint_reflexes(rng: np.random.Generator, pixels: Pixels, field_of_view: Mask, *, scale: float = 1.0) -> Pixels:
    """The silky sheen of a young retina: soft, bright streaks beside the vessels or along the nerve fibers."""
    shape = field_of_view.shape
    if rng.random() < 0.6:
        green = pixels[..., 1]
        light = ndi.gaussian_filter(green, 8 * scale) + np.float32(0.02)
        vessels = np.clip(1 - ndi.gaussian_filter(green, scale) / light, 0, 0.3)
        near = ndi.gaussian_filter(vessels, scale * rng.uniform(3, 7))
        streaks = np.clip(near / (near.max() + 1e-6) - vessels / (vessels.max() + 1e-6), 0, 1)
    else:
        angle = rng.uniform(0, math.pi)
        fibers = rng.standard_normal(shape).astype(np.float32)
        fibers = ndi.gaussian_filter(fibers, (scale * rng.uniform(6, 20), scale * rng.uniform(0.8, 2.5)))
        fibers = ndi.rotate(fibers, math.degrees(angle), reshape=False, order=1, mode="mirror")
        streaks = np.clip(fibers / (2 * fibers.std() + 1e-6), 0, 1)
    cover = ndi.gaussian_filter(streaks, scale * rng.uniform(1, 2.5)) * _part(rng, shape, scale)
    depth = rng.uniform(0.08, 0.5)
    return _shaded(pixels, field_of_view, cover, depth * np.array([0.7, 1, 1.2]))


def _part(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Pixels:
    """A part of the photograph with soft borders: float32 (H, W), 0 to 1."""
    part: Pixels = np.clip(0.5 + 0.8 * smooth_noise(rng, shape, scale * rng.uniform(40, 120)), 0, 1)
    return part


def _shaded(pixels: Pixels, field_of_view: Mask, cover: Pixels, depth: NDArray[np.float64]) -> Pixels:
    """Pixels times 1 + `depth` (3,) where `cover` (H, W) is 1."""
    weight = (cover * field_of_view)[..., None]
    return np.clip(pixels * (1 + weight * depth), 0, 1).astype(np.float32)
