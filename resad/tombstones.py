"""ROOT/NAME/PURGED: photographs that this index has to be without, for good.

A line for each: SHA-256 of its content hash.  Whoever holds the photograph can tell that it is meant; nobody else
can, and no search for its content hash finds the line.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from resad.errors import IndexInvalid
from resad.photo_records import CALIBRATION_FILE, PHOTOS_FILE

PURGED: Final = "PURGED"


def tombstone(content_sha256: str) -> str:
    """The line of a photograph, hexadecimal."""
    return hashlib.sha256(content_sha256.encode()).hexdigest()


def purged(index: Path) -> frozenset[str]:
    """The tombstones of ROOT/NAME."""
    file = index / PURGED
    return frozenset(file.read_text().split()) if file.is_file() else frozenset()


def add_purged(index: Path, hashes: Iterable[str]) -> None:
    """Add photographs by content hash, atomically; the caller holds the index's lock."""
    lines = sorted(purged(index) | set(map(tombstone, hashes)))
    fresh = index / f".{PURGED}-{secrets.token_hex(4)}"
    with fresh.open("w") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(index / PURGED)


def content_hashes(version: Path) -> frozenset[str]:
    """Of all photographs that a version's records name: references, and those it was calibrated on."""
    files = [version / PHOTOS_FILE, version / CALIBRATION_FILE]
    lines = [line for file in files if file.is_file() for line in file.read_bytes().splitlines()]
    return frozenset(json.loads(line)["content_sha256"] for line in lines)


def check_purged(index: Path, version: Path) -> None:
    """Raise `IndexInvalid` where `version` holds photographs that were purged from ROOT/NAME."""
    graves = purged(index)
    count = sum(tombstone(one) in graves for one in content_hashes(version)) if graves else 0
    if count:
        raise IndexInvalid(
            f"{version} holds {count} photographs that were purged from {index.name}; it stays barred"
        )
