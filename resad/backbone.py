"""The pre-trained trunk phi of the paper (section 3.1, equation 1): one feature map per stage.

Only the stages in use are built: no classifier, and no stage behind the last one in use.  Weights come by
torchvision's name, from a file, or as `random:SEED`.  torchvision is imported only for its own trunks, which takes
seconds.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resad import bundled
from resad.config import BackboneConfig
from resad.errors import SettingError, WeightsMismatch, WeightsUnavailable

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

DEFAULT_WEIGHTS: Final = "imagenet1k_v1"
"""By name, because torchvision's own default is V2, whose features are not interchangeable with V1's."""
_REMEDIES: Final = (
    "use the trunk inside the package (--backbone bundled), give a file of weights (--weights FILE.safetensors or "
    "FILE.pth), or run once where downloads are possible"
)


@dataclass(frozen=True)
class TrainingPhoto:
    """A photograph that a trunk was trained on.

    content_sha256: of the file's bytes.  perceptual_hash: of the picture, as in an index's records.
    """

    content_sha256: str
    perceptual_hash: str


_TRAINING_PHOTOS: Final = TypeAdapter(tuple[TrainingPhoto, ...])
_TRAINED_ON: Final = "trained_on"
_UNSEEN_RATIO: Final = "unseen_ratio"
"""Keys in the metadata of a file of weights: the training photographs, and how much higher others score."""


class Backbone(nn.Module):
    """A trunk cut behind its last stage in use, weights loaded, in evaluation mode.

    Args:
        config: trunk and stages.
        state: the trunk's tensors, exactly those of `config`.
        trained_on: the healthy photographs that the trunk was trained on, if its file names any.
        unseen_ratio: how much higher an unseen healthy photograph of the same source scores than one that the
            trunk was trained on, at least 1; measured on photographs held out of the training.
    """

    def __init__(
        self,
        config: BackboneConfig,
        state: Mapping[str, Tensor],
        trained_on: tuple[TrainingPhoto, ...] = (),
        unseen_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.trained_on = trained_on
        self.unseen_ratio = unseen_ratio
        self.weights_sha256 = digest(state)
        self.net = skeleton(config)
        self.net.load_state_dict(dict(state), assign=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Feature maps per stage in use, float (B, C, S/stride, S/stride).

        Args:
            images: float (B, 3, S, S), normalized as ImageNet.
            masks: bool (B, S, S), the field of view.
        """
        maps: tuple[Tensor, ...] = self.net(images, masks)
        return maps


def default_weights(name: str) -> str:
    """The weights of the trunk `name` unless others are given."""
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
        return _from_file(config, Path(weights))
    check_name(config.name)
    if config.name == weights == bundled.NAME:
        return _from_file(config, bundled.FILE)
    return Backbone(config, trunk_state(download_state(config.name, weights), config, weights))


def _from_file(config: BackboneConfig, path: Path) -> Backbone:
    state = trunk_state(read_state(path), config, str(path))
    # The ratio is that of the lesion features; it says nothing of an index without them.
    ratio = 1.0 if config.name == bundled.NAME and 1 not in config.stages else unseen_ratio(path)
    return Backbone(config, state, training_photos(path), ratio)


def save_backbone(backbone: Backbone, path: Path, *, half: bool = False) -> None:
    """Write the trunk's tensors as safetensors; `load_backbone(config, str(path))` reads them back.

    half: store them in float16, at half the size; they were rounded to it before.
    """
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in backbone.net.state_dict().items()}
    if half:
        state = {key: tensor.half() for key, tensor in state.items()}
    metadata = {}
    if backbone.trained_on:
        metadata[_TRAINED_ON] = _TRAINING_PHOTOS.dump_json(backbone.trained_on).decode()
    if backbone.unseen_ratio != 1:
        metadata[_UNSEEN_RATIO] = repr(backbone.unseen_ratio)
    try:
        safetensors.torch.save_file(state, path, metadata or None)
    except safetensors.SafetensorError as error:
        raise _system_error(error, path) from error
    if len(metadata) > 1:
        _sort_metadata(path)


def _system_error(error: Exception, path: Path) -> OSError:
    """The system's own error, such as a full disk, which safetensors only puts into its message."""
    number = next((number for number in errno.errorcode if os.strerror(number) in str(error)), errno.EIO)
    return OSError(number, os.strerror(number), str(path))


def training_photos(path: Path) -> tuple[TrainingPhoto, ...]:
    """The photographs that the trunk in `path` was trained on; none if the file names none."""
    try:
        return _TRAINING_PHOTOS.validate_json(_metadata(path).get(_TRAINED_ON, "[]"))
    except ValidationError as error:
        raise WeightsMismatch(f"{path} names its training photographs in an unknown form") from error


def unseen_ratio(path: Path) -> float:
    """How much higher unseen healthy photographs score than those that the trunk in `path` was trained on.

    1 if the file does not state it.  Raises `WeightsMismatch` for a number below 1.
    """
    text = _metadata(path).get(_UNSEEN_RATIO, "1")
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 <= ratio < math.inf:
        raise WeightsMismatch(f"{path} states the {_UNSEEN_RATIO} {text!r}; it is a number of at least 1")
    return ratio


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of a file of weights; none if its format has none."""
    if path.suffix != ".safetensors":
        return {}
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def _sort_metadata(path: Path) -> None:
    """Write the metadata of a safetensors file in alphabetical order: the library's own order is random."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


def skeleton(config: BackboneConfig) -> nn.Module:
    """The trunk without memory behind its tensors: nothing is allocated, nothing is initialized."""
    with torch.device("meta"):
        if config.name == bundled.NAME:
            return bundled.BundledTrunk(config.stages)
        check_name(config.name)
        return _CutResNet(builders()[config.name](weights=None), config.stages)


def check_name(name: str) -> None:
    """Raise `SettingError`, listing the trunks, if none is called `name`."""
    if name != bundled.NAME and name not in builders():
        names = ", ".join([bundled.NAME, *sorted(builders())])
        raise SettingError(f"unknown backbone {name!r}; there are: {names}")


def builders() -> "Mapping[str, Callable[..., ResNet]]":
    """torchvision's trunks of the ResNet family by name."""
    from torchvision import models

    names = models.list_models(module=models, include=["resnet*", "resnext*", "wide_resnet*"])
    return {name: models.get_model_builder(name) for name in names}


class _CutResNet(nn.Module):
    """A ResNet up to the last stage in use, under torchvision's own names."""

    def __init__(self, net: "ResNet", stages: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.stages = stages
        for number in range(1, max(stages) + 1):
            self.add_module(f"layer{number}", getattr(net, f"layer{number}"))

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for number in range(1, max(self.stages) + 1):
            x = self.get_submodule(f"layer{number}")(x)
            if number in self.stages:
                maps.append(x)
        return tuple(maps)


def random_state(config: BackboneConfig, seed: str) -> dict[str, Tensor]:
    """Random tensors by seed alone: He initialization for convolutions (as torchvision), identity batch norm."""
    if not seed.isdecimal():
        raise SettingError(f"weights 'random:{seed}': the seed is a whole number, as in random:0")
    generator = torch.Generator().manual_seed(int(seed))
    state = {}
    for key, tensor in skeleton(config).state_dict().items():
        if tensor.ndim == 4:
            values = torch.empty(tensor.shape)
            nn.init.kaiming_normal_(values, mode="fan_out", nonlinearity="relu", generator=generator)
        else:
            ones = key.endswith(("weight", "running_var", "_scale"))
            values = torch.full(tensor.shape, 1 if ones else 0, dtype=tensor.dtype)
        state[key] = values
    return state


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.pth` file; raises `WeightsUnavailable` and `WeightsMismatch`."""
    if not path.is_file():
        raise WeightsUnavailable(f"no weights at {path}; {_REMEDIES}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the two readers' errors for foreign bytes share no other base
        raise WeightsMismatch(f"{path} holds no readable tensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsMismatch(f"{path} is not a plain mapping from names to tensors")
    return cast(dict[str, Tensor], state)


def download_state(name: str, weights: str) -> Mapping[str, Tensor]:
    """torchvision's weights of the trunk `name`; raises `SettingError` and `WeightsUnavailable`."""
    from torchvision import models

    available = models.get_model_weights(name) if name in builders() else ()
    match = next((entry for entry in available if entry.name.lower() == weights.lower()), None)
    if match is None:
        names = ", ".join(entry.name.lower() for entry in available) or (name if name == bundled.NAME else "none")
        raise SettingError(
            f"weights {weights!r} are neither a file (.safetensors, .pth) nor {name}'s own ({names})"
        )
    try:
        return cast(Mapping[str, Tensor], match.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(f"{weights} of {name} cannot be downloaded from here; {_REMEDIES}") from error


def trunk_state(state: Mapping[str, Tensor], config: BackboneConfig, origin: str) -> dict[str, Tensor]:
    """The trunk's part of `state`: tensors that the stages in use do not need are left out, others must fit."""
    expected = skeleton(config).state_dict()
    unused = ("fc.", *(f"layer{number}." for number in range(max(config.stages) + 1, 5)))
    if config.name == bundled.NAME:
        unused = bundled.unused_parts(config.stages)
    # Counters that only training reads; many files leave them out.
    counters = {key: torch.zeros((), dtype=torch.long) for key in expected if key.endswith("num_batches_tracked")}
    tensors = counters | {key: tensor for key, tensor in state.items() if not key.startswith(unused)}
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsMismatch(
            f"{origin} does not fit {config.name}: missing {_list(missing)}; unexpected {_list(unexpected)}"
        )
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if tensors[key].shape != tensor.shape
    ]
    if shapes:
        raise WeightsMismatch(f"{origin} does not fit {config.name}: {_list(shapes)}")
    return {
        key: tensors[key].to(torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for key, tensor in expected.items()
    }


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
