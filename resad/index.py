"""The index on disk: ROOT/NAME/VERSION/, with ROOT/NAME/CURRENT naming the live version.

`CURRENT` is replaced atomically and is the only statement of what is live.  A version is written beside its place,
synced, renamed, and never changes afterwards; `manifest.json` is written last and holds the size and SHA-256 of
every other file.  One writer at a time.

ROOT/NAME/PURGED lists photographs that this index must never hold again, one line each: the SHA-256 of the
photograph's content hash, called its tombstone.  Only someone who has the photograph can recognize its line.
"""

import errno
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from resad_client.files import locked, sync, write_atomically
from resad_client.text import counted

from resad.errors import IndexInvalid, SettingError
from resad.manifest import (
    CALIBRATION_FILE,
    EXAMPLE_RECORDS_FILE,
    PHOTOS_FILE,
    FileRecord,
    Manifest,
    read_manifest,
    write_manifest,
)

CURRENT: Final = "CURRENT"
PURGED: Final = "PURGED"
MANIFEST: Final = "manifest.json"
WORK: Final = ".work"
"""Below ROOT/NAME: the state of an interrupted build, from which it can continue."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
VERSION: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}")
LOCK: Final = ".lock"
_STAGING: Final = ".staging-"


def check_name(name: str) -> str:
    """`name` if it is a valid name of an index; raises `SettingError` otherwise."""
    if not NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name an index: 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit"
        )
    return name


def check_version(version: str) -> str:
    """`version` if it has the form of `new_version`; raises `IndexInvalid` otherwise."""
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
        raise IndexInvalid(f"{index} is not an index: it holds neither {MANIFEST} nor {CURRENT}")
    version = pointer.read_text().strip()
    if not VERSION.fullmatch(version) or not (index / version / MANIFEST).is_file():
        raise IndexInvalid(f"{pointer} names {version!r}, which is not a version of this index")
    return index / version


def versions(index: Path) -> list[str]:
    """The complete versions of ROOT/NAME, oldest first."""
    if not index.is_dir():
        return []
    return sorted(
        entry.name for entry in index.iterdir() if VERSION.fullmatch(entry.name) and (entry / MANIFEST).is_file()
    )


def live_version(index: Path) -> str | None:
    """The version that CURRENT of ROOT/NAME names, if any."""
    pointer = index / CURRENT
    return pointer.read_text().strip() if pointer.is_file() else None


def activate(index: Path, version: str) -> None:
    """Make `version` of ROOT/NAME the live one, atomically; the caller has verified it.

    Raises:
        IndexInvalid: the version does not exist or holds purged photographs.
        SettingError: another process writes to the index.
    """
    if not index.is_dir():
        raise IndexInvalid(f"{index} is not an index: there is no such folder")
    with write_lock(index):
        make_live(index, version)


def make_live(index: Path, version: str) -> None:
    """As `activate`, for a caller that holds the index's lock."""
    if version not in versions(index):
        raise IndexInvalid(f"{index} has no version {version!r}; it has: {', '.join(versions(index)) or 'none'}")
    check_not_purged(index, index / version)
    write_atomically(index / CURRENT, version + "\n", durable=True)


def tombstone(content_sha256: str) -> str:
    """A photograph's line in PURGED, hexadecimal."""
    return hashlib.sha256(content_sha256.encode()).hexdigest()


def tombstones(index: Path) -> frozenset[str]:
    """The tombstones of ROOT/NAME."""
    file = index / PURGED
    return frozenset(file.read_text().split()) if file.is_file() else frozenset()


def add_tombstones(index: Path, hashes: Iterable[str]) -> None:
    """Add photographs by content hash, atomically; the caller holds the index's lock."""
    lines = sorted(tombstones(index) | set(map(tombstone, hashes)))
    write_atomically(index / PURGED, "".join(line + "\n" for line in lines), durable=True)


def content_hashes(version: Path) -> frozenset[str]:
    """The content hashes of all photographs in a version's records: references, of its calibration, of its marks.

    Raises `IndexInvalid` for a record that cannot be read.
    """
    hashes: set[str] = set()
    for file in (version / PHOTOS_FILE, version / CALIBRATION_FILE, version / EXAMPLE_RECORDS_FILE):
        lines = file.read_bytes().splitlines() if file.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                hashes.add(str(json.loads(line)["content_sha256"]))
            except (ValueError, KeyError, TypeError) as error:
                raise IndexInvalid(f"{file}, line {number} is damaged") from error
    return frozenset(hashes)


def check_not_purged(index: Path, version: Path) -> None:
    """Raise `IndexInvalid` if `version` holds photographs that were purged from ROOT/NAME."""
    graves = tombstones(index)
    count = sum(tombstone(content) in graves for content in content_hashes(version)) if graves else 0
    if count:
        raise IndexInvalid(
            f"{version} holds {counted(count, 'photograph')} purged from {index.name}; it cannot be used (if a "
            "purge was interrupted, the same command finishes it)"
        )


def file_record(path: Path, name: str) -> FileRecord:
    """The manifest's entry for the file at `path`, under the name `name`."""
    return FileRecord(name, path.stat().st_size, _sha256(path))


def check_files(version: Path, *, skip_hash: Sequence[str] = ()) -> Manifest:
    """The manifest, after a check of the size and hash of every file in it; raises `IndexInvalid`.

    Args:
        skip_hash: prefixes of names; for these files only existence and size are checked.
    """
    manifest = read_manifest(version / MANIFEST)
    for record in manifest.files:
        path = version / record.name
        if not path.is_file():
            raise IndexInvalid(f"{version}: {record.name} is missing")
        size = path.stat().st_size
        if size != record.bytes:
            raise IndexInvalid(f"{version}: {record.name} has {size} bytes, its manifest says {record.bytes}")
        if not record.name.startswith(tuple(skip_hash)) and _sha256(path) != record.sha256:
            raise IndexInvalid(f"{version}: {record.name} was changed after the index was written (SHA-256)")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_lock(index: Path) -> Iterator[None]:
    """Hold the lock of ROOT/NAME; the system releases it when the process ends, however it ends.

    Raises:
        SettingError: another process is writing to this index.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(index / LOCK, wait=False))
        except BlockingIOError as error:
            raise SettingError(f"another process is writing to {index}; wait for it, or stop it") from error
        yield


@contextmanager
def staging_folder(root: Path, name: str) -> Iterator[Path]:
    """A scratch folder on the index's own disk for one new version; deleted afterwards, published or not.

    The write lock is held meanwhile.  The folder `WORK` beside the versions then belongs to the caller and stays
    as the caller leaves it.

    Raises:
        SettingError: another process is writing to this index.
    """
    index = root / check_name(name)
    new_root, new_index = not root.exists(), not index.exists() or (index / WORK).exists()
    index.mkdir(parents=True, exist_ok=True)
    with write_lock(index):
        delete_leftovers(index)
        staging = index / f"{_STAGING}{secrets.token_hex(4)}"
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            kept = (index / WORK).exists() or (index / PURGED).exists()
            if new_index and not versions(index) and not kept:
                shutil.rmtree(index, ignore_errors=True)
                if new_root and not any(root.iterdir()):
                    root.rmdir()


def leftovers(index: Path) -> list[Path]:
    """Folders that killed processes have left in ROOT/NAME: unfinished versions, and half-deleted ones."""
    return sorted(index.glob(f"{_STAGING}*"))


def delete_folder(folder: Path) -> None:
    """Delete a folder with all it holds; raises `OSError` if something of it stays.

    A link is refused: what it leads to might not be this program's.
    """
    if folder.is_symlink():
        target = folder.readlink()
        raise OSError(errno.ENOTDIR, f"it is a link to {target}: delete what is there, then the link", str(folder))
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        if folder.exists():
            raise
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)  # the rest of it
        raise


def delete_leftovers(index: Path) -> None:
    """Delete a killed process's temporary files; the caller holds the lock, so that process is gone.

    What cannot be deleted stays for the next writer: it does not keep this one from its work.
    """
    for folder in leftovers(index):
        with suppress(OSError):
            delete_folder(folder)
    for name in (CURRENT, PURGED):
        for file in index.glob(f".{name}[.-]*"):
            file.unlink(missing_ok=True)


def delete_version(index: Path, version: str) -> None:
    """Delete a version that is not live; interrupted half-way, it is a leftover and no version any more.

    The caller holds the index's lock.
    """
    if version == live_version(index):
        raise IndexInvalid(f"{index}: {version} is live and cannot be deleted")
    place = index / version
    if place.is_symlink():
        delete_folder(place)  # refuses
    leftover = index / f"{_STAGING}{secrets.token_hex(4)}"
    place.rename(leftover)
    sync(index)
    delete_folder(leftover)


def publish(
    staging: Path,
    index: Path,
    describe: Callable[[tuple[FileRecord, ...]], Manifest],
    *,
    live: bool = True,
    shared_files: Mapping[str, FileRecord] = MappingProxyType({}),
) -> tuple[Path, Manifest]:
    """Turn the files in `staging` into a version of `index` (ROOT/NAME), or, on any error, into nothing.

    Args:
        staging: a folder on the same disk; it is moved.
        describe: makes the manifest, given the files' sizes and hashes.
        live: make it the live version, too.
        shared_files: by name, files of another version that are shared with it, and so need not be read again.
    Returns:
        the version's folder and its manifest.
    """
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    names = [path.relative_to(staging).as_posix() for path in files]
    records = [shared_files.get(name) or file_record(path, name) for name, path in zip(names, files, strict=True)]
    manifest = describe(tuple(records))
    write_manifest(manifest, staging / MANIFEST)
    return move_into_place(staging, index, manifest, live=live), manifest


def move_into_place(staging: Path, index: Path, manifest: Manifest, *, live: bool) -> Path:
    """Move the folder of a complete version, on the same disk, to its place in ROOT/NAME; returns that place.

    Raises `IndexInvalid` if the version exists already.
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
            make_live(index, manifest.version)
    except BaseException:
        if live_version(index) != manifest.version and place.exists():
            place.rename(staging)  # the caller deletes it; killed meanwhile, it is a leftover and no version
        raise
    return place
