"""`resad-indexer evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.commands import console
from indexer.commands.console import Device, Index
from indexer.datasets.mvtec import read_mvtec
from indexer.evaluate import figures, figures_json, measure_dataset
from indexer.progress import Stages
from indexer.scoring import write_whole
from resad.config import PhotoLimits
from resad.errors import SettingError


def evaluate_command(
    index: Index,
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    dataset: Annotated[str, typer.Option(help="Layout of the data set: mvtec.")] = "mvtec",
    json: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
    device: Device = "auto",
) -> None:
    """Measure an index on labeled photographs, with 95 % intervals over photographs."""
    if dataset != "mvtec":
        raise SettingError(f"data set layout {dataset!r} is not known; there is: mvtec")
    labeled = read_mvtec(data)
    if json is not None and not json.parent.is_dir():
        raise SettingError(f"--json {json}: {json.parent} is no folder")
    loaded = console.load(index, device)
    with Stages(console.ERR).stage("score", len(labeled.test), "photos") as advance:
        measured = measure_dataset(loaded, labeled, PhotoLimits(), advance)
    result = figures(measured, loaded, labeled)
    if result.photos.in_the_index:
        console.ERR.print(f"[yellow]{result.photos.in_the_index} test photographs are in the index: "
                   "the figures flatter.[/]")  # fmt: skip
    console.OUT.print(tables.figures_table(result))
    for reason in result.missing:
        console.warn(reason)
    if json is not None:
        write_whole(json, figures_json(result).encode() + b"\n")
