"""Map files and overlays for answers, and content negotiation between them."""

import base64
import re
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.config import PhotoLimits
from resad.detector import Detection
from resad.manifest import Manifest
from resad.photo import SHRINKS, read_photo
from resad.pictures.map_files import map_npy, map_png16, map_tiff
from resad.pictures.overlay import Layout, PictureKind, overlay_picture, picture_file
from resad.preparation import Frame
from resad.result import Finding, Result
from service.problems import NOT_ACCEPTABLE, Refusal

MapType = Literal["image/png", "image/tiff", "application/x-npy", "image/jpeg"]
MAP_TYPES: Final[tuple[MapType, ...]] = ("image/png", "image/tiff", "application/x-npy")
OVERLAY_TYPES: Final[tuple[MapType, ...]] = ("image/png", "image/jpeg")
_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def negotiate(accept: str, *, overlay: bool) -> MapType:
    """The best of what is offered for an `Accept` header (RFC 9110, section 12.5.1).

    Raises `Refusal` (406) where nothing of it is wanted.
    """
    offers = OVERLAY_TYPES if overlay else MAP_TYPES
    wanted = {offer: _quality(offer, accept or "*/*") for offer in offers}
    best = max(offers, key=lambda offer: wanted[offer])
    if not wanted[best]:
        raise Refusal(NOT_ACCEPTABLE, f"{'overlays' if overlay else 'maps'} come as {', '.join(offers)}")
    return best


def raster(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """Width and height of a map whose longer side is at most `longest` px, and never more than the photo's."""
    share = 1.0 if longest is None else min(1.0, longest / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def encoded_map(
    kind: MapType, detection: Detection, frame: Frame, manifest: Manifest, longest: int | None
) -> bytes:
    """The map in the photo's frame, with its scale in the file's metadata where the format has any."""
    values = frame.map_to_photo(detection.anomaly_map, *raster(frame.width, frame.height, longest))
    full_scale = manifest.calibration.full_scale
    match kind:
        case "image/tiff":
            return map_tiff(values, full_scale, manifest.fingerprint)
        case "application/x-npy":
            return map_npy(values)
        case _:
            return map_png16(values, full_scale, manifest.fingerprint)


def encoded_overlay(
    data: bytes,
    limits: PhotoLimits,
    detection: Detection,
    frame: Frame,
    result: Result,
    manifest: Manifest,
    longest: int | None,
    *,
    layout: Layout,
    kind: PictureKind,
) -> bytes:
    """The photo with its map, findings and color bar; `data` is the photo's file."""
    width, height = raster(frame.width, frame.height, longest)
    values = frame.map_to_photo(detection.anomaly_map, width, height)
    seen = _reduced(result, width / frame.width, height / frame.height)
    pixels = _pixels(data, limits, frame, (width, height))
    return picture_file(overlay_picture(pixels, values, seen, manifest.calibration, layout), kind)


def data_url(picture: bytes, kind: PictureKind = "png") -> str:
    """A picture as a `data:` URL (RFC 2397)."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _pixels(data: bytes, limits: PhotoLimits, frame: Frame, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (height, width, 3) of `size` (width, height), decoded no larger than needed."""
    shrink = max(number for number in SHRINKS if number == 1 or frame.width >= number * size[0])
    pixels = read_photo(data, limits, shrink=shrink).pixels
    if pixels.shape[1::-1] == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _reduced(result: Result, across: float, down: float) -> Result:
    """The findings' outlines on the smaller raster."""

    def moved(finding: Finding) -> Finding:
        return replace(finding, contour=tuple((int(x * across), int(y * down)) for x, y in finding.contour))

    return replace(result, findings=tuple(moved(finding) for finding in result.findings))


def _quality(offer: MapType, accept: str) -> float:
    """The weight of the range in `accept` that names `offer` most closely; 0 where none does."""
    main = offer.split("/")[0]
    closeness = {"*/*": 0, f"{main}/*": 1, offer: 2}
    found = (-1, 0.0)
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        if media_range in closeness:
            found = max(found, (closeness[media_range], _weight(parameters)))
    return found[1]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
    return 1.0
