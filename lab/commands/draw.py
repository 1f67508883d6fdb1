"""`resad-indexer draw`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.commands import console
from lab.drawing import write_dataset


def draw_command(
    folder: Annotated[Path, typer.Argument(help="Empty or new folder; gets the MVTec layout.")],
    train: Annotated[int, typer.Option(min=0, help="Healthy photographs to build from.")] = 40,
    good: Annotated[int, typer.Option(min=0, help="Healthy test photographs.")] = 6,
    diseased: Annotated[int, typer.Option(min=0, help="Test photographs with lesions and masks.")] = 6,
    height: Annotated[int, typer.Option(help="Height, px; the width is 3/2 of it.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same photographs.")] = 0,
) -> None:
    """Draw believable fundus photographs, for trying things out and for tests."""
    write_dataset(folder, seed, train=train, good=good, diseased=diseased, height=height)
    console.say(f"{train} + {good} healthy and {diseased} diseased photographs drawn into {folder}")
