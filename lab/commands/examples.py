"""`resad-indexer examples`: labeled photographs as examples of known lesions, to begin with."""

from pathlib import Path
from typing import Annotated

import typer
from resad_client.text import counted

from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.checks import check_device, check_source
from indexer.commands.console import Device, OneIndex
from lab.commands.datasets import Altered, Exclude, open_checked
from lab.datasets.examples import mark_dataset
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Take labeled photographs as examples of known lesions."
)


@app.callback()
def about() -> None:
    """Take labeled photographs as examples of known lesions."""


@app.command("add")
def add_command(
    index: OneIndex,
    data: Annotated[Path, typer.Option(help="Folder of the data set as it was unpacked (csv: the file).")],
    dataset: Annotated[str, typer.Option(help="A name of `resad-indexer datasets`.")] = "mvtec",
    exclude: Exclude = None,
    altered_copy: Altered = False,
    device: Device = "auto",
) -> None:
    """Add the lesions of labeled photographs to the journal of marks; `teach` makes a version of them."""
    place = index_store.resolve(index).resolve().parent
    if index_store.live_version(place) is None:
        raise SettingError(f"{index}: give ROOT/NAME, beside whose versions the journal of marks is")
    check_device(device)
    check_source(data)
    labeled = open_checked(dataset, data, exclude, altered_copy=altered_copy)
    photos = [photo for photo in labeled.test if photo.masks]
    if not photos:
        raise SettingError(f"{data}: no photograph has a mask of lesions")
    loaded = console.load(place, device)
    with Stages(console.ERR).stage("encode", len(photos), "photos") as advance:
        marks = mark_dataset(place, loaded, photos, f"data set {labeled.name}", PhotoLimits(), advance)
    console.say(
        f"{counted(marks, 'region')} of {counted(len(photos), 'photograph')} added to the journal; "
        f"resad-indexer teach {index} learns them"
    )
