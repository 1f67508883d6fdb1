"""Map files and overlays of a scored photograph, and which file type a caller gets."""

import base64
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from resad_client.records import Finding, Result
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from resad.config import PhotoLimits
from resad.detector import Detection
from resad.manifest import Manifest
from resad.photo import SHRINKS
from resad.pictures.map_files import npy_parts, png16_parts, tiff_parts
from resad.pictures.overlay import Layout, PictureKind, overlay_picture, picture_file
from resad.preparation import THIS_PROCESS, Frame, PhotoDecoder
from service.problems import NOT_ACCEPTABLE, Refusal

MapType = Literal["image/png", "image/tiff", "application/x-npy", "image/jpeg"]
MAP_TYPES: Final[tuple[MapType, ...]] = ("image/png", "image/tiff", "application/x-npy")
_PART_BYTES: Final = 16_000_000
"""Of a part of a map and of what it is made from, about."""
OVERLAY_TYPES: Final[tuple[MapType, ...]] = ("image/png", "image/jpeg")


def negotiate(accept: str, *, overlay: bool) -> MapType:
    """The file type to send for an `Accept` header (RFC 9110, section 12.5.1); the first offer if it has no wish.

    Raises `Refusal` (406) if the header accepts none of the types on offer.
    """
    offers = OVERLAY_TYPES if overlay else MAP_TYPES
    accepted = parse_accept_header(accept or "*/*", MIMEAccept)
    best = max(offers, key=accepted.quality)
    if not accepted.quality(best):
        raise Refusal(NOT_ACCEPTABLE, f"{'overlays' if overlay else 'maps'} come as {', '.join(offers)}")
    return best


@dataclass(frozen=True, slots=True, eq=False)
class Drawable:
    """What a map file or an overlay is made from.

    result: None for a map alone, which shows no findings.
    """

    frame: Frame
    detection: Detection
    manifest: Manifest
    result: Result | None = None


def raster_size(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """Width and height of a map whose longer side is at most `longest` px and never more than the photograph's."""
    share = 1.0 if longest is None else min(1.0, longest / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


@dataclass(frozen=True, slots=True, eq=False)
class MapFile:
    """A map file that is made while it is sent.

    parts: its bytes, in order.  pixels: of the map.  held_bytes: memory that it takes until it is sent.
    """

    parts: Generator[bytes, None, None]
    pixels: int
    held_bytes: int


def map_file(drawable: Drawable, media_type: MapType, longest: int | None) -> MapFile:
    """The map in the photograph's frame; PNG and TIFF state scale and fingerprint in their metadata.

    It refers to nothing of `drawable` but the map.
    """
    frame, anomaly_map, fingerprint = drawable.frame, drawable.detection.anomaly_map, drawable.manifest.fingerprint
    size = width, height = raster_size(frame.width, frame.height, longest)
    full_scale = drawable.manifest.calibration.full_scale
    bands = frame.map_bands(anomaly_map, width, height)
    match media_type:
        case "image/tiff":
            parts = tiff_parts(bands, size, full_scale, fingerprint)
        case "application/x-npy":
            parts = npy_parts(bands, size)
        case _:
            parts = png16_parts(bands, size, full_scale, fingerprint)
    return MapFile(parts, width * height, anomaly_map.nbytes + _PART_BYTES)


def encode_map(drawable: Drawable, media_type: MapType, longest: int | None) -> bytes:
    """As `map_file`, at once."""
    return b"".join(map_file(drawable, media_type, longest).parts)


def encode_overlay(
    drawable: Drawable,
    data: bytes,
    limits: PhotoLimits,
    longest: int,
    layout: Layout,
    kind: PictureKind,
    decoder: PhotoDecoder = THIS_PROCESS,
) -> bytes:
    """As `overlay_image`, as a file."""
    return picture_file(overlay_image(drawable, data, limits, longest, layout, decoder), kind)


def overlay_image(
    drawable: Drawable,
    data: bytes,
    limits: PhotoLimits,
    longest: int,
    layout: Layout,
    decoder: PhotoDecoder = THIS_PROCESS,
) -> Image.Image:
    """The photograph with its map, findings and color bar.

    Args:
        drawable: with a result.
        data: the photograph's file; it is decoded again at the size of the picture.
        longest: longer side, px.
    """
    frame, result = drawable.frame, drawable.result
    assert result is not None
    width, height = raster_size(frame.width, frame.height, longest)
    values = frame.map_to_photo(drawable.detection.anomaly_map, width, height)
    scaled = _scale_contours(result, width / frame.width, height / frame.height)
    pixels = _decode(data, limits, frame, (width, height), decoder)
    return overlay_picture(pixels, values, scaled, drawable.manifest.calibration, layout)


def data_url(picture: bytes, kind: PictureKind = "png") -> str:
    """A picture as a `data:` URL (RFC 2397)."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _decode(
    data: bytes, limits: PhotoLimits, frame: Frame, size: tuple[int, int], decoder: PhotoDecoder
) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) of `size` (width, height), decoded no larger than needed."""
    shrink = max(number for number in SHRINKS if number == 1 or frame.width >= number * size[0])
    pixels = decoder.read_photo(data, limits, shrink=shrink).pixels
    if pixels.shape[1::-1] == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _scale_contours(result: Result, across: float, down: float) -> Result:
    """The result with the findings' contours in px of the smaller raster."""

    def scale(finding: Finding) -> Finding:
        return replace(finding, contour=tuple((int(x * across), int(y * down)) for x, y in finding.contour))

    return replace(result, findings=tuple(scale(finding) for finding in result.findings))
