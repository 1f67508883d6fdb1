"""`resad-indexer ablation`."""

import io
from pathlib import Path
from typing import Annotated

import typer
from resad_client.files import write_atomically

from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.checks import check_device, check_outputs, check_trunk
from indexer.commands.console import Device
from indexer.settings import method_config
from lab.ablation import (
    WITHOUT_RESC,
    AblationOptions,
    ablation_table,
    differences,
    example_maps,
    run,
    summary,
    trials_json,
)
from lab.commands.datasets import Altered, Data, Exclude, open_checked
from lab.evaluate.paper import FULL
from resad import runtime
from resad.backbone import default_weights
from resad.config import PhotoLimits, Preset
from resad.loaded_index import LoadedIndex


def ablation_command(
    data: Data,
    dataset: Annotated[str, typer.Option(help="A name of `resad-indexer datasets`.")] = "idrid-paper",
    exclude: Exclude = None,
    altered_copy: Altered = False,
    preset: Annotated[Preset, typer.Option(help="Settings to start from, as of build.")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="As of build.")] = None,
    weights: Annotated[str | None, typer.Option(help="As of build.")] = None,
    coreset: Annotated[str | None, typer.Option(help="As of build.")] = None,
    size: Annotated[int | None, typer.Option(help="As of build.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="As of build.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Random choices of 10, 40 and 70 % of the normals, each.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write every trial here as JSON.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw photographs, marks, and maps without and with ReSC here, as PNG.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Repeat the paper's table 3 and figure 2: parts of ReSC left out, and fewer normals."""
    check_outputs(json=json, figure=figure)
    check_device(device)
    check_trunk(backbone, weights)
    config = method_config(preset, backbone=backbone, size=size, coreset=coreset, settings=settings or ())
    labeled = open_checked(dataset, data, exclude, altered_copy=altered_copy)
    runtime.configure(config.precision)
    weights = weights or default_weights(config.backbone.name)
    options = AblationOptions(labeled, config, weights, runtime.pick_device(device), seeds)
    trials, indexes = [], {}
    for trial, loaded in run(options, Stages(console.ERR)):
        trials.append(trial)
        if trial.row in (FULL, WITHOUT_RESC):
            indexes[trial.row] = loaded
        if figure is not None and trial.row == WITHOUT_RESC:
            _draw(options, indexes[WITHOUT_RESC], indexes[FULL], figure)
        if json is not None:  # after each: the whole table may take hours
            write_atomically(json, trials_json(trials))
    console.OUT.print(ablation_table(summary(trials, labeled.name), options))
    if lines := differences(options):
        console.say("The paper's figures are not to be expected here, as this is not its experiment:")
        for line in lines:
            console.say(f"  {line}")


def _draw(options: AblationOptions, without_resc: LoadedIndex, with_resc: LoadedIndex, place: Path) -> None:
    png = io.BytesIO()
    example_maps(options.dataset, without_resc, with_resc, PhotoLimits()).save(png, "PNG", optimize=True)
    write_atomically(place, png.getvalue())
