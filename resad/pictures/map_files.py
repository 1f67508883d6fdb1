"""Anomaly maps as files that carry their own scale.

PNG for viewers (16 bit, absolute: the same gray is the same distance in every photograph), TIFF and NPY for
computing (float32, unchanged).  Every map is float32 (H, W), finite, not negative, in feature units.
Any other map is a bug of the caller and raises `ValueError`.
"""

import io
import json
import math
import struct
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.pictures.png import png_parts

UNIT: Final = "feature distance (L2)"
"""The unit of a map's values, as written into the files."""

_PNG_MAX: Final = 65535
_ROWS_PER_STEP: Final = 64
"""Rows of a map that are converted together: intermediate results stay in the processor's cache."""
_IMAGE_DESCRIPTION: Final = 270
_PREFIX: Final = "resad:"
_TIFF_HEADER_BYTES: Final = 8
_TIFF_ENTRIES: Final = 11

Map = NDArray[np.float32]


def map_png16(anomaly_map: Map, full_scale: float, fingerprint: str) -> bytes:
    """A 16-bit gray PNG: value = round(65535 * min(d / full_scale, 1)).

    `full_scale` is the distance that becomes 65535; larger distances saturate there.  The tEXt entries state it
    with the unit and the fingerprint: `resad:full_scale`, `resad:unit`, `resad:fingerprint`.
    Raises `ValueError` for an invalid map, or a full scale that is not positive and finite.
    """
    return b"".join(png16_parts(_bands(anomaly_map), _size(anomaly_map), full_scale, fingerprint))


def png16_parts(
    bands: Iterable[Map], size: tuple[int, int], full_scale: float, fingerprint: str
) -> Generator[bytes, None, None]:
    """`map_png16` part by part.

    Args:
        bands: the map's rows from the top, some at a time, float32 (n, width).
        size: width and height.
    """
    scale = _checked_scale(full_scale)
    text = {f"{_PREFIX}{name}": str(value) for name, value in _description(scale, fingerprint).items()}
    levels = (_levels(_checked(band), scale) for band in bands)
    yield from png_parts(levels, size, "gray16", text)


def read_map_png16(data: bytes) -> tuple[Map, float]:
    """The inverse of `map_png16`: the map (float32 (H, W), within full_scale / 131070) and its full scale.

    Raises `ValueError` if `data` is not a file of `map_png16`.
    """
    with _opened(data, "PNG") as image:
        text = image.info.get(_PREFIX + "full_scale")
        if text is None or image.mode != "I;16":
            raise ValueError(f"not an anomaly map: PNG of mode {image.mode}, {_PREFIX}full_scale {text}")
        scale = _checked_scale(float(text))
        levels = np.asarray(image, dtype=np.float64)
    return (levels * (scale / _PNG_MAX)).astype(np.float32), scale


def map_tiff(anomaly_map: Map, full_scale: float, fingerprint: str) -> bytes:
    """A float32 TIFF with the map's values unchanged; its description is a JSON object in ImageDescription.

    `full_scale` only says where a viewer's scale should end.  Raises `ValueError` as `map_png16` does.
    """
    return b"".join(tiff_parts(_bands(anomaly_map), _size(anomaly_map), full_scale, fingerprint))


def tiff_parts(
    bands: Iterable[Map], size: tuple[int, int], full_scale: float, fingerprint: str
) -> Generator[bytes, None, None]:
    """`map_tiff` part by part; the arguments are those of `png16_parts`."""
    width, height = size
    note = json.dumps(_description(_checked_scale(full_scale), fingerprint)).encode("ascii") + b"\0"
    padding = bytes(len(note) % 2)  # values begin at even offsets
    long, short, ascii_ = 4, 3, 2  # TIFF 6.0, section 2
    after = _TIFF_HEADER_BYTES + 2 + 12 * _TIFF_ENTRIES + 4
    pixels = after + len(note) + len(padding)
    entries = (
        (256, long, 1, width), (257, long, 1, height), (258, short, 1, 32), (259, short, 1, 1), (262, short, 1, 1),
        (_IMAGE_DESCRIPTION, ascii_, len(note), after), (273, long, 1, pixels), (277, short, 1, 1),
        (278, long, 1, height), (279, long, 1, 4 * width * height), (339, short, 1, 3),
    )  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    yield b"II*\0" + struct.pack("<IH", _TIFF_HEADER_BYTES, len(entries)) + directory + bytes(4) + note + padding
    for band in bands:
        yield _checked(band).astype("<f4", copy=False).tobytes()


def read_map_tiff(data: bytes) -> tuple[Map, float]:
    """The inverse of `map_tiff`: the map, exactly, and its full scale; `ValueError` for any other file."""
    with _opened(data, "TIFF") as image:
        note = image.getexif().get(_IMAGE_DESCRIPTION, "")
        if image.mode != "F":
            raise ValueError(f"not an anomaly map: TIFF of mode {image.mode}, not F")
        values = np.array(image, dtype=np.float32)
    try:
        return values, _checked_scale(float(json.loads(note)["full_scale"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an anomaly map: ImageDescription is {note!r}") from error


def map_npy(anomaly_map: Map) -> bytes:
    """The map as NumPy's own file (float32, C order, no pickle); raises `ValueError` as `map_png16` does."""
    return b"".join(npy_parts(_bands(anomaly_map), _size(anomaly_map)))


def npy_parts(bands: Iterable[Map], size: tuple[int, int]) -> Generator[bytes, None, None]:
    """`map_npy` part by part; the arguments are those of `png16_parts`."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": size[::-1]}
    np.lib.format.write_array_header_1_0(file, header)
    yield file.getvalue()
    for band in bands:
        yield _checked(band).astype("<f4", copy=False).tobytes()


def _size(anomaly_map: Map) -> tuple[int, int]:
    """Width and height of a valid map."""
    height, width = _checked(anomaly_map).shape
    return width, height


def _bands(anomaly_map: Map) -> Iterator[Map]:
    """The map's rows, some at a time."""
    for start in range(0, len(anomaly_map), _ROWS_PER_STEP):
        yield anomaly_map[start : start + _ROWS_PER_STEP]


def _levels(values: Map, scale: float) -> NDArray[np.uint16]:
    # float64: in float32 the quotient alone is wrong by up to a quarter of a step near 65535.
    levels = values.astype(np.float64)
    levels /= scale
    np.minimum(levels, 1.0, out=levels)
    levels *= _PNG_MAX
    return np.rint(levels, out=levels).astype(np.uint16)


def _description(full_scale: float, fingerprint: str) -> dict[str, str | float]:
    """The file's metadata; `str` of a float reads back as the same float."""
    return {"unit": UNIT, "full_scale": full_scale, "fingerprint": fingerprint}


def _opened(data: bytes, kind: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not an anomaly map: {len(data)} bytes that are not {kind}, or damaged") from error
    return image


def _checked_scale(full_scale: float) -> float:
    if not (math.isfinite(full_scale) and full_scale > 0):
        raise ValueError(f"full scale {full_scale}: must be positive and finite")
    return float(full_scale)


def _checked(anomaly_map: Map) -> Map:
    if anomaly_map.dtype != np.float32 or anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise ValueError(f"a map is float32 (H, W), not {anomaly_map.dtype} {anomaly_map.shape}")
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0):
        raise ValueError(f"a map is finite and not negative, not from {low} to {high}")
    return np.ascontiguousarray(anomaly_map)
