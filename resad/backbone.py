"""The pre-trained trunk phi of the paper (section 3.1, equation 1): one feature map per stage.

Only the stages that are asked for are built: no classifier, and no stage behind the last one in use
(`resad.skeleton`).  Weights come by torchvision's name, from a file, or as `random:SEED` (`resad.trunk_state`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
from torch import Tensor, nn

from resad import bundled
from resad.config import BackboneConfig
from resad.skeleton import check_known, skeleton
from resad.trunk_state import digest, download_state, fitted, random_state, read_state

DEFAULT_WEIGHTS: Final = "imagenet1k_v1"
"""By name, because torchvision's own default is V2, whose features are not interchangeable with V1's."""


class Backbone(nn.Module):
    """A trunk cut behind its last stage in use, weights loaded, in evaluation mode.

    Args:
        config: trunk and stages.
        state: the trunk's tensors, exactly those of `config`.
    """

    def __init__(self, config: BackboneConfig, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.weights_sha256 = digest(state)
        self.net = skeleton(config)
        self.net.load_state_dict(dict(state), assign=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """float (B, 3, S, S), normalized as ImageNet -> per stage in use float (B, C, S/stride, S/stride)."""
        maps: tuple[Tensor, ...] = self.net(images)
        return maps


def default_weights(name: str) -> str:
    """What is loaded into the trunk `name` where nothing else is asked for."""
    return bundled.NAME if name == bundled.NAME else DEFAULT_WEIGHTS


def load_backbone(config: BackboneConfig, weights: str) -> Backbone:
    """The trunk with its weights.

    Args:
        weights: torchvision's name for them (`imagenet1k_v1`, downloaded once by torchvision and checked by it),
            `bundled` for the trunk of that name, the path of a `.safetensors` or `.pth` file, or `random:SEED`.
    Raises:
        SettingError: unknown trunk or name of weights.
        WeightsUnavailable: no such file, or no download possible.
        WeightsMismatch: tensors are missing, unexpected, or of another shape.
    """
    if weights.startswith("random:"):
        return Backbone(config, random_state(config, weights.removeprefix("random:")))
    if weights.endswith((".safetensors", ".pth", ".pt")):
        return Backbone(config, fitted(read_state(Path(weights)), config, weights))
    check_known(config.name)
    if config.name == weights == bundled.NAME:
        return Backbone(config, fitted(read_state(bundled.FILE), config, str(bundled.FILE)))
    return Backbone(config, fitted(download_state(config.name, weights), config, weights))


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write the trunk's tensors as safetensors; `load_backbone(config, str(path))` reads them back."""
    safetensors.torch.save_file(_trunk_state(backbone), path)


def _trunk_state(backbone: Backbone) -> dict[str, Tensor]:
    """The tensors under their own network's names, whatever device and layout they are in."""
    return {key: tensor.detach().cpu().contiguous() for key, tensor in backbone.net.state_dict().items()}
