"""Photographs that an option names: by opaque id, by content hash, or by the file itself."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from indexer.build.state import file_sha256
from indexer.photos.listing import list_photos
from resad.errors import SettingError

_ID: Final = re.compile(r"[rc]-\d{5,}|m-[0-9a-f]{8}")
_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class IdentifiedPhoto(Protocol):
    """A photograph with its opaque id and its content hash."""

    @property
    def id(self) -> str:
        """As r-00041 or c-00041."""
        ...

    @property
    def content_sha256(self) -> str:
        """Hexadecimal."""
        ...


@dataclass(frozen=True, slots=True)
class NamedPhotos:
    """ids, hashes: of single photographs."""

    ids: frozenset[str]
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class PhotoName:
    """The name of a photograph: an opaque id, a content hash, or a file.  value: id, hexadecimal hash, or text."""

    kind: Literal["id", "hash", "file"]
    value: str


def parse_name(text: str) -> PhotoName:
    """The kind of a name: r-00041, a content hash (with or without `sha256:`), anything else is a file."""
    if _ID.fullmatch(text):
        return PhotoName("id", text)
    if match := _HASH.fullmatch(text.lower()):
        return PhotoName("hash", match[1])
    return PhotoName("file", text)


def parse_names(option: str, names: Sequence[str]) -> NamedPhotos:
    """Ids (r-00041), content hashes, files, folders or CSVs; raises `SettingError` for anything else.

    option: for messages.
    """
    ids, hashes = set(), set()
    for name in map(parse_name, names):
        if name.kind == "id":
            ids.add(name.value)
        elif name.kind == "hash":
            hashes.add(name.value)
        else:
            hashes |= _file_hashes(option, name.value)
    return NamedPhotos(frozenset(ids), frozenset(hashes))


def named_hashes(
    option: str, names: Sequence[str], records: Iterable[IdentifiedPhoto], version: Path | None
) -> frozenset[str]:
    """Content hashes of the photographs that `names` stands for.

    Args:
        records: of the version in which ids are looked up.
    Raises:
        SettingError: a name is none of these, or no photograph of the version has the id.
    """
    named = parse_names(option, names)
    hash_of = {record.id: record.content_sha256 for record in records}
    if missing := named.ids - hash_of.keys():
        place = f"{version} has no such photograph" if version else "there is no version with ids yet"
        raise SettingError(f"{option} {min(missing)}: {place}; name the file itself")
    return named.hashes | {hash_of[name] for name in named.ids}


def _file_hashes(option: str, text: str) -> set[str]:
    path = Path(text)
    if not path.exists():
        raise SettingError(
            f"{option} {text!r} is no id (as r-00041), no content hash (64 hex digits), and no file"
        )
    return {content for photo in list_photos(path) if (content := file_sha256(photo.path)) is not None}
