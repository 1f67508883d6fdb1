"""The loop: each step draws its views from its own number, so that a run can stop and go on anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Final

import numpy as np
import torch
from torch import nn

from indexer.distillation.student import new_student
from indexer.distillation.targets import Projection, distance, fit_projection, targets
from indexer.distillation.views import Square, Views, draw_views
from resad.bundled import BundledTrunk

_CROP: Final = 224
"""Side of a crop, px: a teacher sees about that far."""
_RATE: Final = 2e-3
_WARM_UP: Final = 100
"""Steps in which the rate of learning rises to `_RATE`, from where it falls along a cosine to 0."""
_DECAY: Final = 1e-3
_PROJECTION_BATCHES: Final = 24
_TRAINING, _PROJECTION = 1, 2
"""Streams of random numbers."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """steps: in all; the rate of learning depends on it.  batch: crops a step."""

    steps: int
    seed: int
    batch: int


@dataclass(slots=True, eq=False)
class Training:
    """A run as it stands; `losses` holds one value for each step that was done."""

    config: TrainingConfig
    projection: Projection
    student: BundledTrunk
    optimizer: torch.optim.AdamW
    losses: list[float]


def new_training(
    config: TrainingConfig, teacher: nn.Module, squares: Sequence[Square], device: torch.device
) -> Training:
    """The run before its first step, the targets fitted to the teacher on augmented views."""
    student = new_student(config.seed).to(device)
    views = (
        _views(squares, config, _PROJECTION, number, device)
        for number in range(min(_PROJECTION_BATCHES, config.steps))
    )
    channels = (student.fine_out.out_channels, student.coarse_out.out_channels)
    return Training(config, fit_projection(teacher, views, channels), student, new_optimizer(student), [])


def new_optimizer(student: nn.Module) -> torch.optim.AdamW:
    """Weights of convolutions decay; biases and normalizations do not."""
    parameters = list(student.parameters())
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": _DECAY},
        {"params": [one for one in parameters if one.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=_RATE)


def train_step(run: Training, teacher: nn.Module, squares: Sequence[Square], device: torch.device) -> float:
    """One step further; its loss.  Both trunks compute in bfloat16, weights and loss are float32."""
    step = len(run.losses)
    for group in run.optimizer.param_groups:
        group["lr"] = _rate(step, run.config.steps)
    views = _views(squares, run.config, _TRAINING, step, device)
    images = views.normalized().to(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        with torch.no_grad():
            stages = teacher(images)
        outputs = run.student(images)
    wanted = targets(tuple(stage.float() for stage in stages), run.projection)
    loss = distance(tuple(output.float() for output in outputs), wanted, views)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    run.losses.append(float(loss.detach()))
    return run.losses[-1]


def _rate(step: int, steps: int) -> float:
    return _RATE * min((step + 1) / _WARM_UP, 1.0) * (1 + cos(pi * step / steps)) / 2


def _views(
    squares: Sequence[Square], config: TrainingConfig, stream: int, number: int, device: torch.device
) -> Views:
    rng = np.random.default_rng([config.seed, stream, number])
    views = draw_views(squares, rng, batch=config.batch, side=_CROP)
    return Views(views.images.to(device), views.mask.to(device))
