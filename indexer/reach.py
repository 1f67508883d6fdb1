"""Asking and reading through fsspec: each failure is an `OSError` of a plain kind, in this project's words.

What stores say has names of keys and signatures in it, and line breaks.
"""

import errno
import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from resad.errors import ResadError

_WEB: Final = ("http://", "https://")
"""What fsspec reads these with does not try again, as those of object stores do by themselves."""
_WAITS: Final = (0.2, 1.0)
"""Seconds before another try."""
_STATUS: Final = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}

_Answer = TypeVar("_Answer")


def reached(address: str, ask: Callable[[], _Answer], *, again: bool = True) -> _Answer:
    """What `ask` answers; where it fails in a way that may pass it is asked `again`.

    Raises `OSError`, whatever fails, and lets pass what this project raises on purpose.
    """
    waits = list(_WAITS) if again and address.startswith(_WEB) else []
    while True:
        try:
            return ask()
        except (ResadError, MemoryError):
            raise
        except Exception as error:  # each filesystem has its own
            told = _told(error, address)
            if told.errno != errno.EIO or not waits:
                raise told from error
        time.sleep(waits.pop(0))


class RemoteFile(io.RawIOBase):
    """A file's bytes from `opened()`, in order; every failure is an `OSError` as of `reached`."""

    def __init__(self, address: str, opened: Callable[[], Any]) -> None:
        super().__init__()
        self._address, self._opened = address, opened
        self._file: Any = None
        self._begun = False
        self._file = reached(address, opened)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """As of any raw file."""
        # A second try after some bytes could mix two versions of a file.
        data = reached(self._address, partial(self._read, len(buffer)), again=not self._begun)
        self._begun = True
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go; nothing is lost by a failure there."""
        self._let_go()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._opened()
        try:
            data: bytes = self._file.read(size)
        except BaseException:
            if not self._begun:
                self._let_go()
            raise
        return data

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def _told(error: Exception, address: str) -> OSError:
    number = errno.EIO
    if address.startswith(_WEB):
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec says of every failed answer that nothing is there
        number = _STATUS.get(getattr(error, "status", 0), errno.EIO)
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    elif isinstance(error, PermissionError):
        number = errno.EACCES
    kind = f" ({type(error).__name__})" if number == errno.EIO else ""
    return OSError(number, os.strerror(number) + kind, address)
