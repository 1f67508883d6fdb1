"""The photographs of a reference set: a folder tree, or the rows of a CSV file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path, PurePath
from typing import Final, Literal, TypeVar, get_args

from resad_client import csv_text
from resad_client.csv_text import CsvTable
from resad_client.errors import SettingError as ClientSettingError
from resad_client.photos import HIDDEN_FOLDER, PHOTO_SUFFIXES, left_out_kind, left_out_line, scan_folder
from resad_client.text import counted

from indexer.photos.remote import RemotePath, as_path, check_parts, is_address
from resad.config import Eye, MethodConfig
from resad.dicom.files import split_frame
from resad.dicom.header import header_of
from resad.errors import SettingError


def read_table(path: Path) -> CsvTable:
    """The table in `path`, as `resad_client.csv_text.read_table`; raises this project's `SettingError`."""
    try:
        return csv_text.read_table(path)
    except ClientSettingError as error:
        raise SettingError(str(error)) from error


COLUMNS: Final = ("path", "label", "kind", "mask", "marked", "split", "patient", "eye", "camera")

Label = Literal["normal", "abnormal"]
Split = Literal["train", "test"]
Marked = Literal["color", "number", "black"]
"""Where a mask has a lesion: where its color is not black; where its number (a palette's index) is above 0; where
it is black."""

_EYES: Final[Mapping[str, Eye]] = {
    "left": "left", "right": "right", "l": "left", "r": "right", "os": "left", "od": "right"
}  # fmt: skip
_LABELS: Final[Mapping[str, Label]] = {"normal": "normal", "0": "normal", "abnormal": "abnormal", "1": "abnormal"}
_SPLITS: Final[Mapping[str, Split]] = {"train": "train", "test": "test"}
_MARKED: Final[Mapping[str, Marked]] = {word: word for word in get_args(Marked)}


@dataclass(frozen=True, slots=True)
class LesionMask:
    """A mask of lesions.  kind: of the lesions, in the data set's words; None for any kind."""

    path: Path
    kind: str | None = None
    marked: Marked = "color"


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """A line of a list of photographs; None and empty for columns without a value.

    kind: the disease of an abnormal photograph.
    """

    path: Path
    label: Label | None = None
    kind: str | None = None
    masks: tuple[LesionMask, ...] = ()
    split: Split | None = None
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


def read_rows(path: Path, *, check: bool = True) -> tuple[PhotoRow, ...]:
    """The photographs of a CSV in order; other columns than `COLUMNS` and empty lines are ignored.

        path,label,kind,mask,marked,split,patient,eye,camera
        1.jpg,normal,,,,train,p7,left,Topcon
        2.jpg,abnormal,DR,EX=masks/2_EX.tif;HE=masks/2_HE.tif,number,test,p9,right,Topcon

    Only `path` is required: relative to the folder of the CSV, or an address.  `nan`, `N/A`, `unknown` and the
    like are no patient, eye or camera.

    Args:
        check: refuse a photograph that is not there; otherwise only if none is.
    Raises:
        SettingError: a line that cannot be used, by its number.
    """
    table = read_table(path)
    header = [name.lower() for name in table.columns]
    if "path" not in header:
        names = ", ".join(header) or "nothing"
        raise SettingError(f"{path}: the first line must name a column path (found: {names})")
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise SettingError(f"{path}: the first line names the column {twice[0]} twice")
    rows = [(line, f"{path} line {line.number}") for line in table.lines]
    photos = tuple(_row(table, header, line.cells, path.parent, where, check=check) for line, where in rows)
    paths = [photo.path for photo in photos]
    if not check and paths and not any(isinstance(path, RemotePath) or _exists(path) for path in paths):
        return read_rows(path)  # refuses the first
    return photos


def rows_csv(rows: Iterable[PhotoRow]) -> bytes:
    """The inverse of `read_rows`, with absolute paths; columns that are empty throughout are left out.

    Raises `SettingError` for a row whose masks are marked in different ways.
    """
    lines = [_cells(row) for row in rows]
    used = [number for number in range(len(COLUMNS)) if any(line[number] for line in lines)]
    table = (COLUMNS, *lines)
    text = "".join(csv_text.csv_row(line[number] for number in used) for line in table)
    return text.encode(errors="surrogateescape")


def _cells(row: PhotoRow) -> tuple[str, ...]:
    ways = {mask.marked for mask in row.masks} or {"color"}
    if len(ways) > 1:
        raise SettingError(f"{row.path}: its masks are marked in different ways ({', '.join(sorted(ways))})")
    way = ways.pop()
    masks = ";".join(f"{mask.kind}={mask.path.resolve()}" if mask.kind else f"{mask.path.resolve()}"
                     for mask in row.masks)  # fmt: skip
    return (
        str(row.path.resolve()), row.label or "", row.kind or "", masks, "" if way == "color" else way,
        row.split or "", row.patient or "", row.eye or "", row.camera or "",
    )  # fmt: skip


def _row(
    table: CsvTable, header: Sequence[str], row: Sequence[str], folder: Path, where: str, *, check: bool
) -> PhotoRow:
    if any(row[len(header) :]):
        quote = f"quote a value with a {table.separator_name}"
        raise SettingError(f"{where}: {len(row)} values for {len(header)} columns ({quote})")
    cells = {name: cell for name, cell in zip(header, row, strict=False) if cell}
    if "path" not in cells:
        raise SettingError(f"{where}: no path")
    label = _word(cells, "label", _LABELS, where)
    if "mask" in cells and label == "normal":
        raise SettingError(f"{where}: a normal photograph with a mask")
    return PhotoRow(
        path=_photo(folder, cells["path"], where, check=check),
        label=label,
        kind=cells.get("kind"),
        masks=_masks(cells, folder, where),
        split=_word(cells, "split", _SPLITS, where),
        patient=csv_text.known(cells.get("patient")),
        eye=_word(cells, "eye", _EYES, where) if csv_text.known(cells.get("eye")) else None,
        camera=csv_text.known(cells.get("camera")),
    )


def _masks(cells: Mapping[str, str], folder: Path, where: str) -> tuple[LesionMask, ...]:
    marked = _word(cells, "marked", _MARKED, where) or "color"
    parts = (part.strip().partition("=") for part in cells.get("mask", "").split(";") if part.strip())
    named = ((kind, path) if equals else (None, kind) for kind, equals, path in parts)
    return tuple(LesionMask(_file(_below(folder, path), path, where), kind, marked) for kind, path in named)


def _photo(folder: Path, cell: str, where: str, *, check: bool) -> Path:
    """The path of a photograph; addresses are not checked, which would cost a request for each."""
    if not is_address(cell):
        path = _below(folder, cell)
    else:
        try:
            check_parts(cell)
            path = as_path(Path(cell))
        except SettingError as error:
            raise SettingError(f"{where}: {error}") from error
    return path if isinstance(path, RemotePath) or not check else _file(path, cell, where)


def _exists(path: Path) -> bool:
    """Whether it is a file; False also for a name that no file can have, for which `Path.is_file` raises."""
    return path.is_file() if isinstance(path, RemotePath) else os.path.isfile(path)  # noqa: PTH113


def _file(path: Path, cell: str, where: str) -> Path:
    if not _exists(path):
        hint = "" if Path(cell).is_absolute() else " (relative paths count from the folder of the CSV)"
        raise SettingError(f"{where}: no such file: {path}{hint}")
    return path


def _below(folder: Path, cell: str) -> Path:
    return folder / cell if isinstance(folder, RemotePath) else csv_text.locate(folder, cell)


_Word = TypeVar("_Word", bound=str)


def _word(cells: Mapping[str, str], column: str, words: Mapping[str, _Word], where: str) -> _Word | None:
    value = cells.get(column)
    if value is None:
        return None
    if value.lower() not in words:
        raise SettingError(f"{where}: {column} {value!r} is none of {', '.join(words)}")
    return words[value.lower()]


@dataclass(frozen=True, slots=True)
class PatientCounts:
    """How many patients an index's photographs are of; its p-values depend on it.

    with_patient: photographs whose patient is known.  patients: of these photographs.  unknown: the other
    photographs.
    """

    with_patient: int
    patients: int
    unknown: int

    @classmethod
    def of(cls, patients: Iterable[str | None]) -> "PatientCounts":
        """Count the patients of photographs; None for an unknown patient."""
        names = list(patients)
        with_patient = [name for name in names if name is not None]
        return cls(len(with_patient), len(set(with_patient)), len(names) - len(with_patient))

    def describe(self) -> str:
        """The counts in words, and the consequence if no patient is known."""
        if not self.patients:
            return "unknown: p-values may be too low (see docs/build.md)"
        patients = counted(self.patients, "patient")
        unknown = f", {self.unknown} of unknown patients" if self.unknown else ""
        return f"{counted(self.with_patient, 'photograph')} of {patients}{unknown}"


MIN_PHOTOS: Final = 2
"""Photographs of an index: with one, nothing is left to calibrate against."""

DICOM_SUFFIXES: Final = (".dcm", ".dicom")


@dataclass(frozen=True, slots=True)
class ReferencePhoto:
    """A listed photograph with patient, eye and camera of its row in the CSV."""

    path: Path
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A photograph that was not used, and why.  unreached: its file could not be read, which may be temporary."""

    path: Path
    reason: str
    unreached: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A photograph that was not used because it is a copy of `same_as`: a file, or an id of the index."""

    path: Path
    same_as: Path | str


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A photograph that was used although it shows the same as `like`; each is a file, or an id of the index.

    bits: of 255, that differ.  mirrored: it is like the mirror image.
    """

    path: Path | str
    like: Path | str
    bits: int
    mirrored: bool = False


def list_photos(source: Path, *, check: bool = True) -> tuple[ReferencePhoto, ...]:
    """The photographs of `source`: a folder tree, one photograph, or a CSV file.

    A tree gives its files with a suffix of `PHOTO_SUFFIXES`, sorted by their path below `source`; hidden ones
    are left out, links are followed, and no folder is entered twice.  A CSV file (`photo_csv`) gives its rows in
    order, of any split.  Each may be an address (`indexer.photos.remote`).

    Raises `SettingError` if there is nothing to list or a row cannot be used, naming the line; without `check` not
    for a row whose file is missing.
    """
    source = as_path(source)
    return _listed(source, read_rows(source, check=check) if _is_csv(source) else ())


def list_references(source: Path) -> tuple[ReferencePhoto, ...]:
    """As `list_photos`, for an index or its calibration: of a CSV with a column split the rows of `train`.

    Raises `SettingError` also where a photograph to be learned from is labeled abnormal.
    """
    source = as_path(source)
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
    return tuple(map(_with_header, _listed(source, rows)))


def _with_header(photo: ReferencePhoto) -> ReferencePhoto:
    """The photograph with what a DICOM header says of patient, eye and camera; a CSV's values go before."""
    path = split_frame(photo.path)[0]
    if path.suffix.lower() not in DICOM_SUFFIXES or (header := header_of(path)) is None:
        return photo
    return replace(
        photo,
        patient=photo.patient or header.patient,
        eye=photo.eye or header.eye,
        camera=photo.camera or header.camera,
    )


def check_listed(source: Path, listed: Sequence[ReferencePhoto], config: MethodConfig) -> None:
    """Raise `SettingError` if the list alone shows that no index can be made, before anything is encoded.

    Unusable photographs and copies are not known yet; both only leave fewer.
    """
    counts = PatientCounts.of(photo.patient for photo in listed)
    people = counts.patients + counts.unknown
    if people < MIN_PHOTOS:
        single = len(listed) == 1
        number = "1 photograph, an" if single else f"{len(listed)} photographs of 1 patient, an"
        unit = "" if single else " patients"
        raise SettingError(f"{source} holds {number} index needs at least {MIN_PHOTOS}{unit}")
    count, neighbors = config.coreset.count, config.search.neighbors
    if count is None:
        return
    # However the memories are spread, some patient holds at least this part of them.
    remaining = count - ceil(count / people)
    if remaining < neighbors:
        raise SettingError(
            f"--coreset {count}: calibration leaves each photo out (its patient's, too), and at most "
            f"{counted(remaining, 'memory', 'memories')} would remain, fewer than the {neighbors} neighbors asked "
            f"(search.neighbors); it takes at least {ceil(neighbors * people / (people - 1))}"
        )


def unused_rows_and_columns(source: Path) -> tuple[str, ...]:
    """Columns and rows of a CSV that `list_references` does not use, a line each."""
    source = as_path(source)
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
        if any(splits) and (unused_rows := sum(split != "train" for split in splits)):
            lines.append(f"{unused_rows} of {counted(len(splits), 'row')} left out: their split is not train")
    return tuple(lines)


def _is_csv(source: Path) -> bool:
    return source.suffix.lower() in csv_text.CSV_SUFFIXES and source.is_file()


def _listed(source: Path, rows: tuple[PhotoRow, ...]) -> tuple[ReferencePhoto, ...]:
    """The photographs of `source`.  rows: of `source`, if it is a CSV file."""
    if source.is_dir():
        photos = tuple(map(ReferencePhoto, find_photos(source)))
    elif split_frame(source)[0].is_file() and not source.is_file():
        photos = (ReferencePhoto(source),)
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
        line = left_out((source,))
        rest = f"; {line}" if line else ""
        raise SettingError(f"no photographs in {source} (looked for {', '.join(PHOTO_SUFFIXES)}){rest}")
    return photos


def is_photo(path: Path) -> bool:
    """Whether `path` is a file, not hidden, with a suffix of `PHOTO_SUFFIXES`; it is not opened."""
    return left_out_kind(path, exists=path.is_file()) is None


def find_photos(folder: Path) -> list[Path]:
    """The photographs below `folder`, sorted by their path below it, as `list_photos`; may be empty."""
    if isinstance(folder, RemotePath):
        return _in_order(folder, folder.files(_is_shown))
    try:
        return _in_order(folder, scan_folder(folder).photos)
    except OSError as error:
        raise SettingError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def left_out(sources: Iterable[Path]) -> str | None:
    """What `list_photos` passes over in those of `sources` that are folders, in a line; None if nothing.

    Folders that cannot be opened are left to `list_photos`.
    """
    kinds: list[str] = []
    for source in map(as_path, sources):
        if not source.is_dir():
            continue
        if isinstance(source, RemotePath):
            source.files(partial(_note_kind, kinds=kinds))
            continue
        with suppress(OSError):
            kinds += [entry.kind for entry in scan_folder(source).left_out]
    return left_out_line(kinds)


def _note_kind(below: PurePath, kinds: list[str]) -> bool:
    """Note why a remote file is passed over; False, so that no file is taken."""
    hidden = any(part.startswith(".") for part in below.parts[:-1])
    if kind := HIDDEN_FOLDER if hidden else left_out_kind(below):
        kinds.append(kind)
    return False


def _in_order(folder: Path, photos: Iterable[Path]) -> list[Path]:
    return sorted(photos, key=lambda path: path.relative_to(folder).as_posix())


def _is_shown(below: PurePath) -> bool:
    return below.suffix.lower() in PHOTO_SUFFIXES and not any(part.startswith(".") for part in below.parts)
