"""Prepared photographs -> patch features: the one path that indexing and scoring share."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from torch import Tensor

from resad import resc
from resad.backbone import Backbone
from resad.config import MethodConfig, ReSCConfig
from resad.device import Fetched, Fetching, sent, sent_together
from resad.errors import SettingError
from resad.preparation import PreparedPhoto
from resad.whitening import Whitening, fit_whitening

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, RGB in [0, 1]: what torchvision's weights were trained with."""

_STEEPEST: Final = 20.0
"""Attention scale up to which its products are taken in half precision; beyond it rounding decides who attends."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchFeatures:
    """The features of one photograph's patches that touch the field of view, in reading order.

    features: float32 (N, D).  cells: int16 (N, 2), (y, x) on the grid.  grid: (h, w).
    mirrored: float32 (N, D), of the same patches in the mirror image; None where the settings do not ask for it.
    """

    features: NDArray[np.float32]
    cells: NDArray[np.int16]
    grid: tuple[int, int]
    mirrored: NDArray[np.float32] | None = None


class Trunk:
    """The network on its device: what comes before anything is combined.

    Args:
        backbone: with its weights; copied to `device`.
        config: the method's settings; `backbone` and `precision` are used.
        device: where to compute.
    """

    def __init__(self, backbone: Backbone, config: MethodConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.type = _trunk_type(config, device)
        # A copy: the caller's trunk keeps its float32 weights, which are what an index stores.
        self._net = copy.deepcopy(backbone).to(device, self.type).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(_MEAN, device=device)
        self._std = torch.tensor(_STD, device=device)

    def stages(
        self, photos: Sequence[PreparedPhoto], *, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Per stage float (B, C, h_i, w_i), finest first; and what touches the field of view, bool (B, h, w).

        The latter is on the host.  A GPU is not waited for.

        Args:
            mirrored: of the photographs' mirror images, left and right changed.
        """
        pixels = sent_together([photo.pixels for photo in photos], self.device)
        masks = torch.from_numpy(np.stack([photo.mask for photo in photos]))
        if mirrored:
            pixels, masks = pixels.flip(2), masks.flip(2)
        stages: tuple[Tensor, ...] = self._net(self._normalize(pixels))
        valid = nnf.adaptive_max_pool2d(masks[:, None].float(), stages[0].shape[-2:])[:, 0] > 0
        return stages, valid

    def _normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (B, S, S, 3) -> (B, 3, S, S) in the trunk's type, channels last."""
        return ((pixels.float() / 255 - self._mean) / self._std).to(self.type).permute(0, 3, 1, 2)


@torch.inference_mode()
def whitening_of(trunk: Trunk, photos: Iterable[PreparedPhoto]) -> Whitening | None:
    """Fitted to healthy photographs as the settings ask; None where they ask for none."""
    config = trunk.config.resc
    if config.whitening is None:
        return None

    def units(photo: PreparedPhoto) -> list[Tensor]:
        stages, valid = trunk.stages([photo])
        here = valid[0].to(trunk.device)
        return [units[0][:, here].T for units in resc.on_one_grid(stages, config)]

    return fit_whitening(map(units, photos), config.whitening)


class Encoder:
    """The trunk, and how its stages are combined.

    Args:
        trunk: on its device, with the settings that are used.
        whitening: fitted to healthy photographs, where the settings ask for it.
    Raises:
        SettingError: it is missing, or there is one that is not asked for.
    """

    def __init__(self, trunk: Trunk, whitening: Whitening | None) -> None:
        if (trunk.config.resc.whitening is None) != (whitening is None):
            raise SettingError(
                f"resc.whitening is {trunk.config.resc.whitening}, but a whitening is "
                f"{'missing' if whitening is None else 'given'}"
            )
        self.config = trunk.config
        self.device = trunk.device
        self.whitening = whitening
        self._trunk = trunk
        self._whitening = whitening and whitening.to(trunk.device)
        self._product = _product_type(trunk.config.resc, trunk.type)
        self._fetching = Fetching(trunk.device)

    def encode(self, photos: Sequence[PreparedPhoto]) -> list[PatchFeatures]:
        """The patch features of each photograph, on a CPU the same bit for bit alone and in a batch."""
        return self.begin(photos).result()

    def begin(self, photos: Sequence[PreparedPhoto]) -> "Encoding":
        """`encode` without a wait for a GPU: the next photographs can be begun while these are computed."""
        if self.device.type == "cpu":
            # A CPU gains nothing from a batch, and a convolution rounds differently with its size; the literal
            # attention softmax(F F^T) would magnify that to more than the 1e-4 that scores may differ by.
            return Encoding([self._batch([photo]) for photo in photos])
        return Encoding([self._batch(photos)] if photos else [])

    @torch.inference_mode()
    def _batch(self, photos: Sequence[PreparedPhoto]) -> "_Batch":
        combined, valid, places = self._combined(photos, mirrored=False)
        rows = _rows(combined, places)
        if self.config.search.mirrored:
            # Mirrored back, so that a patch has one cell; the fields of view fall on the same cells either way.
            rows += _rows(self._combined(photos, mirrored=True)[0].flip(3), places)
        return _Batch(self._fetching.fetch(rows), valid)

    def _combined(self, photos: Sequence[PreparedPhoto], *, mirrored: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(B, D, h, w); bool (B, h, w) on the host; per photograph the numbers of the cells that are valid."""
        stages, valid = self._trunk.stages(photos, mirrored=mirrored)
        places = [sent(one.flatten().nonzero()[:, 0], self.device) for one in valid]
        combined = resc.combine(
            stages, sent(valid, self.device), self.config.resc,
            whitening=self._whitening, product=self._product, places=places,
        )  # fmt: skip
        return combined, valid, places


def _rows(combined: Tensor, places: Sequence[Tensor]) -> list[Tensor]:
    """(B, D, h, w) -> per photograph the features (N, D) at its `places`."""
    return [f.flatten(1).index_select(1, p).T.contiguous() for f, p in zip(combined, places, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """features: per photograph (N, D), then those of the mirror images, if any.  valid: bool (B, h, w)."""

    features: Fetched
    valid: Tensor

    def result(self) -> list[PatchFeatures]:
        rows = [one.numpy() for one in self.features.wait()]
        count = len(self.valid)
        mirrored = rows[count:] or repeat(None, count)
        return [
            PatchFeatures(features, one.nonzero().to(torch.int16).numpy(), (one.shape[0], one.shape[1]), other)
            for features, other, one in zip(rows[:count], mirrored, self.valid, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Patch features that a GPU may still be at work on."""

    _batches: list[_Batch]

    def result(self) -> list[PatchFeatures]:
        """As `Encoder.encode`, once they are there."""
        return [patches for batch in self._batches for patches in batch.result()]


def _trunk_type(config: MethodConfig, device: torch.device) -> torch.dtype:
    if config.precision == "exact":
        return torch.float32
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def _product_type(config: ReSCConfig, trunk: torch.dtype) -> torch.dtype:
    """float16 where the trunk has it and the attention's logits are small: unit vectors and a modest scale.

    Never bfloat16: its logits are off by so much that image scores leave the bound stated for `half`.
    """
    bounded = config.normalize or config.spatial == "cosine"
    small = bounded and config.spatial != "gate" and config.attention_scale <= _STEEPEST
    return trunk if small and trunk == torch.float16 else torch.float32
