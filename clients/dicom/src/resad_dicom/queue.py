"""The durable queue: photographs and their results, on disk until the PACS has the results.

    objects/TOKEN.dcm      a photograph as it was received
    results/TOKEN-N.dcm    its result objects as the service answered them
    journal.sqlite         a row for each photograph and each result, with their states

A file is written and synced before its row; the row is committed and synced (SQLite's write-ahead log) before the
sender is told "stored".  A row is deleted before its files.  So a process that is killed at any point leaves
complete files with rows, and files without, which the next start deletes.  A photograph whose results are on disk
is never scored again: what is sent after a crash is what was sent before it.
"""

import hashlib
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from resad_client.errors import SettingError
from resad_client.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows: two nodes with one queue are not kept apart there
    fcntl = None  # type: ignore[assignment]

State = Literal["received", "scored", "refused"]
"""received: to be scored.  scored: results are to be sent.  refused: kept for a person to look at."""
Peer = Literal["service", "pacs"]
Limit = Literal["items", "bytes", "disk"]

_JOURNAL: Final = "journal.sqlite"
_FORMAT: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS photos (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  token TEXT NOT NULL UNIQUE,
  digest TEXT NOT NULL UNIQUE,
  bytes INTEGER NOT NULL,
  received REAL NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  due REAL NOT NULL DEFAULT 0,
  peer TEXT,
  reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS photos_due ON photos (state, due, number);
CREATE TABLE IF NOT EXISTS results (
  photo INTEGER NOT NULL REFERENCES photos (number) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  sent INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (photo, number)
) STRICT;
"""
_SIZE: Final = "photos.bytes + coalesce((SELECT sum(r.bytes) FROM results AS r WHERE r.photo = photos.number), 0)"
"""Of a row of photos: bytes of the photograph and its results."""
_FIRST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 300.0
_REFUSED_SHARE: Final = 10
"""Refused photographs take at most this part of the queue's bytes; beyond it the oldest are deleted."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """items, bytes: of photographs that wait, with their results.  free_bytes: least on the disk."""

    items: int
    bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Item:
    """A photograph in the queue.  attempts: that failed in its present state."""

    number: int
    token: str
    attempts: int
    received: float


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result object that the PACS has not got yet."""

    item: int
    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """A photograph that was given up.  received: seconds since 1970.  path: of its file."""

    number: int
    received: float
    peer: Peer
    reason: str
    path: Path


@dataclass(frozen=True, slots=True)
class QueueState:
    """Photographs and bytes by state.  oldest_s: age of the oldest that waits, seconds; 0 if none does."""

    received: int
    scored: int
    refused: int
    bytes: int
    oldest_s: float


class Queue:
    """The queue in `folder`, locked by this process; its methods may be called on any thread.

    Args:
        clock: seconds since 1970.
        disk: free bytes of a folder's disk.
    Raises:
        SettingError: the folder cannot be used, is of another version, or another node uses it.
    """

    def __init__(
        self,
        folder: Path,
        limits: QueueLimits,
        *,
        clock: Callable[[], float] = time.time,
        disk: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._disk = disk
        self._lock = threading.RLock()
        self._claimed: set[int] = set()
        self.changes = 0
        """How often a photograph was added or scored."""
        self._changed = threading.Condition()
        try:
            for path in (folder, folder / "objects", folder / "results"):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise SettingError(f"the queue {folder} cannot be written: {error.strerror or error}") from error
        if fcntl is not None:
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self._lock_file.close()
                raise SettingError(
                    f"another node uses the queue {folder}; stop it, or use another folder"
                ) from error
        try:
            self._journal = _open(folder)
        except SettingError:
            self._lock_file.close()
            raise
        self._delete_orphans()

    def close(self) -> None:
        """Unlock the folder."""
        with self._lock:
            self._journal.close()
            self._lock_file.close()

    def add(self, data: bytes) -> bool:
        """Keep a photograph durably; False if the same bytes wait already.

        Raises `OSError` or `sqlite3.Error` if it cannot be kept; then nothing of it stays.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if self._waiting(digest):
                return False
        token = secrets.token_hex(12)
        path = self._object(token)
        write_atomically(path, data, durable=True)
        try:
            with self._transaction() as journal:
                if self._waiting(digest):  # by another thread, meanwhile
                    path.unlink()
                    return False
                refused = journal.execute(
                    "SELECT number, token FROM photos WHERE digest = ?", (digest,)
                ).fetchall()
                for number, _ in refused:
                    self._delete(number)
                journal.execute(
                    "INSERT INTO photos (token, digest, bytes, received, state) VALUES (?, ?, ?, ?, 'received')",
                    (token, digest, len(data), self._clock()),
                )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for _, old_token in refused:
            self._delete_files(old_token)
        self._notify()
        return True

    def full(self) -> Limit | None:
        """Which limit is reached; None while there is room."""
        with self._lock:
            count, size = self._journal.execute(
                f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM photos WHERE state != 'refused'"
            ).fetchone()
        if count >= self._limits.items:
            return "items"
        if size >= self._limits.bytes:
            return "bytes"
        return "disk" if self._disk(self._folder) < self._limits.free_bytes else None

    def claim(self, state: Literal["received", "scored"], most: int = 1) -> list[Item]:
        """The oldest photographs that are due, for the caller alone until it releases them."""
        with self._lock:
            rows = self._journal.execute(
                "SELECT number, token, attempts, received FROM photos WHERE state = ? AND due <= ?"
                " ORDER BY number LIMIT ?",
                (state, self._clock(), most + len(self._claimed)),
            )
            items = [Item(*row) for row in rows if row[0] not in self._claimed][:most]
            self._claimed.update(item.number for item in items)
            return items

    def release(self, item: Item) -> None:
        """Let others claim it."""
        with self._lock:
            self._claimed.discard(item.number)

    def photo(self, item: Item) -> bytes:
        """The bytes that were received."""
        return self._object(item.token).read_bytes()

    def add_results(self, item: Item, objects: Sequence[bytes]) -> None:
        """Keep the photograph's result objects durably; it is scored then."""
        for number, data in enumerate(objects):
            write_atomically(self._result(item.token, number), data, durable=True)
        with self._transaction() as journal:
            journal.execute("DELETE FROM results WHERE photo = ?", (item.number,))
            journal.executemany(
                "INSERT INTO results (photo, number, bytes) VALUES (?, ?, ?)",
                [(item.number, number, len(data)) for number, data in enumerate(objects)],
            )
            journal.execute(
                "UPDATE photos SET state = 'scored', attempts = 0, due = 0 WHERE number = ?", (item.number,)
            )
        self._notify()

    def unsent(self, item: Item) -> list[StoredResult]:
        """Result objects that the PACS has not got, in the service's order."""
        with self._lock:
            rows = self._journal.execute(
                "SELECT number FROM results WHERE photo = ? AND sent = 0 ORDER BY number", (item.number,)
            ).fetchall()
        return [StoredResult(item.number, number, self._result(item.token, number)) for (number,) in rows]

    def sent(self, result: StoredResult) -> None:
        """The PACS has it."""
        with self._transaction() as journal:
            journal.execute(
                "UPDATE results SET sent = 1 WHERE photo = ? AND number = ?", (result.item, result.number)
            )

    def finish(self, item: Item) -> None:
        """Forget a photograph whose results the PACS has."""
        with self._transaction():
            self._delete(item.number)
        self._delete_files(item.token)

    def postpone(self, item: Item) -> float:
        """Count a failed attempt and let the photograph wait; returns the seconds, which double each time."""
        wait = min(_FIRST_RETRY_S * 2.0 ** min(item.attempts, 16), _LONGEST_RETRY_S)
        with self._transaction() as journal:
            journal.execute(
                "UPDATE photos SET attempts = attempts + 1, due = ? WHERE number = ?",
                (self._clock() + wait, item.number),
            )
        return wait

    def refuse(self, item: Item, peer: Peer, reason: str) -> None:
        """Give a photograph up; it is kept for `retry_refused` as long as there is room."""
        with self._transaction() as journal:
            journal.execute(
                "UPDATE photos SET state = 'refused', peer = ?, reason = ? WHERE number = ?",
                (peer, reason, item.number),
            )
            excess = _oldest_beyond(journal, self._limits.bytes // _REFUSED_SHARE)
            for number, _ in excess:
                self._delete(number)
        for _, token in excess:
            self._delete_files(token)

    def state(self) -> QueueState:
        """Counts at this moment."""
        with self._lock:
            return _state(self._journal, self._clock())

    def _waiting(self, digest: str) -> bool:
        row = self._journal.execute(
            "SELECT 1 FROM photos WHERE digest = ? AND state != 'refused'", (digest,)
        ).fetchone()
        return row is not None

    def _delete(self, number: int) -> None:
        self._journal.execute("DELETE FROM photos WHERE number = ?", (number,))

    def _delete_files(self, token: str) -> None:
        self._object(token).unlink(missing_ok=True)
        for path in (self._folder / "results").glob(f"{token}-*.dcm"):
            path.unlink(missing_ok=True)

    def _delete_orphans(self) -> None:
        """Delete files of a killed process that no row names."""
        tokens = {token for (token,) in self._journal.execute("SELECT token FROM photos")}
        results = {
            self._result(token, number)
            for token, number in self._journal.execute(
                "SELECT token, results.number FROM results JOIN photos ON photos.number = results.photo"
            )
        }
        for path in (self._folder / "objects").iterdir():
            if path.stem not in tokens or path.suffix != ".dcm":
                path.unlink()
        for path in (self._folder / "results").iterdir():
            if path not in results:
                path.unlink()

    def _object(self, token: str) -> Path:
        return self._folder / "objects" / f"{token}.dcm"

    def _result(self, token: str, number: int) -> Path:
        return self._folder / "results" / f"{token}-{number}.dcm"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._journal) as journal:
            yield journal

    def wait_for_change(self, since: int, seconds: float) -> None:
        """Wait until `changes` is no longer `since`, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self.changes != since, seconds)

    def _notify(self) -> None:
        with self._changed:
            self.changes += 1
            self._changed.notify_all()


def read_state(folder: Path) -> tuple[QueueState, list[Refused]]:
    """Counts and refused photographs of a queue, oldest first; a node may be using it.

    Raises `SettingError` if there is no queue.
    """
    journal = _existing(folder)
    try:
        rows = journal.execute(
            "SELECT number, received, peer, reason, token FROM photos WHERE state = 'refused' ORDER BY number"
        )
        refused = [
            Refused(number, received, peer, reason, folder / "objects" / f"{token}.dcm")
            for number, received, peer, reason, token in rows
        ]
        return _state(journal, time.time()), refused
    finally:
        journal.close()


def retry_refused(folder: Path) -> int:
    """Let every refused photograph be scored or sent again; returns how many.  A node may be using the queue.

    Raises `SettingError` if there is no queue.
    """
    journal = _existing(folder)
    try:
        with transaction(journal):
            return journal.execute(
                "UPDATE photos SET state = iif(peer = 'pacs', 'scored', 'received'), attempts = 0, due = 0,"
                " peer = NULL, reason = NULL WHERE state = 'refused'"
            ).rowcount
    finally:
        journal.close()


@contextmanager
def transaction(journal: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction that is on the disk when the block ends, or undone if it raises."""
    journal.execute("BEGIN IMMEDIATE")
    try:
        yield journal
    except BaseException:
        journal.execute("ROLLBACK")
        raise
    journal.execute("COMMIT")


def _existing(folder: Path) -> sqlite3.Connection:
    if not (folder / _JOURNAL).is_file():
        raise SettingError(f"{folder} holds no queue; --queue names the folder of a node")
    return _open(folder)


def _open(folder: Path) -> sqlite3.Connection:
    path = folder / _JOURNAL
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with ExitStack() as opened:
            journal = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            opened.callback(journal.close)
            journal.execute("PRAGMA journal_mode = WAL")
            journal.execute("PRAGMA synchronous = FULL")
            journal.execute("PRAGMA foreign_keys = ON")
            (version,) = journal.execute("PRAGMA user_version").fetchone()
            if version not in (0, _FORMAT):
                raise SettingError(
                    f"{path} is of version {version}, this node reads {_FORMAT}: use the newer node"
                )
            if version == 0:
                journal.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
            opened.pop_all()
    except (OSError, sqlite3.Error) as error:
        raise SettingError(f"{path} cannot be used: {error}") from error
    return journal


def _state(journal: sqlite3.Connection, now: float) -> QueueState:
    counts = dict(journal.execute("SELECT state, count(*) FROM photos GROUP BY state").fetchall())
    (size,) = journal.execute(f"SELECT coalesce(sum({_SIZE}), 0) FROM photos").fetchone()
    (oldest,) = journal.execute("SELECT min(received) FROM photos WHERE state != 'refused'").fetchone()
    return QueueState(
        counts.get("received", 0), counts.get("scored", 0), counts.get("refused", 0), size,
        0.0 if oldest is None else max(0.0, now - oldest),
    )  # fmt: skip


def _oldest_beyond(journal: sqlite3.Connection, most_bytes: int) -> list[tuple[int, str]]:
    """Number and token of the oldest refused photographs, without which the others take `most_bytes`."""
    rows = journal.execute(
        f"SELECT number, token, {_SIZE} FROM photos WHERE state = 'refused' ORDER BY number DESC"
    ).fetchall()
    excess, total = [], 0
    for number, token, size in rows:
        total += size
        if total > most_bytes:
            excess.append((number, token))
    return excess
