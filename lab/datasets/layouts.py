"""Data sets of one's own: in the layout of MVTec AD (Bergmann et al. 2019), as a folder per disease, or listed in
a CSV.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indexer.photos.listing import (
    Label,
    LesionMask,
    PhotoRow,
    ReferencePhoto,
    find_photos,
    is_photo,
    read_rows,
    rows_csv,
)
from lab.datasets.dataset import Dataset, LabeledPhoto
from resad.errors import SettingError

MVTEC_LAYOUT: Final = "train/good, test/good, test/<kind>, ground_truth/<kind>/<photo>_mask.png"
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
        raise SettingError(f"no folder {test}: expected {MVTEC_LAYOUT} below {root}")
    kinds = sorted(path.name for path in test.iterdir() if path.is_dir() and not path.name.startswith("."))
    labeled = tuple(photo for kind in kinds for photo in _read_kind(root, kind))
    if not labeled:
        raise SettingError(f"no photographs below {test}: expected {MVTEC_LAYOUT} below {root}")
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
    return [LabeledPhoto(path, True, kind, _mvtec_masks(root, kind, path)) for path in photos]


def _mvtec_masks(root: Path, kind: str, photo: Path) -> tuple[LesionMask, ...]:
    """The mask of the kind, and masks by lesion if there are any; the first is then of any lesion."""
    any_lesion = root / "ground_truth" / kind / f"{photo.stem}_mask.png"
    if not any_lesion.is_file():
        raise SettingError(f"no mask {any_lesion} for {photo}")
    folders = sorted(path for path in any_lesion.parents[1].iterdir() if path.is_dir())
    by_lesion = [LesionMask(folder / f"{photo.stem}_{folder.name}.png", folder.name) for folder in folders]
    lesions = [mask for mask in by_lesion if mask.path.is_file()]
    return (LesionMask(any_lesion, None if lesions else kind), *lesions)


FOLDER_LAYOUT: Final = "normal/..., <disease>/..."
_NORMAL_FOLDERS: Final = ("normal", "good", "healthy")


def read_folder(root: Path) -> Dataset:
    """All photographs below `root` to test on; the top folder's name is the kind.

    There are no masks and no training photographs.
    Raises `SettingError` where there is no folder, or a photograph lies beside the folders.
    """
    if not root.is_dir():
        raise SettingError(f"no folder {root}: expected {FOLDER_LAYOUT} below it")
    photos = []
    for path in find_photos(root):
        kind, *rest = path.relative_to(root).parts
        if not rest:
            raise SettingError(
                f"{path} lies in no folder that says what it shows: expected {FOLDER_LAYOUT} below {root}"
            )
        healthy = kind.lower() in _NORMAL_FOLDERS
        photos.append(LabeledPhoto(path, not healthy, "good" if healthy else kind))
    if not photos:
        raise SettingError(f"no photographs below {root}: expected {FOLDER_LAYOUT}")
    return Dataset(root.resolve().name, (), tuple(photos))


def read_listed(path: Path) -> Dataset:
    """Rows with split train to build from, all others to test on; the file's name is the data set's.

    Raises `SettingError` for a row that cannot be used, a test photograph without label, an abnormal one to
    build from, or nothing to test on.
    """
    if not path.is_file():
        raise SettingError(f"no file {path}: expected a CSV with the columns path and label")
    rows = read_rows(path)
    test = tuple(_labeled(row, path) for row in rows if row.split != "train")
    if not test:
        raise SettingError(f"{path}: no row to test on (split test, or none)")
    return Dataset(path.stem, tuple(_reference(row, path) for row in rows if row.split == "train"), test)


def listed_csv(dataset: Dataset) -> bytes:
    """The file that `read_listed` reads as `dataset`, and `build` as its training photographs."""
    return rows_csv([*_train_rows(dataset), *_test_rows(dataset)])


def _labeled(row: PhotoRow, path: Path) -> LabeledPhoto:
    if row.label is None:
        raise SettingError(f"{path}: {row.path} has no label (normal or abnormal)")
    abnormal = row.label == "abnormal"
    kind = row.kind or "abnormal" if abnormal else "good"
    return LabeledPhoto(row.path, abnormal, kind, row.masks, row.patient, row.eye, row.camera)


def _reference(row: PhotoRow, path: Path) -> ReferencePhoto:
    if row.label == "abnormal":
        raise SettingError(f"{path}: {row.path} is labeled abnormal, but of the split train")
    return ReferencePhoto(row.path, row.patient, row.eye, row.camera)


def _train_rows(dataset: Dataset) -> Iterator[PhotoRow]:
    for photo in dataset.train:
        yield PhotoRow(
            photo.path, "normal", split="train", patient=photo.patient, eye=photo.eye, camera=photo.camera
        )


def _test_rows(dataset: Dataset) -> Iterator[PhotoRow]:
    for photo in dataset.test:
        label: Label = "abnormal" if photo.abnormal else "normal"
        kind = photo.kind if photo.abnormal else None
        yield PhotoRow(
            photo.path, label, kind, photo.masks, "test", photo.patient, photo.eye, photo.camera
        )  # fmt: skip
