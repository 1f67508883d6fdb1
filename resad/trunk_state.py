"""A trunk's tensors: drawn, read from a file or downloaded, and what of them fits its skeleton."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from resad import bundled
from resad.config import BackboneConfig
from resad.errors import SettingError, WeightsMismatch, WeightsUnavailable
from resad.skeleton import builders, skeleton

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
