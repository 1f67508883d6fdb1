"""The text of a CSV file -> its columns and lines, as spreadsheets write it: with commas or, in some countries,
semicolons.
"""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from resad.errors import SettingError

_BLANK: Final = ' \t,;"'
"""What a line without any value is made of."""


@dataclass(frozen=True, slots=True)
class CsvLine:
    """number: in the file, from 1, as an editor counts.  cells: without spaces around them."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """columns: what the first line names.  lines: the others; those without any value are left out."""

    columns: tuple[str, ...]
    lines: tuple[CsvLine, ...]
    separator: str


def read_table(path: Path) -> CsvTable:
    """The table in `path`, UTF-8; raises `SettingError` where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        separator = _separator(text)
        reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = (CsvLine(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader)
        columns, *rest = [line for line in lines if any(line.cells)] or [CsvLine(0, ())]
    except UnicodeDecodeError as error:
        raise SettingError(f'{path} is not UTF-8 text (in Excel: save it as "CSV UTF-8")') from error
    except (csv.Error, OSError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    return CsvTable(columns.cells, tuple(rest), separator)


def _separator(text: str) -> str:
    """A semicolon where the first line has some and no comma: below it, cells may hold either."""
    first = next((line for line in text.splitlines() if line.strip(_BLANK)), "")
    return ";" if ";" in first and "," not in first else ","
