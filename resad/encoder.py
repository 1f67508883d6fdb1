"""Prepared photographs -> patch features: the one path that indexing and scoring share."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from resad import resc
from resad.backbone import Backbone, TrainingPhoto
from resad.bundled import IMAGENET_MEAN, IMAGENET_STD
from resad.config import MethodConfig, ReSCConfig
from resad.device import Fetched, Fetcher, stack_to_device, to_device
from resad.preparation import PreparedPhoto

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels, RGB in [0, 1], as torchvision's weights expect them."""

_MAX_HALF_SCALE: Final = 20.0
"""Largest attention scale for products in half precision; beyond it rounding decides the attention."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchFeatures:
    """The features of one photograph's patches that touch the field of view, in reading order.

    features: float32 (N, D).  cells: int16 (N, 2), (y, x) on the grid.  grid: (h, w).
    mirrored: float32 (N, D), of the same patches in the mirror image; None without `search.mirrored`.
    """

    features: NDArray[np.float32]
    cells: NDArray[np.int16]
    grid: tuple[int, int]
    mirrored: NDArray[np.float32] | None = None


class Trunk:
    """The network on its device, before its stages are combined.

    Args:
        backbone: with its weights; copied to `device`.
        config: the method's settings; `backbone` and `precision` are used.
        device: where to compute.
    """

    def __init__(self, backbone: Backbone, config: MethodConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.type = _trunk_type(config, device)
        # A copy: the caller's trunk keeps its float32 weights, which an index stores.
        self.backbone = copy.deepcopy(backbone).to(device, self.type).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(IMAGENET_MEAN, device=device)
        self._std = torch.tensor(IMAGENET_STD, device=device)

    def stages(
        self, photos: Sequence[PreparedPhoto], *, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Per stage float (B, C, h_i, w_i), finest first; and cells that touch the field of view, bool (B, h, w).

        The latter is on the host.  Does not wait for a GPU.

        Args:
            mirrored: of the photographs' mirror images, left and right exchanged.
        """
        pixels = stack_to_device([photo.pixels for photo in photos], self.device)
        masks = torch.from_numpy(np.stack([photo.mask for photo in photos]))
        if mirrored:
            pixels, masks = pixels.flip(2), masks.flip(2)
        stages: tuple[Tensor, ...] = self.backbone(self._normalize(pixels), to_device(masks, self.device))
        valid = nnf.adaptive_max_pool2d(masks[:, None].float(), stages[0].shape[-2:])[:, 0] > 0
        return stages, valid

    def _normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S) in the trunk's type, channels last."""
        return ((pixels.float() / 255 - self._mean) / self._std).to(self.type).permute(0, 3, 1, 2)


class Encoder:
    """The trunk, and how its stages are combined.  trunk: on its device, with the settings."""

    def __init__(self, trunk: Trunk) -> None:
        self.config = trunk.config
        self.device = trunk.device
        self._trunk = trunk
        self._product = _product_type(trunk.config.resc, trunk.type)
        self._fetcher = Fetcher(trunk.device)

    @property
    def trained_on(self) -> tuple[TrainingPhoto, ...]:
        """As `Backbone.trained_on`."""
        return self._trunk.backbone.trained_on

    @property
    def unseen_ratio(self) -> float:
        """As `Backbone.unseen_ratio`."""
        return self._trunk.backbone.unseen_ratio

    def encode(self, photos: Sequence[PreparedPhoto]) -> list[PatchFeatures]:
        """The patch features of each photograph, on a CPU the same bit for bit alone and in a batch."""
        return self.begin(photos).result()

    def begin(self, photos: Sequence[PreparedPhoto]) -> "Encoding":
        """`encode` without waiting for a GPU: the next photographs can start while these are computed."""
        if self.device.type == "cpu":
            # A CPU gains nothing from a batch, and a convolution rounds differently with its size; the literal
            # attention softmax(F F^T) would magnify that to more than the 1e-4 that scores may differ by.
            return Encoding([self._batch([photo]) for photo in photos])
        return Encoding([self._batch(photos)] if photos else [])

    @torch.inference_mode()
    def _batch(self, photos: Sequence[PreparedPhoto]) -> "_Batch":
        combined, valid, positions = self._combine(photos, mirrored=False)
        rows = _rows(combined, positions)
        if self.config.search.mirrored:
            # Mirrored back, so that a patch has one cell; the fields of view fall on the same cells either way.
            rows += _rows(self._combine(photos, mirrored=True)[0].flip(3), positions)
        return _Batch(self._fetcher.fetch(rows), valid)

    def _combine(self, photos: Sequence[PreparedPhoto], *, mirrored: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """C of equation 5, (B, D, h, w); valid, bool (B, h, w) on the host; per photograph the valid positions."""
        stages, valid = self._trunk.stages(photos, mirrored=mirrored)
        positions = [to_device(part.flatten().nonzero()[:, 0], self.device) for part in valid]
        combined = resc.combine(
            stages, to_device(valid, self.device), self.config.resc, product=self._product, positions=positions
        )  # fmt: skip
        return combined, valid, positions


def _rows(combined: Tensor, positions: Sequence[Tensor]) -> list[Tensor]:
    """(B, D, h, w) -> per photograph the features (N, D) at its `positions`."""
    return [f.permute(1, 2, 0).flatten(0, 1).index_select(0, p) for f, p in zip(combined, positions, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """features: per photograph (N, D), then those of the mirror images, if any.  valid: bool (B, h, w)."""

    features: Fetched
    valid: Tensor

    def result(self) -> list[PatchFeatures]:
        rows = [tensor.numpy() for tensor in self.features.wait()]
        count = len(self.valid)
        mirrored = rows[count:] or repeat(None, count)
        return [
            PatchFeatures(
                features, valid.nonzero().to(torch.int16).numpy(), (valid.shape[0], valid.shape[1]), mirror
            )
            for features, mirror, valid in zip(rows[:count], mirrored, self.valid, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Patch features that a GPU may still be computing."""

    _batches: list[_Batch]

    def result(self) -> list[PatchFeatures]:
        """Wait for them; the same as `Encoder.encode` returns."""
        return [patches for batch in self._batches for patches in batch.result()]


def _trunk_type(config: MethodConfig, device: torch.device) -> torch.dtype:
    if config.precision == "exact":
        return torch.float32
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def _product_type(config: ReSCConfig, trunk: torch.dtype) -> torch.dtype:
    """float16 where the trunk has it and the attention's logits are small: unit vectors and a modest scale.

    Never bfloat16: its logits are off by so much that image scores leave the bound stated for `half`.
    """
    small = config.normalize and config.attention_scale <= _MAX_HALF_SCALE
    return trunk if small and trunk == torch.float16 else torch.float32
