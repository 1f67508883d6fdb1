"""Anomaly maps from what the service sends: as arrays, and as pictures below the photograph's name."""

import base64
import binascii
import io
import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resad_client.errors import ProtocolError
from resad_client.records import Result

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
_NPY_SIGNATURE: Final = b"\x93NUMPY"
_DATA_URL: Final = re.compile(r"data:image/(png|jpeg);base64,")
_FULL_SCALE: Final = "resad:full_scale"
_PNG_MAX: Final = 65535
_GROUND: Final = (17, 17, 17)
_TEXT: Final = (240, 240, 240)
"""Of a name above an overlay: as the service's own lines."""
_JPEG_QUALITY: Final = 92


@dataclass(frozen=True, slots=True, eq=False)
class AnomalyMap:
    """How far each pixel of a photo departs from healthy photos.

    values: float32 (H, W), finite, at least 0, feature units; 0 outside the field of view.  full_scale: where
    values were cut off by the file they came in; None where nothing was.
    """

    values: NDArray[np.float32]
    full_scale: float | None = None


def map_bytes(result: Result) -> bytes:
    """The picture that `result.map` holds, a PNG or, with map='overlay-jpeg', a JPEG.

    Raises `ValueError` if none was asked for, `ProtocolError` if it is neither.
    """
    if result.map is None:
        raise ValueError("the result has no map: ask for one with map='png' or map='overlay'")
    try:
        kind = _DATA_URL.match(result.map)
        if kind is None:
            raise ValueError("another kind of URL")
        data = base64.b64decode(result.map[kind.end() :], validate=True)
        return checked_jpeg(data) if kind[1] == "jpeg" else checked_png(data)
    except (ValueError, binascii.Error) as error:
        raise ProtocolError("the answer's map is not a data URL of a PNG or JPEG") from error


def checked_png(data: bytes) -> bytes:
    """`data` if it begins as a PNG does, else `ProtocolError`."""
    if not data.startswith(PNG_SIGNATURE):
        raise ProtocolError(f"the answer is no PNG ({len(data)} bytes)")
    return data


def checked_jpeg(data: bytes) -> bytes:
    """`data` if it begins as a JPEG does, else `ProtocolError`."""
    if not data.startswith(_JPEG_SIGNATURE):
        raise ProtocolError(f"the answer is no JPEG ({len(data)} bytes)")
    return data


def read_map_npy(data: bytes) -> AnomalyMap:
    """A map from NumPy's file format; `ProtocolError` if `data` is no float32 (H, W) of at least one pixel."""
    try:
        if not data.startswith(_NPY_SIGNATURE):
            raise ValueError("not NumPy's format")
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python: a damaged one may raise anything
        raise ProtocolError(f"the answer is no anomaly map in NumPy's format ({len(data)} bytes)") from error
    return AnomalyMap(_checked(values))


def read_map_png16(data: bytes) -> AnomalyMap:
    """A map from the service's 16-bit PNG, within full_scale / 131070; larger distances are cut off there.

    Raises `ProtocolError` for any other file.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            scale = float(image.info[_FULL_SCALE])
            if image.mode != "I;16" or not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"mode {image.mode}, full scale {scale}")
            levels = np.asarray(image, dtype=np.float64)
    except (OSError, SyntaxError, KeyError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise ProtocolError(f"not an anomaly map as a 16-bit PNG ({len(data)} bytes)") from error
    return AnomalyMap((levels * (scale / _PNG_MAX)).astype(np.float32), scale)


def _checked(values: NDArray[np.generic]) -> NDArray[np.float32]:
    if values.dtype != np.float32 or values.ndim != 2 or values.size == 0:
        raise ProtocolError(f"an anomaly map is float32 (H, W), the answer is {values.dtype} {values.shape}")
    exact = values.astype(np.float32, copy=False)
    if not np.isfinite(exact).all() or exact.min() < 0:
        raise ProtocolError(f"an anomaly map is finite and not negative, the answer's {values.shape} is not")
    return exact


def with_name(picture: bytes, name: str) -> bytes:
    """A PNG or JPEG with lines above it that name the photograph, in its format and with its own remarks.

    The service is told no names, so it cannot write them itself.
    The lines are broken wherever the picture's width ends, so that the whole name is there.  What is neither a PNG
    nor a JPEG is returned as it is.
    """
    from PIL import ImageDraw, ImageFont

    try:
        with Image.open(io.BytesIO(picture), formats=("PNG", "JPEG")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return picture
    size = max(11, round(max(image.size) / 50))
    font = ImageFont.load_default(size=size)
    gap, pitch = round(0.7 * size), round(1.5 * size)
    lines, rest = [""], "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    for letter in rest:
        if lines[-1] and font.getlength(lines[-1] + letter) > image.width - 2 * gap:
            lines.append("")
        lines[-1] += letter
    band = len(lines) * pitch + gap // 2
    canvas = Image.new("RGB", (image.width, band + image.height), _GROUND)
    canvas.paste(image, (0, band))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        draw.text((gap, gap // 2 + (number + 0.5) * pitch), line, _TEXT, font, anchor="lm")
    file = io.BytesIO()
    if image.format == "PNG":
        entries = PngInfo()
        for key, text in image.info.items():
            if isinstance(key, str) and isinstance(text, str):
                entries.add_text(key, text)
        canvas.save(file, "PNG", pnginfo=entries, compress_level=1)
    else:
        canvas.save(file, "JPEG", quality=_JPEG_QUALITY, comment=image.info.get("comment", b""))
    return file.getvalue()
