"""Data sets laid out as MVTec AD (Bergmann et al. 2019): a folder per kind of defect, masks beside them."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from indexer.datasets import Dataset, LabeledPhoto
from indexer.photos import is_photo
from resad.errors import PhotoUnreadable, SettingError

__all__ = ["Dataset", "LabeledPhoto", "read_mask", "read_mvtec"]

LAYOUT: Final = "train/good, test/good, test/<kind>, ground_truth/<kind>/<photo>_mask.png"
_GOOD: Final = "good"


def read_mvtec(root: Path) -> Dataset:
    """The photographs below `root`, sorted by kind and name; the data set takes the folder's name.

    Folders of `ground_truth` that are no kind of `test` are ignored.  A kind may have no folder of masks, so
    that its photographs are abnormal in places unknown.  `train` may be missing.

    Raises `SettingError` if there is nothing to test on, or if a kind with masks lacks one for a photograph.
    """
    test = root / "test"
    if not test.is_dir():
        raise SettingError(f"no folder {test}: expected {LAYOUT} below {root}")
    kinds = sorted(path.name for path in test.iterdir() if path.is_dir() and not path.name.startswith("."))
    labeled = tuple(photo for kind in kinds for photo in _read_kind(root, kind))
    if not labeled:
        raise SettingError(f"no photographs below {test}: expected {LAYOUT} below {root}")
    return Dataset(root.resolve().name, tuple(_photos(root / "train" / _GOOD)), labeled)


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """Where a mask is not black: bool (height, width), which must be the size of the upright photograph.

    Raises `SettingError` if the mask has another size, `PhotoUnreadable` if it is not an image.
    """
    try:
        with Image.open(path) as mask:
            if mask.size != (width, height):
                found = f"{mask.width} x {mask.height}"
                raise SettingError(f"mask {path} is {found}, its photograph {width} x {height}")
            # What counts is the color seen: a palette's numbers are only names, and alpha is no color.
            gray = len(mask.getbands()) == 1 and mask.mode != "P"
            pixels = np.asarray(mask) if gray else np.asarray(mask.convert("RGBA"))[..., :3]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise PhotoUnreadable(f"mask {path} cannot be read: {error}") from error
    return np.asarray((pixels.reshape(height, width, -1) != 0).any(axis=2))


def _photos(folder: Path) -> list[Path]:
    """The photographs directly in `folder` by name; none if there is no such folder."""
    return sorted(filter(is_photo, folder.iterdir())) if folder.is_dir() else []


def _read_kind(root: Path, kind: str) -> list[LabeledPhoto]:
    photos = _photos(root / "test" / kind)
    masks = root / "ground_truth" / kind
    if kind == _GOOD or not masks.is_dir():
        return [LabeledPhoto(path, kind != _GOOD, kind, None) for path in photos]
    labeled = [LabeledPhoto(path, True, kind, masks / f"{path.stem}_mask.png") for path in photos]
    for photo in labeled:
        if photo.mask is not None and not photo.mask.is_file():
            raise SettingError(f"no mask {photo.mask} for {photo.path}")
    return labeled
