"""Trunks without weights: ResNets cut behind their last stage in use, and the bundled one."""

from collections.abc import Callable, Mapping

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from resad import bundled
from resad.config import BackboneConfig
from resad.errors import SettingError


def skeleton(config: BackboneConfig) -> nn.Module:
    """The trunk without memory behind its tensors: nothing is allocated, nothing is initialized."""
    with torch.device("meta"):
        if config.name == bundled.NAME:
            return bundled.BundledTrunk(config.stages)
        check_known(config.name)
        return _CutResNet(builders()[config.name](weights=None), config.stages)


def check_known(name: str) -> None:
    """Raise `SettingError`, naming those that there are, where no trunk is called `name`."""
    if name != bundled.NAME and name not in builders():
        known = ", ".join([bundled.NAME, *sorted(builders())])
        raise SettingError(f"backbone {name!r} is not known; these are: {known}")


def builders() -> Mapping[str, Callable[..., ResNet]]:
    """torchvision's trunks of the ResNet family by name."""
    names = torchvision.models.list_models(
        module=torchvision.models, include=["resnet*", "resnext*", "wide_resnet*"]
    )
    return {name: torchvision.models.get_model_builder(name) for name in names}


class _CutResNet(nn.Module):
    """What lies before the last stage in use, under torchvision's own names."""

    def __init__(self, net: ResNet, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.stages = stages
        for number in range(1, max(stages) + 1):
            self.add_module(f"layer{number}", getattr(net, f"layer{number}"))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for number in range(1, max(self.stages) + 1):
            x = self.get_submodule(f"layer{number}")(x)
            if number in self.stages:
                maps.append(x)
        return tuple(maps)
