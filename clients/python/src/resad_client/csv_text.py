"""CSV: rows that a spreadsheet takes for text and not for formulas, and tables with any usual separator."""

import csv
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Final

from resad_client.errors import SettingError

CSV_SUFFIXES: Final = (".csv", ".tsv")
"""Suffixes of tables, in lower case."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a cell begins with that a spreadsheet computes; the last four are the wide forms of the first four."""
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_QUOTED: Final = frozenset(',;\t\r\n"')
_BLANK: Final = ' \t,;"'
"""Characters of a line without values."""
_SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}
_UNKNOWN: Final = frozenset((
    "", "nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nat", "none", "null", "nil", "unknown", "unk",
    "not known", "not available", "missing", "?", "-", "--", ".",
))  # fmt: skip
"""What programs and people write into a cell without a value, in lower case."""


@dataclass(frozen=True, slots=True)
class CsvLine:
    """A line of a CSV.  number: in the file, from 1, as an editor counts.  cells: without spaces around them."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV: its columns, named by the first line, and its other lines, without empty ones."""

    columns: tuple[str, ...]
    lines: tuple[CsvLine, ...]
    separator: str

    @property
    def separator_name(self) -> str:
        """`comma`, `semicolon` or `tab`."""
        return _SEPARATORS[self.separator]


def csv_row(cells: Iterable[object]) -> str:
    """A line of CSV (RFC 4180 but for its end, a line feed): numbers as Python writes them, empty for None.

    Text that a spreadsheet would compute gets an apostrophe in front, which `read_table` takes away.
    """
    return ",".join(map(_cell, cells)) + "\n"


def read_table(path: Path) -> CsvTable:
    """The table in `path`, UTF-8, with commas, semicolons or tabs; raises `SettingError` if it cannot be read.

    A cell may hold bytes that are no UTF-8 if they name a file in the folder of the table.
    """
    not_text = f'{path} is not UTF-8 text (in Excel: save it as "CSV UTF-8")'
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            text = file.read()
        if "\0" in text:
            raise SettingError(not_text)
        separator = _separator(text)
        reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = (CsvLine(reader.line_num, tuple(_value(cell) for cell in row)) for row in reader)
        columns, *rest = [line for line in lines if any(line.cells)] or [CsvLine(0, ())]
    except (csv.Error, OSError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    for line in (columns, *rest):
        for cell in line.cells:
            if not _is_text(cell) and not os.path.lexists(path.parent / cell):
                raise SettingError(not_text)
    return CsvTable(columns.cells, tuple(rest), separator)


def known(cell: str | None) -> str | None:
    """The value of a cell for a patient, an eye or a camera; None for `nan`, `N/A`, `unknown`, `-` and the like.

    Letters with accents come in one form, so that a name is one name however its letters are stored.
    """
    value = unicodedata.normalize("NFC", (cell or "").strip())
    return None if value.lower() in _UNKNOWN else value


def locate(folder: Path, name: str) -> Path:
    r"""The file `name` below `folder`, also where the disk spells it in another way.

    Tables from Windows have `eyes\1.jpg`; macOS stores letters with accents in another Unicode form than most
    programs write.  A file that is not there comes back as `folder / name`.
    """
    path = folder / name
    if os.path.lexists(path):
        return path
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        if similar := _respelled(folder, PurePosixPath(spelling).parts):
            return similar
    return path


def _respelled(folder: Path, parts: Sequence[str]) -> Path | None:
    current = folder
    for part in parts:
        following = current / part
        if not os.path.lexists(following):
            try:
                names = _by_form(current, current.stat().st_mtime_ns)
            except (OSError, ValueError):
                return None
            if (stored := names.get(unicodedata.normalize("NFC", part))) is None:
                return None
            following = current / stored
        current = following
    return current


@lru_cache(maxsize=64)
def _by_form(folder: Path, modified_ns: int) -> dict[str, str]:
    """The names in a folder by their composed form.  modified_ns: of the folder, so that a change is seen."""
    return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}  # noqa: PTH208


def _separator(text: str) -> str:
    """The separator of the first line: a comma if it has one; below it, cells may hold any of them."""
    first = next((line for line in text.splitlines() if line.strip(_BLANK)), "")
    return next((mark for mark in _SEPARATORS if mark in first), ",")


def _is_text(cell: str) -> bool:
    """Whether no byte of the cell was anything but UTF-8."""
    return cell.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in cell)


def _value(cell: str) -> str:
    value = cell.strip()
    return value[1:] if value[:1] == "'" and _is_formula(value) else value


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet would compute it, were it not for apostrophes in front."""
    return text.lstrip("'").startswith(_FORMULA)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    text = f"'{value}" if _is_formula(value) and not _NUMBER.fullmatch(value) else value
    # A semicolon and a tab, too: a spreadsheet that is set to one of them would begin a cell behind it.
    return '"' + text.replace('"', '""') + '"' if _QUOTED.intersection(text) else text
