"""The table that scoring over a cluster fills: a row for each photograph, added as they come, taken up again."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

from indexer.scoring import single_line
from resad.errors import SettingError


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a photograph: numbers, or a fault.

    photo: its path.  bytes, modified_ns: of its file, to know it by.  version, fpr, limit: the index, the rate
    that was asked for, and the threshold that was given instead.  reasons: of the quality, by `;`.
    """

    photo: str
    bytes: int
    modified_ns: int
    version: str
    fpr: str
    limit: str
    image_score: str = ""
    p_value: str = ""
    threshold: str = ""
    abnormal: str = ""
    findings: str = ""
    reasons: str = ""
    fault: str = ""


_COLUMNS = tuple(field.name for field in fields(Row))


class Rows:
    """A CSV of `Row`s that grows; a last line that was split short is dropped.

    Args:
        asked: version, fpr and limit of this run; a table of another one is refused.
    Raises:
        SettingError: the file is of something else.
    """

    def __init__(self, path: Path, asked: tuple[str, str, str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, Row] = {}
        end = self._recall(path, asked) if path.is_file() else 0
        self._file = path.open("r+b" if end else "wb")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._write([_COLUMNS])

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def done(self, photo: Path) -> bool:
        """Whether the file was scored as it is now."""
        row = self.known.get(named(photo))
        return row is not None and not row.fault and (row.bytes, row.modified_ns) == stamp(photo)

    def add(self, rows: Iterable[Row]) -> None:
        """Write down the next rows; what was said of a photograph last is what holds."""
        new = [_in_lines(row) for row in rows]
        self._write(map(astuple, new))
        self.known |= {row.photo: row for row in new}

    def _write(self, lines: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        self._file.write(text.getvalue().encode(errors="surrogateescape"))
        self._file.flush()  # to the system, which outlives this process

    def _recall(self, path: Path, asked: tuple[str, str, str]) -> int:
        """Take up the whole rows; where they end, bytes."""
        end = 0
        with path.open("rb") as file:
            for cells, end_of_row, whole in _read(file, path):
                if not end and tuple(cells) != _COLUMNS:
                    raise SettingError(f"{path} is there and no table of scores; give another --out")
                if not whole:
                    break
                if end:
                    self._take_up(path, _row(cells, path), asked)
                end = end_of_row
        return end

    def _take_up(self, path: Path, row: Row, asked: tuple[str, str, str]) -> None:
        for name, theirs, ours in zip(("version", "fpr", "limit"), astuple(row)[3:6], asked, strict=True):
            if theirs != ours:
                told = f"{name} {theirs or 'none'}, now it is {ours or 'none'}"
                raise SettingError(f"{path} was made with {told}; give another --out")
        self.known[row.photo] = row


def _read(file: BinaryIO, path: Path) -> Iterator[tuple[list[str], int, bool]]:
    """Each row, where it ends, bytes, and whether its line does; not a last one that was split within quotes."""
    end, whole = 0, True

    def lines() -> Iterator[str]:
        nonlocal end, whole
        for line in file:
            end += len(line)
            whole = line.endswith(b"\n")
            yield line.decode(errors="surrogateescape")

    reader, begun = csv.reader(lines(), strict=True), False
    try:
        for cells in reader:  # which takes no line before it needs it
            yield cells, end, whole
            begun = True
    except csv.Error as error:
        if file.read(1) or not begun:
            raise _damaged(path) from error


def _row(cells: Sequence[str], path: Path) -> Row:
    try:
        photo, size, modified_ns, *rest = cells
        return Row(photo, int(size), int(modified_ns), *rest)
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> SettingError:
    return SettingError(f"{path} is a damaged table of scores; take it away, or give another --out")


def _in_lines(row: Row) -> Row:
    """Without line breaks in its cells, so that a row is a line."""
    reasons, fault = single_line(row.reasons), single_line(row.fault)
    return replace(row, photo=single_line(row.photo), reasons=reasons, fault=fault)


def named(photo: Path) -> str:
    """A photograph's path in one line."""
    return str(photo).replace("\n", "\\n").replace("\r", "\\r")


def stamp(photo: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; zeros where there is no file."""
    try:
        found = photo.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
