"""IDRiD (Porwal et al. 2018), unpacked as it is downloaded, split as in the paper (section 4.1).

Train: the disease grading set's training photographs of grade 0.  Test: all photographs of the segmentation set,
with their masks, and the grading set's testing photographs of grade 0.
"""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from indexer.photos.listing import ReferencePhoto
from lab.datasets import Dataset, LabeledPhoto, LesionMask
from lab.datasets.copies import folder_of, photos_in, unexpected_count, unexpected_names, unexpected_sizes
from resad.errors import SettingError

LESIONS: Final = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
}
"""The fifth folder, 5. Optic Disc, is normal anatomy."""
_SEGMENTATION: Final = "A. Segmentation"
_GRADING: Final = "B. Disease Grading"
_IMAGES: Final = "1. Original Images"
_MASKS: Final = "2. All Segmentation Groundtruths"
_LABELS: Final = "2. Groundtruths"
_TRAIN, _TEST = "a. Training Set", "b. Testing Set"
_TRAIN_LABELS: Final = "a. IDRiD_Disease Grading_Training Labels.csv"
_TEST_LABELS: Final = "b. IDRiD_Disease Grading_Testing Labels.csv"
_NAME, _GRADE = "Image name", "Retinopathy grade"
_SIZE: Final = (4288, 2848)
_MARKED: Final = {"MA": 81, "HE": 80, "EX": 81, "SE": 40}
"""Photographs with a mask of each lesion."""


def read_idrid(root: Path) -> Dataset:
    """The paper's protocol: 134 photographs to build from, 81 abnormal and 34 normal ones to test on.

    The paper says 32 normal ones, and not which two of the official file's 34 it leaves out.

    Raises `SettingError` where a folder, a label file or a labeled photograph is missing.
    """
    segmentation = folder_of(root, _SEGMENTATION, of="IDRiD")
    grading = folder_of(root, _GRADING, of="IDRiD")
    # Both splits of the grading set count from IDRiD_001: the folder belongs to the name.
    train = _healthy(grading, _TRAIN, _TRAIN_LABELS)
    normal = _healthy(grading, _TEST, _TEST_LABELS)
    abnormal = [photo for split in (_TRAIN, _TEST) for photo in _segmented(segmentation, split)]
    test = (*abnormal, *(LabeledPhoto(path, False, "good") for path in normal))
    deviations = tuple(_deviations(segmentation, grading, train, normal, abnormal))
    return Dataset("idrid-paper", tuple(map(ReferencePhoto, train)), test, deviations)


def _segmented(segmentation: Path, split: str) -> Iterator[LabeledPhoto]:
    photos = folder_of(segmentation, _IMAGES, split, of="IDRiD's segmentation set")
    masks = folder_of(segmentation, _MASKS, split, of="IDRiD's segmentation set")
    for path in photos_in(photos):
        every = (LesionMask(masks / folder / f"{path.stem}_{kind}.tif", kind, "number")
                 for kind, folder in LESIONS.items())  # fmt: skip
        # No file: no such lesion in this photograph.
        yield LabeledPhoto(path, True, "DR", tuple(mask for mask in every if mask.path.is_file()))


def _healthy(grading: Path, split: str, labels: str) -> list[Path]:
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
    """Without the empty columns at the end, whose names are empty or none."""
    return {key.strip(): value.strip() for key, value in row.items() if key and isinstance(value, str)}


def _deviations(
    segmentation: Path, grading: Path, train: list[Path], normal: list[Path], abnormal: list[LabeledPhoto]
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
    counts = (unexpected_count(f"masks of {kind}", marked.count(kind), n) for kind, n in _MARKED.items())
    yield from chain.from_iterable(counts)
    yield from unexpected_count("training photographs of grade 0", len(train), 134)
    yield from unexpected_count("test photographs of grade 0", len(normal), 34)
    used = [*train, *normal, *(photo.path for photo in abnormal)]
    yield from unexpected_sizes(used, {_SIZE})
