"""Reads the members of a tar archive in order, each with its bounds checked before it is used.

`tarfile` alone follows what an archive says of itself: a negative size leads back to the same member for ever, a
sparse member writes far more than the archive holds, links lead elsewhere.  An archive of an index holds regular
files only, so that nothing else is read.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from resad.errors import IndexInvalid

_MAX_EXTENSION: Final = 2**16
"""Bytes of a pax header, which holds a long name or a large size."""
_EXTENDED: Final = frozenset({"path", "size"})
"""Keywords of pax headers that `export` may write."""
_CHUNK: Final = 2**20


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive.  start: of its content, bytes from the archive's beginning."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.start + -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def read_members(archive: BinaryIO, path: Path) -> Iterator[Member]:
    """The members, by their headers alone.  path: for messages.

    Raises `IndexInvalid` for whatever is not a regular file that lies within the archive, and for anything behind
    the last member but padding.
    """
    total, at = os.fstat(archive.fileno()).st_size, 0
    while (header := _read(archive, at, tarfile.BLOCKSIZE, total, path)) != bytes(tarfile.BLOCKSIZE):
        info, extended = _parse(header, path), {}
        if info.type == tarfile.XHDTYPE:
            if not 0 <= info.size <= _MAX_EXTENSION:
                raise IndexInvalid(f"{path}: a header of {info.size} bytes, the limit is {_MAX_EXTENSION}")
            extension = Member("", at + tarfile.BLOCKSIZE, info.size)
            extended = _keywords(_read(archive, extension.start, extension.size, total, path), path)
            at = extension.end
            info = _parse(_read(archive, at, tarfile.BLOCKSIZE, total, path), path)
        name, size = extended.get("path", info.name), _size(extended.get("size"), info.size)
        if not info.isreg() or info.type == tarfile.GNUTYPE_SPARSE:
            raise IndexInvalid(f"{path}: {name!r} is not a regular file (type {info.type!r})")
        member = Member(name, at + tarfile.BLOCKSIZE, size)
        if size < 0 or member.start + size > total:
            raise IndexInvalid(f"{path}: {name!r} has {size} bytes by its header, the archive has {total} in all")
        yield member
        at = member.end
    if total - at > tarfile.RECORDSIZE or any(_read(archive, at, total - at, total, path)):
        raise IndexInvalid(f"{path} holds something behind its end")


def read_content(archive: BinaryIO, member: Member) -> bytes:
    """The whole content of a small member."""
    archive.seek(member.start)
    return archive.read(member.size)


def read_pieces(archive: BinaryIO, member: Member) -> Iterator[bytes]:
    """The content in pieces; raises `OSError` where the archive became shorter meanwhile."""
    archive.seek(member.start)
    rest = member.size
    while rest:
        piece = archive.read(min(rest, _CHUNK))
        if not piece:
            raise OSError(f"{member.name} ends {rest} bytes early: the archive was changed while it was read")
        yield piece
        rest -= len(piece)


def _read(archive: BinaryIO, at: int, size: int, total: int, path: Path) -> bytes:
    if at + size > total:
        raise IndexInvalid(f"{path} is not an archive of an index, or it is damaged: it ends at {total} bytes")
    archive.seek(at)
    return archive.read(size)


def _parse(header: bytes, path: Path) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise IndexInvalid(f"{path} is not an archive of an index, or it is damaged ({error})") from error


def _keywords(text: bytes, path: Path) -> dict[str, str]:
    """The records of a pax header, each `LENGTH KEYWORD=VALUE` and a line break."""
    keywords: dict[str, str] = {}
    while text:
        length, _, _ = text.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 7 else 0
        keyword, equals, value = text[len(length) + 1 : end].partition(b"=")
        try:
            name, content = keyword.decode("ascii"), value.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            name, content = "", ""
        if not equals or not value.endswith(b"\n") or name not in _EXTENDED or name in keywords:
            raise IndexInvalid(f"{path}: a header with what no export writes ({keyword[:40]!r})")
        keywords[name] = content
        text = text[end:]
    return keywords


def _size(extended: str | None, stated: int) -> int:
    """The size of a member; -1 for what is no number."""
    if extended is None:
        return stated
    return int(extended) if extended.isdecimal() and len(extended) < 20 else -1
