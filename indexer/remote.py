"""Photographs in an object store or behind another address that fsspec reads: `s3://bucket/folder`, `memory://...`.

fsspec is loaded when the first address is met; what it needs for a kind of address (s3fs, gcsfs, aiohttp) is
installed by who uses it, and takes its keys from where it always does.  Nothing is followed from inside a file.
"""

import errno
import importlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PosixPath
from typing import Any, Final

from resad.errors import ResadError, SettingError

_ADDRESS: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
_ROOTED: Final = ("file", "local")
"""Whose addresses have three slashes: the path begins at the root of this machine."""
_UNLISTED: Final = ("http", "https")
"""Folders there are pages with links, which are not followed."""
_CHANGED: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
"""How filesystems call the time of the last change."""


def placed(path: Path) -> Path:
    """`path` as it is, unless it is an address: then a `RemotePath`.  What there is on this machine goes first.

    Raises `SettingError` where fsspec, or what it needs for this kind of address, is not installed.
    """
    if isinstance(path, RemotePath) or not _ADDRESS.match(str(path)) or path.exists():
        return path
    remote = RemotePath(path)
    remote.check()
    return remote


def is_address(text: str) -> bool:
    """Whether a cell of a CSV is an address, and no path."""
    return "://" in text and _ADDRESS.match(text) is not None


class RemotePath(PosixPath):
    """An address in the place of a path, as far as photographs are read: listed, opened, asked for their size.

    Every failure to reach it is an `OSError`, as of a file.
    """

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
        with self._reached() as (filesystem, path):
            info = filesystem.info(path)
        changed = next((info[name] for name in _CHANGED if info.get(name) is not None), 0)
        seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed)
        kind = stat.S_IFDIR if info.get("type") == "directory" else stat.S_IFREG
        times = {"st_mtime_ns": round(seconds * 1e9)}
        return os.stat_result((kind, 0, 0, 1, 0, 0, info.get("size") or 0, 0, int(seconds), 0), times)

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None,
             errors: str | None = None, newline: str | None = None) -> Any:  # fmt: skip
        """As of a file, for reading."""
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        text = {} if mode == "rb" else {"encoding": encoding or "utf-8", "errors": errors, "newline": newline}
        with self._reached() as (filesystem, path):
            return filesystem.open(path, mode, **text)

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

    def files(self) -> "list[RemotePath]":
        """All files below it, however deep; in no order."""
        with self._reached() as (filesystem, path):
            found = filesystem.find(path)
        return [self / name.removeprefix(path).lstrip("/") for name in found]

    def _filesystem(self) -> tuple[Any, str]:
        try:
            core = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise SettingError(f"{self} needs fsspec, which is not installed: pip install fsspec") from error
        try:
            filesystem, path = core.url_to_fs(str(self))
        except (ImportError, ValueError) as error:
            raise SettingError(f"{self} cannot be read here: {error}") from error
        return filesystem, path

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        try:
            yield self._filesystem()
        except ResadError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from error
        except PermissionError as error:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self)) from error
        except Exception as error:  # each filesystem has its own
            reason = f"{os.strerror(errno.EIO)} ({type(error).__name__})"
            raise OSError(errno.EIO, reason, str(self)) from error
