"""Decode a photograph: a file's bytes -> an upright RGB picture, or an error that says what is wrong.

Size limits are checked before anything is decoded.  The EXIF orientation is read without Pillow: Pillow parses all
of a JPEG's EXIF while opening it and reports a damaged block through `warnings`, which the process may turn into
errors.  Only one number is needed, and damage must not matter.
"""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from resad_client.photos import UNSUPPORTED_SIGNATURES

from resad.config import PhotoLimits
from resad.errors import (
    PhotoTooLarge,
    PhotoUnreachable,
    PhotoUnreadable,
    PhotoUnsupported,
    ResadError,
    SettingError,
)

SHRINKS: Final = (1, 2, 4, 8)
"""Scales at which a JPEG can be decoded, as divisors."""

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
_SUPPORTED: Final = "JPEG, PNG, TIFF, BMP and WebP are supported"
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the picture upright."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One upright photograph."""

    pixels: NDArray[np.uint8]
    """uint8 (H, W, 3), RGB, 0 to 255; H and W are height and width divided by the shrink, rounded up."""
    width: int
    height: int
    """Width and height of the upright photograph at full size, px."""
    content_hash: str
    """SHA-256 of the file's bytes, hexadecimal."""


def read_bytes(source: bytes | Path, limits: PhotoLimits) -> bytes:
    """The file's bytes; its size is checked before it is read.

    Raises `PhotoUnreachable` if the file cannot be read, `PhotoTooLarge` above `limits.max_bytes`.
    No error names the file, so that only callers who want it write its name.
    """
    if isinstance(source, bytes):
        _check_bytes(len(source), limits)
        return source
    try:
        _check_bytes(source.stat().st_size, limits)
        with source.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise PhotoUnreachable(error.strerror or str(error)) from error
    except ValueError as error:  # not a valid path
        raise PhotoUnreadable(str(error)) from error
    _check_bytes(len(data), limits)
    return data


def stored_size(data: bytes, limits: PhotoLimits) -> tuple[int, int]:
    """Width and height in px as the header has them (not yet upright); nothing is decoded.

    Raises as `read_photo`.
    """
    with _as_photo_errors(limits):
        return _open(data, limits)[0].size


def read_photo(source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
    """The photograph in `source`, a file's bytes or its path: the first page or frame, upright, as RGB.

    16 bits per channel become 8 by the high byte; transparency is laid over black; gray, palette, CMYK and
    LAB are converted by Pillow.  `shrink` (1, 2, 4 or 8) decodes a JPEG at 1/shrink of its size and leaves
    the other formats at full size.

    Raises `PhotoTooLarge` for more bytes or pixels than `limits` allow, `PhotoUnsupported` for other formats,
    animations and floating-point or 32-bit pixels, `PhotoUnreadable` for anything missing, damaged, too small
    or not an image.  Pillow's own alarm (`PIL.Image.MAX_IMAGE_PIXELS`) stays in force whatever `limits` says:
    it refuses twice that many pixels, and that many where the process turns warnings into errors.
    """
    if shrink not in SHRINKS:
        raise SettingError(f"shrink is {shrink}, it must be one of {', '.join(map(str, SHRINKS))}")
    data = read_bytes(source, limits)
    with _as_photo_errors(limits):
        image, orientation = _open(data, limits)
        width, height = image.size
        if shrink > 1:
            image.draft(None, (max(width // shrink, 1), max(height // shrink, 1)))
        image.load()
        if image.format in ("PNG", "WEBP"):
            orientation = orientation_of(image.info.get("exif", b""))
        upright = _rgb(image)
        if orientation in _TURNS:
            upright = upright.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
        # A copy, because Pillow's own buffer would be read-only.
        pixels = np.array(upright, dtype=np.uint8)
    return Photo(pixels, width, height, hashlib.sha256(data).hexdigest())


@contextmanager
def _as_photo_errors(limits: PhotoLimits) -> Iterator[None]:
    """Turn every exception of Pillow into one of this project's errors."""
    try:
        yield
    except (ResadError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        alarm = Image.MAX_IMAGE_PIXELS or limits.max_pixels
        limit = _million(min(alarm, limits.max_pixels))
        raise PhotoTooLarge(f"more than {_million(alarm)} pixels, the limit is {limit}") from error
    except Exception as error:
        # Pillow documents no complete list: its plugins raise about ten types for damaged files.
        raise PhotoUnreadable("the image is damaged, cut short, or of a kind that cannot be read") from error


def _open(data: bytes, limits: PhotoLimits) -> tuple[ImageFile.ImageFile, int]:
    """The image, within `limits` and not yet decoded, and a JPEG's EXIF orientation (1 for other formats)."""
    data, exif = hide_exif(data)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        for name, offset, signature in UNSUPPORTED_SIGNATURES:
            if data[offset:][: len(signature)] == signature:
                raise PhotoUnsupported(f"the file is {name}; {_SUPPORTED}") from error
        raise PhotoUnreadable(f"not an image, or a damaged one; {_SUPPORTED}") from error
    _check_pixels(*image.size, limits)
    # Only for these two: to count a TIFF's pages, Pillow reads the directory of every page.
    frames = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP") else 1
    if frames > 1:
        raise PhotoUnsupported(f"an animation of {frames} frames; only single photographs are supported")
    return image, orientation_of(exif)


def _million(count: int) -> str:
    return f"{count / 1e6:.4g} million"


def _check_bytes(count: int, limits: PhotoLimits) -> None:
    if count > limits.max_bytes:
        unit, name = (1e6, "MB") if limits.max_bytes >= 1e6 else (1e3, "kB")
        raise PhotoTooLarge(f"{count / unit:.1f} {name}, the limit is {limits.max_bytes / unit:g} {name}")


def _check_pixels(width: int, height: int, limits: PhotoLimits) -> None:
    if width * height > limits.max_pixels:
        limit = _million(limits.max_pixels)
        raise PhotoTooLarge(f"{width} x {height} = {_million(width * height)} pixels, the limit is {limit}")
    if min(width, height) < limits.min_side:
        raise PhotoUnreadable(f"{width} x {height} px, the shorter side must be {limits.min_side} px or more")


def _rgb(image: Image.Image) -> Image.Image:
    """Any decoded image as RGB."""
    if image.mode == "F":
        raise PhotoUnsupported("the pixels are floating-point numbers; 8 or 16 bits per channel are supported")
    if image.mode.startswith("I"):
        return Image.fromarray(_high_byte(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    black = Image.new("RGB", clear.size)
    black.paste(clear, mask=clear.getchannel("A"))
    return black


def _high_byte(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit (or TIFF's 12-bit) gray as uint8 (H, W): the eight high bits, as Pillow reads 16-bit color."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0]
    values = np.asarray(image)
    if bits > 16 or values.min() < 0:
        raise PhotoUnsupported(f"{bits} bits per pixel, or signed; 8 or 16 bits per channel are supported")
    gray: NDArray[np.uint8] = (values >> (bits - 8)).astype(np.uint8)
    # TIFF's "white is zero", which Pillow honors at 8 bits only.
    return ~gray if tags.get(262) == 0 else gray


_ORIENTATION: Final = 0x0112
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_MAX_SEGMENTS: Final = 2000
"""Largest number before the picture; cameras write about ten, a color profile or thumbnail some hundred more."""


def hide_exif(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG with its EXIF and multi-picture segments renamed (same length), and its first EXIF block.

    Any other data comes back unchanged, with an empty block.  Without the multi-picture index Pillow reads the
    first picture of an MPO file, a plain JPEG.  Raises `PhotoUnreadable` for more segments and fill bytes than any
    camera writes, which would only cost time.
    """
    if data[:3] != b"\xff\xd8\xff":
        return data, b""
    hidden = bytearray(data)
    exif = b""
    at, segments = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        segments += 1
        if segments > _MAX_SEGMENTS:
            raise PhotoUnreadable(f"more than {_MAX_SEGMENTS} segments before the picture")
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
