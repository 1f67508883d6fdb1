"""The pixels of a DICOM photograph -> RGB, 8 bits; sizes are checked before anything is decoded.

The size that a compressed stream states is checked as well: decoders believe it, not the header.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.dicom.files import as_photo_errors
from resad.dicom.header import demand_photograph, text_of
from resad.errors import PhotoUnreadable, PhotoUnsupported

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_JPEG_DCT: Final = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG: Final = (*_JPEG_DCT, "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS: Final = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_PLUGINS: Final = {
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.5": "pylibjpeg",
} | dict.fromkeys(_JPEG_2000, "pylibjpeg")
"""Transfer syntax -> the decoder that reads it; pixels that are not compressed need none."""
_NATIVE: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_COLORS: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GRAYS: Final = ("MONOCHROME1", "MONOCHROME2")
_RLE_SEGMENT_RATIO: Final = 64
"""An RLE segment of n bytes becomes at most 64 n bytes: two bytes give 128."""
_MAX_JPEG_SCANS: Final = 4
"""Of a sequential JPEG: one for each component, or one for all."""


def stored_size(dataset: "FileDataset") -> tuple[int, int]:
    """Width and height in px.

    Raises `PhotoUnsupported` for what is no photograph, `PhotoUnreadable` where there are no pixels.
    """
    demand_photograph(dataset)
    with as_photo_errors():
        for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
            if keyword in dataset:
                raise PhotoUnsupported("the pixels are floating-point numbers; 8 or 16 bits are supported")
        if "PixelData" not in dataset:
            raise PhotoUnreadable("the DICOM object has no pixels")
        return int(dataset.Columns), int(dataset.Rows)


def decode(dataset: "FileDataset") -> NDArray[np.uint8]:
    """The photograph, uint8 (H, W, 3), RGB.  Call `stored_size` first, and check it.

    Gray pixels are shown as the header asks for: modality lookup, window, inverted for MONOCHROME1.  Without a
    window, more than 8 bits become 8 by the highest of the stored bits.

    Raises `PhotoUnsupported` for a transfer syntax, color space or depth that is not supported, `PhotoUnreadable`
    for damaged pixels.
    """
    with as_photo_errors():
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        color = text_of(dataset, "PhotometricInterpretation").upper()
        _check_kind(dataset, syntax, color)
        frame = None if syntax in _NATIVE else _checked_frame(dataset, syntax)
        if syntax in _JPEG_DCT:
            assert frame is not None
            return _jpeg(frame, dataset, color)
        values, bits = _values(dataset, syntax)
        if color == "PALETTE COLOR":
            return _palette(values, dataset)
        if color in _GRAYS:
            return _gray(values, dataset, bits, inverted=color == "MONOCHROME1")
        if values.dtype.kind == "i":
            raise PhotoUnsupported("the color pixels are signed; unsigned ones are supported")
        return _eight_bits(values, bits)


def _check_kind(dataset: "FileDataset", syntax: str, color: str) -> None:
    from pydicom.uid import UID

    if syntax not in (*_NATIVE, *_JPEG_DCT, *_PLUGINS):
        name = UID(syntax).name
        unknown = "an unknown transfer syntax" if name == syntax else f"the transfer syntax {name}"
        raise PhotoUnsupported(f"the pixels have {unknown}, which is not supported")
    if color not in (*_COLORS, *_GRAYS, "PALETTE COLOR"):
        name = color if color.replace("_", "").isalnum() and len(color) <= 16 else "unknown"
        raise PhotoUnsupported(f"the color space {name} is not supported")
    samples = int(dataset.SamplesPerPixel)
    if samples != (3 if color in _COLORS else 1):
        raise PhotoUnreadable(f"{samples} samples per pixel do not fit the color space {color}")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16):
        raise PhotoUnsupported(f"{allocated} bits per sample; 8 or 16 bits are supported")
    if not 8 <= stored <= allocated:
        raise PhotoUnsupported(f"{stored} of {allocated} bits are used; 8 to 16 bits are supported")
    if syntax in _JPEG_DCT and stored > 8:
        raise PhotoUnsupported("the pixels are a JPEG of 12 bits; JPEGs of 8 bits are supported")
    if color.startswith("YBR_FULL") and stored > 8:
        raise PhotoUnsupported(f"{color} of {stored} bits is not supported; 8 bits are")


def _checked_frame(dataset: "FileDataset", syntax: str) -> bytes:
    """The compressed frame, of the size that the header states."""
    from pydicom.encaps import get_frame

    frame = bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if syntax in _JPEG_2000:
        size = _jpeg_2000_size(frame)
    elif syntax in (*_JPEG, *_JPEG_LS):
        size = _jpeg_size(frame)
    else:
        expected = rows * columns * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
        if expected > _RLE_SEGMENT_RATIO * len(frame):
            raise PhotoUnreadable("the pixels are cut short")
        return frame
    if size != (columns, rows):
        raise PhotoUnreadable(
            f"the header says {columns} x {rows} px, the compressed picture {size[0]} x {size[1]} px"
        )
    return frame


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Width and height in the frame header of a JPEG or JPEG-LS; refuses progressive ones and many scans."""
    if frame[:2] != b"\xff\xd8":
        raise PhotoUnreadable("the compressed pixels are no JPEG")
    at = 2
    while at + 9 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            if marker in (0xC2, 0xC6, 0xCA, 0xCE):
                raise PhotoUnsupported("the pixels are a progressive JPEG, which DICOM does not allow")
            if frame.count(b"\xff\xda", at) > _MAX_JPEG_SCANS:
                raise PhotoUnreadable(f"the JPEG has more than {_MAX_JPEG_SCANS} scans")
            return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise PhotoUnreadable("the compressed pixels have no frame header")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """Width and height of a JPEG 2000 code stream, which some writers wrap in a file format."""
    start = frame.find(b"\xff\x4f\xff\x51")
    header = frame[start : start + 40]
    if start < 0 or len(header) < 40:
        raise PhotoUnreadable("the compressed pixels are no JPEG 2000")
    right, bottom, left, top, tile_width, tile_height = (
        int.from_bytes(header[at : at + 4], "big") for at in range(8, 32, 4)
    )
    if tile_width and tile_height and (right // tile_width + 1) * (bottom // tile_height + 1) > 65_535:
        raise PhotoUnreadable("the JPEG 2000 picture has more tiles than the format allows")
    return right - left, bottom - top


def _jpeg(frame: bytes, dataset: "FileDataset", color: str) -> NDArray[np.uint8]:
    """A sequential JPEG of 8 bits.

    What the stream says of its colors goes before the header, which is often wrong: JFIF means YCbCr, Adobe's
    marker tells, and components may be called R, G, B.  Only where all are silent the header decides.
    """
    image = Image.open(BytesIO(frame), formats=("JPEG",))
    if image.mode not in ("L", "RGB"):
        raise PhotoUnsupported(f"a JPEG of {len(image.getbands())} components; 1 or 3 are supported")
    silent = "jfif" not in image.info and "adobe" not in image.info
    if image.mode == "RGB" and silent and color == "RGB":
        image.draft("YCbCr", image.size)  # as they are stored: no conversion
        return np.array(image)
    if image.mode == "L":
        return _gray(np.asarray(image), dataset, 8, inverted=color == "MONOCHROME1")
    return np.array(image.convert("RGB"))


def _values(dataset: "FileDataset", syntax: str) -> tuple[NDArray[np.integer[Any]], int]:
    """The samples, (H, W) or (H, W, 3), YBR as RGB already, and how many of their bits are used."""
    from pydicom.pixels.decoders.base import get_decoder

    values, properties = get_decoder(syntax).as_array(
        dataset, index=0, raw=False, decoding_plugin=_PLUGINS.get(syntax, "")
    )
    bits = int(properties["bits_stored"])
    if values.dtype.kind == "u":
        values = values & values.dtype.type(2**bits - 1)  # higher bits once held overlays
    return values, bits


def _palette(values: NDArray[np.integer[Any]], dataset: "FileDataset") -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_color_lut

    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise PhotoUnsupported("the palette is segmented; plain palettes are supported")
    colors = apply_color_lut(values, dataset)
    return _eight_bits(colors[..., :3], 8 * colors.dtype.itemsize)


def _gray(
    values: NDArray[np.integer[Any]], dataset: "FileDataset", bits: int, *, inverted: bool
) -> NDArray[np.uint8]:
    """Gray samples as they are meant to be shown, uint8 (H, W, 3)."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    shown = apply_modality_lut(values, dataset)
    share: NDArray[np.floating[Any]]
    if "VOILUTSequence" in dataset and int(dataset.VOILUTSequence[0].LUTDescriptor[0] or 65_536) > 1:
        table = apply_voi(shown, dataset)
        share = table / (2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif (window := _window(dataset)) is not None:
        share = _windowed(shown.astype(np.float32), *window)
    elif values.dtype.kind == "i":
        raise PhotoUnsupported("the gray pixels are signed and the header has no window for them")
    else:
        share = values / np.float32(2**bits - 1)
    levels = np.rint(255 * np.clip(share, 0, 1).astype(np.float32))
    gray: NDArray[np.uint8] = levels.astype(np.uint8)
    if inverted:
        gray = ~gray
    return np.repeat(gray[..., None], 3, axis=2)


def _window(dataset: "FileDataset") -> tuple[float, float, str] | None:
    """Center, width and function of the first window; None where there is none that can be used."""
    try:
        center, width = (
            float(text_of(dataset, keyword).split("\\")[0]) for keyword in ("WindowCenter", "WindowWidth")
        )
    except ValueError:
        return None
    usable = np.isfinite([center, width]).all() and width >= 1
    return (center, width, text_of(dataset, "VOILUTFunction").upper()) if usable else None


def _windowed(values: NDArray[np.float32], center: float, width: float, function: str) -> NDArray[np.float32]:
    """`values` as a share of the display's range (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        shares: NDArray[np.float32] = 1 / (1 + np.exp(-4 * (values - center) / width))
        return shares
    if function == "LINEAR_EXACT" or width == 1:
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / (width - 1) + 0.5


def _eight_bits(values: NDArray[np.integer[Any]], bits: int) -> NDArray[np.uint8]:
    """The eight highest of the used bits, as files of 16 bits are read elsewhere."""
    return np.ascontiguousarray(values >> max(bits - 8, 0), dtype=np.uint8)
