"""A folder of folders: `normal` holds healthy photographs, every other one those of a disease."""

from pathlib import Path
from typing import Final

from indexer.photos.listing import find_photos
from lab.datasets import Dataset, LabeledPhoto
from resad.errors import SettingError

LAYOUT: Final = "normal/..., <disease>/..."
_NORMAL: Final = ("normal", "good", "healthy")


def read_folder(root: Path) -> Dataset:
    """All photographs below `root` to test on, those directly below its folders' trees by the folders' names.

    Nobody says where they are abnormal, and none are there to build from.
    Raises `SettingError` where there is no folder, or a photograph lies beside the folders.
    """
    if not root.is_dir():
        raise SettingError(f"no folder {root}: expected {LAYOUT} below it")
    photos = []
    for path in find_photos(root):
        kind, *rest = path.relative_to(root).parts
        if not rest:
            raise SettingError(f"{path} lies in no folder that says what it shows: expected {LAYOUT} below {root}")
        healthy = kind.lower() in _NORMAL
        photos.append(LabeledPhoto(path, not healthy, "good" if healthy else kind))
    if not photos:
        raise SettingError(f"no photographs below {root}: expected {LAYOUT}")
    return Dataset(root.resolve().name, (), tuple(photos))
