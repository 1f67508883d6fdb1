"""What a run over many photographs has done so far: a line of JSON for each, so that another run can go on.

A line is written once a photograph's files are; a process that is killed leaves at most a last line cut short,
which is dropped.  The tables of a run are made from its journal, so that they hold the photographs of every run
that went on with it.  A photograph is known by its name, size and time of change: a file that was replaced is
scored anew, and so is one that failed.

The service's client has the same file over its own records; a test keeps the two alike.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from resad.errors import SettingError
from resad.exports import Outcome
from resad.result import compact_json, read_result

try:
    import fcntl
except ImportError:  # Windows: two runs over one journal are not kept apart there
    fcntl = None  # type: ignore[assignment]

_FORMAT: Final = 1
_HEAD: Final = {"journal", "order"}
_FIELDS: Final = {"photo", "place", "size", "modified_ns", "fault", "result"}


@dataclass(frozen=True, slots=True)
class Stamp:
    """A photograph's file as it was: its size, bytes, and the time of its last change, ns."""

    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class _Known:
    """The last line about a photograph.  offset: where it begins.  place: of its files, without their endings."""

    offset: int
    place: str
    stamp: Stamp | None
    scored: bool


def stamp_of(path: Path) -> Stamp | None:
    """Of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


class ScoreJournal:
    """The journal at `path`, held by this process alone; close it, or use it in a `with` statement.

    Args:
        order: what decides the answers; work goes on with the same order alone.
        resume: go on with the journal that is there (then `resumed` is true); otherwise it begins anew.
    Raises:
        SettingError: the journal is of another order, is none, or another process writes to it.
    """

    def __init__(self, path: Path, order: Mapping[str, object], *, resume: bool) -> None:
        self.path = path
        self._known: dict[str, _Known] = {}
        self.begun_ns = 0
        """When the run was begun, by the clock of the disk; 0 where its journal does not say."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            _lock(self._file, path)
            end = self._recall(order) if resume else 0
            self._file.truncate(end)
            self._file.seek(end)
            self.resumed = end > 0
            if not end:
                os.utime(path)  # by the clock that stamps files, which on a share is not this machine's
                self.begun_ns = path.stat().st_mtime_ns
                self._write(json.dumps({"journal": _FORMAT, "order": dict(order), "begun_ns": self.begun_ns}))
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
        """Let go of the file; one that tells of no photograph goes."""
        if not self._known:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def done(self, photo: str, stamp: Stamp | None) -> bool:
        """Whether the file was scored as it is."""
        known = self._known.get(photo)
        return known is not None and known.scored and known.stamp == stamp

    def tried(self, photo: str, stamp: Stamp | None) -> bool:
        """Whether there is an outcome of the file as it is, if only that it cannot be scored."""
        known = self._known.get(photo)
        return known is not None and known.stamp == stamp

    @property
    def places(self) -> dict[str, str]:
        """Photograph -> the place of its files, for all that there is an outcome of."""
        return {photo: known.place for photo, known in self._known.items()}

    def note(self, outcome: Outcome, place: str, stamp: Stamp | None) -> None:
        """Write down an outcome; of several of one photograph the last one holds."""
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
        self._known[outcome.photo] = _Known(offset, place, stamp, outcome.result is not None)

    def outcomes(self) -> Iterator[Outcome]:
        """Each photograph's last outcome, by their names' order; nothing may be noted meanwhile."""
        end = self._file.tell()
        try:
            for photo in sorted(self._known):
                self._file.seek(self._known[photo].offset)
                yield _outcome(json.loads(self._file.readline()))
        finally:
            self._file.seek(end)

    def _write(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        # To the system, which outlives this process.
        self._file.flush()

    def _recall(self, order: Mapping[str, object]) -> int:
        """Take up the whole lines; where they end."""
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            document = _parsed(line, _HEAD if number == 1 else _FIELDS, f"{self.path}, line {number}")
            if number == 1:
                _check(self.path, document["order"], order)
                self.begun_ns = document.get("begun_ns", 0)
            else:
                self._known[document["photo"]] = _known(document, end)
            end += len(line)
        return end


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingError(f"another process writes to {path}; wait for it, or stop it") from error


def _parsed(line: bytes, fields: set[str], where: str) -> dict[str, Any]:
    """A line that has all of `fields`."""
    try:
        document = json.loads(line)
        if isinstance(document, dict) and fields <= set(document):
            return document
    except ValueError:
        pass
    raise SettingError(f"{where}: this is no journal of a run, or a damaged one")


def _check(path: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    # Through JSON, which knows no tuples.
    asked = json.loads(json.dumps(dict(now)))
    for name in sorted(before.keys() | asked.keys()):
        if before.get(name) != asked.get(name):
            was, is_now = before.get(name), asked.get(name)
            raise SettingError(
                f"cannot resume {path}: {name} was {was}, now it is {is_now}; ask for the same, or --overwrite"
            )


def _known(document: Mapping[str, Any], offset: int) -> _Known:
    size, modified_ns = document["size"], document["modified_ns"]
    stamp = None if size is None or modified_ns is None else Stamp(size, modified_ns)
    return _Known(offset, document["place"], stamp, document["result"] is not None)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    result = document["result"]
    read = None if result is None else read_result(json.dumps(result))
    return Outcome(document["photo"], read, document["fault"])
