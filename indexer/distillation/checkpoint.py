"""A run written down: tensors as safetensors, the rest as JSON in the same file's header.  No pickle."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from indexer.distillation.student import new_student
from indexer.distillation.targets import Projection
from indexer.distillation.training import Training, TrainingConfig, new_optimizer
from resad.errors import SettingError, first_fault

_ADAM: Final = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class _Header:
    """inputs: fingerprint of photographs and teacher; a run goes on with the same ones alone."""

    inputs: str
    config: TrainingConfig
    kept: tuple[float, ...]
    losses: tuple[float, ...]


_HEADER: Final = TypeAdapter(_Header)


def save_checkpoint(run: Training, inputs: str, path: Path) -> None:
    """Write `run` to `path`; what was there is whole until the new one is."""
    tensors = {f"student.{key}": tensor for key, tensor in run.student.state_dict().items()}
    tensors |= {f"basis.{number}": basis for number, basis in enumerate(run.projection.bases)}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{key}": state[key] for key in _ADAM}
    header = _Header(inputs, run.config, run.projection.kept, tuple(run.losses))
    scratch = path.with_name(path.name + ".part")
    flat = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    safetensors.torch.save_file(flat, scratch, {"run": _HEADER.dump_json(header).decode()})
    scratch.replace(path)


def load_checkpoint(path: Path, inputs: str, config: TrainingConfig, device: torch.device) -> Training:
    """The run in `path`.

    Raises:
        SettingError: there is none, it cannot be read, or it is of other settings, photographs or another teacher.
    """
    header, tensors = _read(path)
    if header.config != config:
        raise SettingError(f"{path} was begun with {_told(header.config)}, not with {_told(config)}")
    if header.inputs != inputs:
        raise SettingError(f"{path} was begun with other photographs or another teacher")
    student = new_student(config.seed)
    student.load_state_dict(_below("student", tensors))
    student.to(device)
    optimizer = new_optimizer(student)
    optimizer.load_state_dict(_adam(optimizer, tensors))
    bases = tuple(tensors[f"basis.{number}"].to(device) for number in range(len(header.kept)))
    return Training(config, Projection(bases, header.kept), student, optimizer, list(header.losses))


def _read(path: Path) -> tuple[_Header, dict[str, Tensor]]:
    if not path.is_file():
        raise SettingError(f"no checkpoint at {path}: nothing to resume")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = _HEADER.validate_json((file.metadata() or {}).get("run", ""))
            return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except ValidationError as error:
        raise SettingError(f"{path} is no checkpoint: {first_fault(error)}") from error
    except safetensors.SafetensorError as error:
        raise SettingError(f"{path} is no checkpoint: {error}") from error


def _adam(optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What `load_state_dict` of the optimizer takes."""
    whole: dict[str, Any] = optimizer.state_dict()
    count = sum(len(group["params"]) for group in whole["param_groups"])
    if "adam.0.step" in tensors:
        whole["state"] = {number: _below(f"adam.{number}", tensors) for number in range(count)}
    return whole


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}."): one for key, one in tensors.items() if key.startswith(f"{prefix}.")}


def _told(config: TrainingConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(config).items())
