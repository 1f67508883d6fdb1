"""Training crops: pieces of healthy photographs, painted, turned, recolored and blurred."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray
from PIL import Image

from lab.drawing.painter import BRIGHT, DARK, Mask, Pixels, paint, smooth_noise
from lab.drawing.variants import paint_choroidal_vessels, paint_reflexes, paint_winding_vessels

CELL: Final = 4
"""Side of a target cell, px: the stride of the lesion features."""

_CLEAN: Final = 0.2
"""Share of the crops without a lesion."""
_VARIANTS: Final = ((0.2, paint_winding_vessels), (0.2, paint_choroidal_vessels), (0.25, paint_reflexes))
"""Normal variants, and the share of the crops with each."""
_TURNED: Final = 0.5
"""Share of the crops at any angle; the others are turned by quarters."""
_BENT: Final = 0.5
"""Share of the crops whose vessels are bent."""
_CROSSED: Final = 0.15
"""Share of the crops with the vessels of another photograph laid over their own."""
_ZOOM: Final = (0.65, 1.6)


@dataclass(frozen=True, slots=True, eq=False)
class HealthyPhoto:
    """A prepared healthy photograph: uint8 (S, S, 3), RGB, and its field of view, bool (S, S)."""

    pixels: NDArray[np.uint8]
    mask: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A training example.

    pixels: uint8 (C, C, 3).  mask: bool (C, C), the field of view.
    targets: float32 (4, C/4, C/4), 1 where a lesion touches the cell, in the order of `bundled.OUTPUTS`.
    weight: float32 (C/4, C/4), 0 where a cell is outside the field of view or where paint is too faint to be seen.
    """

    pixels: NDArray[np.uint8]
    mask: Mask
    targets: NDArray[np.float32]
    weight: NDArray[np.float32]


def draw_crop(rng: np.random.Generator, photos: Sequence[HealthyPhoto], side: int) -> Crop:
    """One painted crop of a random photograph.

    Args:
        photos: the healthy photographs; their side is taken for the width of a field of view.
        side: C, px, a multiple of 4.
    """
    pixels, mask, scale = _healthy_piece(rng, photos[int(rng.integers(len(photos)))], side)
    donor = _donor(rng, photos[int(rng.integers(len(photos)))], side)
    if rng.random() < _CROSSED:
        pixels = _crossed(rng, pixels, mask, donor)
    pixels = _recolored(rng, pixels)
    for chance, paint_variant in _VARIANTS:
        if rng.random() < chance:
            pixels = paint_variant(rng, pixels, mask, scale=scale)
    kinds = () if rng.random() < _CLEAN else None
    painted = paint(rng, pixels, mask, donor, kinds=kinds, scale=scale)
    abnormal, dark, bright = painted.mask(), painted.mask(DARK), painted.mask(BRIGHT)
    masks = np.stack([abnormal, dark, bright, abnormal & ~dark & ~bright])
    targets = _cells(masks)
    faint = _cells(painted.faint[None])[0] > 0
    weight = (_cells(mask[None])[0] > 0) & ~(faint & (targets[0] == 0))
    return Crop(_photographed(rng, painted.pixels, mask), mask, targets, weight.astype(np.float32))


def _cells(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Which cells a mask touches: (K, C, C) -> float32 (K, C/4, C/4)."""
    count, side = masks.shape[0], masks.shape[1] // CELL
    return np.asarray(masks.reshape(count, side, CELL, side, CELL).any(axis=(2, 4)), dtype=np.float32)


def _healthy_piece(rng: np.random.Generator, photo: HealthyPhoto, side: int) -> tuple[Pixels, Mask, float]:
    """A turned, zoomed, mirrored and often bent piece: pixels in [0, 1], its field of view, a scale for lesions.

    The scale lies between that of the photograph and that of the piece, px per px of a 512 px photograph: a trunk
    meets lesions of the same kind in many sizes.
    """
    whole = photo.pixels.shape[0]
    length = min(side / math.exp(rng.uniform(*np.log(_ZOOM))), whole)
    for _ in range(8):
        y, x = rng.uniform(length / 2, whole - length / 2, 2)
        top, left = int(y - length / 2), int(x - length / 2)
        if photo.mask[top : top + int(length), left : left + int(length)].mean() > 0.5:
            break
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < _TURNED else int(rng.integers(4)) * math.pi / 2
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5) * np.float32(length)
    across = steps if rng.random() < 0.5 else -steps
    down = steps[:, None]
    rows = y - 0.5 + math.cos(angle) * down + math.sin(angle) * across
    columns = x - 0.5 - math.sin(angle) * down + math.cos(angle) * across
    if rng.random() < _BENT:
        reach = rng.uniform(8, 40) * length / side
        strength = np.float32(rng.uniform(0.05, 0.16) * reach)
        rows, columns = (axis + strength * _bend(rng, side, reach) for axis in (rows, columns))
    mask = ndi.map_coordinates(photo.mask.view(np.uint8), (rows, columns), order=0).view(np.bool_)
    channels = [
        ndi.map_coordinates(photo.pixels[..., channel], (rows, columns), np.float32, order=1)
        for channel in range(3)
    ]
    pixels = np.stack(channels, axis=-1) / np.float32(255)
    scale = whole / 512 * (side / length) ** rng.uniform(0, 1)
    return pixels * mask[..., None], mask, scale


def _donor(rng: np.random.Generator, photo: HealthyPhoto, side: int) -> Pixels:
    whole = photo.pixels.shape[0]
    top, left = rng.integers(0, max(1, whole - side + 1), 2)
    return photo.pixels[top : top + side, left : left + side].astype(np.float32) / np.float32(255)


def _bend(rng: np.random.Generator, side: int, reach: float) -> Pixels:
    """Displacements without a kink, about 1 large, that vary over `reach` px: float32 (side, side)."""
    bend: Pixels = ndi.gaussian_filter(smooth_noise(rng, (side, side), reach), reach / 3, mode="nearest")
    return bend


def _crossed(rng: np.random.Generator, pixels: Pixels, mask: Mask, donor: Pixels) -> Pixels:
    """The piece with another photograph's vessels and texture laid over it, at 30 to 100 % of their contrast."""
    if donor.shape != pixels.shape:
        return pixels
    light = ndi.gaussian_filter(donor, (12, 12, 0)) + np.float32(0.02)
    share = np.float32(rng.uniform(0.3, 1))
    crossed = pixels * np.clip(1 + share * (donor / light - 1), 0.5, 1.5) * mask[..., None]
    return np.clip(crossed, 0, 1).astype(np.float32)


def _recolored(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Another camera's colors and light: gamma, gain per channel, saturation, and a slope of brightness."""
    pixels = pixels ** np.float32(math.exp(rng.normal(0, 0.22)))
    pixels = pixels * np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    if rng.random() < 0.5:
        gray = pixels.mean(axis=-1, keepdims=True)
        pixels = gray + np.float32(rng.uniform(0.5, 1.3)) * (pixels - gray)
    if rng.random() < 0.5:
        pixels = pixels * _slow_light(rng, pixels.shape[0])[..., None]
    return np.clip(pixels, 0, 1).astype(np.float32)


def _slow_light(rng: np.random.Generator, side: int) -> Pixels:
    """Uneven illumination: a smooth factor around 1 that varies over a third of the crop or more."""
    coarse = np.exp(rng.normal(0, 0.15, (4, 4))).astype(np.float32)
    return ndi.zoom(coarse, side / 4, order=1)


def _photographed(rng: np.random.Generator, pixels: Pixels, mask: Mask) -> NDArray[np.uint8]:
    """What optics, sensor and file do to a photograph: blur, noise, JPEG."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.2, 1.1)
        pixels = ndi.gaussian_filter(pixels, (sigma, sigma, 0))
    elif rng.random() < 0.3:
        pixels = pixels + np.float32(rng.uniform(0.2, 0.8)) * (pixels - ndi.gaussian_filter(pixels, (1, 1, 0)))
    if rng.random() < 0.5:
        pixels = pixels + rng.normal(0, rng.uniform(0.002, 0.02), pixels.shape).astype(np.float32)
    levels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "JPEG", quality=int(rng.integers(50, 96)))
        levels = np.asarray(Image.open(file))
    return levels * mask[..., None]
