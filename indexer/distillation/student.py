"""The trunk in training: batch normalization behind every 3 x 3 convolution, folded away in the end."""

import copy
from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resad.bundled import BundledTrunk, Residual, Widths

_WIDTHS: Final = Widths()


class Normed(nn.Module):
    """A convolution without bias, and its normalization."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, h, w) -> (B, C', h', w')."""
        normed: Tensor = self.norm(self.conv(x))
        return normed


def new_student(seed: int, widths: Widths = _WIDTHS) -> BundledTrunk:
    """An untrained trunk, in training mode, with normalization; its weights depend on `seed` alone."""
    student = BundledTrunk(widths=widths)
    replace_modules(student, nn.Conv2d, lambda conv: Normed(conv) if conv.kernel_size == (3, 3) else conv)
    generator = torch.Generator().manual_seed(seed)
    for parameter in student.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu", generator=generator)
    nn.init.zeros_(cast(Tensor, student.fine_out.bias))
    nn.init.zeros_(cast(Tensor, student.coarse_out.bias))
    for module in student.modules():
        if isinstance(module, Residual):
            # A block that begins near the identity trains faster.
            nn.init.constant_(cast(Tensor, cast(Normed, module.second).norm.weight), 0.2)
    return student.train().to(memory_format=torch.channels_last)


def folded(student: BundledTrunk) -> BundledTrunk:
    """A copy with plain convolutions and biases that computes what `student` does in evaluation."""
    plain = copy.deepcopy(student).eval().cpu()
    replace_modules(plain, Normed, lambda normed: fuse_conv_bn_eval(normed.conv, normed.norm))
    return plain


def replace_modules(module: nn.Module, kind: type, made: Callable[[Any], nn.Module]) -> None:
    """Put `made(child)` in the place of every child of that kind, at any depth."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, made(child))
        else:
            replace_modules(child, kind, made)
