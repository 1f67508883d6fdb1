"""A result as a picture, on the index's own absolute scale."""

import io
import zlib
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resad.calibration import Calibration
from resad.map_colors import MapScale
from resad.overlay import draw_overlay, draw_panels
from resad.result import INTENDED_USE, Result

Layout = Literal["blend", "side"]
"""The map over the photo; or the photo by itself beside that."""
PictureKind = Literal["png", "jpeg"]

_JPEG_QUALITY: Final = 90
"""A sixth of the PNG's bytes in a twentieth of its time."""


def map_scale(calibration: Calibration, level: float | None) -> MapScale:
    """The scale of an index's pictures; its threshold is the level of findings, if there is one."""
    low, high = calibration.shown
    return MapScale(low, level, high)


def overlay_picture(
    pixels: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    result: Result,
    calibration: Calibration,
    layout: Layout = "blend",
) -> Image.Image:
    """The photo with its map and findings, and the color bar beside it.

    Args:
        pixels: uint8 (H, W, 3), the photo at its own size.
        anomaly_map: float32 (H, W), the map in the photo's frame.
    """
    scale = map_scale(calibration, result.normals.finding_level)
    outlines = [finding.contour for finding in result.findings]
    title = f"image score {result.image_score:#.4g}"
    if layout == "side":
        return draw_panels(pixels, anomaly_map, scale, outlines, None, title)
    return draw_overlay(pixels, anomaly_map, scale, outlines, title=title)


def picture_file(picture: Image.Image, kind: PictureKind) -> bytes:
    """A picture as a file: PNG to the last pixel, or JPEG in little time and space.

    PNG is compressed by run lengths alone: a photograph comes out a little smaller than at Pillow's usual level,
    in a sixth of the time.  The file says what it is for, as text `resad:intended_use` or as JPEG's comment; by
    that text `resad-client watch` tells overlays from photographs.
    """
    file = io.BytesIO()
    if kind == "png":
        facts = PngInfo()
        facts.add_text("resad:intended_use", INTENDED_USE)
        picture.save(file, "PNG", pnginfo=facts, compress_level=1, compress_type=zlib.Z_RLE)
    else:
        picture.save(file, "JPEG", quality=_JPEG_QUALITY, comment=INTENDED_USE)
    return file.getvalue()
