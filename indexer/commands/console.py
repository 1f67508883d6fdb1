"""What the commands share: the two streams, arguments that several take, and the loading of an index."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from resad import runtime
from resad.loaded_index import LoadedIndex, load_index

OUT: Final = Console()
ERR: Final = Console(stderr=True)

Index = Annotated[Path, typer.Argument(help="ROOT/NAME (its live version) or ROOT/NAME/VERSION.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the indexes.")]


def load(index: Path, device: str) -> LoadedIndex:
    """The index, and this process set as its settings ask."""
    loaded = load_index(index, runtime.pick_device(device))
    runtime.configure(loaded.manifest.config.precision)
    return loaded


def say(line: str) -> None:
    """A line of the answer, as it is."""
    OUT.print(line, highlight=False, soft_wrap=True, markup=False)


def warn(line: str) -> None:
    """A line beside the answer, as it is."""
    ERR.print(line, highlight=False, soft_wrap=True, markup=False)
