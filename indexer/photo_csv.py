"""The CSV that lists photographs: `build`, `score` and `evaluate` read the same one.

    path,label,kind,mask,marked,split,patient,eye,camera
    1.jpg,normal,,,,train,p7,left,Topcon
    2.jpg,abnormal,DR,EX=masks/2_EX.tif;HE=masks/2_HE.tif,number,test,p9,right,Topcon

Only `path` is needed.  UTF-8, with commas or semicolons (`csv_table`); paths are relative to the file's folder;
`path` may be an address (`remote`).
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from indexer.addresses import check_parts, is_address
from indexer.csv_table import CsvTable, read_table
from indexer.remote import RemotePath, placed
from resad.errors import SettingError
from resad.place import Eye

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
_SEPARATORS: Final = {",": "comma", ";": "semicolon"}
_MARKED: Final[Mapping[str, Marked]] = {word: word for word in get_args(Marked)}


@dataclass(frozen=True, slots=True)
class LesionMask:
    """A picture of where lesions are.  kind: of the lesions, in the data set's own word; None for any of them."""

    path: Path
    kind: str | None = None
    marked: Marked = "color"


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """What a line says; None and empty where it does not.  kind: what is wrong with an abnormal photograph."""

    path: Path
    label: Label | None = None
    kind: str | None = None
    masks: tuple[LesionMask, ...] = ()
    split: Split | None = None
    patient: str | None = None
    eye: Eye | None = None
    camera: str | None = None


def read_rows(path: Path) -> tuple[PhotoRow, ...]:
    """The lines of a CSV in their order, columns beyond `COLUMNS` ignored, empty lines, too.

    Raises `SettingError` if a line cannot be used, naming it.
    """
    table = read_table(path)
    header = [name.lower() for name in table.columns]
    if "path" not in header:
        found = ", ".join(header) or "nothing"
        raise SettingError(f"{path}: the first line must name a column path (found: {found})")
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise SettingError(f"{path}: the first line names the column {twice[0]} twice")
    folder = path.parent
    return tuple(_row(table, header, line.cells, folder, f"{path} line {line.number}") for line in table.lines)


def rows_csv(rows: Iterable[PhotoRow]) -> bytes:
    """The inverse of `read_rows`, with absolute paths; columns that are empty throughout are left out.

    Raises `SettingError` for a row whose masks are marked in different ways.
    """
    lines = [dict(zip(COLUMNS, _cells(row), strict=True)) for row in rows]
    used = [column for column in COLUMNS if any(line[column] for line in lines)]
    text = StringIO()
    writer = csv.DictWriter(text, used, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


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


def _row(table: CsvTable, header: Sequence[str], row: Sequence[str], folder: Path, where: str) -> PhotoRow:
    if any(row[len(header) :]):
        quote = f"quote a value with a {_SEPARATORS[table.separator]}"
        raise SettingError(f"{where}: {len(row)} values for {len(header)} columns ({quote})")
    cells = {name: cell for name, cell in zip(header, row, strict=False) if cell}
    if "path" not in cells:
        raise SettingError(f"{where}: no path")
    label = _word(cells, "label", _LABELS, where)
    if "mask" in cells and label == "normal":
        raise SettingError(f"{where}: a normal photograph with a mask")
    return PhotoRow(
        path=_photo(folder, cells["path"], where),
        label=label,
        kind=cells.get("kind"),
        masks=_masks(cells, folder, where),
        split=_word(cells, "split", _SPLITS, where),
        patient=cells.get("patient"),
        eye=_word(cells, "eye", _EYES, where),
        camera=cells.get("camera"),
    )


def _masks(cells: Mapping[str, str], folder: Path, where: str) -> tuple[LesionMask, ...]:
    marked = _word(cells, "marked", _MARKED, where) or "color"
    parts = (part.strip().partition("=") for part in cells.get("mask", "").split(";") if part.strip())
    named = ((kind, path) if equals else (None, kind) for kind, equals, path in parts)
    return tuple(LesionMask(_file(folder / path, path, where), kind, marked) for kind, path in named)


def _photo(folder: Path, cell: str, where: str) -> Path:
    """Whether anything is at an address is found when it is read: asking would cost a journey for each of them."""
    if not is_address(cell):
        path = folder / cell
    else:
        try:
            check_parts(cell)
            path = placed(Path(cell))
        except SettingError as error:
            raise SettingError(f"{where}: {error}") from error
    return path if isinstance(path, RemotePath) else _file(path, cell, where)


def _file(path: Path, cell: str, where: str) -> Path:
    if not path.is_file():
        hint = "" if Path(cell).is_absolute() else " (relative paths count from the folder of the CSV)"
        raise SettingError(f"{where}: no such file: {path}{hint}")
    return path


_Word = TypeVar("_Word", bound=str)


def _word(cells: Mapping[str, str], column: str, words: Mapping[str, _Word], where: str) -> _Word | None:
    value = cells.get(column)
    if value is None:
        return None
    if value.lower() not in words:
        raise SettingError(f"{where}: {column} {value!r} is none of {', '.join(words)}")
    return words[value.lower()]
