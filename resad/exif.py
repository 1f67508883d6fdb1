"""The orientation in a file's EXIF block, read without Pillow.

Pillow parses all of a JPEG's EXIF while opening it and reports a damaged block through `warnings`, that is by
the settings of the whole process.  Here one number is wanted, and damage must not matter.
"""

import struct
from typing import Final

from resad.errors import PhotoUnreadable

_ORIENTATION: Final = 0x0112
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_MOST_SEGMENTS: Final = 2000
"""Before the picture itself; cameras write about ten, a color profile or a thumbnail some hundred more."""


def hide_exif(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG with its EXIF and multi-picture segments renamed (same length), and its first EXIF block.

    Any other data comes back as it is, with an empty block.  Without the multi-picture index Pillow sees
    what is wanted of an MPO file: its first picture, a plain JPEG.  Raises `PhotoUnreadable` for more segments
    and fill bytes than any camera writes, which would only cost time.
    """
    if data[:3] != b"\xff\xd8\xff":
        return data, b""
    hidden = bytearray(data)
    exif = b""
    at, seen = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        seen += 1
        if seen > _MOST_SEGMENTS:
            raise PhotoUnreadable(f"more than {_MOST_SEGMENTS} segments before the picture")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _APP1 and data[at + 4 : at + 9] == b"Exif\0":
            exif = exif or data[at + 4 : end]
            hidden[at + 4 : at + 8] = b"none"
        elif marker == _APP2 and data[at + 4 : at + 8] == b"MPF\0":
            hidden[at + 4 : at + 7] = b"non"
        at = end
    return bytes(hidden), exif


def orientation_of(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block's first directory; 1 where there is none or it is damaged.

    The block is laid out as a TIFF file; JPEG puts `Exif` and two zero bytes in front of it.
    """
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2], "<")
    try:
        (start,) = struct.unpack_from(order + "L", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHLH", block, entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
