"""What the commands share: the two streams, arguments that several take, and the loading of an index."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from indexer.build.references import TooFewTaken
from indexer.photos.listing import Duplicate, LookAlike, Skipped, overlooked
from resad import runtime
from resad.loaded_index import LoadedIndex, load_index
from resad.manifest import Manifest

OUT: Final = Console()
ERR: Final = Console(stderr=True)

Index = Annotated[Path, typer.Argument(help="ROOT/NAME (its live version) or ROOT/NAME/VERSION.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
OneIndex = Annotated[Path, typer.Argument(help="ROOT/NAME.")]
Live = Annotated[bool, typer.Option("--activate/--no-activate", help="Make the new version the live one.")]
Root = Annotated[Path, typer.Option(help="Folder that holds the indexes.")]


def tell_overlooked(photos: Path) -> None:
    """Lines for what is not used of a CSV: a column whose name is not known would be missed without a word."""
    for line in overlooked(photos):
        warn(line)


def tell_left_aside(skipped: Iterable[Skipped], duplicates: Iterable[Duplicate]) -> None:
    """A line beside the answer for each photograph that was not taken."""
    for one in skipped:
        warn(f"skipped {one.path}: {one.reason}")
    for double in duplicates:
        warn(f"dropped {double.path}: same file as {double.same_as}")


@contextmanager
def naming_left_aside() -> Iterator[None]:
    """Name what was not taken also where too little was: the error that follows counts it alone."""
    try:
        yield
    except TooFewTaken as error:
        tell_left_aside(error.skipped, error.duplicates)
        raise


def tell_look_alikes(pairs: Sequence[LookAlike]) -> None:
    """A line for each photograph that was taken, though it shows what another one shows, and what follows."""
    for pair in pairs:
        how = "is a mirror image of" if pair.mirrored else "shows the same as"
        warn(f"kept {pair.path}, though it {how} {pair.like} ({pair.bits} of 255 bits differ)")
    if pairs:
        warn("photographs that show the same are left out together in the calibration; one of each would do")


def tell_stale(manifest: Manifest) -> None:
    """A line where p-values of the index may be too low, and what mends them."""
    if manifest.calibrated == "stale":
        warn(
            "STALE: the normals were scored in another bank, so that they may score higher now, and p-values be "
            "too low; resad-indexer calibrate mends that"
        )


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
