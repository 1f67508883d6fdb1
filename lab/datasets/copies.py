"""Is this the copy that a data set's makers publish?  Counts, names and sizes; no photograph is decoded."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from indexer.photos.listing import is_photo
from resad.errors import SettingError

_NAMED: Final = 3


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
    """What is missing and what is too many of the `expected` names, in one line each."""
    found = {path.name for path in photos}
    for word, names in (("missing", set(expected) - found), ("not of it", found - set(expected))):
        if names:
            some = ", ".join(sorted(names)[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            yield f"{where}: {len(expected)} photographs expected, {len(names)} {word} ({some})"


def unexpected_sizes(photos: Sequence[Path], expected: Collection[tuple[int, int]]) -> Iterator[str]:
    """How many photographs have another size than the camera's, in one line."""
    other = [(path, size) for path in photos if (size := _size(path)) not in expected]
    if other:
        path, size = other[0]
        wanted = " or ".join(f"{width} x {height}" for width, height in sorted(expected))
        found = "no readable image" if size is None else f"{size[0]} x {size[1]}"
        yield (
            f"{len(other)} of {len(photos)} photographs are not {wanted} px ({path.name}: {found}): "
            "a re-hosted copy"
        )


def unexpected_count(what: str, found: int, expected: int) -> Iterator[str]:
    """Nothing, or one line."""
    if found != expected:
        yield f"{found} {what}, {expected} expected"


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
        return None


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
