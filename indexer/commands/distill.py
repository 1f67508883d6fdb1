"""`resad-indexer distill`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.console import Device
from indexer.distill import DistillOrder, distill
from indexer.distillation.training import TrainingConfig
from resad import runtime
from resad.backbone import default_weights


def distill_command(
    photos: Annotated[Path, typer.Option(help="Folder of healthy photographs, or CSV (path,...).")],
    out: Annotated[
        Path, typer.Option(help="FILE.safetensors for --weights; loss curve and evaluation are written beside it.")
    ],
    teacher: Annotated[str, typer.Option(help="torchvision ResNet by name.")] = "wide_resnet50_2",
    teacher_weights: Annotated[str | None, typer.Option(help="Of the teacher, as --weights of build.")] = None,
    steps: Annotated[int, typer.Option(help="Training steps in all.")] = 4000,
    batch: Annotated[int, typer.Option(help="Crops a step.")] = 8,
    size: Annotated[int, typer.Option(help="Side of the squares that crops are taken from, px.")] = 512,
    drawn: Annotated[int, typer.Option(help="Photographs drawn beside the given ones.")] = 160,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint that a stopped run has left.")] = False,
    device: Device = "auto",
) -> None:
    """Train a trunk like the packaged one from your photographs and any teacher."""
    training = TrainingConfig(steps, seed, batch)
    weights = teacher_weights or default_weights(teacher)
    chosen = runtime.pick_device(device)
    runtime.configure("exact")
    order = DistillOrder(photos, teacher, weights, out, training, chosen, size=size, drawn=drawn, resume=resume)
    report = distill(order, Stages(console.ERR))
    for skipped in report.pool.skipped:
        console.warn(f"skipped {skipped.path}: {skipped.reason}")
    console.OUT.print(tables.agreement_table(report))
    console.say(f"use it: resad-indexer build --backbone bundled --weights {out}")
