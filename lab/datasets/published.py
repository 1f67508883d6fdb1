"""IDRiD and ADAM as they are downloaded, split as in the paper (section 4.1), and a check that the copy is the
published one.

IDRiD (Porwal et al. 2018): train on the disease grading set's training photographs of grade 0; test on all
photographs of the segmentation set, with their masks, and on the grading set's testing photographs of grade 0.

ADAM (Fang et al. 2022): only its 400 training photographs have masks.  Test on those with a mask of any lesion,
train on all others, whatever their label: a photograph may show AMD and no marked lesion, or a lesion and no AMD.
"""

import csv
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError
from resad_client.text import counted

from indexer.photos.listing import LesionMask, ReferencePhoto, is_photo
from lab.datasets.dataset import Dataset, LabeledPhoto
from resad.errors import SettingError

_EXAMPLES: Final = 3


def folder_of(root: Path, *parts: str, of: str) -> Path:
    """The folder `parts` below `root`, or below the one folder that an archive unpacked into `root` made.

    Raises `SettingError`, naming what was expected.
    """
    for base in (root, *sorted(path for path in _entries(root) if path.is_dir())):
        if (place := base.joinpath(*parts)).is_dir():
            return place
    raise SettingError(f"{root} is not {of} as it is downloaded: no folder {root.joinpath(*parts)}")


def photos_in(folder: Path) -> list[Path]:
    """The photographs directly in `folder`, by name."""
    return sorted(filter(is_photo, _entries(folder)))


def unexpected_names(photos: Sequence[Path], expected: Collection[str], where: str) -> Iterator[str]:
    """A line for missing names and a line for names that are not expected."""
    present = {path.name for path in photos}
    for word, names in (("missing", set(expected) - present), ("not of it", present - set(expected))):
        if names:
            examples = ", ".join(sorted(names)[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")
            yield f"{where}: {counted(len(expected), 'photograph')} expected, {len(names)} {word} ({examples})"


def unexpected_sizes(photos: Sequence[Path], expected: Collection[tuple[int, int]]) -> Iterator[str]:
    """A line, if photographs have another size than published."""
    unexpected = [(path, size) for path in photos if (size := _size(path)) not in expected]
    if unexpected:
        path, size = unexpected[0]
        sizes = " or ".join(f"{width} x {height}" for width, height in sorted(expected))
        first = "no readable image" if size is None else f"{size[0]} x {size[1]}"
        yield (
            f"{len(unexpected)} of {counted(len(photos), 'photograph')} not of {sizes} px ({path.name}: {first}): "
            "a re-hosted copy"
        )


def unexpected_count(items: str, count: int, expected: int) -> Iterator[str]:
    """A line, if the counts differ."""
    if count != expected:
        yield f"{count} {items}, {expected} expected"


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
        return None


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


IDRID_LESIONS: Final = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
}
"""The fifth folder, 5. Optic Disc, is normal anatomy."""
_SEGMENTATION: Final = "A. Segmentation"
_GRADING: Final = "B. Disease Grading"
_IMAGES: Final = "1. Original Images"
_IDRID_MASKS: Final = "2. All Segmentation Groundtruths"
_LABELS: Final = "2. Groundtruths"
_TRAIN, _TEST = "a. Training Set", "b. Testing Set"
_TRAIN_LABELS: Final = "a. IDRiD_Disease Grading_Training Labels.csv"
_TEST_LABELS: Final = "b. IDRiD_Disease Grading_Testing Labels.csv"
_NAME, _GRADE = "Image name", "Retinopathy grade"
_IDRID_SIZE: Final = (4288, 2848)
_IDRID_MARKED: Final = {"MA": 81, "HE": 80, "EX": 81, "SE": 40}
"""Photographs with a mask of each lesion."""


def read_idrid(root: Path, size: tuple[int, int] = _IDRID_SIZE) -> Dataset:
    """The paper's protocol: 134 photographs to build from, 81 abnormal and 34 normal ones to test on.

    The paper says 32 normal ones, and not which two of the official file's 34 it leaves out.

    Args:
        size: width and height of the published photographs, px; other sizes are reported as deviations.

    Raises `SettingError` where a folder, a label file or a labeled photograph is missing.
    """
    segmentation = folder_of(root, _SEGMENTATION, of="IDRiD")
    grading = folder_of(root, _GRADING, of="IDRiD")
    # Both splits of the grading set count from IDRiD_001: the folder belongs to the name.
    train = _grade_zero(grading, _TRAIN, _TRAIN_LABELS)
    normal = _grade_zero(grading, _TEST, _TEST_LABELS)
    abnormal = [photo for split in (_TRAIN, _TEST) for photo in _segmented(segmentation, split)]
    test = (*abnormal, *(LabeledPhoto(path, False, "good") for path in normal))
    deviations = tuple(_idrid_deviations(segmentation, grading, train, normal, abnormal, size))
    return Dataset("idrid-paper", tuple(map(ReferencePhoto, train)), test, deviations)


def _segmented(segmentation: Path, split: str) -> Iterator[LabeledPhoto]:
    photos = folder_of(segmentation, _IMAGES, split, of="IDRiD's segmentation set")
    masks = folder_of(segmentation, _IDRID_MASKS, split, of="IDRiD's segmentation set")
    for path in photos_in(photos):
        masks_by_kind = (LesionMask(masks / folder / f"{path.stem}_{kind}.tif", kind, "number")
                 for kind, folder in IDRID_LESIONS.items())  # fmt: skip
        # No file: no such lesion in this photograph.
        yield LabeledPhoto(path, True, "DR", tuple(mask for mask in masks_by_kind if mask.path.is_file()))


def _grade_zero(grading: Path, split: str, labels: str) -> list[Path]:
    """The photographs of retinopathy grade 0, by name."""
    folder = folder_of(grading, _IMAGES, split, of="IDRiD's disease grading set")
    names = [name for name, grade in _grades(grading / _LABELS / labels) if grade == "0"]
    photos = [folder / f"{name}.jpg" for name in names]
    if missing := [photo for photo in photos if not photo.is_file()]:
        raise SettingError(f"{len(missing)} of {len(photos)} photographs of grade 0 are missing, as {missing[0]}")
    return sorted(photos)


def _grades(path: Path) -> list[tuple[str, str]]:
    """Name and retinopathy grade.  The training file's lines end in empty columns, its header, too."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [_cells(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingError(f"IDRiD's labels {path} cannot be read: {error}") from error
    if not rows or _NAME not in rows[0] or _GRADE not in rows[0]:
        raise SettingError(f"IDRiD's labels {path} lack the columns {_NAME} and {_GRADE}")
    return [(row[_NAME], row[_GRADE]) for row in rows if row.get(_NAME)]


def _cells(row: dict[str, str | None]) -> dict[str, str]:
    """The row without the empty columns at its end."""
    return {key.strip(): value.strip() for key, value in row.items() if key and isinstance(value, str)}


def _idrid_deviations(
    segmentation: Path,
    grading: Path,
    train: list[Path],
    normal: list[Path],
    abnormal: list[LabeledPhoto],
    size: tuple[int, int],
) -> Iterator[str]:
    parts = (
        (segmentation, _TRAIN, [f"IDRiD_{n:02d}.jpg" for n in range(1, 55)]),
        (segmentation, _TEST, [f"IDRiD_{n:02d}.jpg" for n in range(55, 82)]),
        (grading, _TRAIN, [f"IDRiD_{n:03d}.jpg" for n in range(1, 414)]),
        (grading, _TEST, [f"IDRiD_{n:03d}.jpg" for n in range(1, 104)]),
    )
    for place, split, names in parts:
        yield from unexpected_names(photos_in(place / _IMAGES / split), names, f"{place.name}, {split}")
    marked = [mask.kind for photo in abnormal for mask in photo.masks]
    counts = (unexpected_count(f"masks of {kind}", marked.count(kind), n) for kind, n in _IDRID_MARKED.items())
    yield from chain.from_iterable(counts)
    yield from unexpected_count("training photographs of grade 0", len(train), 134)
    yield from unexpected_count("test photographs of grade 0", len(normal), 34)
    used = [*train, *normal, *(photo.path for photo in abnormal)]
    yield from unexpected_sizes(used, {size})


ADAM_LESIONS: Final = ("drusen", "exudate", "hemorrhage", "others", "scar")
_ADAM_PHOTOS: Final = ("AMD-Training400", "Training400")
_ADAM_MASKS: Final = ("Training400-Lesion", "Lesion_Masks")
_AMD, _OTHERS = "AMD", "Non-AMD"
_ADAM_SIZES: Final = {(2124, 2056), (1444, 1444)}
_ADAM_ABNORMAL: Final = 118


def read_adam(root: Path) -> Dataset:
    """The paper's protocol: 282 photographs to build from, 118 abnormal ones to test on, and no normal ones.

    Raises `SettingError` where a folder is missing.
    """
    folder = folder_of(root, *_ADAM_PHOTOS, of="ADAM")
    masks = folder_of(root, *_ADAM_MASKS, of="ADAM")
    groups = {name: photos_in(folder_of(folder, name, of="ADAM")) for name in (_AMD, _OTHERS)}
    photos = [photo for group in groups.values() for photo in group]
    marked = {photo: tuple(_adam_masks(masks, photo)) for photo in photos}
    train = tuple(ReferencePhoto(photo) for photo in photos if not marked[photo])
    test = tuple(LabeledPhoto(photo, True, photo.parent.name, marked[photo]) for photo in photos if marked[photo])
    return Dataset("adam-paper", train, test, tuple(_adam_deviations(groups, photos, len(test))))


def _adam_masks(masks: Path, photo: Path) -> Iterator[LesionMask]:
    """The masks of a photograph, black in lesions; a missing file means no such lesion."""
    for kind in ADAM_LESIONS:
        path = masks / kind / f"{photo.stem}.bmp"
        if path.is_file():
            yield LesionMask(path, kind, "black")


def _adam_deviations(groups: dict[str, list[Path]], photos: list[Path], abnormal: int) -> Iterator[str]:
    expected = {
        _AMD: [f"A{n:04d}.jpg" for n in range(1, 90)],
        _OTHERS: [f"N{n:04d}.jpg" for n in range(1, 312)],
    }
    for name, names in expected.items():
        yield from unexpected_names(groups[name], names, name)
    yield from unexpected_count("photographs with a mask of a lesion", abnormal, _ADAM_ABNORMAL)
    yield from unexpected_sizes(photos, _ADAM_SIZES)
