"""Versions of an index come and go: whole or not at all, one writer at a time.

A version is written beside its place, synced, renamed, and never changes afterwards; `manifest.json` is written
last and holds the size and SHA-256 of every other file.
"""

import fcntl
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from resad.errors import IndexInvalid, SettingError
from resad.index import CURRENT, MANIFEST, WORK, activate, check_name, live_version, sync, versions
from resad.integrity import file_record
from resad.manifest import FileRecord, Manifest, write_manifest
from resad.tombstones import PURGED

_STAGING: Final = ".staging-"


@contextmanager
def only_writer(index: Path) -> Iterator[None]:
    """Hold the lock of ROOT/NAME; the system lets go of it when the process ends, however it ends.

    Raises:
        SettingError: another process is writing to this index.
    """
    with (index / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(f"another process is writing to {index}; wait for it, or stop it") from error
        yield


@contextmanager
def writing(root: Path, name: str) -> Iterator[Path]:
    """A scratch folder on the index's own disk for one new version; gone afterwards, published or not.

    While it is held, the folder `WORK` beside the versions is the caller's; it stays as the caller leaves it.

    Raises:
        SettingError: another process is writing to this index.
    """
    index = root / check_name(name)
    fresh_root, fresh_index = not root.exists(), not index.exists() or (index / WORK).exists()
    index.mkdir(parents=True, exist_ok=True)
    with only_writer(index):
        clear_rubbish(index)
        staging = index / f"{_STAGING}{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            kept = (index / WORK).exists() or (index / PURGED).exists()
            if fresh_index and not versions(index) and not kept:
                shutil.rmtree(index, ignore_errors=True)
                if fresh_root and not any(root.iterdir()):
                    root.rmdir()


def clear_rubbish(index: Path) -> None:
    """Delete what a killed process has left; the caller holds the index's lock, which says that it is gone."""
    for left in index.glob(f"{_STAGING}*"):
        shutil.rmtree(left)
    for name in (CURRENT, PURGED):
        for left in index.glob(f".{name}-*"):
            left.unlink(missing_ok=True)


def delete_version(index: Path, version: str) -> None:
    """Delete a version that is not live; one that is stopped half-way is rubbish, and no version any more.

    The caller holds the index's lock.
    """
    if version == live_version(index):
        raise IndexInvalid(f"{index}: {version} is live and stays")
    gone = index / f"{_STAGING}{secrets.token_hex(4)}"
    (index / version).rename(gone)
    sync(index)
    shutil.rmtree(gone)


def publish(
    staging: Path,
    index: Path,
    describe: Callable[[tuple[FileRecord, ...]], Manifest],
    *,
    live: bool = True,
    known: Mapping[str, FileRecord] = MappingProxyType({}),
) -> tuple[Path, Manifest]:
    """Turn the files in `staging` into a version of `index` (ROOT/NAME), or, on any error, into nothing.

    Args:
        staging: a folder on the same disk; it is moved.
        describe: makes the manifest, given the files' sizes and hashes.
        live: make it the live version, too.
        known: by name, files of another version that are shared with it, and so need not be read again.
    Returns:
        the version's folder and its manifest.
    """
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    names = [path.relative_to(staging).as_posix() for path in files]
    records = [known.get(name) or file_record(path, name) for name, path in zip(names, files, strict=True)]
    manifest = describe(tuple(records))
    write_manifest(manifest, staging / MANIFEST)
    return settle(staging, index, manifest, live=live), manifest


def settle(staging: Path, index: Path, manifest: Manifest, *, live: bool) -> Path:
    """Move a folder that is a whole version, on the same disk, to its place in ROOT/NAME; that place.

    Raises `IndexInvalid` where that version is there already.
    """
    place = index / manifest.version
    if place.exists():
        raise IndexInvalid(f"{index} has a version {manifest.version} already")
    for path in (*staging.rglob("*"), staging):
        sync(path)
    try:
        staging.rename(place)
        sync(index)
        if live:
            activate(index, manifest.version)
    except BaseException:
        if live_version(index) != manifest.version:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return place
