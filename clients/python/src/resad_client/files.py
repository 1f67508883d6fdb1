"""Atomic file writes: a reader sees the old file or the whole new one, never a part; and locks between writers."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`; the file that the block writes there replaces `path` at its end.

    The folder is made.  After an error the temporary file is deleted and `path` stays as it was.

    Args:
        durable: make the new file survive a power cut before returning.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str, *, durable: bool = False) -> None:
    """Write a whole file at once, text as UTF-8 with its line breaks unchanged; as `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`, which is made; the system releases it when the process ends, however it ends.

    Only where the system has `flock`, which Windows has not.

    Args:
        wait: for another process that holds it; otherwise `BlockingIOError` is raised.
    """
    import fcntl

    while True:
        with _open_lock(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Its last holder may have deleted it: the next process would make and lock another file.
            if _is_at(file.fileno(), path):
                yield
                return


def _open_lock(path: Path) -> BinaryIO:
    """The lock file, also where another user made it: to lock it, reading is enough."""
    try:
        return path.open("ab")
    except PermissionError:
        return path.open("rb")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Make a file, or the entries of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
