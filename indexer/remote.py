"""Photographs in an object store or behind another address that fsspec reads: `s3://bucket/folder`, `memory://...`.

fsspec is loaded when the first address is met; what it needs for a kind of address (s3fs, gcsfs, aiohttp) is
installed by who uses it, and takes its keys from where it always does.  Nothing is followed from inside a file.
"""

import errno
import importlib
import io
import math
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PosixPath, PurePath
from typing import Any, Final, TypeVar

from indexer.addresses import begins_as_address, refuse_parts, refuse_secrets
from indexer.reach import RemoteFile, reached
from resad.errors import SettingError

_ROOTED: Final = ("file", "local")
"""Whose addresses have three slashes: the path begins at the root of this machine."""
_UNLISTED: Final = ("http", "https")
"""Folders there are pages with links, which are not followed."""
_CHANGED: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
"""How filesystems call the time of the last change."""

_Answer = TypeVar("_Answer")


def placed(path: Path) -> Path:
    """`path` as it is, unless it is an address: then a `RemotePath`.  What there is on this machine goes first.

    Raises `SettingError` where fsspec, or what it needs for this kind of address, is not installed, and for an
    address that may hold a password.
    """
    if isinstance(path, RemotePath) or not begins_as_address(str(path)) or path.exists():
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

    def _ask(self, question: Callable[[Any, str], _Answer]) -> _Answer:
        return reached(str(self), lambda: question(*self._filesystem()))


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
