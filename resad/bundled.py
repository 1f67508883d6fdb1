"""The trunk that is shipped inside the package, trained by `resad-indexer train`.

Two small convolutional networks side by side:

* stage 1, stride 4: a U-shaped network that has learned from lesions painted into healthy photographs.  Its
features
  keep their magnitude: they are small where the retina is healthy and large where something looks painted on.
* stages 2 and 3, strides 8 and 16: texture features, distilled from a ResNet, with half of ResNet-18's channels.

Plain 3 x 3 convolutions with biases and rectifiers: batch normalization exists in training only and is folded into
the convolutions when the trunk is written.  How it was trained and measured: `weights/MODEL_CARD.md`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from resad.errors import SettingError

NAME: Final = "bundled"
"""Name of the trunk and of its weights, beside torchvision's names."""
STAGES: Final = (1, 2, 3)
FILE: Final = Path(__file__).with_name("weights") / "bundled.safetensors"
"""The weights, float16; computing is in float32."""

OUTPUTS: Final = ("abnormal", "dark", "bright", "other")
"""Logits of the lesion network for a cell of 4 x 4 px."""

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, RGB in [0, 1]: the normalization that trunks take."""

_LOCAL: Final = 1 / 128
"""Cell of the local mean, as a share of the photograph's side: 4 px of 512.  The mean is over about 16 px."""
_FLOOR: Final = 0.008
"""Smallest local contrast that is divided by: two gray levels of 255."""
_CLIP: Final = 6.0
_LOGIT_SHIFT: Final = 2.0
"""Logits below about minus this many are all the same to the memory bank: clearly healthy."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of the trunk, and how many residual blocks follow the first convolution of a texture stage."""

    stem: tuple[int, int] = (16, 32)
    """Texture, at strides 2 and 4."""
    fine: int = 64
    """Texture, at stride 8."""
    coarse: int = 128
    """Texture, at stride 16."""
    fine_blocks: int = 2
    coarse_blocks: int = 2
    outputs: tuple[int, int] = (64, 128)
    """Of the two texture stages' feature maps."""
    lesion: tuple[int, int, int, int, int] = (16, 32, 64, 96, 96)
    """Lesion network, at strides 2, 4, 8, 16 and 32."""
    lesion_features: int = 32
    """Of its decoder at stride 4."""


class BundledTrunk(nn.Module):
    """Maps photographs to the feature maps of `stages`; raises `SettingError` for a stage that it does not have.

    Only the networks of the stages in use exist.
    """

    def __init__(self, stages: tuple[int, ...] = STAGES, widths: Widths = Widths()) -> None:
        super().__init__()
        if unknown := [stage for stage in stages if stage not in STAGES]:
            raise SettingError(f"backbone {NAME!r} has the stages 1, 2 and 3, not {unknown[0]}")
        self.stages = stages
        if 1 in stages:
            self.lesion = LesionNet(widths)
        if 2 in stages or 3 in stages:
            first, second = widths.stem
            self.stem = nn.Sequential(_conv(3, first, 2), nn.ReLU(True), _conv(first, second, 2), nn.ReLU(True))
            self.fine = _stage(second, widths.fine, widths.fine_blocks)
            self.coarse = _stage(widths.fine, widths.coarse, widths.coarse_blocks)
            self.fine_out = nn.Conv2d(widths.fine, widths.outputs[0], 1)
            self.coarse_out = nn.Conv2d(widths.coarse, widths.outputs[1], 1)

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Feature maps per stage in use, float (B, C, S/stride, S/stride).

        Args:
            images: float (B, 3, S, S), normalized as ImageNet.
            masks: bool (B, S, S), the field of view.
        """
        maps = []
        if 1 in self.stages:
            maps.append(self.lesion.features(locally_normalized(images, masks).to(images.dtype)))
        if 2 in self.stages or 3 in self.stages:
            fine = self.fine(self.stem(images))
            if 2 in self.stages:
                maps.append(self.fine_out(fine))
            if 3 in self.stages:
                maps.append(self.coarse_out(self.coarse(fine)))
        return tuple(maps)


def unused_parts(stages: tuple[int, ...]) -> tuple[str, ...]:
    """Beginnings of the names of the tensors that `stages` do not need."""
    lesion = () if 1 in stages else ("lesion.",)
    texture = () if 2 in stages or 3 in stages else ("stem.", "fine.", "coarse.", "fine_out.", "coarse_out.")
    return lesion + texture


class LesionNet(nn.Module):
    """A U-shaped network that marks painted lesions in photographs without their local mean and contrast."""

    feature_scale: Tensor
    logit_scale: Tensor

    def __init__(self, widths: Widths = Widths()) -> None:
        super().__init__()
        channels, features = widths.lesion, widths.lesion_features
        inputs = [3 * 4, *channels[:-1]]
        self.down = nn.ModuleList(_pair(before, after) for before, after in zip(inputs, channels, strict=True))
        # The decoder climbs from stride 32 to stride 4, beside the encoder's stages at strides 16, 8 and 4.
        decoder = [channels[4], channels[3], channels[2], features]
        self.up = nn.ModuleList(
            _pair(before + skip, after, count=1)
            for before, skip, after in zip(decoder[:-1], channels[3:0:-1], decoder[1:], strict=True)
        )
        self.merge = _pair(features + channels[0], features, count=1)
        self.out = nn.Conv2d(features, len(OUTPUTS), 1)
        # Root mean squares on the healthy photographs it was trained on: one constant for each part of a feature.
        self.register_buffer("feature_scale", torch.ones(()))
        self.register_buffer("logit_scale", torch.ones(()))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder features (B, C, S/4, S/4) and logits (B, 4, S/4, S/4), in the order of OUTPUTS.

        pixels: float (B, 3, S, S) as `locally_normalized` gives them.
        """
        x = nnf.pixel_unshuffle(pixels, 2)
        skips = []
        for number, stage in enumerate(self.down):
            x = stage(x if number == 0 else nnf.max_pool2d(x, 2))
            skips.append(x)
        for stage, skip in zip(self.up, reversed(skips[1:-1]), strict=True):
            x = nnf.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = stage(torch.cat([x, skip], dim=1))
        # A dot of two pixels is a peak at stride 2: its maximum over the cell is kept.
        x = self.merge(torch.cat([x, nnf.max_pool2d(skips[0], 2)], dim=1))
        return x, self.out(x)

    def features(self, pixels: Tensor) -> Tensor:
        """What the memory bank takes: decoder features and softened logits, each divided by its constant."""
        features, logits = self(pixels)
        evidence = nnf.softplus(logits.float() + _LOGIT_SHIFT)
        return torch.cat([features.float() / self.feature_scale, evidence / self.logit_scale], dim=1)


def locally_normalized(images: Tensor, masks: Tensor) -> Tensor:
    """Photographs less their local mean, divided by the local contrast of the green channel.

    Cameras, colors and illumination matter little then.  Means are weighted by the mask, so that the black
    surround has no part in them.

    Args:
        images: float (B, 3, S, S), normalized as ImageNet.
        masks: bool (B, S, S), the field of view.
    Returns:
        float32 (B, 3, S, S), -6 to 6; 0 outside the field of view.
    """
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    return without_local_mean(images.float() * std + mean, masks, images.shape[-1])


def without_local_mean(pixels: Tensor, masks: Tensor, width: int) -> Tensor:
    """As `locally_normalized`, of pixels in [0, 1].  width: of the whole photograph, px; a crop is smaller."""
    mask = masks[:, None].float()
    cell = max(1, round(width * _LOCAL))
    weight = _smooth(mask, cell).clamp(min=1e-3)
    rest = (pixels - _smooth(pixels * mask, cell) / weight) * mask
    variance = _smooth(rest[:, 1:2].square(), cell) / weight
    return (rest / (variance.sqrt() + _FLOOR)).clamp(-_CLIP, _CLIP) * mask


def _smooth(values: Tensor, cell: int) -> Tensor:
    """Averages over about four cells to each side, computed on a grid of cells of `cell` px."""
    coarse = nnf.avg_pool2d(values, cell, ceil_mode=True, count_include_pad=False)
    for _ in range(3):  # three boxes come close to a Gaussian; down and across, a box takes a quarter of the time
        for box, padding in (((9, 1), (4, 0)), ((1, 9), (0, 4))):
            coarse = nnf.avg_pool2d(coarse, box, stride=1, padding=padding, count_include_pad=False)
    return nnf.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)


class Residual(nn.Module):
    """x -> relu(x + f(x)), f two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 1)
        self.second = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, h, w) -> the same shape."""
        inner: Tensor = self.second(nnf.relu(self.first(x), inplace=True))
        return nnf.relu(x + inner, inplace=True)


def _stage(before: int, channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(_conv(before, channels, 2), nn.ReLU(True), *(Residual(channels) for _ in range(blocks)))


def _pair(before: int, after: int, count: int = 2) -> nn.Sequential:
    """One or two convolutions, each with its rectifier."""
    layers: list[nn.Module] = [_conv(before, after, 1), nn.ReLU(True)]
    for _ in range(count - 1):
        layers += [_conv(after, after, 1), nn.ReLU(True)]
    return nn.Sequential(*layers)


def _conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1)
