"""Anomaly maps as files that carry their own scale.

PNG for viewers (16 bit, absolute: the same gray is the same distance in every photograph), TIFF and NPY for
computing (float32, unchanged).  Every map is float32 (H, W), finite, not negative, in feature units.
Any other map is a bug of the caller and raises `ValueError`.
"""

import io
import json
import math
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

UNIT: Final = "feature distance (L2)"
"""The unit of a map's values, as written into the files."""

_PNG_MAX: Final = 65535
_ROWS_PER_STEP: Final = 64
"""Rows of a map that are converted together: intermediate results stay in the processor's cache."""
_IMAGE_DESCRIPTION: Final = 270
_PREFIX: Final = "resad:"

Map = NDArray[np.float32]


def map_png16(anomaly_map: Map, full_scale: float, fingerprint: str) -> bytes:
    """A 16-bit gray PNG: value = round(65535 * min(d / full_scale, 1)).

    `full_scale` is the distance that becomes 65535; larger distances saturate there.  The tEXt entries state it
    with the unit and the fingerprint: `resad:full_scale`, `resad:unit`, `resad:fingerprint`.
    Raises `ValueError` for an invalid map, or a full scale that is not positive and finite.
    """
    values, scale = _checked(anomaly_map), _checked_scale(full_scale)
    entries = PngInfo()
    for name, value in _description(scale, fingerprint).items():
        entries.add_text(_PREFIX + name, str(value))
    file = io.BytesIO()
    # Run lengths only: for a 4288 x 2848 map half the time of zlib's level 3, and 4 % more bytes.
    picture = Image.fromarray(_levels(values, scale))
    picture.save(file, "PNG", pnginfo=entries, compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


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
    values, scale = _checked(anomaly_map), _checked_scale(full_scale)
    file = io.BytesIO()
    note = json.dumps(_description(scale, fingerprint))
    Image.fromarray(values).save(file, "TIFF", tiffinfo={_IMAGE_DESCRIPTION: note})
    return file.getvalue()


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
    file = io.BytesIO()
    np.save(file, _checked(anomaly_map), allow_pickle=False)
    return file.getvalue()


def _levels(values: Map, scale: float) -> NDArray[np.uint16]:
    levels = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), _ROWS_PER_STEP):
        rows = slice(start, start + _ROWS_PER_STEP)
        # float64: in float32 the quotient alone is wrong by up to a quarter of a step near 65535.
        part = values[rows].astype(np.float64)
        part /= scale
        np.minimum(part, 1.0, out=part)
        part *= _PNG_MAX
        levels[rows] = np.rint(part, out=part)
    return levels


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
