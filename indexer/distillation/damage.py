"""Damage that no healthy retina shows, so that the small trunk follows its teacher off the healthy manifold, too.

Not lesions, only spots of every size, brightness, color and texture: bright and dark blobs, smears, and patches
copied from elsewhere in the photograph or from another one.
"""

from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

_SHARE: Final = 0.75
"""Of the images that are damaged at all."""
_MOST_SPOTS: Final = 16
_RADII: Final = (1.5, 40.0)
"""Of a spot, px, drawn evenly on a logarithmic scale."""
_STRETCH: Final = 0.7
"""Natural logarithm of the largest ratio of an ellipse's half axes to its radius."""
_RAGGED: Final = 0.45
_REACH: Final = (1 + _RAGGED) * np.exp(_STRETCH)
"""How far a spot goes at most, in radii."""
_BRIGHT: Final = ((0.8, 0.75, 0.35), (0.95, 0.95, 0.85))
_DARK: Final = ((0.15, 0.02, 0.02), (0.45, 0.12, 0.08))
"""Ranges of RGB: exudates and cotton wool, blood."""


def damage(images: Tensor, rng: np.random.Generator) -> Tensor:
    """float32 (B, 3, s, s), RGB in [0, 1] -> the same with spots on three images in four."""
    others = images.roll(1, dims=0)
    return torch.stack([
        _damaged(image, other, rng) if rng.random() < _SHARE else image
        for image, other in zip(images, others, strict=True)
    ])  # fmt: skip


def _damaged(image: Tensor, other: Tensor, rng: np.random.Generator) -> Tensor:
    image, side = image.clone(), image.shape[-1]
    # Spots of one kind keep together, as lesions do.
    center, spread = rng.uniform(0, side, size=2), rng.uniform(0.05, 0.5) * side
    for _ in range(rng.integers(1, _MOST_SPOTS + 1)):
        fill = _fill(image, other, rng)
        radius = float(np.exp(rng.uniform(*np.log(_RADII))))
        x, y = (float(along) for along in center + rng.normal(0, spread, size=2))
        reach = _REACH * radius
        window = (_span(y, reach, side), _span(x, reach, side))
        cover = _spot(window, (x, y), radius, rng)
        part = image[:, window[0], window[1]]
        part += cover * (fill.expand_as(image)[:, window[0], window[1]] - part)
    return image


def _span(middle: float, reach: float, side: int) -> slice:
    return slice(max(0, min(side, int(middle - reach))), max(0, min(side, int(middle + reach) + 1)))


def _fill(image: Tensor, other: Tensor, rng: np.random.Generator) -> Tensor:
    """What a spot shows: float32 (3, s, s) or (3, 1, 1)."""
    kind = rng.choice(5, p=(0.3, 0.3, 0.1, 0.15, 0.15))
    if kind < 2:
        low, high = _BRIGHT if kind == 0 else _DARK
        return torch.from_numpy(rng.uniform(low, high)).float()[:, None, None]
    if kind == 2:  # any color
        return torch.from_numpy(rng.uniform(0, 1, size=3)).float()[:, None, None]
    if kind == 3:  # a smear: the mean along a line
        length = 2 * int(rng.integers(2, 15)) + 1
        size = (length, 1) if rng.random() < 0.5 else (1, length)
        return nnf.avg_pool2d(image[None], size, 1, (size[0] // 2, size[1] // 2), count_include_pad=False)[0]
    source = other if rng.random() < 0.5 else image
    shifts = tuple(int(shift) for shift in rng.integers(8, image.shape[-1] - 8, size=2))
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.25, size=3))).float()[:, None, None]
    return (source.roll(shifts, dims=(1, 2)) * gain).clamp(0, 1)


def _spot(
    window: tuple[slice, slice], center: tuple[float, float], radius: float, rng: np.random.Generator
) -> Tensor:
    """A ragged ellipse with a soft or hard edge, in rows and columns of `window`: float32 (h, w) in [0, 1]."""
    rows, columns = (torch.arange(part.start, part.stop, dtype=torch.float32) + 0.5 for part in window)
    x, y = columns[None, :] - center[0], rows[:, None] - center[1]
    angle, stretch = rng.uniform(0, np.pi), float(np.exp(rng.uniform(0, _STRETCH)))
    c, s = float(np.cos(angle)), float(np.sin(angle))
    distance = torch.hypot((c * x + s * y) / stretch, (c * y - s * x) * stretch) / radius
    ragged = torch.from_numpy(rng.uniform(-_RAGGED, _RAGGED, size=(1, 1, 8, 8))).float()
    softness, opacity = float(rng.uniform(0.05, 0.6)), float(rng.uniform(0.35, 1.0))
    if distance.numel() == 0:  # beyond the image
        return distance
    ragged = nnf.interpolate(ragged, distance.shape, mode="bilinear", align_corners=False)[0, 0]
    return opacity * ((1 + ragged - distance) / softness).clamp(0, 1)
