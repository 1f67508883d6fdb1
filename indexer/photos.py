"""Which photographs a reference set holds: those of a folder tree, or those that a CSV file lists."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, NoReturn

from indexer.csv_table import read_table
from indexer.photo_csv import COLUMNS, PhotoRow, read_rows
from indexer.remote import RemotePath, placed
from resad.errors import SettingError
from resad.place import Eye

PHOTO_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Of the types that can be read, in lower case; any case is taken."""


@dataclass(frozen=True, slots=True)
class ReferencePhoto:
    """A photograph to build from, and what a CSV file said about it."""

    path: Path
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A photograph that was left out, and why.  unreached: its file could not be read, which may pass."""

    path: Path
    reason: str
    unreached: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A photograph that was left out because its bytes are those of `same_as`: a file, or an id of the index."""

    path: Path
    same_as: Path | str


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A photograph that was taken, though it shows what `like` shows (both a file, or an id of the index); so many
    of 255 `bits` differ.  mirrored: from the other's mirror image.
    """

    path: Path | str
    like: Path | str
    bits: int
    mirrored: bool = False


def list_photos(source: Path) -> tuple[ReferencePhoto, ...]:
    """The photographs of `source`: a folder tree, one photograph, or a CSV file.

    A tree gives its files with a suffix of `PHOTO_SUFFIXES`, sorted by their path below `source`; hidden ones
    are left out, links are followed, and no folder is entered twice.  A CSV file (`photo_csv`) gives its rows in
    their order, of whatever split.  Each may be an address that fsspec reads (`remote`).

    Raises `SettingError` if there is nothing to list or a row cannot be used, naming the line.
    """
    source = placed(source)
    return _listed(source, read_rows(source) if _is_csv(source) else ())


def list_references(source: Path) -> tuple[ReferencePhoto, ...]:
    """As `list_photos`, for an index or its calibration: of a CSV with a column split the rows of `train`.

    Raises `SettingError` also where a photograph to be learned from is labeled abnormal.
    """
    source = placed(source)
    rows = read_rows(source) if _is_csv(source) else ()
    if any(row.split for row in rows):
        rows = tuple(row for row in rows if row.split == "train")
        if not rows:
            raise SettingError(f"{source}: no row has the split train")
    abnormal = [row.path for row in rows if row.label == "abnormal"]
    if abnormal:
        first = abnormal[0]
        which = f"{first} is" if len(abnormal) == 1 else f"{len(abnormal)} photographs, the first {first}, are"
        raise SettingError(f"{source}: {which} labeled abnormal; an index learns from normal ones alone "
                           "(a column split with train and test keeps others out)")  # fmt: skip
    return _listed(source, rows)


def overlooked(source: Path) -> tuple[str, ...]:
    """What `list_references` takes no notice of in a CSV, a line each: columns, and rows of another split."""
    source = placed(source)
    if not _is_csv(source):
        return ()
    table = read_table(source)
    names = [name.lower() for name in table.columns]
    lines = []
    if unused := [name for name in table.columns if name and name.lower() not in COLUMNS]:
        lines.append(f"columns not used: {', '.join(unused)} (known: {', '.join(COLUMNS)})")
    if "split" in names:
        column = names.index("split")
        splits = [line.cells[column].lower() if column < len(line.cells) else "" for line in table.lines]
        if any(splits) and (others := sum(split != "train" for split in splits)):
            lines.append(f"{others} of {len(splits)} rows left out: their split is not train")
    return tuple(lines)


def _is_csv(source: Path) -> bool:
    return source.suffix.lower() == ".csv" and source.is_file()


def _listed(source: Path, rows: tuple[PhotoRow, ...]) -> tuple[ReferencePhoto, ...]:
    """`rows` are those of `source`, if it is a CSV file."""
    if source.is_dir():
        photos = tuple(map(ReferencePhoto, find_photos(source)))
    elif not source.is_file():
        raise SettingError(f"{source}: no such file or folder")
    elif _is_csv(source):
        photos = tuple(ReferencePhoto(row.path, row.patient, row.eye, row.camera) for row in rows)
    elif source.suffix.lower() in PHOTO_SUFFIXES:
        photos = (ReferencePhoto(source),)
    else:
        raise SettingError(
            f"{source} is neither a folder, nor a .csv file, nor one of {', '.join(PHOTO_SUFFIXES)}"
        )
    if not photos and _is_csv(source):
        raise SettingError(f"{source} has no rows, only the line that names the columns")
    if not photos:
        raise SettingError(f"no photographs in {source} (looked for {', '.join(PHOTO_SUFFIXES)})")
    return photos


def is_photo(path: Path) -> bool:
    """Whether `path` is a file, not hidden, with a suffix of `PHOTO_SUFFIXES`; it is not opened."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".") and path.is_file()


def find_photos(folder: Path) -> list[Path]:
    """The photographs below `folder`, sorted by their path below it, as `list_photos`; may be empty."""
    if isinstance(folder, RemotePath):
        return _in_order(folder, folder.files(_is_shown))
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
    return _in_order(folder, found)


def _in_order(folder: Path, found: Iterable[Path]) -> list[Path]:
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _is_shown(below: PurePath) -> bool:
    return below.suffix.lower() in PHOTO_SUFFIXES and not any(part.startswith(".") for part in below.parts)


def _refuse(error: OSError) -> NoReturn:
    """Without this a folder that cannot be opened would count as empty."""
    raise SettingError(f"{error.filename}: cannot be listed ({error.strerror})") from error
