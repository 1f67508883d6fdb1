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

from lab.drawing.painter import BRIGHT, DARK, Mask, Pixels, paint, paint_winding_vessels

CELL: Final = 4
"""Side of a target cell, px: the stride of the lesion features."""

_CLEAN: Final = 0.2
"""Share of the crops without a lesion."""
_WINDING: Final = 0.2
"""Share of the crops with winding vessels, a normal variant."""
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
    pixels = _recolored(rng, pixels)
    if rng.random() < _WINDING:
        pixels = paint_winding_vessels(rng, pixels, mask, scale=scale)
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
    """A turned, zoomed and mirrored piece: pixels in [0, 1], field of view, and px per px of a 512 px view.

    Lesions are painted at their own size, between that of the photograph and that of the piece: a trunk meets
    lesions of the same kind in many sizes.
    """
    whole = photo.pixels.shape[0]
    zoom = math.exp(rng.uniform(*np.log(_ZOOM)))
    length = min(int(side / zoom), whole)
    for _ in range(8):
        top, left = rng.integers(0, whole - length + 1, 2)
        window = slice(top, top + length), slice(left, left + length)
        if photo.mask[window].mean() > 0.5:
            break
    image = Image.fromarray(photo.pixels[window]).resize((side, side), Image.Resampling.BICUBIC)
    inside = Image.fromarray(photo.mask[window]).resize((side, side), Image.Resampling.NEAREST)
    pixels, mask = np.asarray(image, np.float32) / 255, np.asarray(inside)
    turns = int(rng.integers(4))
    pixels, mask = np.rot90(pixels, turns), np.rot90(mask, turns)
    if rng.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    scale = whole / 512 * (side / length) ** rng.uniform(0, 1)
    # Copies: an array of an image is read-only.
    return np.array(pixels) * mask[..., None], np.array(mask), scale


def _donor(rng: np.random.Generator, photo: HealthyPhoto, side: int) -> Pixels:
    whole = photo.pixels.shape[0]
    top, left = rng.integers(0, max(1, whole - side + 1), 2)
    return photo.pixels[top : top + side, left : left + side].astype(np.float32) / np.float32(255)


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
