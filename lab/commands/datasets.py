"""`resad-indexer datasets` and `resad-indexer datasets export`."""

from pathlib import Path
from typing import Annotated

import typer
from resad_client.files import write_atomically
from resad_client.text import counted
from rich.table import Table

from indexer import tables
from indexer.commands import console
from lab.datasets import Dataset
from lab.datasets.catalog import CATALOG, Entry, open_dataset
from lab.datasets.layouts import listed_csv
from resad.errors import SettingError

app = typer.Typer(invoke_without_command=True)

Data = Annotated[Path, typer.Option(help="Folder of the data set as it was unpacked (csv: the file).")]
Exclude = Annotated[
    Path | None, typer.Option("--exclude-list", help="Photographs to leave out: a line each, the end of the path.")
]
Altered = Annotated[
    bool, typer.Option("--altered-copy", help="Take a copy that is not the published one; figures will differ.")
]


@app.callback()
def datasets_command(context: typer.Context) -> None:
    """List the data sets that are known by name: layout, licence, where to get them, and how each is split."""
    if context.invoked_subcommand is None:
        for entry in CATALOG:
            console.OUT.print(_dataset_table(entry))


@app.command("export")
def export_command(
    name: Annotated[str, typer.Argument(help="A name of `resad-indexer datasets`.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV to be written.")],
    exclude: Exclude = None,
    altered_copy: Altered = False,
) -> None:
    """Write a data set's split as CSV: `build` takes the training rows, `evaluate --dataset csv` the others."""
    if out.suffix.lower() != ".csv" or not out.parent.is_dir():
        raise SettingError(f"--out {out}: a .csv file in a folder that is there")
    dataset = open_checked(name, data, exclude, altered_copy=altered_copy)
    write_atomically(out, listed_csv(dataset))
    normal = sum(not photo.abnormal for photo in dataset.test)
    console.say(f"{counted(len(dataset.train), 'photograph')} to build from, {normal} normal and "
                f"{len(dataset.test) - normal} abnormal ones to test on, listed in {out}")  # fmt: skip


def open_checked(name: str, data: Path, exclude: Path | None, *, altered_copy: bool) -> Dataset:
    """The data set; raises `SettingError` for a copy that differs from the published one, unless allowed."""
    dataset = open_dataset(name, data, exclude)
    for deviation in dataset.deviations:
        console.warn(f"{name}: {deviation}")
    if dataset.deviations and not altered_copy:
        raise SettingError(
            f"{data} is not {name} as it is published ({len(dataset.deviations)} differences, above): figures "
            "from it cannot be compared; --altered-copy takes it all the same"
        )
    return dataset


def _dataset_table(entry: Entry) -> Table:
    """Facts about a data set as a table."""
    table = tables.facts(f"{entry.name}: {entry.title}")
    table.expand = True
    for name, text in (("layout", entry.layout), ("split", entry.split), ("licence", entry.licence),
                       ("source", entry.source)):  # fmt: skip
        table.add_row(name, text)
    return table
