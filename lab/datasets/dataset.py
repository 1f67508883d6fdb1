"""Records of a labeled data set, and masks of lesions read as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from indexer.photos.listing import LesionMask, Marked, ReferencePhoto
from resad.config import Eye
from resad.errors import PhotoUnreadable, SettingError


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A test photograph.

    kind: what is wrong with it, in the data set's own word; `good` if nothing is.
    masks: all of them together say where it is abnormal; none where that is unknown.
    """

    path: Path
    abnormal: bool
    kind: str
    masks: tuple[LesionMask, ...] = ()
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Normal photographs to build from, and labeled ones to test on.

    deviations: in what this copy differs from the one its makers publish.
    """

    name: str
    train: tuple[ReferencePhoto, ...]
    test: tuple[LabeledPhoto, ...]
    deviations: tuple[str, ...] = ()


def read_mask(path: Path, height: int, width: int, marked: Marked = "color") -> NDArray[np.bool_]:
    """The mask as bool (height, width), True in lesions; its size must be that of the upright photograph.

    Raises `SettingError` if the mask has another size, `PhotoUnreadable` if it is not an image.
    """
    try:
        with Image.open(path) as mask:
            if mask.size != (width, height):
                size = f"{mask.width} x {mask.height}"
                raise SettingError(f"mask {path} is {size}, its photograph {width} x {height}")
            # What counts is the color seen: a palette's numbers are only names, and alpha is no color.
            as_it_is = len(mask.getbands()) == 1 and (mask.mode != "P" or marked == "number")
            pixels = np.asarray(mask) if as_it_is else np.asarray(mask.convert("RGBA"))[..., :3]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise PhotoUnreadable(f"mask {path} cannot be read: {error}") from error
    bright = np.asarray((pixels.reshape(height, width, -1) != 0).any(axis=2))
    return ~bright if marked == "black" else bright


def read_lesions(masks: Sequence[LesionMask], height: int, width: int) -> dict[str | None, NDArray[np.bool_]]:
    """The union of the masks of each kind of lesion: bool (height, width) by kind."""
    lesions: dict[str | None, NDArray[np.bool_]] = {}
    for mask in masks:
        pixels = read_mask(mask.path, height, width, mask.marked)
        lesions[mask.kind] = lesions[mask.kind] | pixels if mask.kind in lesions else pixels
    return lesions
