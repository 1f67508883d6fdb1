"""The files of a scoring run: its tables, the path of its journal, the names of each photograph's files."""

import errno
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from resad_client.errors import SettingError
from resad_client.exports import Outcome, coco, findings_csv, photos_csv
from resad_client.files import replacing
from resad_client.text import printable

_FOLDER_JOURNAL: Final = ".resad-journal"
_TABLE_JOURNAL: Final = ".journal"


@dataclass(frozen=True, slots=True)
class RunTables:
    """The paths of the tables of a run; None for a table that is not written."""

    csv: Path | None = None
    findings_csv: Path | None = None
    coco: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths that are not None."""
        return tuple(path for path in (self.csv, self.findings_csv, self.coco) if path is not None)

    def write(self, outcomes: Callable[[], Iterator[Outcome]]) -> None:
        """Write each table atomically; every call of `outcomes` iterates over all photographs."""
        formats = ((self.csv, photos_csv), (self.findings_csv, findings_csv), (self.coco, coco))
        for path, lines in formats:
            if path is not None:
                with (
                    replacing(path) as temporary,
                    temporary.open("w", encoding="utf-8", newline="") as file,
                ):
                    file.writelines(lines(outcomes()))


def journal_path(tables: RunTables, folders: Iterable[Path | None]) -> Path | None:
    """The path of a run's journal: beside its first table, or in its first folder; None if it has neither."""
    if tables.paths:
        return tables.paths[0].with_name(tables.paths[0].name + _TABLE_JOURNAL)
    return next((folder / _FOLDER_JOURNAL for folder in folders if folder is not None), None)


def refuse_existing(paths: Iterable[Path], begun_ns: int | None = None) -> None:
    """Raise `SettingError` for the first path that exists.

    Args:
        begun_ns: start of the run that is resumed; files changed since then may be its own and are allowed.
    """
    for path in paths:
        if path.exists() and (begun_ns is None or path.stat().st_mtime_ns < begun_ns):
            if begun_ns is not None:
                raise SettingError(f"{path} is older than the run: move it away, or --overwrite replaces it")
            raise SettingError(f"{path} exists: --resume continues the run that wrote it, --overwrite replaces it")


def unique_labels(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """The label of each photograph: its path below the folder that was given.

    If two names are equal, as with several folders, all labels are paths below the common parent folder.

    Args:
        names: paths below the folders that were given.
        paths: of the photographs, without repetition.
    """
    if len(set(map(_key, names))) == len(names):
        return list(names)
    # abspath and not resolve: a link keeps its own name.
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    top = Path(os.path.commonpath([path.parent for path in absolute]))
    return _numbered([printable(path.relative_to(top).as_posix()) for path in absolute])


def unique_places(labels: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Each label without suffix, made unique in order, letter case ignored: a/1.jpg, a/1.png -> a/1, a/1-2.

    Each part is short enough for the suffixes of its files, and has no backslash.

    Args:
        reserved: places that are not available.
    """
    used = set(map(_key, reserved))
    places = []
    for label in labels:
        stem = "/".join(map(_file_name, PurePosixPath(label).with_suffix("").parts))
        place, number = stem, 1
        while _key(place) in used:
            number += 1
            place = f"{stem}-{number}"
        used.add(_key(place))
        places.append(place)
    return places


_MAX_NAME_BYTES: Final = 220
"""Of a name without suffix: file systems allow 255 with it, and with what a temporary file adds."""


def _file_name(part: str) -> str:
    name = part.replace("\\", "_")
    data = name.encode()
    if len(data) <= _MAX_NAME_BYTES:
        return name
    end = f"~{hashlib.sha256(data).hexdigest()[:8]}"
    return data[: _MAX_NAME_BYTES - len(end)].decode(errors="ignore") + end


def _numbered(labels: Sequence[str]) -> list[str]:
    """Equal labels, as of two names that differ in a control character alone, told apart by a number."""
    uses: Counter[str] = Counter()
    numbered = []
    for label in labels:
        uses[label] += 1
        numbered.append(label if uses[label] == 1 else f"{label} ({uses[label]})")
    return numbered


def _key(name: str) -> str:
    """Equal for names that a file system may take for one: letter case and Unicode form are ignored."""
    return unicodedata.normalize("NFC", name).casefold()


def is_name_fault(error: OSError) -> bool:
    """Whether a file cannot be written for its name alone, so that other files can."""
    return error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
