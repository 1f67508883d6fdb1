"""`resad-indexer train`."""

from pathlib import Path
from typing import Annotated

import typer
from resad_client.text import counted

from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.checks import check_device, check_outputs, check_source, check_trunk
from indexer.commands.console import Device
from lab.evaluate.painted import painted_table
from lab.training.train import TrainOrder, train
from lab.training.training import TrainingConfig
from resad import bundled, runtime


def train_command(
    photos: Annotated[Path, typer.Option(help="Folder of healthy photographs, or CSV (path,...).")],
    out: Annotated[
        Path, typer.Option(help="FILE.safetensors for --weights; loss curve and results are written beside it.")
    ],
    start: Annotated[
        str, typer.Option(help="Weights to start from: `bundled`, or a file that `train` has written.")
    ] = bundled.NAME,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Begin the lesion network anew, with random weights; takes hours on a CPU."),
    ] = False,
    teacher: Annotated[
        str | None, typer.Option(help="ResNet of torchvision whose texture features are distilled, too.")
    ] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(help="Weights of the teacher, as --weights of build.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Training steps in all.")] = 800,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time for the steps, in place of --steps; they are counted from their speed."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Crops in a step.")] = 16,
    size: Annotated[int, typer.Option(help="Side of the prepared photographs, px; the same as for build.")] = 512,
    held_out: Annotated[
        int,
        typer.Option(help="Keep every so many photographs out of the training, for the results; 0 keeps none."),
    ] = 6,
    workers: Annotated[int, typer.Option(help="Processes that draw crops beside the training.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of weights and crops.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Continue from the checkpoint that a stopped run has left.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Train the bundled trunk on your healthy photographs, with lesions painted into them."""
    check_device(device)
    check_source(photos)
    check_trunk(None, None if start == bundled.NAME else start)
    check_trunk(teacher, teacher_weights)
    check_outputs(out=out)
    chosen = runtime.pick_device(device)
    runtime.configure("exact")
    order = TrainOrder(
        photos, out, TrainingConfig(steps, seed, batch, fresh), chosen,
        start=start, teacher=teacher, teacher_weights=teacher_weights, minutes=minutes,
        held_out=held_out, size=size, workers=workers, resume=resume,
    )  # fmt: skip
    report = train(order, Stages(console.ERR), _say_forecast)
    for skipped in report.skipped:
        console.warn(f"skipped {skipped.path}: {skipped.reason}")
    console.say(
        f"{counted(report.steps, 'step')} on {counted(report.trained_on, 'photograph')}, loss {report.loss:.3f}"
    )
    if report.held_out:
        console.say(f"healthy photographs held out score {report.unseen_ratio:.3g} times as high (unseen_ratio)")
    if report.results is not None:
        console.OUT.print(painted_table(report.results))
    console.say(f"use it: resad-indexer build --weights {out}")


def _say_forecast(steps: int, seconds: float) -> None:
    console.say(f"forecast: {counted(steps, 'step')}, about {max(1, round(seconds / 60))} min")
