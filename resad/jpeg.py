"""The segments of a JPEG in front of its picture: orientation, kind of picture, further pictures in the file.

They are read without Pillow: Pillow parses all of a JPEG's EXIF while opening it and reports a damaged block
through `warnings`, which the process may turn into errors.  Only a few numbers are needed, and damage must not
matter.
Sources: JPEG (ITU-T T.81), Exif 2.32, Multi-Picture Format (CIPA DC-007).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from resad.errors import PhotoUnreadable, PhotoUnsupported

_ORIENTATION: Final = 0x0112
START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_MAX_SEGMENTS: Final = 2000
"""Largest number before the picture; cameras write about ten, a color profile or thumbnail some hundred more."""
FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Markers that begin a picture and state its size, each of a kind of coding."""
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_ENTRIES: Final = 0xB002
_THUMBNAILS: Final = (0x010001, 0x010002)
_GAIN_MAP: Final = (b"hdrgm:", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")
"""Marks of a picture that only brightens the first one on some screens."""
_HEAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Frame:
    """The kind of a JPEG's picture.  marker: of its coding.  precision: bits per channel."""

    marker: int
    precision: int
    width: int
    height: int
    channels: int

    def fault(self) -> str | None:
        """The property that keeps the picture from being read."""
        if self.precision != 8:
            return f"a JPEG of {self.precision} bits per channel"
        if self.marker in _LOSSLESS:
            return "a lossless JPEG"
        if self.marker in _HIERARCHICAL:
            return "a hierarchical JPEG"
        if self.channels not in (1, 3, 4):
            return f"a JPEG of {self.channels} channels"
        return None


def is_jpeg(data: bytes) -> bool:
    """Whether `data` begins like a JPEG."""
    return data[:3] == b"\xff\xd8\xff"


def hide_exif(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG with its EXIF and multi-picture segments renamed (same length), and its first EXIF block.

    Any other data comes back unchanged, with an empty block.  Without the multi-picture index Pillow reads the
    first picture of an MPO file, a plain JPEG.  Raises `PhotoUnreadable` for more segments and fill bytes than any
    camera writes, which would only cost time.
    """
    if not is_jpeg(data):
        return data, b""
    hidden = bytearray(data)
    exif = b""
    for marker, start, end in _segments(data):
        if marker == _APP1 and data[start : start + 5] == b"Exif\0":
            exif = exif or data[start:end]
            hidden[start : start + 4] = b"none"
        elif marker == _APP2 and data[start : start + 4] == b"MPF\0":
            hidden[start : start + 3] = b"non"
    return bytes(hidden), exif


def frame_of(data: bytes) -> Frame | None:
    """The kind of the picture; None where it is not found in front of the first scan."""
    for marker, start, _ in _segments(data):
        if marker in FRAMES:
            try:
                precision, height, width, channels = struct.unpack_from(">BHHB", data, start)
            except struct.error:
                return None
            return Frame(marker, precision, width, height, channels)
    return None


def demand_one_photograph(data: bytes) -> None:
    """Raise `PhotoUnsupported` for a multi-picture file with a second photograph, such as a stereo pair.

    Thumbnails, smaller previews and gain maps beside the first picture, which is the photograph, are allowed.
    """
    first = frame_of(data)
    for kind, offset in _further_pictures(data):
        if kind in _THUMBNAILS:
            continue
        head = data[offset : offset + _HEAD_BYTES]
        if kind >> 16 != 2:
            size = frame_of(data[offset:]) if is_jpeg(head) else None
            smaller = first and size and 4 * max(size.width, size.height) <= 3 * max(first.width, first.height)
            if smaller or any(mark in head for mark in _GAIN_MAP):
                continue
        raise PhotoUnsupported(
            "a file of several photographs (MPO, such as a stereo pair); only single photographs are supported: "
            "save one picture alone"
        )


def orientation_of(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block's first directory; 1 where there is none or it is damaged.

    The block is laid out as a TIFF file; JPEG puts `Exif` and two zero bytes in front of it.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "<")
    try:
        for tag, _, _, entry in _entries(block, order):
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(order + "H", block, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's content, up to the first scan."""
    at, segments = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise PhotoUnreadable(f"more than {_MAX_SEGMENTS} segments before the picture")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        at = end


def _entries(block: bytes, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and place of each entry of the first directory; `struct.error` where the block ends."""
    (start,) = struct.unpack_from(order + "L", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHL", block, entry)
        yield tag, kind, length, entry


def _further_pictures(data: bytes) -> Iterator[tuple[int, int]]:
    """Kind and place of every picture but the first that a multi-picture index lists."""
    for marker, start, end in _segments(data):
        if marker != _APP2 or data[start : start + 4] != b"MPF\0":
            continue
        base = start + 4
        block = data[base:end]
        order = ">" if block[:2] == b"MM" else "<"
        try:
            for tag, _, length, entry in _entries(block, order):
                if tag != _ENTRIES:
                    continue
                (place,) = struct.unpack_from(order + "L", block, entry + 8)
                for picture in range(place + 16, place + min(length, 16 * _MAX_SEGMENTS), 16):
                    attribute, _, offset = struct.unpack_from(order + "3L", block, picture)
                    yield attribute & 0xFFFFFF, base + offset
        except struct.error:
            return  # a damaged index lists nothing
