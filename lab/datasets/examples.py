"""Labeled photographs -> marks in the journal of an index."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.datasets.dataset import LabeledPhoto, read_lesions
from resad.config import PhotoLimits
from resad.errors import naming
from resad.loaded_index import LoadedIndex
from resad.marks import Region, check_label, mark_photo
from resad.preparation import Frame, prepare

_NAMES = {"exudate": "hard-exudate", "hard-exudates": "hard-exudate", "haemorrhages": "hemorrhage",
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
            word = "-".join((kind or labeled.kind).lower().replace("_", " ").split())
            regions.append(Region(check_label(_NAMES.get(word, word)), square))
    return regions
