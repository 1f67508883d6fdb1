"""The training loop.  Each crop is drawn from its own number, so that a run can stop and go on anywhere."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from math import cos, pi
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from resad_client.files import write_atomically
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lab.training.crops import HealthyPhoto, draw_crop
from lab.training.networks import trainable_trunk
from lab.training.teacher import Teacher, texture_loss
from resad.bundled import IMAGENET_MEAN, IMAGENET_STD, BundledTrunk, without_local_mean
from resad.errors import SettingError, first_fault

CROP: Final = 256
"""Side of a crop, px."""

_RATE: Final = 3e-3
_WARM_UP: Final = 0.08
"""Share of the steps in which the learning rate rises; then it falls along a cosine to 0."""
_DECAY: Final = 1e-2
_CLIP: Final = 1.0
"""Largest norm of a step's gradient."""
_AVERAGE: Final = 0.999
"""Of the running average of the weights, which is what is written."""
_KIND_WEIGHT: Final = 0.3
"""Of the outputs dark, bright and other, beside abnormal's 1."""
_FOCUS: Final = 1.5
"""Exponent of the focal loss (Lin et al. 2017)."""
_ADAM: Final = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingConfig:
    """steps: in all; the learning rate depends on it.  batch: crops a step.  seed: of weights and crops.

    fresh: begin with random weights, not with those of an existing trunk.
    """

    steps: int
    seed: int
    batch: int
    fresh: bool = False


@plain_dataclass(slots=True, eq=False)
class Training:
    """A run so far.  averaged: the running average of the trunk's state.  losses: one value for each step."""

    config: TrainingConfig
    trunk: BundledTrunk
    averaged: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    teacher: Teacher | None
    losses: list[float]

    def averaged_trunk(self) -> BundledTrunk:
        """The trunk with the averaged weights."""
        trunk = copy.deepcopy(self.trunk)
        trunk.load_state_dict(self.averaged)
        return trunk


class CropSet(Dataset[tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]]):
    """Endless training crops by number: pixels, field of view, targets, weights (see `Crop`)."""

    def __init__(self, photos: Sequence[HealthyPhoto], seed: int, first: int, count: int) -> None:
        self._photos, self._seed, self._first, self._count = photos, seed, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(
        self, number: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        crop = draw_crop(np.random.default_rng([self._seed, self._first + number]), self._photos, CROP)
        return np.ascontiguousarray(crop.pixels), crop.mask, crop.targets, crop.weight


@plain_dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops on the device.

    pixels: float32 (B, 3, C, C), RGB in [0, 1].  masks: bool (B, C, C).  targets: float32 (B, 4, C/4, C/4).
    weights: float32 (B, C/4, C/4).
    """

    pixels: Tensor
    masks: Tensor
    targets: Tensor
    weights: Tensor

    def images(self) -> Tensor:
        """The pixels normalized as ImageNet."""
        mean = torch.tensor(IMAGENET_MEAN, device=self.pixels.device)[:, None, None]
        std = torch.tensor(IMAGENET_STD, device=self.pixels.device)[:, None, None]
        return ((self.pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def batches(
    photos: Sequence[HealthyPhoto], config: TrainingConfig, first_step: int, device: torch.device, workers: int
) -> Iterator[Batch]:
    """The batches from `first_step` on, drawn by `workers` processes (0: this one); the same by any number."""
    crops = CropSet(photos, config.seed, first_step * config.batch, (config.steps - first_step) * config.batch)
    loader: DataLoader[Any] = DataLoader(
        crops,
        batch_size=config.batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_single_threaded,
        pin_memory=device.type == "cuda",
    )
    for pixels, masks, targets, weights in loader:
        yield Batch(
            pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255,
            masks.to(device, non_blocking=True),
            targets.to(device, non_blocking=True),
            weights.to(device, non_blocking=True),
        )


def _single_threaded(worker: int) -> None:
    torch.set_num_threads(1)


def new_training(
    config: TrainingConfig, start: BundledTrunk, teacher: Teacher | None, device: torch.device
) -> Training:
    """A run before its first step.  Without a teacher the texture stages stay those of `start`."""
    trunk = trainable_trunk(start, config.seed, fresh=config.fresh, texture=teacher is not None).to(device)
    averaged = {key: tensor.detach().clone() for key, tensor in trunk.state_dict().items()}
    return Training(config, trunk, averaged, _new_optimizer(trunk), teacher, [])


def train_step(run: Training, batch: Batch, photo_width: int) -> float:
    """One step; returns its loss.  The trunk computes in bfloat16, weights and loss are float32.

    photo_width: side of the photographs that the crops come from, px, for the local normalization.
    """
    step = len(run.losses)
    for group in run.optimizer.param_groups:
        group["lr"] = _rate(step, run.config)
    with torch.autocast(batch.pixels.device.type, torch.bfloat16):
        _, logits = run.trunk.lesion(_normalized(batch, photo_width))
    loss = lesion_loss(logits.float(), batch.targets, batch.weights)
    if run.teacher is not None:
        images = batch.images()
        with torch.autocast(batch.pixels.device.type, torch.bfloat16):
            targets = run.teacher.targets(images, batch.masks)
            fine = run.trunk.fine(run.trunk.stem(images))
            outputs = run.trunk.fine_out(fine), run.trunk.coarse_out(run.trunk.coarse(fine))
        loss = loss + texture_loss(outputs, targets, batch.masks)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_((p for p in run.trunk.parameters() if p.requires_grad), _CLIP)
    run.optimizer.step()
    _average(run)
    run.losses.append(float(loss.detach()))
    return run.losses[-1]


def lesion_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Focal loss plus dice loss of each output, over cells of weight 1.

    logits, targets: float32 (B, 4, h, w).  weights: float32 (B, h, w).
    """
    weight = weights[:, None]
    chance = torch.sigmoid(logits)
    entropy = nnf.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = torch.where(targets > 0, 1 - chance, chance)
    focal = (missed**_FOCUS * entropy * weight).mean(dim=(0, 2, 3))
    overlap = 2 * (chance * targets * weight).sum(dim=(0, 2, 3)) + 1
    dice = 1 - overlap / (((chance + targets) * weight).sum(dim=(0, 2, 3)) + 1)
    outputs = torch.full((logits.shape[1],), _KIND_WEIGHT, device=logits.device)
    outputs[0] = 1.0
    return (outputs * (8 * focal + 0.5 * dice)).sum()


def _normalized(batch: Batch, photo_width: int) -> Tensor:
    pixels = without_local_mean(batch.pixels, batch.masks, photo_width)
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _average(run: Training) -> None:
    """Move the averaged state towards the current one; in the first steps it follows closely."""
    share = min(_AVERAGE, (len(run.losses) + 1) / (len(run.losses) + 20))
    for key, tensor in run.trunk.state_dict().items():
        if tensor.is_floating_point():
            run.averaged[key].lerp_(tensor, 1 - share)
        else:
            run.averaged[key].copy_(tensor)


def _rate(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step; a trunk that exists already is changed at a tenth of it."""
    highest = _RATE if config.fresh else _RATE / 10
    warm_up = max(1, round(_WARM_UP * config.steps))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (1 + cos(pi * (step - warm_up) / max(1, config.steps - warm_up))) / 2


def _new_optimizer(trunk: nn.Module) -> torch.optim.AdamW:
    """Weights of convolutions decay; biases and normalizations do not."""
    parameters = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": _DECAY},
        {"params": [parameter for parameter in parameters if parameter.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=_RATE, betas=(0.9, 0.99))


@dataclass(frozen=True)
class _Header:
    """inputs: fingerprint of photographs, start and teacher; a run is resumed with the same ones only."""

    inputs: str
    config: TrainingConfig
    kept: tuple[float, ...]
    losses: tuple[float, ...]


_HEADER: Final = TypeAdapter(_Header)


def save_checkpoint(run: Training, inputs: str, path: Path) -> None:
    """Write `run` to `path`, as tensors and a JSON header; the earlier checkpoint stays whole until then."""
    tensors = {f"trunk.{key}": tensor for key, tensor in run.trunk.state_dict().items()}
    tensors |= {f"averaged.{key}": tensor for key, tensor in run.averaged.items()}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{key}": state[key] for key in _ADAM}
    kept: tuple[float, ...] = ()
    if run.teacher is not None:
        kept = run.teacher.kept
        tensors |= {f"basis.{number}": basis for number, basis in enumerate(run.teacher.bases)}
    header = _HEADER.dump_json(_Header(inputs, run.config, kept, tuple(run.losses))).decode()
    flat = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(flat, {"run": header}))


def load_checkpoint(
    path: Path,
    inputs: str,
    config: TrainingConfig,
    start: BundledTrunk,
    teacher: Teacher | None,
    device: torch.device,
) -> Training:
    """The run in `path`.

    Raises:
        SettingError: there is none, it cannot be read, or it has other settings, photographs, start or teacher.
    """
    header, tensors = _read(path)
    if header.config != config:
        raise SettingError(f"{path} was begun with {_describe(header.config)}, not with {_describe(config)}")
    if header.inputs != inputs:
        raise SettingError(f"{path} was begun with other photographs, another start or another teacher")
    run = new_training(config, start, teacher, device)
    run.trunk.load_state_dict(_below("trunk", tensors))
    run.averaged = {key: tensor.to(device) for key, tensor in _below("averaged", tensors).items()}
    run.optimizer.load_state_dict(_adam(run.optimizer, tensors))
    run.losses = list(header.losses)
    if teacher is not None:
        bases = tuple(tensors[f"basis.{number}"].to(device) for number in range(len(header.kept)))
        run.teacher = Teacher(teacher.net, bases, header.kept)
    return run


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
    """The optimizer's state as its `load_state_dict` takes it."""
    state: dict[str, Any] = optimizer.state_dict()
    count = sum(len(group["params"]) for group in state["param_groups"])
    if "adam.0.step" in tensors:
        state["state"] = {number: _below(f"adam.{number}", tensors) for number in range(count)}
    return state


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}


def _describe(config: TrainingConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(config).items())


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, one thread for the network: the other cores draw crops, and a run repeats to the bit."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
