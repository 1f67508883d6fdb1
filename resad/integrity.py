"""Whether a version's files are those that its manifest states: their sizes and hashes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from resad.errors import IndexInvalid
from resad.index import MANIFEST
from resad.manifest import FileRecord, Manifest, read_manifest


def file_record(path: Path, name: str) -> FileRecord:
    """What a manifest states of the file at `path`, which it calls `name`."""
    return FileRecord(name, path.stat().st_size, _sha256(path))


def check_files(version: Path, *, unread: Sequence[str] = ()) -> Manifest:
    """The manifest, after every file it names was found with its size and hash; raises `IndexInvalid`.

    Args:
        unread: names that begin so are only looked for, with their sizes.
    """
    manifest = read_manifest(version / MANIFEST)
    for record in manifest.files:
        path = version / record.name
        if not path.is_file():
            raise IndexInvalid(f"{version}: {record.name} is missing")
        size = path.stat().st_size
        if size != record.bytes:
            raise IndexInvalid(f"{version}: {record.name} has {size} bytes, its manifest says {record.bytes}")
        if not record.name.startswith(tuple(unread)) and _sha256(path) != record.sha256:
            raise IndexInvalid(f"{version}: {record.name} was changed after the index was written (SHA-256)")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
