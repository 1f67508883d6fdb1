"""Records of a labeled data set, and masks of lesions read as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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


_MOST_LABELS: Final = 16
"""Colors of a mask that names kinds of lesions by color; a lossy one has hundreds."""
_LARGEST_NUMBER: Final = 31
"""Of a gray mask that holds numbers of kinds; a picture of a mask is brighter."""


def read_mask(
    path: Path, height: int, width: int, marked: Marked = "color", *, on_soft: Callable[[Path], None] | None = None
) -> NDArray[np.bool_]:
    """The mask as bool (height, width), True in lesions; its size must be that of the upright photograph.

    What is seen counts: a palette by its colors, transparency laid over black.  A mask with two values, or with a
    few colors or small numbers for kinds of lesions, is marked wherever it is not 0.  Any other one was written
    lossily or resized: what has at least half of its maximum is marked.

    Args:
        on_soft: gets the path of such a mask.
    Raises:
        SettingError: the mask has another size.
        PhotoUnreadable: it is not an image, or several.
    """
    try:
        with Image.open(path) as mask:
            if mask.size != (width, height):
                size = f"{mask.width} x {mask.height}"
                raise SettingError(f"mask {path} is {size}, its photograph {width} x {height}")
            if (pages := int(getattr(mask, "n_frames", 1))) > 1:
                raise PhotoUnreadable(f"mask {path} has {pages} pages; save the mask alone")
            pixels = _shown_values(mask, marked)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise PhotoUnreadable(f"mask {path} cannot be read: {error}") from error
    values = pixels.max(axis=2)
    if marked == "number" or _is_exact(pixels, values):
        bright = values != 0
    else:
        if on_soft is not None:
            on_soft(path)
        bright = values >= values.max() / 2
    return np.asarray(~bright if marked == "black" else bright)


def _shown_values(mask: Image.Image, marked: Marked) -> NDArray[np.generic]:
    """The values of a mask, (H, W, channels): of a palette its colors, or with `number` its numbers."""
    if len(mask.getbands()) == 1 and (mask.mode != "P" or marked == "number") and "transparency" not in mask.info:
        return np.asarray(mask)[..., None]
    if not mask.has_transparency_data:
        return np.asarray(mask.convert("RGB"))
    rgba = np.asarray(mask.convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    if marked == "black":
        return rgba[..., :3] * alpha + 255 * (1 - alpha)  # over white: what is transparent is not black
    colors = rgba[..., :3] * alpha
    # Drawn in black on a transparent ground: what is drawn is marked.
    return colors if colors.any() else rgba[..., 3:] * (alpha.min() < alpha.max())


def _is_exact(pixels: NDArray[np.generic], values: NDArray[np.generic]) -> bool:
    """Whether every value but 0 was written on purpose.

    pixels: (H, W, channels).  values: their maxima, (H, W).
    """
    levels = np.unique(values[values != 0])
    if len(levels) <= 1:
        return True
    if levels[-1] <= _LARGEST_NUMBER and len(levels) <= _MOST_LABELS:
        return bool((levels == np.round(levels)).all())
    colors = np.unique(pixels.reshape(-1, pixels.shape[2])[:: max(1, values.size // _MAX_SAMPLED)], axis=0)
    gray = bool((colors == colors[:, :1]).all())
    return not gray and len(colors) <= _MOST_LABELS


_MAX_SAMPLED: Final = 200_000
"""Pixels of a mask whose colors are counted."""


def read_lesions(
    masks: Sequence[LesionMask], height: int, width: int, *, on_soft: Callable[[Path], None] | None = None
) -> dict[str | None, NDArray[np.bool_]]:
    """The union of the masks of each kind of lesion: bool (height, width) by kind.  on_soft: as of `read_mask`."""
    lesions: dict[str | None, NDArray[np.bool_]] = {}
    for mask in masks:
        pixels = read_mask(mask.path, height, width, mask.marked, on_soft=on_soft)
        lesions[mask.kind] = lesions[mask.kind] | pixels if mask.kind in lesions else pixels
    return lesions
