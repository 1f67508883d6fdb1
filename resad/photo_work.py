"""How much work a photograph's file asks for, read from its structure before it is decoded.

Some files of a few kilobytes would keep a decoder busy for minutes: a JPEG with thousands of scans, a TIFF with
millions of strips, a PNG with millions of chunks.  None of these comes from a camera.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

from resad.config import PhotoLimits
from resad.errors import PhotoTooLarge
from resad.jpeg import FRAMES, START_OF_SCAN

_MAX_SCANS: Final = 500
"""Of a JPEG.  Encoders write up to about 15; each scan may visit every pixel again."""
_SCAN_PASSES: Final = 30
"""Scans that a JPEG of the largest size may have; a smaller one more, by its pixels."""
_MAX_CHUNKS: Final = 50_000
"""Of a PNG: 25 MB in the smallest chunks that encoders write, 4 KB, are 6,000."""
_MAX_STRIPS: Final = 30_000
"""Of a TIFF, tiles included: a strip for each row of the tallest photographs is 20,000."""
_MAX_RLE_BYTES: Final = 4_000_000
"""Of a BMP with run lengths, which are decoded byte by byte."""
REMEDY: Final = "save it again as a baseline JPEG or a PNG"

_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A JPEG's marker among the bytes of a scan: no stuffed byte, restart or fill byte."""
_END_OF_IMAGE: Final = 0xD9
_TIFF_COUNTS: Final = (273, 279, 324, 325)
"""Tags with a value for each strip or tile: offsets and byte counts."""


def check_work(data: bytes, limits: PhotoLimits) -> None:
    """Raise `PhotoTooLarge` for a file whose decoding takes more work than any sound photograph's.

    Other files, damaged ones included, pass: their decoders say what is wrong.
    """
    for signature, check in _CHECKS:
        if data.startswith(signature):
            check(data, limits)


def _check_jpeg(data: bytes, limits: PhotoLimits) -> None:
    most, scans = _MAX_SCANS, 0
    for marker, at in _jpeg_markers(data):
        if marker in FRAMES:
            height, width = (
                int.from_bytes(data[at + 3 : at + 5], "big"),
                int.from_bytes(data[at + 5 : at + 7], "big"),
            )
            most = min(most, _SCAN_PASSES * limits.max_pixels // max(width * height, 1))
        scans += marker == START_OF_SCAN
        if scans > most:
            raise PhotoTooLarge(f"the JPEG has more than {most} scans, the limit at its size; {REMEDY}")


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of the content of each segment of a JPEG's first picture, in order."""
    at = 2
    while (match := _MARKER.search(data, at)) is not None:
        marker = match[1][0]
        yield marker, match.end()
        if marker == _END_OF_IMAGE:
            return
        # A segment's content may look like a marker.
        length = int.from_bytes(data[match.end() : match.end() + 2], "big") if marker != 0x01 else 0
        at = match.end() + length


def _check_png(data: bytes, limits: PhotoLimits) -> None:
    at, chunks = 8, 0
    while at + 8 <= len(data):
        chunks += 1
        if chunks > _MAX_CHUNKS:
            raise PhotoTooLarge(f"the PNG has more than {_MAX_CHUNKS} chunks; {REMEDY}")
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _check_tiff(data: bytes, limits: PhotoLimits) -> None:
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    first, place, length, entry_bytes, head = (8, "Q", "Q", 20, "HHQ") if big else (4, "L", "H", 12, "HHL")
    try:
        (start,) = struct.unpack_from(order + place, data, first)
        (count,) = struct.unpack_from(order + length, data, start)
        start += struct.calcsize(length)
        for entry in range(start, start + entry_bytes * count, entry_bytes):
            tag, _, values = struct.unpack_from(order + head, data, entry)
            if tag in _TIFF_COUNTS and values > _MAX_STRIPS:
                raise PhotoTooLarge(f"the TIFF has {values} strips or tiles, the limit is {_MAX_STRIPS}; {REMEDY}")
    except (struct.error, OverflowError):
        return


def _check_bmp(data: bytes, limits: PhotoLimits) -> None:
    compression = int.from_bytes(data[30:34], "little")
    if compression in (1, 2) and len(data) > _MAX_RLE_BYTES:
        limit = f"{_MAX_RLE_BYTES / 1e6:g} MB"
        raise PhotoTooLarge(f"a BMP with run lengths of {len(data) / 1e6:.1f} MB, the limit is {limit}; {REMEDY}")


_CHECKS: Final[tuple[tuple[bytes, Callable[[bytes, PhotoLimits], None]], ...]] = (
    (b"\xff\xd8\xff", _check_jpeg),
    (b"\x89PNG", _check_png),
    (b"II*\0", _check_tiff),
    (b"MM\0*", _check_tiff),
    (b"II+\0", _check_tiff),
    (b"MM\0+", _check_tiff),
    (b"BM", _check_bmp),
)
