"""Files that take much work to decode, of a few kilobytes each.  All made here."""

import io
import struct
import zlib
from typing import Final

import numpy as np
from PIL import Image, TiffTags

_END_OF_IMAGE: Final = b"\xff\xd9"


def jpeg_of_scans(scans: int, side: int = 1024) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("L", (side, side), 90).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + _END_OF_IMAGE


def bmp_of_runs(side: int) -> bytes:
    """A BMP of run lengths, which Pillow decodes byte by byte: 8,000 x 8,000 px take seconds."""
    row = b"\xff\x05" * (side // 255) + bytes([side % 255, 5]) * bool(side % 255) + b"\0\0"
    body, palette = row * side, bytes(1024)
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def png(width: int, height: int, *, chunks: int = 0) -> bytes:
    """A black PNG with that many empty text chunks."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes(height * (3 * width + 1)), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"a\0") * chunks
    return b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff_of_strips(strips: int) -> bytes:
    """A gray TIFF, 64 px wide, with a strip for each row; all strips are the same bytes."""
    values = 8 + 2 + 12 * 9 + 4
    tags = (
        (256, 64), (257, strips), (258, 8), (259, 1), (262, 1), (273, values), (277, 1), (278, 1),
        (279, values + 4 * strips),
    )  # fmt: skip
    counts = {273: strips, 279: strips}
    entries = b"".join(struct.pack("<HHII", tag, 4, counts.get(tag, 1), value) for tag, value in tags)
    places = struct.pack("<I", 8) * strips + struct.pack("<I", 64) * strips
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + places


def tiff_with_warnings() -> bytes:
    """A TIFF that Pillow warns about, several times."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(file, "TIFF")
    data = file.getvalue()
    (start,) = struct.unpack_from("<L", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    directory = data[start + 2 : start + 2 + 12 * entries]
    ones = [tag for tag, info in TiffTags.TAGS_V2.items() if info.length == 1 and tag > 32_768]
    for tag in ones:  # which have one value
        directory += struct.pack("<HHLHH", tag, 3, 2, 1, 2)
    head = b"II*\0" + struct.pack("<L", len(data)) + data[8:]
    return head + struct.pack("<H", entries + len(ones)) + directory + bytes(4)
