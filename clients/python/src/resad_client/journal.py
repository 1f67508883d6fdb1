"""The journal of a scoring run: a line of JSON for each photograph, so that a run can be resumed.

A line is written after the photograph's files.  A killed process leaves at most an incomplete last line, which is
dropped.  The tables of a run are made from its journal and so hold the photographs of all resumed runs.  A
photograph is identified by its label, size and modification time: a file that was replaced is scored again, and so
is a failure.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from resad_client.errors import SettingError
from resad_client.exports import Outcome
from resad_client.records import compact_json, read_result

try:
    import fcntl
except ImportError:  # Windows: two runs with one journal are not kept apart there
    fcntl = None  # type: ignore[assignment]

_FORMAT: Final = 1
_HEAD: Final = {"journal", "order"}
_FIELDS: Final = {"photo", "place", "size", "modified_ns", "fault", "result"}


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size of a file, bytes, and the time of its last change, ns."""

    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """The last line on a photograph.  offset: of the line.  place: of its files, without suffix."""

    offset: int
    place: str
    stamp: Stamp | None
    scored: bool


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


class ScoreJournal:
    """The journal at `path`, locked by this process; close it, or use it in a `with` statement.

    Args:
        settings: everything that decides the answers; only a run with equal settings can be resumed.
        resume: continue the journal that is there (then `resumed` is true); otherwise start a new one.
    Raises:
        SettingError: the journal has other settings, is damaged, or another process writes to it.
    """

    def __init__(self, path: Path, settings: Mapping[str, object], *, resume: bool) -> None:
        self.path = path
        self._entries: dict[str, _Entry] = {}
        self.begun_ns = 0
        """Start of the run by the clock of the disk; 0 if the journal does not say."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            _lock(self._file, path)
            end = self._read(settings) if resume else 0
            self._file.truncate(end)
            self._file.seek(end)
            self.resumed = end > 0
            if not end:
                os.utime(path)  # by the clock that stamps files; on a share it is not this machine's
                self.begun_ns = path.stat().st_mtime_ns
                head = {"journal": _FORMAT, "order": dict(settings), "begun_ns": self.begun_ns}
                self._write(json.dumps(head))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unlock the file, and delete it if it has no photograph."""
        if not self._entries:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def done(self, photo: str, stamp: Stamp | None) -> bool:
        """Whether the file with this stamp was scored."""
        entry = self._entries.get(photo)
        return entry is not None and entry.scored and entry.stamp == stamp

    def tried(self, photo: str, stamp: Stamp | None) -> bool:
        """Whether the file with this stamp was scored or failed."""
        entry = self._entries.get(photo)
        return entry is not None and entry.stamp == stamp

    @property
    def places(self) -> dict[str, str]:
        """Photograph -> place of its files, for all photographs in the journal."""
        return {photo: entry.place for photo, entry in self._entries.items()}

    def note(self, outcome: Outcome, place: str, stamp: Stamp | None) -> None:
        """Add an outcome; it replaces earlier ones of the same photograph."""
        head = {
            "photo": outcome.photo,
            "place": place,
            "size": stamp.size if stamp else None,
            "modified_ns": stamp.modified_ns if stamp else None,
            "fault": outcome.fault,
        }
        result = compact_json(outcome.result) if outcome.result is not None else "null"
        offset = self._file.tell()
        self._write(f'{json.dumps(head)[:-1]}, "result": {result}}}')
        self._entries[outcome.photo] = _Entry(offset, place, stamp, outcome.result is not None)

    def outcomes(self) -> Iterator[Outcome]:
        """The last outcome of each photograph, sorted by label; nothing may be noted meanwhile."""
        end = self._file.tell()
        try:
            for photo in sorted(self._entries):
                self._file.seek(self._entries[photo].offset)
                yield _outcome(json.loads(self._file.readline()))
        finally:
            self._file.seek(end)

    def _write(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        # To the operating system, which outlives this process.
        self._file.flush()

    def _read(self, settings: Mapping[str, object]) -> int:
        """Read the complete lines; returns where they end."""
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            document = _parse(line, _HEAD if number == 1 else _FIELDS, f"{self.path}, line {number}")
            if number == 1:
                _check(self.path, document["order"], settings)
                self.begun_ns = document.get("begun_ns", 0)
            else:
                self._entries[document["photo"]] = _entry(document, end)
            end += len(line)
        return end


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingError(f"another process writes to {path}; wait for it, or stop it") from error


def _parse(line: bytes, fields: set[str], where: str) -> dict[str, Any]:
    """A line as an object with all of `fields`."""
    try:
        document = json.loads(line)
        if isinstance(document, dict) and fields <= set(document):
            return document
    except ValueError:
        pass
    raise SettingError(f"{where}: this is no journal of a run, or a damaged one")


def _check(path: Path, recorded: Mapping[str, object], settings: Mapping[str, object]) -> None:
    # Through JSON, which has no tuples.
    current = json.loads(json.dumps(dict(settings)))
    for name in sorted(recorded.keys() | current.keys()):
        if recorded.get(name) != current.get(name):
            raise SettingError(
                f"cannot resume {path}: {name} was {recorded.get(name)}, now it is {current.get(name)}; "
                "use the same, or --overwrite"
            )


def _entry(document: Mapping[str, Any], offset: int) -> _Entry:
    size, modified_ns = document["size"], document["modified_ns"]
    stamp = None if size is None or modified_ns is None else Stamp(size, modified_ns)
    return _Entry(offset, document["place"], stamp, document["result"] is not None)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    result = document["result"]
    record = None if result is None else read_result(json.dumps(result))
    return Outcome(document["photo"], record, document["fault"])
