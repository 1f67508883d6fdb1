"""The data sets by name: what they are, where they come from, and how each is split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from indexer.photos.listing import ReferencePhoto
from lab.datasets.dataset import Dataset, LabeledPhoto
from lab.datasets.layouts import FOLDER_LAYOUT, MVTEC_LAYOUT, read_folder, read_listed, read_mvtec
from lab.datasets.published import read_adam, read_idrid
from resad.errors import SettingError


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that `--dataset` takes.

    layout: what is expected below the folder.  licence, source: of the photographs, where all have the same.
    """

    name: str
    title: str
    layout: str
    split: str
    licence: str
    source: str
    read: Callable[[Path], Dataset]


_YOURS: Final = "that of your photographs"

CATALOG: Final = (
    Entry(
        "idrid-paper",
        "IDRiD, Indian Diabetic Retinopathy Image Dataset",
        "A. Segmentation/, B. Disease Grading/",
        "134 of grade 0 to build from; 81 with lesions and 34 of grade 0 to test on (the paper says 32)",
        "CC BY 4.0",
        "IEEE DataPort, 'Indian Diabetic Retinopathy Image Dataset (IDRiD)'; Porwal et al. 2018 (Data 3(3):25)",
        read_idrid,
    ),
    Entry(
        "adam-paper",
        "ADAM, Automatic Detection challenge on Age-related Macular degeneration",
        "AMD-Training400/Training400/, Training400-Lesion/Lesion_Masks/",
        "282 without a marked lesion to build from; 118 with one to test on; no normal ones: pixel figures alone",
        "that of the challenge: read it there, research use",
        "Grand Challenge, 'ADAM' (registration); Fang et al. 2022 (IEEE Trans. Med. Imaging 41(10))",
        read_adam,
    ),
    Entry(
        "mvtec",
        "your own, in the layout of MVTec AD",
        MVTEC_LAYOUT,
        "train/good to build from, test/* to test on",
        _YOURS,
        "-",
        read_mvtec,
    ),
    Entry(
        "folder",
        "your own, a folder per disease and one called normal",
        FOLDER_LAYOUT,
        "all to test on; image figures alone",
        _YOURS,
        "-",
        read_folder,
    ),
    Entry(
        "csv",
        "your own or another public one (docs/datasets.md), listed in a CSV",
        "path,label,kind,mask,marked,split,patient,eye,camera",
        "by the column split",
        _YOURS,
        "-",
        read_listed,
    ),
)


def open_dataset(name: str, place: Path, exclude: Path | None = None) -> Dataset:
    """The data set `name` at `place` without the photographs listed in the file `exclude`.

    Raises `SettingError` for an unknown name, a copy that cannot be read, or an exclude list that does not fit.
    """
    for entry in CATALOG:
        if name == entry.name:
            dataset = entry.read(place)
            return dataset if exclude is None else without_photos(dataset, _lines(exclude))
    raise SettingError(f"data set {name!r} is not known; there are: {', '.join(entry.name for entry in CATALOG)}")


def without_photos(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """`dataset` without the photographs whose paths end in one of `names`, for example `IDRiD_005.jpg`.

    A name that several photographs share needs more of its path.  Raises `SettingError` for one that fits none or
    several.
    """
    paths = [*(photo.path for photo in dataset.train), *(photo.path for photo in dataset.test)]
    dropped = {_match(name, paths) for name in names}
    return replace(dataset, train=_remaining(dataset.train, dropped), test=_remaining(dataset.test, dropped))


_Photo = TypeVar("_Photo", ReferencePhoto, LabeledPhoto)


def _remaining(photos: tuple[_Photo, ...], dropped: set[Path]) -> tuple[_Photo, ...]:
    return tuple(photo for photo in photos if photo.path not in dropped)


def _match(name: str, paths: Sequence[Path]) -> Path:
    parts = Path(name).parts
    matches = [path for path in paths if path.parts[-len(parts) :] == parts]
    if len(matches) != 1:
        which = (
            "no photograph"
            if not matches
            else f"{len(matches)} photographs, as {matches[0]}: write more of the path"
        )
        raise SettingError(f"the exclude list's {name!r} fits {which}")
    return matches[0]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"the exclude list {path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
