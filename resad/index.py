"""The index on disk: ROOT/NAME/VERSION/, with ROOT/NAME/CURRENT naming the live version.

`CURRENT` is replaced atomically and alone says what is live.  How versions come and go is in
`resad.index_writing`, whether their files are whole in `resad.integrity`.
"""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from resad.errors import IndexInvalid, SettingError
from resad.tombstones import check_purged

CURRENT: Final = "CURRENT"
MANIFEST: Final = "manifest.json"
WORK: Final = ".work"
"""Below ROOT/NAME: what a build that was interrupted has left to go on with."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")


def check_name(name: str) -> str:
    """`name` if an index may be called so; raises `SettingError` otherwise."""
    if not NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name an index: 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit"
        )
    return name


def check_version(version: str) -> str:
    """`version` if `new_version` may have made it; raises `IndexInvalid` otherwise."""
    if not VERSION.fullmatch(version):
        raise IndexInvalid(f"{version!r} cannot name a version (as in 20261122T101500Z-3f9c)")
    return version


def new_version() -> str:
    """A name for a version that sorts by time: UTC, and four random hex digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def resolve(index: Path) -> Path:
    """The version's folder, for ROOT/NAME (its live version) or ROOT/NAME/VERSION; raises `IndexInvalid`."""
    if (index / MANIFEST).is_file():
        return index
    pointer = index / CURRENT
    if not pointer.is_file():
        raise IndexInvalid(f"{index} is no index: it holds neither {MANIFEST} nor {CURRENT}")
    version = pointer.read_text().strip()
    if not VERSION.fullmatch(version) or not (index / version / MANIFEST).is_file():
        raise IndexInvalid(f"{pointer} names {version!r}, which is no version of this index")
    return index / version


def versions(index: Path) -> list[str]:
    """The complete versions of ROOT/NAME, oldest first."""
    if not index.is_dir():
        return []
    return sorted(
        entry.name for entry in index.iterdir() if VERSION.fullmatch(entry.name) and (entry / MANIFEST).is_file()
    )


def live_version(index: Path) -> str | None:
    """What CURRENT of ROOT/NAME names, if anything."""
    pointer = index / CURRENT
    return pointer.read_text().strip() if pointer.is_file() else None


def activate(index: Path, version: str) -> None:
    """Make `version` of ROOT/NAME the live one, atomically; the caller has verified it.

    Raises `IndexInvalid` where there is no such version, or one that holds purged photographs.
    """
    if version not in versions(index):
        raise IndexInvalid(f"{index} has no version {version!r}; it has: {', '.join(versions(index)) or 'none'}")
    check_purged(index, index / version)
    fresh = index / f".{CURRENT}-{secrets.token_hex(4)}"
    fresh.write_text(version + "\n")
    sync(fresh)
    fresh.replace(index / CURRENT)
    sync(index)


def sync(path: Path) -> None:
    """Make a file, or the entries of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
