"""The pre-trained trunk phi of the paper (section 3.1, equation 1): one feature map per stage.

Only the stages in use are built: no classifier, and no stage behind the last one in use.  Weights come by
torchvision's name, from a file, or as `random:SEED`.  torchvision is imported only for its own trunks.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from resad import bundled
from resad.config import BackboneConfig
from resad.errors import SettingError, WeightsMismatch, WeightsUnavailable

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


_WAYS_OUT: Final = (
    "take the trunk that is inside the package (--backbone bundled), "
    "give a file of weights (--weights FILE.safetensors or FILE.pth), or run once where downloads are possible"
)


def random_state(config: BackboneConfig, seed: str) -> dict[str, Tensor]:
    """He initialization for convolutions (torchvision's own choice), identity for batch norm; by seed alone."""
    if not seed.isdecimal():
        raise SettingError(f"weights 'random:{seed}': the seed is a whole number, as in random:0")
    generator = torch.Generator().manual_seed(int(seed))
    state = {}
    for key, tensor in skeleton(config).state_dict().items():
        if tensor.ndim == 4:
            fresh = torch.empty(tensor.shape)
            nn.init.kaiming_normal_(fresh, mode="fan_out", nonlinearity="relu", generator=generator)
        else:
            ones = key.endswith(("weight", "running_var"))
            fresh = torch.full(tensor.shape, 1 if ones else 0, dtype=tensor.dtype)
        state[key] = fresh
    return state


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.pth` file; raises `WeightsUnavailable` and `WeightsMismatch`."""
    if not path.is_file():
        raise WeightsUnavailable(f"no weights at {path}; {_WAYS_OUT}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what the two readers raise on foreign bytes shares no other base
        raise WeightsMismatch(f"{path} holds no readable tensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsMismatch(f"{path} is not a plain mapping from names to tensors")
    return cast(dict[str, Tensor], state)


def download_state(name: str, weights: str) -> Mapping[str, Tensor]:
    """What torchvision has for the trunk `name`; raises `SettingError` and `WeightsUnavailable`."""
    known = torchvision.models.get_model_weights(name) if name in builders() else ()
    found = [entry for entry in known if entry.name.lower() == weights.lower()]
    if not found:
        names = ", ".join(entry.name.lower() for entry in known) or (name if name == bundled.NAME else "none")
        raise SettingError(
            f"weights {weights!r} are neither a file (.safetensors, .pth) nor {name}'s own ({names})"
        )
    try:
        return cast(Mapping[str, Tensor], found[0].get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(f"{weights} of {name} cannot be downloaded from here; {_WAYS_OUT}") from error


def fitted(state: Mapping[str, Tensor], config: BackboneConfig, origin: str) -> dict[str, Tensor]:
    """The trunk's part of `state`.  What lies behind the trunk is left out, anything else must fit exactly."""
    wanted = skeleton(config).state_dict()
    behind = ("fc.", *(f"layer{number}." for number in range(max(config.stages) + 1, 5)))
    # Counters that only training reads; many files leave them out.
    counters = {key: torch.zeros((), dtype=torch.long) for key in wanted if key.endswith("num_batches_tracked")}
    given = counters | {key: tensor for key, tensor in state.items() if not key.startswith(behind)}
    missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unexpected:
        raise WeightsMismatch(
            f"{origin} does not fit {config.name}: missing {_list(missing)}; unexpected {_list(unexpected)}"
        )
    shapes = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if given[key].shape != tensor.shape
    ]
    if shapes:
        raise WeightsMismatch(f"{origin} does not fit {config.name}: {_list(shapes)}")
    return {key: given[key].to(torch.float32 if tensor.is_floating_point() else tensor.dtype)
            for key, tensor in wanted.items()}  # fmt: skip


def _list(items: list[str]) -> str:
    return (
        "none" if not items else ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
    )


def digest(state: Mapping[str, Tensor]) -> str:
    """`sha256:...` over names, shapes and float32 values: the same for the same trunk in any container."""
    sha = hashlib.sha256()
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue
        tensor = state[key].detach().to("cpu", torch.float32).contiguous()
        sha.update(f"{key} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.numpy().tobytes())
    return "sha256:" + sha.hexdigest()


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
