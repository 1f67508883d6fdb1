"""`resad-indexer examples`: labeled photographs as examples of known lesions, to begin with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from resad_client.text import counted

from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.checks import check_device, check_source
from indexer.commands.console import Device, OneIndex
from lab.commands.datasets import Altered, Exclude, open_checked
from lab.datasets.dataset import LabeledPhoto, read_lesions
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex
from resad.marks import Region, label_of, mark_photo
from resad.preparation import Frame, prepare

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


_LABELS: Final = {"exudate": "hard-exudate", "hard-exudates": "hard-exudate", "haemorrhages": "hemorrhage",
          "hemorrhages": "hemorrhage", "microaneurysms": "microaneurysm", "soft-exudates": "soft-exudate",
          "ex": "hard-exudate", "he": "hemorrhage", "ma": "microaneurysm", "se": "soft-exudate"}  # fmt: skip
"""Data sets' own words -> `resad.marks.LESION_KINDS`."""


def mark_dataset(
    place: Path,
    loaded: LoadedIndex,
    photos: Sequence[LabeledPhoto],
    reader: str,
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
) -> int:
    """Add the lesions of labeled photographs to the journal of ROOT/NAME, a mark for each kind.

    Returns the number of marks.
    """
    count = 0
    for labeled in photos:
        with naming(labeled.path):
            photo = prepare(labeled.path, loaded.manifest.config.preparation, limits)
        regions = regions_of(labeled, photo.frame, photo.mask)
        if regions:
            (detection,) = loaded.detector.detect([photo])
            marked = mark_photo(
                place, loaded.manifest, photo, detection.patches, detection.patch_distances, regions, reader
            )
            count += len(marked.marks)
        on_photo(1)
    return count


def regions_of(labeled: LabeledPhoto, frame: Frame, field: NDArray[np.bool_]) -> list[Region]:
    """A region for each kind of lesion that has a pixel in the field of view, bool (S, S)."""
    # Masks of all lesions together say no more where there are masks by kind.
    by_kind = [mask for mask in labeled.masks if mask.kind is not None]
    lesions = read_lesions(by_kind or labeled.masks, frame.height, frame.width)
    regions = []
    for kind, mask in lesions.items():
        y, x = np.nonzero(mask)
        across, down = frame.to_prepared(x + 0.5, y + 0.5)
        columns, rows = np.floor(across).astype(int), np.floor(down).astype(int)
        inside = (columns >= 0) & (columns < frame.side) & (rows >= 0) & (rows < frame.side)
        square = np.zeros((frame.side, frame.side), np.bool_)
        square[rows[inside], columns[inside]] = True
        square &= field
        if square.any():
            label = label_of(kind or labeled.kind)
            regions.append(Region(_LABELS.get(label, label), square))
    return regions
