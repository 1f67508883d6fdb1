"""What the two trunks look at: crops of photographs, turned, zoomed, recolored, blurred and damaged.

Everything is drawn from the generator that is passed in, so that a training step depends on its number alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, exp, log, pi, sin
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from indexer.distillation.damage import damage

_ZOOM: Final = (0.65, 1.7)
"""Pixels of a crop per pixel of the prepared square, drawn evenly on a logarithmic scale."""
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels: how every trunk of the project takes its images."""


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """A prepared photograph.  pixels: uint8 (S, S, 3) RGB.  mask: bool (S, S), inside the field of view."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """A batch.  images: float32 (B, 3, s, s), RGB in [0, 1].  mask: float32 (B, 1, s, s), 1 where a retina is."""

    images: Tensor
    mask: Tensor

    def normalized(self) -> Tensor:
        """float32 (B, 3, s, s), as trunks take them."""
        mean, std = torch.tensor(_MEAN)[:, None, None], torch.tensor(_STD)[:, None, None]
        return (self.images - mean) / std


def draw_views(squares: Sequence[Square], rng: np.random.Generator, *, batch: int, side: int) -> Views:
    """`batch` crops of `side` px, each of a square drawn anew; three in four of them damaged."""
    picked = rng.integers(len(squares), size=batch)
    crops = torch.cat([_crop(squares[int(one)], rng, side) for one in picked])
    images, mask = crops[:, :3], crops[:, 3:]
    images = damage(images, rng)
    images = torch.stack([_recolored(image, rng) for image in images])
    images = torch.stack([_noised(_blurred(image, rng), rng) for image in images])
    # Photographs are stored in 8 bits.
    return Views((images.clamp(0, 1) * mask * 255).round() / 255, mask)


def whole_view(square: Square) -> Views:
    """The square itself, as indexing and scoring see it."""
    images = torch.from_numpy(square.pixels).permute(2, 0, 1)[None].float() / 255
    return Views(images, torch.from_numpy(square.mask)[None, None].float())


def _crop(square: Square, rng: np.random.Generator, side: int) -> Tensor:
    """float32 (1, 4, side, side): RGB and mask, from anywhere in the square, turned, zoomed, perhaps mirrored."""
    size = len(square.pixels)
    stacked = np.dstack([square.pixels, square.mask.astype(np.uint8) * 255])
    image = torch.from_numpy(stacked).permute(2, 0, 1)[None].float() / 255
    zoom = exp(rng.uniform(log(_ZOOM[0]), log(_ZOOM[1])))
    half, angle, mirror = side / size / zoom, rng.uniform(0, 2 * pi), rng.choice((-1.0, 1.0))
    x, y = rng.uniform(-0.6, 0.6, size=2)
    rows = [
        [half * cos(angle) * mirror, -half * sin(angle), x],
        [half * sin(angle) * mirror, half * cos(angle), y],
    ]
    grid = nnf.affine_grid(torch.tensor([rows], dtype=torch.float32), [1, 4, side, side], align_corners=False)
    sampled: Tensor = nnf.grid_sample(image, grid, mode="bilinear", align_corners=False)
    sampled[:, 3:] = (sampled[:, 3:] > 0.5).float()
    return sampled


def _recolored(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Another flash, another retina: gain per channel, gamma, saturation."""
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.12, size=(3, 1, 1)) + rng.normal(0, 0.15))).float()
    gray = image.mean(dim=0, keepdim=True)
    mixed = gray + float(rng.uniform(0.6, 1.4)) * (image - gray)
    return (mixed.clamp(0, 1) ** float(np.exp(rng.normal(0, 0.2))) * gain).clamp(0, 1)


def _blurred(image: Tensor, rng: np.random.Generator) -> Tensor:
    sigma = float(rng.uniform(0.4, 1.6))
    if rng.random() >= 0.3:
        return image
    steps = torch.arange(-4, 5, dtype=torch.float32)
    kernel = torch.exp(-((steps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
    wide = nnf.conv2d(nnf.pad(image[None], (4, 4, 4, 4), mode="replicate"), kernel, groups=3)
    return nnf.conv2d(wide, kernel.transpose(2, 3), groups=3)[0]


def _noised(image: Tensor, rng: np.random.Generator) -> Tensor:
    sigma = float(rng.uniform(0, 0.03)) * float(rng.random() < 0.5)
    return image + sigma * torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
