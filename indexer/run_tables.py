"""The files that a run writes about all of its photographs, and what they must not replace.

The service's client has the same file; a test keeps the two alike.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resad.errors import SettingError
from resad.exports import Outcome, coco, findings_csv, photos_csv

_IN_FOLDER: Final = ".resad-journal"
_BESIDE: Final = ".journal"


@dataclass(frozen=True, slots=True)
class RunTables:
    """Which of them are wanted."""

    csv: Path | None = None
    findings_csv: Path | None = None
    coco: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of all that are."""
        return tuple(path for path in (self.csv, self.findings_csv, self.coco) if path is not None)

    def write(self, outcomes: Callable[[], Iterator[Outcome]]) -> None:
        """Write them, each in one go; `outcomes` gives the photographs from the first on, every time."""
        ways = ((self.csv, photos_csv), (self.findings_csv, findings_csv), (self.coco, coco))
        for path, way in ways:
            if path is not None:
                write_parts(path, way(outcomes()))


def journal_path(tables: RunTables, folders: Iterable[Path | None]) -> Path | None:
    """Where a run's journal lies: beside its first table, or in its first folder; None where it has neither."""
    if tables.paths:
        return tables.paths[0].with_name(tables.paths[0].name + _BESIDE)
    return next((folder / _IN_FOLDER for folder in folders if folder is not None), None)


def refuse_existing(paths: Iterable[Path], begun_ns: int | None = None) -> None:
    """Raises `SettingError` for the first file that is there.

    Args:
        begun_ns: when the run that is gone on with was begun: what was changed since then may be its own.
    """
    for path in paths:
        if path.exists() and (begun_ns is None or path.stat().st_mtime_ns < begun_ns):
            if begun_ns is not None:
                raise SettingError(f"{path} is older than the run: take it away, or --overwrite replaces it")
            raise SettingError(
                f"{path} exists: --resume goes on with the run that wrote it, --overwrite replaces it"
            )


def write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write a file so that it is never seen half-written, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            file.writelines(parts)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
