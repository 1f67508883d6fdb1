"""The trunk that is shipped inside the package: small, fully convolutional, trained by `resad-indexer distill`.

Two stages like the others' second and third, at strides 8 and 16, with half of ResNet-18's channels.  Plain 3 x 3
convolutions with biases and rectifiers: batch normalization exists in training alone and is folded into the
convolutions when the trunk is written.  How it was trained and measured: `weights/MODEL_CARD.md`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch.nn.functional as nnf
from torch import Tensor, nn

from resad.errors import SettingError

NAME: Final = "bundled"
"""Of the trunk and of its weights, where torchvision's names stand for others."""
STAGES: Final = (2, 3)
FILE: Final = Path(__file__).with_name("weights") / "bundled.safetensors"
"""The weights, float16; what is computed from them is float32."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Channels of the trunk, and how many residual blocks follow the first convolution of a stage."""

    stem: tuple[int, int] = (16, 32)
    """At strides 2 and 4."""
    fine: int = 64
    """At stride 8."""
    coarse: int = 128
    """At stride 16."""
    fine_blocks: int = 2
    coarse_blocks: int = 2
    outputs: tuple[int, int] = (64, 128)
    """Of the two stages' feature maps."""


class BundledTrunk(nn.Module):
    """Maps photographs to the feature maps of `stages`.  Raises `SettingError` for a stage that it has not."""

    def __init__(self, stages: tuple[int, ...] = STAGES, widths: Widths = Widths()) -> None:
        super().__init__()
        if unknown := [stage for stage in stages if stage not in STAGES]:
            raise SettingError(f"backbone {NAME!r} has the stages 2 and 3, not {unknown[0]}")
        self.stages = stages
        first, second = widths.stem
        self.stem = nn.Sequential(_conv(3, first, 2), nn.ReLU(True), _conv(first, second, 2), nn.ReLU(True))
        self.fine = _stage(second, widths.fine, widths.fine_blocks)
        self.coarse = _stage(widths.fine, widths.coarse, widths.coarse_blocks)
        self.fine_out = nn.Conv2d(widths.fine, widths.outputs[0], 1)
        self.coarse_out = nn.Conv2d(widths.coarse, widths.outputs[1], 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """float (B, 3, S, S), normalized as ImageNet -> per stage in use float (B, C, S/stride, S/stride)."""
        fine = self.fine(self.stem(images))
        return tuple(
            self.fine_out(fine) if stage == STAGES[0] else self.coarse_out(self.coarse(fine))
            for stage in self.stages
        )


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


def _conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, 1)
