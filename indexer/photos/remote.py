"""Photographs at an address (s3://, gs://, https://), read through fsspec.

Every failure is a plain `OSError` in this project's words: messages of stores hold names of keys and signatures.
"""

import errno
import importlib
import io
import math
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PosixPath, PurePath
from typing import Any, Final, TypeVar

from resad.errors import ResadError, SettingError

_ADDRESS: Final = re.compile(r"((?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]+):/+(?=[^/])", re.IGNORECASE)
_CHAIN: Final = "::"
"""Between the schemes of an address that fsspec reads by way of another one, as in simplecache::http://host/a.jpg."""
_WEB: Final = ("http", "https")
_LOCAL: Final = ("file", "local")
"""Schemes of this machine's files; their addresses have three slashes."""


def starts_like_address(text: str) -> bool:
    """Whether `text` starts like an address, also with the single slash of a path: `s3:/bucket`."""
    return _ADDRESS.match(text) is not None


def is_address(text: str) -> bool:
    """Whether a text, as it was given, is an address and not a path."""
    return "://" in text and starts_like_address(text)


def check_parts(text: str) -> None:
    """Raise `SettingError` for an address that would change as a `Path`.  text: as it was given."""
    scheme, _, key = text.partition("://")
    if scheme.lower() not in _LOCAL:
        refuse_parts(key.lstrip("/").removesuffix("/"), text)


def refuse_parts(key: str, address: str) -> None:
    """Raise `SettingError` for a key with parts that a `Path` drops: `a//b.jpg`, `a/./b.jpg`."""
    if any(part in ("", ".") for part in key.split("/")):
        raise SettingError(
            f"{address}: keys with an empty part (//) or a part . are not supported: copy the object to a key "
            "without it"
        )


def refuse_secrets(text: str) -> None:
    """Raise `SettingError`, without the secret, for an address that may hold a password or a signature.

    Tables and journals name photographs by their addresses.
    """
    for part in text.split(_CHAIN):
        scheme, _, remainder = part.partition(":/")
        remainder = remainder.lstrip("/")
        user, at, host = remainder.partition("/")[0].rpartition("@")
        web = scheme.lower() in _WEB
        if at and (web or ":" in user):
            secret, shown = "a user's name or password", f"{scheme}://...@{host}"
        elif web and "?" in part:
            secret, shown = "a query", part.partition("?")[0] + "?..."
        else:
            continue
        raise SettingError(
            f"{shown}: an address with {secret} is not accepted, since results name photographs by their "
            "addresses; give keys to fsspec by ~/.config/fsspec or the environment, or copy the photographs to "
            "files"
        )


_HTTP: Final = ("http://", "https://")
"""fsspec does not retry these; the clients of object stores retry by themselves."""
_WAITS: Final = (0.2, 1.0)
"""Seconds before each retry."""
_STATUS: Final = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}

_Answer = TypeVar("_Answer")


def with_retries(address: str, request: Callable[[], _Answer], *, retry: bool = True) -> _Answer:
    """The result of `request`, retried after failures that may be temporary.

    Raises `OSError` for any failure, except for errors that this project raises on purpose.
    """
    waits = list(_WAITS) if retry and address.startswith(_HTTP) else []
    while True:
        try:
            return request()
        except (ResadError, MemoryError):
            raise
        except Exception as error:  # each filesystem has errors of its own
            failure = _as_os_error(error, address)
            if failure.errno != errno.EIO or not waits:
                raise failure from error
        time.sleep(waits.pop(0))


class RemoteFile(io.RawIOBase):
    """A remote file, read in order; every failure is an `OSError`.  open_file: opens it with fsspec."""

    def __init__(self, address: str, open_file: Callable[[], Any]) -> None:
        super().__init__()
        self._address, self._open_file = address, open_file
        self._file: Any = None
        self._started = False
        self._file = with_retries(address, open_file)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """As of `io.RawIOBase`."""
        # A retry after some bytes could mix two versions of a file.
        data = with_retries(self._address, partial(self._read, len(buffer)), retry=not self._started)
        self._started = True
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file; a failure to close loses nothing."""
        self._release()
        super().close()

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._open_file()
        try:
            data: bytes = self._file.read(size)
        except BaseException:
            if not self._started:
                self._release()
            raise
        return data

    def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()


def _as_os_error(error: Exception, address: str) -> OSError:
    number = errno.EIO
    if address.startswith(_HTTP):
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec raises it for every failed response
        number = _STATUS.get(getattr(error, "status", 0), errno.EIO)
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    elif isinstance(error, PermissionError):
        number = errno.EACCES
    kind = f" ({type(error).__name__})" if number == errno.EIO else ""
    return OSError(number, os.strerror(number) + kind, address)


_UNLISTED: Final = ("http", "https")
"""Schemes without folders: their pages with links are not followed."""
_CHANGED: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
"""Names of the time of the last change in the filesystems' answers."""

_Value = TypeVar("_Value")


def as_path(path: Path) -> Path:
    """A `RemotePath` for an address that is not a path of this machine; any other path as it is.

    Raises `SettingError` if fsspec or its driver for this kind of address is not installed, and for an address
    that may hold a password.
    """
    if isinstance(path, RemotePath) or not starts_like_address(str(path)) or path.exists():
        return path
    scheme, *parts = path.parts
    remote = RemotePath(scheme.lower(), *parts)
    refuse_secrets(str(remote))
    if _CHAIN in str(remote):
        raise SettingError(f"{remote}: an address that leads through another ({_CHAIN}) is not supported")
    remote.check()
    return remote


class RemotePath(PosixPath):
    """An address in place of a path, as far as photographs need it: listing, opening, size.

    Every failure to reach or to read it is an `OSError`, as of a file.
    """

    _listed: os.stat_result | None = None
    """Size and time from the listing, which saves a request; not passed on to other processes."""

    def __str__(self) -> str:
        scheme, *parts = self.parts
        return f"{scheme}//{'/' if scheme[:-1] in _LOCAL else ''}{'/'.join(parts)}"

    def __fspath__(self) -> str:
        return str(self)

    def check(self) -> None:
        """Raise `SettingError` if nothing installed reads this kind of address."""
        self._filesystem()

    def relative_to(self, *parts: Any, **_: Any) -> Path:  # type: ignore[override]
        """The path below another address; it is not an address."""
        return Path(*super().relative_to(*parts).parts)

    def absolute(self) -> "RemotePath":
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> "RemotePath":
        """Itself: links are not followed."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of the last change; 0 for an unknown time."""
        return self._listed or _stat(self._request(lambda filesystem, path: filesystem.info(path)))

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None,
             errors: str | None = None, newline: str | None = None) -> Any:  # fmt: skip
        """As of a file, for reading."""
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        file = io.BufferedReader(RemoteFile(str(self), self._open_file))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def exists(self) -> bool:
        """Whether the address can be reached and something is there."""
        try:
            self.stat()
        except OSError:
            return False
        return True

    def is_file(self) -> bool:
        """Whether it is a file."""
        return stat.S_ISREG(self._kind())

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.parts[0][:-1] not in _UNLISTED and stat.S_ISDIR(self._kind())

    def _kind(self) -> int:
        """The file type bits of its mode; 0 if there is nothing."""
        try:
            return self.stat().st_mode
        except FileNotFoundError:
            return 0

    def files(self, select: Callable[[PurePath], bool]) -> "list[RemotePath]":
        """All files below it, at any depth, whose relative path `select` accepts; in no order.

        Raises `SettingError` for a key that would change as a `Path`.
        """
        root, listing = self._request(lambda filesystem, path: (path, filesystem.find(path, detail=True)))
        files = []
        for name, info in listing.items():
            below = name.removeprefix(root).removeprefix("/")
            if not select(PurePath(below)):
                continue
            refuse_parts(below, f"{self}/{below}")
            file = self / below
            file._listed = _stat(info)
            files.append(file)
        return files

    def _filesystem(self) -> tuple[Any, str]:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise SettingError(f"{self} needs fsspec, which is not installed: pip install fsspec") from error
        try:
            filesystem, path = core.url_to_fs(str(self))
        except (ImportError, ValueError) as error:
            raise SettingError(f"{self} cannot be read here: {' '.join(str(error).split())}") from error
        return filesystem, path

    def _open_file(self) -> Any:
        filesystem, path = self._filesystem()
        return filesystem.open(path, "rb")

    def _request(self, request: Callable[[Any, str], _Value]) -> _Value:
        return with_retries(str(self), lambda: request(*self._filesystem()))


def _stat(info: Mapping[str, Any]) -> os.stat_result:
    """A filesystem's answer about a file as the result of `os.stat`."""
    seconds = _seconds(next((info[name] for name in _CHANGED if info.get(name) is not None), 0))
    kind = stat.S_IFDIR if info.get("type") == "directory" else stat.S_IFREG
    times = {"st_mtime_ns": round(seconds * 1e9)}
    return os.stat_result((kind, 0, 0, 1, 0, 0, info.get("size") or 0, 0, int(seconds), 0), times)


def _seconds(changed: object) -> float:
    """Seconds since 1970 of a time in any filesystem's format; 0 for an unknown format."""
    if isinstance(changed, str):
        with suppress(ValueError):
            changed = datetime.fromisoformat(changed)
    if isinstance(changed, datetime):
        return (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    try:
        seconds = float(changed)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
