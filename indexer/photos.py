"""Which photographs a reference set holds: those of a folder tree, or those that a CSV file lists."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

from resad.errors import SettingError

PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Of the types that can be read, in lower case; any case is taken."""

_COLUMNS: Final = ("path", "patient", "eye", "camera")
Eye = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class ReferencePhoto:
    """A photograph to build from, and what a CSV file said about it."""

    path: Path
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A photograph that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A photograph that was left out because its bytes are those of `same_as`."""

    path: Path
    same_as: Path


def list_photos(source: Path) -> tuple[ReferencePhoto, ...]:
    """The photographs of `source`: a folder tree, one photograph, or a CSV file.

    A tree gives its files with a suffix of `PHOTO_SUFFIXES`, sorted by their path below `source`; hidden ones
    are left out, links are followed, and no folder is entered twice.  A CSV file (UTF-8) gives its rows in
    their order: a column path, relative to the file's folder, and if wanted the columns patient, eye (left,
    right, l, r, os, od) and camera.

    Raises `SettingError` if there is nothing to list or a row cannot be used, naming the line.
    """
    if source.is_dir():
        photos = tuple(map(ReferencePhoto, find_photos(source)))
    elif not source.is_file():
        raise SettingError(f"{source}: no such file or folder")
    elif source.suffix.lower() == ".csv":
        photos = tuple(_read_csv(source))
    elif source.suffix.lower() in PHOTO_SUFFIXES:
        photos = (ReferencePhoto(source),)
    else:
        raise SettingError(
            f"{source} is neither a folder, nor a .csv file, nor one of {', '.join(PHOTO_SUFFIXES)}"
        )
    if not photos:
        raise SettingError(f"no photographs in {source} (looked for {', '.join(PHOTO_SUFFIXES)})")
    return photos


def is_photo(path: Path) -> bool:
    """Whether `path` is a file, not hidden, with a suffix of `PHOTO_SUFFIXES`; it is not opened."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def find_photos(folder: Path) -> list[Path]:
    """The photographs below `folder`, sorted by their path below it, as `list_photos`; may be empty."""
    found: list[Path] = []
    entered: set[Path] = set()
    for name, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        here = Path(name)
        if here.resolve() in entered:
            folders.clear()
            continue
        entered.add(here.resolve())
        # Real folders before links to them, so that a photograph goes by its own path where there are two.
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        folders.sort(key=lambda f: (here / f).is_symlink())
        found += [here / f for f in files if is_photo(here / f)]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _refuse(error: OSError) -> NoReturn:
    """Without this a folder that cannot be opened would count as empty."""
    raise SettingError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _read_csv(path: Path) -> Iterator[ReferencePhoto]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = filter(any, ([cell.strip() for cell in row] for row in reader))
            header = [name.lower() for name in next(rows, ())]
            if "path" not in header:
                found = ", ".join(header) or "nothing"
                raise SettingError(f"{path}: the first line must name a column path (found: {found})")
            if twice := [name for name in _COLUMNS if header.count(name) > 1]:
                raise SettingError(f"{path}: the first line names the column {twice[0]} twice")
            for row in rows:
                yield _read_row(header, row, path.parent, where=f"{path} line {reader.line_num}")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not UTF-8 text") from error
    except (csv.Error, OSError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error


def _read_row(header: Sequence[str], row: Sequence[str], folder: Path, *, where: str) -> ReferencePhoto:
    if any(row[len(header) :]):
        raise SettingError(f"{where}: {len(row)} values for {len(header)} columns (quote a value with a comma)")
    cells = dict(zip(header, row, strict=False))
    if not cells.get("path"):
        raise SettingError(f"{where}: no path")
    photo = folder / cells["path"]
    if not photo.is_file():
        raise SettingError(f"{where}: no such file: {photo}")
    eye = _read_eye(cells.get("eye", ""), where)
    return ReferencePhoto(photo, cells.get("patient") or None, eye, cells.get("camera") or None)


def _read_eye(value: str, where: str) -> Eye | None:
    match value.lower():
        case "left" | "l" | "os":
            return "left"
        case "right" | "r" | "od":
            return "right"
        case "":
            return None
    raise SettingError(f"{where}: eye {value!r} is none of left, right, l, r, os, od")
