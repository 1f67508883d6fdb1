"""Decode a photograph: a file's bytes -> an upright RGB picture, or an error that says what is wrong.

Size limits are checked before anything is decoded.  The pixels are right, or the file is refused with the name of
the property that would make them wrong: Pillow decodes what it decodes right, `tifffile` the rest, and
`resad.tiff` and `resad.jpeg` read the headers.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from resad_client.photos import SUPPORTED_TYPES, UNSUPPORTED_SIGNATURES

from resad import jpeg, tiff
from resad.config import PhotoLimits
from resad.dicom.files import is_dicom, single_frame, split_frame
from resad.dicom.header import PhotoHeader
from resad.errors import (
    PhotoTooLarge,
    PhotoUnreachable,
    PhotoUnreadable,
    PhotoUnsupported,
    ResadError,
    SettingError,
)
from resad.jpeg import hide_exif, orientation_of
from resad.photo_work import check_work

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

SHRINKS: Final = (1, 2, 4, 8)
"""Scales at which a JPEG can be decoded, as divisors."""

_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000", "PPM")
_SUPPORTED: Final = f"{SUPPORTED_TYPES} are supported"
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
    header: PhotoHeader | None = None
    """What a DICOM header says of the photograph; None for other formats."""


def read_bytes(source: bytes | Path, limits: PhotoLimits) -> bytes:
    """The file's bytes; its size is checked before it is read.

    Of a path such as `eye.dcm#2` the second frame of a DICOM file, as a file of its own.

    Raises `PhotoUnreachable` if the file cannot be read, `PhotoTooLarge` above `limits.max_bytes`.
    No error names the file, so that only callers who want it write its name.
    """
    if isinstance(source, bytes):
        _check_bytes(len(source), limits)
        return source
    frame = None
    try:
        source, frame = split_frame(source)
        _check_bytes(source.stat().st_size, limits)
        with source.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise PhotoUnreachable(error.strerror or str(error)) from error
    except ValueError as error:  # not a valid path
        raise PhotoUnreadable(str(error)) from error
    _check_bytes(len(data), limits)
    return data if frame is None else single_frame(data, frame, limits)


def stored_size(data: bytes, limits: PhotoLimits) -> tuple[int, int]:
    """Width and height in px as the header has them (not yet upright); nothing is decoded.

    Raises as `read_photo`.
    """
    if is_dicom(data):
        return _open_dicom(data, limits)[1:]
    with _as_photo_errors(limits):
        return _open(data, limits).image.size


def read_photo(source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
    """The photograph in `source`, a file's bytes or its path, upright, as RGB.

    16 bits per channel become 8 by the high byte; transparency is laid over black; gray, palette, CMYK and
    LAB are converted by Pillow.  Of several pages the photograph is the one that all others are smaller versions
    or masks of.  `shrink` (1, 2, 4 or 8) decodes a JPEG at 1/shrink of its size and leaves the other formats at
    full size.

    Raises `PhotoTooLarge` for more bytes or pixels than `limits` allow, `PhotoUnsupported` for other formats,
    several photographs in a file, and properties that would lead to wrong pixels (signed or floating-point
    samples, 12 bits in the low end of 16, ...), `PhotoUnreadable` for anything missing, damaged, too small or not
    an image.  Pillow's own alarm (`PIL.Image.MAX_IMAGE_PIXELS`) stays in force whatever `limits` says:
    it refuses twice that many pixels, and that many where the process turns warnings into errors.
    """
    if shrink not in SHRINKS:
        raise SettingError(f"shrink is {shrink}, it must be one of {', '.join(map(str, SHRINKS))}")
    data = read_bytes(source, limits)
    if is_dicom(data):
        return _read_dicom(data, limits)
    with _as_photo_errors(limits):
        picture = _open(data, limits)
        image, orientation = picture.image, picture.orientation
        width, height = image.size
        if shrink > 1:
            image.draft(None, (max(width // shrink, 1), max(height // shrink, 1)))
        decoded = _load(picture)
        if image.format in ("PNG", "WEBP"):
            orientation = orientation_of(image.info.get("exif", b""))
        upright = _rgb(decoded, picture.depth)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """A picture that is not yet decoded.

    content: the bytes that Pillow reads.  depth: bits per channel.  orientation: EXIF's, of a JPEG; 1 for other
    formats.  page: of a TIFF.
    """

    image: ImageFile.ImageFile
    content: bytes
    depth: int
    orientation: int = 1
    page: tiff.Page | None = None


def _open(data: bytes, limits: PhotoLimits) -> _Picture:
    """The picture in a file, within `limits`."""
    if tiff.is_tiff(data):
        return _open_tiff(data, limits)
    content, exif = hide_exif(data)
    image = _open_image(content, limits, _not_readable)
    if image.format == "JPEG":
        jpeg.demand_one_photograph(data)
    if image.format in ("PNG", "WEBP"):
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise PhotoUnsupported(f"an animation of {frames} frames; only single photographs are supported")
    if image.format == "PPM":
        _demand_one_picture(content, image)
    return _Picture(image, content, _depth(image, content), orientation_of(exif))


def _open_image(data: bytes, limits: PhotoLimits, explain: Callable[[bytes], ResadError]) -> ImageFile.ImageFile:
    """The image, within `limits` and not yet decoded.  explain: the error for data that Pillow does not know."""
    check_work(data, limits)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise explain(data) from error
    _check_pixels(*image.size, limits)
    return image


def _not_readable(data: bytes) -> ResadError:
    for name, offset, signature in UNSUPPORTED_SIGNATURES:
        if data[offset:][: len(signature)] == signature:
            return PhotoUnsupported(f"the file is {name}; {_SUPPORTED}")
    frame = jpeg.frame_of(data) if jpeg.is_jpeg(data) else None
    if frame and (fault := frame.fault()):
        return PhotoUnsupported(f"{fault}; JPEGs of 8 bits per channel are supported")
    return PhotoUnreadable(f"not an image, or a damaged one; {_SUPPORTED}")


_MAX_CANDIDATES: Final = 8
"""Pages that are compared; more full pages are several photographs."""
_SMALLER: Final = 0.75
"""Longest side of a smaller version, as a share of the photograph's, at most."""
_ALIKE_SIDE: Final = 32
_ALIKE_LEVELS: Final = 2.0
"""Mean difference in levels of 255 up to which two pages, reduced to `_ALIKE_SIDE` px, show the same.  Of 160
photographs, thumbnails differ by at most 0.8 and the two most similar eyes by 3.7."""


def _open_tiff(data: bytes, limits: PhotoLimits) -> _Picture:
    """The page of a TIFF that is the photograph, within `limits`."""
    largest, *rest = tiff.candidates(tiff.read_pages(data))
    picture = _open_page(data, largest, limits)
    if not rest:
        return picture
    side = max(largest.width, largest.height)
    too_many = len(rest) >= _MAX_CANDIDATES or any(max(p.width, p.height) > _SMALLER * side for p in rest)
    if too_many or not _alike(data, (largest, *rest), limits):
        raise PhotoUnsupported(
            f"a TIFF of {len(rest) + 1} pages that show different pictures; only single photographs are "
            "supported: save each page as its own file"
        )
    return picture


def _open_page(data: bytes, page: tiff.Page, limits: PhotoLimits) -> _Picture:
    _check_pixels(page.width, page.height, limits)
    tiff.check(page)
    content = tiff.with_page_first(data, page)
    image = _open_image(
        content,
        limits,
        lambda _: PhotoUnsupported(f"a TIFF of {page.describe()} is not supported; save it as 8-bit RGB"),
    )
    return _Picture(image, content, page.depth, page=page)


def _alike(data: bytes, pages: Sequence[tiff.Page], limits: PhotoLimits) -> bool:
    """Whether all pages show the same picture as the first."""
    first, *rest = (_reduced(_open_page(data, page, replace(limits, min_side=1))) for page in pages)
    return all(np.abs(first - page).mean() <= _ALIKE_LEVELS for page in rest)


def _reduced(picture: _Picture) -> NDArray[np.float32]:
    image = _rgb(_load(picture), picture.depth)
    return np.asarray(image.resize((_ALIKE_SIDE, _ALIKE_SIDE), Image.Resampling.BOX), dtype=np.float32)


def _open_dicom(data: bytes, limits: PhotoLimits) -> "tuple[FileDataset, int, int]":
    """The data set of a DICOM photograph, within `limits` and not yet decoded, its width and its height."""
    from resad.dicom.files import read_dataset
    from resad.dicom.pixels import stored_size

    dataset = read_dataset(data, limits)
    width, height = stored_size(dataset)
    _check_pixels(width, height, limits)
    return dataset, width, height


def _read_dicom(data: bytes, limits: PhotoLimits) -> Photo:
    from resad.dicom.annotation import demand_no_text
    from resad.dicom.header import read_header
    from resad.dicom.pixels import decode

    dataset, width, height = _open_dicom(data, limits)
    pixels = decode(dataset)
    if pixels.shape != (height, width, 3):
        raise PhotoUnreadable(f"the header says {width} x {height} px, the pixels have another size")
    demand_no_text(pixels, dataset)
    return Photo(pixels, width, height, hashlib.sha256(data).hexdigest(), read_header(dataset))


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


def _load(picture: _Picture) -> Image.Image:
    """The decoded picture in its own mode."""
    page, image = picture.page, picture.image
    binary = image.format == "PPM" and image.tile[0].codec_name == "ppm"
    if binary and image.mode == "RGB" and _highest_of_pnm(image) == 65535:
        return _color_words(picture)
    if page is None or not page.separate_words:
        image.load()
        return image
    from tifffile import TiffFile

    with TiffFile(BytesIO(picture.content)) as file:
        planes = file.pages[0].asarray(maxworkers=1)
    high = (np.moveaxis(planes, 0, -1) >> 8).astype(np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(high))
    return stored.transpose(_TURNS[page.orientation]) if page.orientation in _TURNS else stored


def _depth(image: ImageFile.ImageFile, content: bytes) -> int:
    """Bits per channel in the file; 8 where the format has no more."""
    if image.format == "PNG":
        return content[24]
    if image.format == "PPM":
        return 16 if image.mode == "I" or _highest_of_pnm(image) > 255 else 8
    if image.format == "JPEG2000":
        size = content.find(b"\xff\x4f\xff\x51")
        component = content[size + 42]
        if component & 0x80:
            raise PhotoUnsupported("a JPEG 2000 of signed samples; unsigned ones are supported")
        return component + 1
    return 8


def _highest_of_pnm(image: ImageFile.ImageFile) -> int:
    """The value of white in a PNM file; 255 where Pillow needs no other."""
    tile = image.tile[0]
    return int(tile.args[-1]) if tile.codec_name in ("ppm", "ppm_plain") and tile.args else 255


def _color_words(picture: _Picture) -> Image.Image:
    """A PNM of 16 bits per color: Pillow rounds where this project takes the high byte."""
    image = picture.image
    count = image.width * image.height * 3
    words = np.frombuffer(picture.content, ">u2", count, image.tile[0].offset)
    _demand_high_bits(int(words.max()))
    return Image.fromarray((words >> 8).astype(np.uint8).reshape(image.height, image.width, 3))


def _demand_one_picture(content: bytes, image: ImageFile.ImageFile) -> None:
    """Raise `PhotoUnsupported` for a PNM file with a second picture behind the first."""
    tile = image.tile[0]
    if tile.codec_name not in ("raw", "ppm"):
        return
    row = (image.width + 7) // 8 if image.mode == "1" else image.width * len(image.getbands())
    end = tile.offset + row * image.height * (2 if _depth(image, content) > 8 else 1)
    behind = content[end:].lstrip()
    if behind[:1] == b"P" and behind[1:2].isdigit():
        raise PhotoUnsupported("a PNM file of several pictures; only single photographs are supported")


_HIGH_BITS: Final = 64
"""Of 256 high bytes: a 16-bit picture with none as high as this uses 14 bits or fewer."""


def _demand_high_bits(highest: int) -> None:
    """Raise `PhotoUnsupported` for 16-bit samples that fill only the low bits: they would look black."""
    if highest >> 8 < _HIGH_BITS:
        raise PhotoUnsupported(
            f"16 bits per channel, but no sample is above {highest:,} of 65,535: the picture seems to be stored "
            f"in the low {max(highest.bit_length(), 8)} bits; scale it to all 16 bits, or save it with 8"
        )


def _rgb(image: Image.Image, depth: int) -> Image.Image:
    """Any decoded image as RGB.  depth: bits per channel in the file."""
    if image.mode == "F":
        raise PhotoUnsupported("the pixels are floating-point numbers; 8 or 16 bits per channel are supported")
    if depth == 16 and image.mode in ("RGB", "RGBA"):
        # Pillow has kept the high bytes of color alone.
        _demand_high_bits(256 * int(np.asarray(image)[..., :3].max()) + 255)
    if image.mode.startswith("I"):
        return Image.fromarray(_high_byte(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    alpha = clear.getchannel("A")
    if alpha.getextrema()[1] == 0:
        raise PhotoUnsupported("every pixel is transparent; save the picture without transparency")
    black = Image.new("RGB", clear.size)
    black.paste(clear, mask=alpha)
    return black


def _high_byte(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit (or TIFF's 12-bit) gray as uint8 (H, W): the eight high bits, as Pillow reads 16-bit color."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0]
    values = np.asarray(image)
    if bits > 16 or values.min() < 0:
        raise PhotoUnsupported(f"{bits} bits per pixel, or signed; 8 or 16 bits per channel are supported")
    if bits == 16:
        _demand_high_bits(int(values.max()))
    gray: NDArray[np.uint8] = (values >> (bits - 8)).astype(np.uint8)
    # TIFF's "white is zero", which Pillow honors at 8 bits only.
    return ~gray if tags.get(262) == 0 else gray
