"""Data sets laid out as MVTec AD (Bergmann et al. 2019): a folder per kind of defect, masks beside them."""

from pathlib import Path
from typing import Final

from indexer.photos.listing import ReferencePhoto, is_photo
from lab.datasets import Dataset, LabeledPhoto, LesionMask
from resad.errors import SettingError

LAYOUT: Final = "train/good, test/good, test/<kind>, ground_truth/<kind>/<photo>_mask.png"
_GOOD: Final = "good"


def read_mvtec(root: Path) -> Dataset:
    """The photographs below `root`, sorted by kind and name; the data set takes the folder's name.

    A kind may have no folder of masks, so that its photographs are abnormal in places unknown.  Beside its own
    mask a photograph may have one per lesion, ground_truth/<lesion>/<photo>_<lesion>.png, as the copies of IDRiD
    in this layout do.  `train` may be missing.

    Raises `SettingError` if there is nothing to test on, or if a kind with masks lacks one for a photograph.
    """
    test = root / "test"
    if not test.is_dir():
        raise SettingError(f"no folder {test}: expected {LAYOUT} below {root}")
    kinds = sorted(path.name for path in test.iterdir() if path.is_dir() and not path.name.startswith("."))
    labeled = tuple(photo for kind in kinds for photo in _read_kind(root, kind))
    if not labeled:
        raise SettingError(f"no photographs below {test}: expected {LAYOUT} below {root}")
    train = tuple(map(ReferencePhoto, _photos(root / "train" / _GOOD)))
    return Dataset(root.resolve().name, train, labeled)


def _photos(folder: Path) -> list[Path]:
    """The photographs directly in `folder` by name; none if there is no such folder."""
    return sorted(filter(is_photo, folder.iterdir())) if folder.is_dir() else []


def _read_kind(root: Path, kind: str) -> list[LabeledPhoto]:
    photos = _photos(root / "test" / kind)
    truth = root / "ground_truth" / kind
    if kind == _GOOD or not truth.is_dir():
        return [LabeledPhoto(path, kind != _GOOD, kind) for path in photos]
    return [LabeledPhoto(path, True, kind, _masks(root, kind, path)) for path in photos]


def _masks(root: Path, kind: str, photo: Path) -> tuple[LesionMask, ...]:
    """The mask of the kind; where others are there per lesion, it is the one of any lesion."""
    whole = root / "ground_truth" / kind / f"{photo.stem}_mask.png"
    if not whole.is_file():
        raise SettingError(f"no mask {whole} for {photo}")
    folders = sorted(path for path in whole.parents[1].iterdir() if path.is_dir())
    apart = [LesionMask(folder / f"{photo.stem}_{folder.name}.png", folder.name) for folder in folders]
    lesions = [mask for mask in apart if mask.path.is_file()]
    return (LesionMask(whole, None if lesions else kind), *lesions)
