"""The files of a scoring run: its tables, the path of its journal, the names of each photograph's files."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from resad_client.errors import SettingError
from resad_client.exports import Outcome, coco, findings_csv, photos_csv
from resad_client.files import replacing

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
    if len({name.casefold() for name in names}) == len(names):
        return list(names)
    # abspath and not resolve: a link keeps its own name.
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    top = Path(os.path.commonpath([path.parent for path in absolute]))
    return [path.relative_to(top).as_posix() for path in absolute]


def unique_places(labels: Sequence[str], reserved: Collection[str] = ()) -> list[str]:
    """Each label without suffix, made unique in order, letter case ignored: a/1.jpg, a/1.png -> a/1, a/1-2.

    Args:
        reserved: places that are not available.
    """
    used = {place.casefold() for place in reserved}
    places = []
    for label in labels:
        stem = str(PurePosixPath(label).with_suffix(""))
        place, number = stem, 1
        while place.casefold() in used:
            number += 1
            place = f"{stem}-{number}"
        used.add(place.casefold())
        places.append(place)
    return places
