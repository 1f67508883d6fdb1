"""Prepare a photograph: decode it, crop it to the field of view, resize it to the network's square."""

from collections.abc import Generator
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.config import PhotoLimits, PreparationConfig
from resad.dicom.header import PhotoHeader
from resad.field_of_view import FieldOfView, field_of_view_mask, find_field_of_view
from resad.lit_regions import MAX_SURROUND
from resad.photo import SHRINKS, Photo, read_bytes, read_photo, stored_size

Coordinate = TypeVar("Coordinate", float, NDArray[np.floating[Any]])


class PhotoDecoder(Protocol):
    """Decodes photographs: `ThisProcess`, or a pool of processes (`resad.decoder_pool`)."""

    def stored_size(self, data: bytes, limits: PhotoLimits) -> tuple[int, int]:
        """As `resad.photo.stored_size`."""
        ...

    def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
        """As `resad.photo.read_photo`."""
        ...


class ThisProcess:
    """Decodes photographs on the calling thread, for as long as it takes."""

    def stored_size(self, data: bytes, limits: PhotoLimits) -> tuple[int, int]:
        """As `resad.photo.stored_size`."""
        return stored_size(data, limits)

    def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
        """As `resad.photo.read_photo`."""
        return read_photo(source, limits, shrink=shrink)


THIS_PROCESS: Final = ThisProcess()
_ROWS_PER_STEP: Final = 256
_BAND_PIXELS: Final = 1 << 20
"""Rows and pixels of a map, at most, that are resampled together: keeps the intermediate results small."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of a photograph that its prepared square covers.

    Coordinates are continuous: x to the right, y down, pixel (0, 0) covers [0, 1) x [0, 1).
    """

    width: int
    height: int
    """Width and height of the photograph, px."""
    left: float
    top: float
    right: float
    bottom: float
    """Edges of the square, px of the photograph, which it may exceed."""
    side: int
    """S: side of the square, px."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom

    def to_photo(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """A point of the square, in px of the photograph."""
        across, down = (self.right - self.left) / self.side, (self.bottom - self.top) / self.side
        return self.left + x * across, self.top + y * down

    def to_prepared(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """A point of the photograph, in px of the square; the inverse of `to_photo`."""
        across, down = (self.right - self.left) / self.side, (self.bottom - self.top) / self.side
        return (x - self.left) / across, (y - self.top) / down

    def map_to_photo(
        self, anomaly_map: NDArray[np.float32], width: int | None = None, height: int | None = None
    ) -> NDArray[np.float32]:
        """A map of the square, float32 (S, S), at the photograph's pixels, float32 (H, W).

        Sampled bilinearly at each pixel's center; within half a prepared pixel of the square's edge the edge value
        holds, outside the square the map is 0.  `width` and `height` choose another raster over the photograph.
        """
        columns, rows = width or self.width, height or self.height
        result = np.empty((rows, columns), np.float32)
        top = 0
        for band in self.map_bands(anomaly_map, columns, rows):
            result[top : top + len(band)] = band
            top += len(band)
        return result

    def map_bands(
        self, anomaly_map: NDArray[np.float32], width: int, height: int
    ) -> Generator[NDArray[np.float32], None, None]:
        """The rows of `map_to_photo` from the top, some at a time, float32 (n, width)."""
        if anomaly_map.shape != (self.side, self.side):
            raise ValueError(f"the map is {anomaly_map.shape}, the frame's square {(self.side, self.side)}")
        x = (np.arange(width) + 0.5) * (self.width / width)
        inside_x = np.nonzero((x >= self.left) & (x < self.right))[0]
        step = max(1, min(_ROWS_PER_STEP, _BAND_PIXELS // width))
        for start in range(0, height, step):
            y = (np.arange(start, min(start + step, height)) + 0.5) * (self.height / height)
            inside_y = np.nonzero((y >= self.top) & (y < self.bottom))[0]
            band = np.zeros((len(y), width), np.float32)
            if inside_x.size and inside_y.size:
                # The square is parallel to the photograph's axes, so one axis can be resampled after the other.
                x_square, y_square = self.to_prepared(x[inside_x], y[inside_y])
                first = max(floor(y_square[0] - 0.5), 0)
                part = anomaly_map[first : floor(y_square[-1] - 0.5) + 2]
                stretched = _resampled_rows(np.ascontiguousarray(part.T, np.float32), x_square)
                target = band[inside_y[0] : inside_y[-1] + 1, inside_x[0] : inside_x[-1] + 1]
                target[...] = _resampled_rows(np.ascontiguousarray(stretched.T), y_square - first)
            yield band


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPhoto:
    """A photograph as the network takes it."""

    pixels: NDArray[np.uint8]
    """uint8 (S, S, 3), RGB, 0 to 255; black beyond the photograph."""
    mask: NDArray[np.bool_]
    """bool (S, S): pixels whose center lies in the field of view; all if nothing was cropped."""
    frame: Frame
    field_of_view: FieldOfView
    """In the photograph's own px."""
    content_hash: str
    """SHA-256 of the file's bytes, hexadecimal."""
    header: PhotoHeader | None = None
    """What a DICOM header says of the photograph; None for other formats."""


def prepare(
    source: bytes | Path,
    config: PreparationConfig,
    limits: PhotoLimits,
    *,
    decoder: PhotoDecoder = THIS_PROCESS,
) -> PreparedPhoto:
    """The prepared square of `source`, a file's bytes or its path.  Raises as `read_photo`.

    crop = "field_of_view": a square around the disc, its side the disc's diameter, black beyond the photograph;
    where the photograph was squashed, so that the disc is an ellipse, the square undoes it.  Without a disc: a
    square around the lit region, its longer side.  crop = "none": the whole frame, squashed.
    decoder: decodes the photograph.
    """
    data = read_bytes(source, limits)
    photo, field = _decode(data, config, limits, decoder)
    frame = frame_of(photo.width, photo.height, field, config)
    mask = mask_of(frame, field, config)
    pixels = _without_canvas(_resized(photo, frame), mask)
    return PreparedPhoto(pixels, mask, frame, field, photo.content_hash, photo.header)


def frame_of(width: int, height: int, field: FieldOfView, config: PreparationConfig) -> Frame:
    """The frame of a photograph of `width` x `height` px."""
    if config.crop == "none":
        return Frame(width, height, 0.0, 0.0, width, height, config.size)
    half_width, half_height = field.half_axes
    if not field.found:
        half_width = half_height = max(field.right - field.left, field.bottom - field.top) / 2
    left, right = field.cx - half_width, field.cx + half_width
    top, bottom = field.cy - half_height, field.cy + half_height
    return Frame(width, height, left, top, right, bottom, config.size)


def mask_of(frame: Frame, field: FieldOfView, config: PreparationConfig) -> NDArray[np.bool_]:
    """The field of view on the prepared square: bool (S, S)."""
    if config.crop == "none":
        return np.ones((frame.side, frame.side), np.bool_)
    return field_of_view_mask(field, frame.side, frame.side, frame.extent)


def _decode(
    data: bytes, config: PreparationConfig, limits: PhotoLimits, decoder: PhotoDecoder
) -> tuple[Photo, FieldOfView]:
    """The photograph, decoded no larger than the square needs, and its field of view in the photograph's px."""
    shrink = _largest_shrink(min(decoder.stored_size(data, limits)), config.size)
    photo = decoder.read_photo(data, limits, shrink=shrink)
    field = _field_of_view(photo)
    needed = _largest_shrink(2 * min(field.half_axes), config.size)
    if config.crop == "none" or not (field.found or field.outline) or needed >= shrink:
        return photo, field
    # The field is much smaller than the frame: a larger decoding is needed to fill the square.
    photo = decoder.read_photo(data, limits, shrink=needed)
    closer = _field_of_view(photo)
    return photo, closer if closer.found or not field.found else field


def _field_of_view(photo: Photo) -> FieldOfView:
    height, width = photo.pixels.shape[:2]
    return find_field_of_view(photo.pixels).scaled(photo.width / width, photo.height / height)


def _largest_shrink(length: float, size: int) -> int:
    """The largest shrink that leaves `length` px at `size` or more; 1 where none does."""
    return max((shrink for shrink in SHRINKS if length / shrink >= size), default=1)


def _resized(photo: Photo, frame: Frame) -> NDArray[np.uint8]:
    """uint8 (S, S, 3): the part that `frame` covers; every pixel is the weighted mean of the pixels it covers."""
    height, width = photo.pixels.shape[:2]
    across, down = width / photo.width, height / photo.height
    # Rounded, so that an edge shared with the photograph does not end up slightly beyond it.
    left, right = round(frame.left * across, 6), round(frame.right * across, 6)
    top, bottom = round(frame.top * down, 6), round(frame.bottom * down, 6)
    x0, y0, x1, y1 = floor(left), floor(top), ceil(right), ceil(bottom)
    canvas = Image.fromarray(photo.pixels)
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        part = photo.pixels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        canvas = Image.new("RGB", (x1 - x0, y1 - y0))
        canvas.paste(Image.fromarray(part), (max(-x0, 0), max(-y0, 0)))
        left, right, top, bottom = left - x0, right - x0, top - y0, bottom - y0
    box = (left, top, right, bottom)
    return np.array(canvas.resize((frame.side, frame.side), Image.Resampling.BILINEAR, box=box))


def _without_canvas(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The square, black outside the field of view if a bright canvas lies there."""
    outside = pixels[~mask]
    if outside.size and np.median(outside.max(axis=1)) > MAX_SURROUND:
        pixels[~mask] = 0
    return pixels


def _resampled_rows(values: NDArray[np.float32], at: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows of `values`, float32 (n, m), at the continuous coordinates `at`, interpolated between row centers."""
    position = np.clip(at - 0.5, 0.0, len(values) - 1.0)
    low = np.minimum(position.astype(np.intp), max(len(values) - 2, 0))
    weight = (position - low).astype(np.float32)[:, None]
    result: NDArray[np.float32] = values[low]
    step = values[np.minimum(low + 1, len(values) - 1)]
    step -= result
    step *= weight
    result += step
    return result
