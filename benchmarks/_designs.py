"""Designs of a small trunk, and what each learns in one shared run: the same crops, the same teacher."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from indexer.distillation.student import Normed, new_student, replace_modules
from indexer.distillation.targets import Projection, fit_projection, inside, targets
from indexer.distillation.training import new_optimizer
from indexer.distillation.views import Square, Views, draw_views, whole_view
from resad.bundled import BundledTrunk, Widths
from resad.whitening import Whitening, fit_whitening

Loss = Literal["squared distance", "cosine"]
_CROP: Final = 224
_BATCH: Final = 8
_RATE: Final = 2e-3
_WARM_UP: Final = 100
_PROJECTION_BATCHES: Final = 24


@dataclass(frozen=True, slots=True)
class Design:
    """A row.

    depthwise: every 3 x 3 convolution behind the stem is a depthwise one and a 1 x 1 one.
    whitened: the targets are centered and whitened halfway, as ReSC does it afterwards with the others' features.
    """

    name: str
    widths: Widths = Widths()
    loss: Loss = "squared distance"
    depthwise: bool = False
    whitened: bool = False


DESIGNS: Final = (
    Design("as shipped"),
    Design("plain, three quarters as wide", Widths((12, 24), 48, 96)),
    Design("plain, wider", Widths((24, 48), 64, 160)),
    Design("depthwise 128, 256", Widths((24, 48), 128, 256, 3, 3), depthwise=True),
    Design("as shipped, cosine loss", loss="cosine"),
    Design("as shipped, whitened targets", whitened=True),
)


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """trunk: in evaluation mode.  seconds: of this design's own part of all steps."""

    design: Design
    trunk: BundledTrunk
    parameters: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Runner:
    design: Design
    student: BundledTrunk
    optimizer: torch.optim.AdamW
    seconds: float = 0.0


def student_of(design: Design, seed: int = 0) -> BundledTrunk:
    """The untrained network of a design."""
    student = new_student(seed, design.widths)
    if design.depthwise:
        for stage in (student.fine, student.coarse):
            replace_modules(stage, Normed, _separable)
    return student


def learn(
    designs: Sequence[Design], teacher: nn.Module, squares: Sequence[Square], steps: int,
    photographed: Sequence[Square], on_step: Callable[[str], None],
) -> list[Learned]:  # fmt: skip
    """Train all designs side by side on the CPU; each sees the same crops and the same answers of the teacher."""
    channels = Widths().outputs
    views = (_views(squares, 2, number) for number in range(_PROJECTION_BATCHES))
    projection = fit_projection(teacher, views, channels)
    whitening = _whitening(teacher, projection, photographed)
    runners = [_Runner(design, net := student_of(design), new_optimizer(net)) for design in designs]
    for step in range(steps):
        batch = _views(squares, 1, step)
        images = batch.normalized().to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            stages = teacher(images)
        wanted = targets(tuple(stage.float() for stage in stages), projection)
        whitened = tuple(whitening.of(n, nnf.normalize(one, dim=1)) for n, one in enumerate(wanted))
        losses = [_step(one, images, wanted, whitened, batch, _rate(step, steps)) for one in runners]
        on_step("loss " + " ".join(f"{loss:.3f}" for loss in losses))
    return [
        Learned(one.design, one.student.eval(), sum(p.numel() for p in one.student.parameters()), one.seconds)
        for one in runners
    ]


def _step(
    runner: _Runner, images: Tensor, wanted: tuple[Tensor, ...], whitened: tuple[Tensor, ...], batch: Views,
    rate: float,
) -> float:  # fmt: skip
    began = time.perf_counter()
    for group in runner.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        outputs = runner.student(images)
    loss = torch.stack(
        [
            _loss(runner.design.loss, output.float(), white if runner.design.whitened else target)[
                inside(batch, output)
            ].mean()
            for output, target, white in zip(outputs, wanted, whitened, strict=True)
        ]
    ).sum()
    runner.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    runner.optimizer.step()
    runner.seconds += time.perf_counter() - began
    return float(loss.detach())


def _loss(kind: Loss, output: Tensor, target: Tensor) -> Tensor:
    """(B, h, w)."""
    if kind == "cosine":
        return 1 - nnf.cosine_similarity(output, target, dim=1)
    error: Tensor = nnf.normalize(output, dim=1) - target
    return error.square().sum(dim=1)


def _whitening(teacher: nn.Module, projection: Projection, photographed: Sequence[Square]) -> Whitening:
    """Fitted to the targets on healthy photographs as they are."""

    def units(square: Square) -> list[Tensor]:
        view = whole_view(square)
        with torch.no_grad():
            wanted = targets(teacher(view.normalized()), projection)
        return [nnf.normalize(one, dim=1).permute(0, 2, 3, 1)[inside(view, one)] for one in wanted]

    return fit_whitening(map(units, photographed), 0.5)


def _separable(normed: Normed) -> nn.Module:
    before, after = normed.conv.in_channels, normed.conv.out_channels
    depthwise = nn.Conv2d(before, before, 3, normed.conv.stride[0], 1, groups=before, bias=False)
    pointwise = nn.Conv2d(before, after, 1, bias=False)
    generator = torch.Generator().manual_seed(before * after)
    for layer in (depthwise, pointwise):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    norm = nn.BatchNorm2d(after)
    norm.load_state_dict(normed.norm.state_dict())
    return nn.Sequential(depthwise, nn.BatchNorm2d(before), nn.ReLU(True), pointwise, norm)


def _rate(step: int, steps: int) -> float:
    return _RATE * min((step + 1) / _WARM_UP, 1.0) * (1 + cos(pi * step / steps)) / 2


def _views(squares: Sequence[Square], stream: int, number: int) -> Views:
    return draw_views(squares, np.random.default_rng([0, stream, number]), batch=_BATCH, side=_CROP)
