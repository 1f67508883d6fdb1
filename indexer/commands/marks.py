"""`resad-indexer marks`: list, export, import and take back what readers have marked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device, check_outputs, check_source
from indexer.commands.console import Device, OneIndex
from resad import index as index_store
from resad.errors import SettingError

if TYPE_CHECKING:
    from resad.engine import Engine

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="List, export, import and take back readers' marks."
)
Reader = Annotated[str, typer.Option(help="Who marked; stands in the journal.")]


@app.command("list")
def list_command(index: OneIndex) -> None:
    """List the marks of an index, oldest first."""
    from resad.marks import read_entries, valid_marks

    place = _place(index)
    entries = read_entries(place)
    valid = {mark.id for _, _, mark in valid_marks(entries)}
    for entry in entries:
        for mark in entry.photo.marks:
            gone = "" if mark.id in valid else "  taken back"
            who, distance = entry.photo.reader, f"distance {mark.distance:#.4g}"
            console.say(f"{mark.id}  {entry.photo.at}  {who}  {mark.label}  {distance}{gone}")
    console.say(f"{place.name}: {counted(len(valid), 'mark')}")


@app.command("export")
def export_command(index: OneIndex, out: Annotated[Path, typer.Option(help="JSON file.")]) -> None:
    """Write all marks to a file: photographs by content hash, regions, labels, readers, times; no pictures."""
    from resad_client.files import write_atomically

    from resad.marks import journal_json, read_entries

    check_outputs(out=out)
    write_atomically(out, journal_json(read_entries(_place(index))))


@app.command("withdraw")
def withdraw_command(
    index: OneIndex,
    ids: Annotated[list[str], typer.Argument(help="Ids of marks, as m-3f9c12ab-1.")],
    reader: Reader,
) -> None:
    """Take marks back; `teach` makes a version without them."""
    from resad.marks import withdraw

    console.say(f"taken back: {', '.join(withdraw(_place(index), ids, reader))}")


@app.command("import")
def import_command(
    index: OneIndex,
    marks: Annotated[
        Path,
        typer.Argument(help="COCO file (JSON), or CSV with the columns photo, label, points (x y x y ...)."),
    ],
    photos: Annotated[Path, typer.Option(help="Folder of the photographs that the file names.")],
    reader: Reader,
    device: Device = "auto",
) -> None:
    """Add marks that were made with another program."""
    from indexer.lifecycle.mark_files import read_marks
    from resad.engine import Engine

    place = _place(index)
    check_source(photos)
    check_device(device)
    regions = read_marks(marks, photos)
    engine = Engine(console.load(place, device))
    count = sum(_mark(engine, place, path, polygons, reader) for path, polygons in regions.items())
    console.say(f"{counted(count, 'mark')} added to the journal; resad-indexer teach {index} learns them")


def _mark(engine: "Engine", place: Path, path: Path, polygons: list[tuple[str, list[tuple[float, float]]]],
          reader: str) -> int:  # fmt: skip
    from resad.errors import naming
    from resad.marks import mark_photo, polygon_region

    with naming(path):
        photo = engine.prepare(path)
        (detection,) = engine.detect([photo])
    try:
        regions = [polygon_region(label, points, photo.frame) for label, points in polygons]
        marked = mark_photo(
            place, engine.loaded.manifest, photo, detection.patches, detection.patch_distances, regions, reader
        )
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error
    return len(marked.marks)


def _place(index: Path) -> Path:
    version = index_store.resolve(index).resolve()
    if version.name not in index_store.versions(version.parent):
        raise SettingError(f"{index} is not below ROOT/NAME, where the journal of marks is")
    return version.parent
