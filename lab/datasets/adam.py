"""ADAM (Fang et al. 2022), unpacked as it is downloaded, split as in the paper (section 4.1).

Only its 400 training photographs have masks.  Test: those with a mask of any lesion.  Train: all others, whatever
their label: a photograph may show AMD and no marked lesion, or a lesion and no AMD.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indexer.photos.listing import ReferencePhoto
from lab.datasets import Dataset, LabeledPhoto, LesionMask
from lab.datasets.copies import folder_of, photos_in, unexpected_count, unexpected_names, unexpected_sizes

LESIONS: Final = ("drusen", "exudate", "hemorrhage", "others", "scar")
_PHOTOS: Final = ("AMD-Training400", "Training400")
_MASKS: Final = ("Training400-Lesion", "Lesion_Masks")
_AMD, _OTHERS = "AMD", "Non-AMD"
_SIZES: Final = {(2124, 2056), (1444, 1444)}
_ABNORMAL: Final = 118


def read_adam(root: Path) -> Dataset:
    """The paper's protocol: 282 photographs to build from, 118 abnormal ones to test on, and no normal ones.

    Raises `SettingError` where a folder is missing.
    """
    folder = folder_of(root, *_PHOTOS, of="ADAM")
    masks = folder_of(root, *_MASKS, of="ADAM")
    groups = {name: photos_in(folder_of(folder, name, of="ADAM")) for name in (_AMD, _OTHERS)}
    photos = [photo for group in groups.values() for photo in group]
    marked = {photo: tuple(_marked(masks, photo)) for photo in photos}
    train = tuple(ReferencePhoto(photo) for photo in photos if not marked[photo])
    test = tuple(LabeledPhoto(photo, True, photo.parent.name, marked[photo]) for photo in photos if marked[photo])
    return Dataset("adam-paper", train, test, tuple(_deviations(groups, photos, len(test))))


def _marked(masks: Path, photo: Path) -> Iterator[LesionMask]:
    """The masks of a photograph: black where the lesion is.  No file: no such lesion."""
    for kind in LESIONS:
        path = masks / kind / f"{photo.stem}.bmp"
        if path.is_file():
            yield LesionMask(path, kind, "black")


def _deviations(groups: dict[str, list[Path]], photos: list[Path], abnormal: int) -> Iterator[str]:
    expected = {
        _AMD: [f"A{n:04d}.jpg" for n in range(1, 90)],
        _OTHERS: [f"N{n:04d}.jpg" for n in range(1, 312)],
    }
    for name, names in expected.items():
        yield from unexpected_names(groups[name], names, name)
    yield from unexpected_count("photographs with a mask of a lesion", abnormal, _ABNORMAL)
    yield from unexpected_sizes(photos, _SIZES)
