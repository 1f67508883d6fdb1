"""photos, teacher -> a small trunk that computes what the teacher does: the command `resad-indexer distill`."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter

from indexer.build.progress import Stages
from indexer.distillation.agreement import Agreement, agreements
from indexer.distillation.checkpoint import load_checkpoint, save_checkpoint
from indexer.distillation.curve import write_curve
from indexer.distillation.pool import Pool, draw_squares, read_pool
from indexer.distillation.student import folded
from indexer.distillation.targets import Projection
from indexer.distillation.training import Training, TrainingConfig, new_training, train_step
from indexer.photos.listing import list_references
from resad.backbone import Backbone, load_backbone
from resad.bundled import STAGES, BundledTrunk
from resad.config import BackboneConfig, PhotoLimits
from resad.errors import SettingError


@dataclass(frozen=True, slots=True)
class DistillOrder:
    """What is to be distilled.

    teacher_weights: as for `load_backbone`.  out: a .safetensors file; loss curve, evaluation and checkpoint lie
    beside it.  size: side of the prepared squares that crops are taken from, px.  drawn: photographs drawn beside
    the given ones.  checkpoint_every: steps.
    """

    photos: Path
    teacher: str
    teacher_weights: str
    out: Path
    training: TrainingConfig
    device: torch.device
    size: int = 512
    drawn: int = 160
    resume: bool = False
    checkpoint_every: int = 200
    limits: PhotoLimits = PhotoLimits()

    @property
    def checkpoint(self) -> Path:
        """Where the run is written down while it lasts."""
        return self.out.with_suffix(".checkpoint.safetensors")


@dataclass(frozen=True, slots=True)
class DistillReport:
    """What came of it.  loss: mean over the last twentieth of the steps."""

    files: tuple[Path, ...]
    pool: Pool
    loss: float
    agreements: tuple[Agreement, ...]


_AGREEMENTS: TypeAdapter[tuple[Agreement, ...]] = TypeAdapter(tuple[Agreement, ...])


def distill(order: DistillOrder, stages: Stages) -> DistillReport:
    """Train a trunk, write it in float16 with its loss curve, and measure it on held-out photographs.

    The same order gives the same file on a CPU, interrupted and resumed or not.

    Raises:
        SettingError: settings that cannot be, fewer than two photographs, or a checkpoint of another run.
        ArtifactError: a teacher whose weights are not to be had or do not fit.
    """
    _check(order)
    teacher = load_backbone(BackboneConfig(order.teacher, STAGES), order.teacher_weights)
    teacher.to(order.device).to(memory_format=torch.channels_last)
    pool = _pool(order, stages)
    run = _train(order, teacher, pool, stages)
    trunk = _as_written(folded(run.student))
    files = tuple(order.out.with_suffix(suffix) for suffix in (".safetensors", ".csv", ".png", ".json"))
    with stages.stage("evaluate", len(pool.held_out), "photos") as advance:
        bases = tuple(basis.cpu() for basis in run.projection.bases)
        found = agreements(trunk, teacher.cpu(), Projection(bases, run.projection.kept), pool.held_out)
        advance(len(pool.held_out))
    save_trunk(trunk, files[0])
    write_curve(run.losses, files[1], files[2])
    files[3].write_bytes(_AGREEMENTS.dump_json(found, indent=2) + b"\n")
    order.checkpoint.unlink(missing_ok=True)
    last = run.losses[-max(1, len(run.losses) // 20) :]
    return DistillReport(files, pool, sum(last) / len(last), found)


def save_trunk(trunk: BundledTrunk, path: Path) -> None:
    """Write the weights as float16 safetensors, as `load_backbone` reads them for the trunk `bundled`."""
    state = {key: tensor.half().contiguous() for key, tensor in trunk.state_dict().items()}
    safetensors.torch.save_file(state, path)


def _as_written(trunk: BundledTrunk) -> BundledTrunk:
    """What a reader of the file computes with: weights rounded to float16, arithmetic in float32."""
    return trunk.half().float().requires_grad_(False)


def _check(order: DistillOrder) -> None:
    if order.out.suffix != ".safetensors":
        raise SettingError(f"--out {order.out}: a file that ends in .safetensors")
    if not order.out.parent.is_dir():
        raise SettingError(f"--out {order.out}: there is no folder {order.out.parent}")
    for name, value, least in (
        ("steps", order.training.steps, 1),
        ("batch", order.training.batch, 2),
        ("drawn", order.drawn, 0),
        ("seed", order.training.seed, 0),
    ):
        if value < least:
            raise SettingError(f"--{name} {value}: at least {least}")


def _pool(order: DistillOrder, stages: Stages) -> Pool:
    listed = list_references(order.photos)
    with stages.stage("prepare", len(listed), "photos") as advance:
        pool = read_pool(listed, order.size, order.limits, advance)
    drawn = []
    with stages.stage("draw", order.drawn, "photos") as advance:
        for square in draw_squares(order.drawn, order.size, order.training.seed):
            drawn.append(square)
            advance(1)
    return replace(pool, drawn=tuple(drawn))


def _train(order: DistillOrder, teacher: Backbone, pool: Pool, stages: Stages) -> Training:
    squares, inputs = pool.trained_on, _inputs(order, teacher, pool)
    if order.resume:
        run = load_checkpoint(order.checkpoint, inputs, order.training, order.device)
    else:
        run = new_training(order.training, teacher, squares, order.device)
    with stages.stage("distil", order.training.steps, "steps") as advance:
        advance(len(run.losses))
        while len(run.losses) < order.training.steps:
            loss = train_step(run, teacher, squares, order.device)
            if len(run.losses) % order.checkpoint_every == 0:
                save_checkpoint(run, inputs, order.checkpoint)
            advance(1, f"loss {loss:.4f}")
    return run


def _inputs(order: DistillOrder, teacher: Backbone, pool: Pool) -> str:
    """Of everything else that the steps depend on."""
    sha = hashlib.sha256(f"{teacher.weights_sha256} {order.size} {order.drawn}".encode())
    for square in pool.photographed:
        sha.update(square.pixels.tobytes())
    return sha.hexdigest()
