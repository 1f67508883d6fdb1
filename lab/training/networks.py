"""The trunk in training: batch normalization where it begins anew, folded into plain convolutions for the file."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resad.bundled import BundledTrunk, Residual


class NormalizedConv(nn.Module):
    """A convolution without bias, followed by batch normalization."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride[0], 1, bias=False)
        self.norm = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, h, w) -> (B, C', h', w')."""
        normalized: Tensor = self.norm(self.conv(x))
        return normalized


def trainable_trunk(start: BundledTrunk, seed: int, *, fresh: bool, texture: bool) -> BundledTrunk:
    """A copy of `start` in training mode.

    Args:
        seed: of the new weights, which depend on nothing else.
        fresh: begin the networks that are trained with random weights and batch normalization.  Otherwise they go
            on from `start` with plain convolutions.
        texture: the texture network is trained, too, and not only the lesion network.
    """
    trunk = copy.deepcopy(start).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    names = ("lesion", "stem", "fine", "coarse", "fine_out", "coarse_out") if texture else ("lesion",)
    for module in [trunk.get_submodule(name) for name in names]:
        module.requires_grad_(True)
        if fresh:
            with_norm(module)
            _initialize(module, generator)
    return trunk.train().to(memory_format=torch.channels_last)


def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    """He initialization of all convolutions; biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Residual):
            # A block that begins near the identity trains faster.
            nn.init.constant_(cast(Tensor, cast(NormalizedConv, part.second).norm.weight), 0.2)


def folded(trunk: BundledTrunk) -> BundledTrunk:
    """A copy on the CPU with plain convolutions that computes what `trunk` does in evaluation mode."""
    plain = copy.deepcopy(trunk).eval().cpu()
    _replace(plain, lambda module: isinstance(module, NormalizedConv), lambda m: fuse_conv_bn_eval(m.conv, m.norm))
    return plain.requires_grad_(False)


def with_norm(module: nn.Module) -> None:
    """Put batch normalization behind every 3 x 3 convolution, in place."""
    _replace(module, _is_normalized, NormalizedConv)


def _is_normalized(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


def _replace(module: nn.Module, matches: Callable[[nn.Module], bool], make: Callable[[Any], nn.Module]) -> None:
    """Replace every child for which `matches`, at any depth, by `make(child)`."""
    for name, child in module.named_children():
        if matches(child):
            setattr(module, name, make(child))
        else:
            _replace(child, matches, make)
