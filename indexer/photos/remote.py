"""Photographs at an address (s3://, gs://, https://): read through fsspec."""

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

_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
_WEB: Final = ("http", "https")
_HERE: Final = ("file", "local")
"""Whose addresses are paths."""


def starts_like_address(text: str) -> bool:
    """Whether `text`, perhaps as a path tells it (`s3:/bucket`), begins as an address does."""
    return _ADDRESS.match(text) is not None


def is_address(text: str) -> bool:
    """Whether a text as it was given is an address, and no path."""
    return "://" in text and starts_like_address(text)


def check_parts(text: str) -> None:
    """Raise `SettingError` for an address as it was given that would be another one as a path."""
    scheme, _, rest = text.partition("://")
    if scheme not in _HERE:
        refuse_parts(rest.lstrip("/").removesuffix("/"), text)


def refuse_parts(key: str, address: str) -> None:
    """Raise `SettingError` for a key with a part that a path loses: `a//b.jpg`, `a/./b.jpg`."""
    if any(part in ("", ".") for part in key.split("/")):
        raise SettingError(
            f"{address}: a key with an empty part (//) or a part . is not taken, since as a path it would be "
            "another one: copy the object to a key without it"
        )


def refuse_secrets(text: str) -> None:
    """Raise `SettingError`, without telling it, for an address that may hold a password or a signature.

    Tables and journals name photographs by their addresses.
    """
    scheme, _, rest = text.partition("://")
    user, at, host = rest.partition("/")[0].rpartition("@")
    web = scheme in _WEB
    if at and (web or ":" in user):
        what, shown = "a user's name or password", f"{scheme}://...@{host}"
    elif web and "?" in text:
        what, shown = "a query", text.partition("?")[0] + "?..."
    else:
        return
    raise SettingError(
        f"{shown}: an address with {what} is not taken, since results name photographs by their addresses; give "
        "keys to fsspec by ~/.config/fsspec or the environment, or copy the photographs to files"
    )


_HTTP: Final = ("http://", "https://")
"""What fsspec reads these with does not try again, as those of object stores do by themselves."""
_WAITS: Final = (0.2, 1.0)
"""Seconds before another try."""
_STATUS: Final = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT}

_Answer = TypeVar("_Answer")


def with_retries(address: str, ask: Callable[[], _Answer], *, again: bool = True) -> _Answer:
    """What `ask` answers; where it fails in a way that may pass it is asked `again`.

    Raises `OSError`, whatever fails, and lets pass what this project raises on purpose.
    """
    waits = list(_WAITS) if again and address.startswith(_HTTP) else []
    while True:
        try:
            return ask()
        except (ResadError, MemoryError):
            raise
        except Exception as error:  # each filesystem has its own
            told = _as_os_error(error, address)
            if told.errno != errno.EIO or not waits:
                raise told from error
        time.sleep(waits.pop(0))


class RemoteFile(io.RawIOBase):
    """A file's bytes from `opened()`, in order; every failure is an `OSError` as of `with_retries`."""

    def __init__(self, address: str, opened: Callable[[], Any]) -> None:
        super().__init__()
        self._address, self._opened = address, opened
        self._file: Any = None
        self._begun = False
        self._file = with_retries(address, opened)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """As of any raw file."""
        # A second try after some bytes could mix two versions of a file.
        data = with_retries(self._address, partial(self._read, len(buffer)), again=not self._begun)
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


def _as_os_error(error: Exception, address: str) -> OSError:
    number = errno.EIO
    if address.startswith(_HTTP):
        if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # fsspec says of every failed answer that nothing is there
        number = _STATUS.get(getattr(error, "status", 0), errno.EIO)
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    elif isinstance(error, PermissionError):
        number = errno.EACCES
    kind = f" ({type(error).__name__})" if number == errno.EIO else ""
    return OSError(number, os.strerror(number) + kind, address)


_ROOTED: Final = ("file", "local")
"""Whose addresses have three slashes: the path begins at the root of this machine."""
_UNLISTED: Final = ("http", "https")
"""Folders there are pages with links, which are not followed."""
_CHANGED: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
"""How filesystems call the time of the last change."""

_Value = TypeVar("_Value")


def as_path(path: Path) -> Path:
    """`path` as it is, unless it is an address: then a `RemotePath`.  What there is on this machine goes first.

    Raises `SettingError` where fsspec, or what it needs for this kind of address, is not installed, and for an
    address that may hold a password.
    """
    if isinstance(path, RemotePath) or not starts_like_address(str(path)) or path.exists():
        return path
    remote = RemotePath(path)
    refuse_secrets(str(remote))
    remote.check()
    return remote


class RemotePath(PosixPath):
    """An address in the place of a path, as far as photographs are read: listed, opened, asked for their size.

    Every failure to reach it or to read it is an `OSError`, as of a file.
    """

    _listed: os.stat_result | None = None
    """What the listing said of it, which is not asked for again; another process asks for itself."""

    def __str__(self) -> str:
        scheme, *parts = self.parts
        return f"{scheme}//{'/' if scheme[:-1] in _ROOTED else ''}{'/'.join(parts)}"

    def __fspath__(self) -> str:
        return str(self)

    def check(self) -> None:
        """Raise `SettingError` where nothing here reads this kind of address."""
        self._filesystem()

    def relative_to(self, *other: Any, **_: Any) -> Path:  # type: ignore[override]
        """Where it lies below another address: no address any more."""
        return Path(*super().relative_to(*other).parts)

    def absolute(self) -> "RemotePath":
        """Itself: an address is."""
        return self

    def resolve(self, strict: bool = False) -> "RemotePath":
        """Itself: no link is followed."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of the last change; 0 for a time that nobody tells."""
        return self._listed or _stat(self._ask(lambda filesystem, path: filesystem.info(path)))

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None,
             errors: str | None = None, newline: str | None = None) -> Any:  # fmt: skip
        """As of a file, for reading."""
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        file = io.BufferedReader(RemoteFile(str(self), self._opened))
        return file if mode == "rb" else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def exists(self) -> bool:
        """Whether anything is there that can be reached from here."""
        try:
            self.stat()
        except OSError:
            return False
        return True

    def is_file(self) -> bool:
        """Whether a file is there."""
        return stat.S_ISREG(self._kind())

    def is_dir(self) -> bool:
        """Whether anything lies below it."""
        return self.parts[0][:-1] not in _UNLISTED and stat.S_ISDIR(self._kind())

    def _kind(self) -> int:
        """0 where there is nothing."""
        try:
            return self.stat().st_mode
        except FileNotFoundError:
            return 0

    def files(self, wanted: Callable[[PurePath], bool]) -> "list[RemotePath]":
        """All files below it, however deep, whose path there is `wanted`; in no order.

        Raises `SettingError` for one whose key would be another one as a path.
        """
        place, found = self._ask(lambda filesystem, path: (path, filesystem.find(path, detail=True)))
        files = []
        for name, info in found.items():
            below = name.removeprefix(place).removeprefix("/")
            if not wanted(PurePath(below)):
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

    def _opened(self) -> Any:
        filesystem, path = self._filesystem()
        return filesystem.open(path, "rb")

    def _ask(self, question: Callable[[Any, str], _Value]) -> _Value:
        return with_retries(str(self), lambda: question(*self._filesystem()))


def _stat(info: Mapping[str, Any]) -> os.stat_result:
    """What a filesystem tells of a file, as the system would."""
    seconds = _seconds(next((info[name] for name in _CHANGED if info.get(name) is not None), 0))
    kind = stat.S_IFDIR if info.get("type") == "directory" else stat.S_IFREG
    times = {"st_mtime_ns": round(seconds * 1e9)}
    return os.stat_result((kind, 0, 0, 1, 0, 0, info.get("size") or 0, 0, int(seconds), 0), times)


def _seconds(changed: object) -> float:
    """A time as any filesystem tells it, since 1970; 0 where it cannot be read."""
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
