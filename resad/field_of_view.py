"""Find the field of view: the disc, possibly cut by a rectangle, that shows the retina in a fundus photograph.

Cameras mask the disc at the top and bottom, or the frame is too small for it.  `resad.rim` fits its rim; where
there is none, the field of view is the lit region.
"""

from dataclasses import dataclass
from math import ceil, hypot
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.lit_regions import (
    MAX_SURROUND,
    border_of,
    brightest,
    darkest_corner,
    largest_region,
    outer_pixels,
    slope_of,
)
from resad.rim import find_disc

_SEARCH_SIDE: Final = 384
"""Longer side of the copy that is searched, px."""
_DARK: Final = 16.0
"""Level of 255 up to which every channel is dark."""
_MIN_REGION: Final = 0.02
_MAX_REGION: Final = 0.995
"""Shares of the frame between which a lit region is one."""
_OUTLINE_TOLERANCE: Final = 0.8
"""Largest distance of the simplified outline of a lit region from the exact one, px of the reduced copy."""
_BAR: Final = 0.02
"""Share of a row or column that is lit, up to which it belongs to a black bar."""
_CANVAS_BORDER: Final = 0.4
"""Least share of the frame's border that is of the canvas's color."""
_CANVAS_CORNERS: Final = 3
"""Corners of the frame that are of the canvas's color, at least."""
_CANVAS_TOLERANCE: Final = 4.0
"""Largest difference from the canvas's color, levels of 255."""

Outline = tuple[tuple[float, float], ...]
"""The corners of a polygon, x and y in px."""


@dataclass(frozen=True, slots=True)
class FieldOfView:
    """The part of a photograph that shows the retina, in px of the photograph.

    A disc cut by a rectangle; where none was found, the lit region.
    """

    cx: float
    cy: float
    radius: float
    """Of the disc; where the photograph was squashed, the geometric mean of the ellipse's half axes."""
    left: float
    top: float
    right: float
    bottom: float
    found: bool
    """False: there is no disc on a dark surround; the rectangle is that of the lit region and the circle goes
    around it."""
    stretch: float = 1.0
    """The height of the disc over its width; not 1 if the photograph was resized without keeping its aspect."""
    outline: Outline = ()
    """Where no disc was found, the outline of the lit region; empty if that is the whole rectangle."""

    @property
    def half_axes(self) -> tuple[float, float]:
        """Half the width and half the height of the disc."""
        root: float = self.stretch**0.5
        return self.radius / root, self.radius * root

    def scaled(self, across: float, down: float) -> "FieldOfView":
        """The same field of view where the photograph is `across` times as wide and `down` times as high.

        The two differ by rounding only: the stretch stays.
        """
        x0, x1 = self.left * across, self.right * across
        y0, y1 = self.top * down, self.bottom * down
        radius = self.radius * (across * down) ** 0.5
        outline = tuple((x * across, y * down) for x, y in self.outline)
        return FieldOfView(
            self.cx * across, self.cy * down, radius, x0, y0, x1, y1, self.found, self.stretch, outline
        )

    def shifted(self, x: float, y: float) -> "FieldOfView":
        """The same field of view in a photograph with `x` more columns on the left, `y` more rows on top."""
        x0, x1, y0, y1 = self.left + x, self.right + x, self.top + y, self.bottom + y
        outline = tuple((px + x, py + y) for px, py in self.outline)
        return FieldOfView(
            self.cx + x, self.cy + y, self.radius, x0, y0, x1, y1, self.found, self.stretch, outline
        )


def find_field_of_view(pixels: NDArray[np.uint8]) -> FieldOfView:
    """The field of view of a photograph, uint8 (H, W, 3) RGB, in its own px.

    The radius is accurate to 1 % if at least a fifth of the circle shows as an edge on a dark surround; the
    surround may hold some noise and text.  An ellipse is found if a third of it shows.  Without either, the field
    of view is the lit region.  A canvas of one bright color around the photograph counts as dark.
    """
    height, width = pixels.shape[:2]
    field = _search(pixels)
    half_width, half_height = field.half_axes
    x0, x1 = max(int(field.cx - 1.2 * half_width), 0), min(ceil(field.cx + 1.2 * half_width), width)
    y0, y1 = max(int(field.cy - 1.2 * half_height), 0), min(ceil(field.cy + 1.2 * half_height), height)
    if not field.found or max(width, height) <= _SEARCH_SIDE or 2 * max(x1 - x0, y1 - y0) > max(width, height):
        return field
    # A small disc in a large frame has too few pixels in the reduced copy.
    closer = _search(pixels[y0:y1, x0:x1])
    return closer.shifted(x0, y0) if closer.found else field


def field_of_view_mask(
    field: FieldOfView,
    height: int,
    width: int,
    extent: tuple[float, float, float, float] | None = None,
) -> NDArray[np.bool_]:
    """bool (height, width): pixels of a raster whose centers lie in the disc, or outline, and the rectangle.

    The raster covers `extent` (left, top, right, bottom in px of the photograph, which it may exceed) or,
    without one, the photograph pixel by pixel.
    """
    left, top, right, bottom = extent or (0.0, 0.0, float(width), float(height))
    x = left + (np.arange(width) + 0.5) * ((right - left) / width)
    y = (top + (np.arange(height) + 0.5) * ((bottom - top) / height))[:, None]
    root = field.stretch**0.5
    inside: NDArray[np.bool_] = ((x - field.cx) * root) ** 2 + ((y - field.cy) / root) ** 2 <= field.radius**2
    if field.outline:
        inside &= _inside_outline(field.outline, x, y)
    inside &= (x >= field.left) & (x < field.right)
    inside &= (y >= field.top) & (y < field.bottom)
    return inside


def _inside_outline(
    outline: Outline, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]
) -> NDArray[np.bool_]:
    """bool (h, w): whether a ray to the right of each point crosses the outline an odd number of times.

    x: (w,).  y: (h, 1).
    """
    inside = np.zeros((len(y), len(x)), np.bool_)
    for (x0, y0), (x1, y1) in zip(outline, (*outline[1:], outline[0]), strict=True):
        if y0 == y1:
            continue
        rows = np.nonzero(((y0 <= y) != (y1 <= y)).ravel())[0]
        crossing = x0 + (y[rows] - y0) * ((x1 - x0) / (y1 - y0))
        inside[rows] ^= x < crossing
    return inside


def _search(pixels: NDArray[np.uint8]) -> FieldOfView:
    """The field of view, searched in a copy of at most `_SEARCH_SIDE` px."""
    height, width = pixels.shape[:2]
    small = _reduced(pixels)
    # The brightest channel: a dim rim often shows in red alone, a red-free photograph in green.
    level = brightest(small)
    level = np.where(_canvas(small), np.float32(0.0), level)
    disc = find_disc(level)
    across, down = width / level.shape[1], height / level.shape[0]
    if disc is not None:
        return FieldOfView(**disc._asdict(), found=True).scaled(across, down)
    return _lit_region(level).scaled(across, down)


def _lit_region(level: NDArray[np.float32]) -> FieldOfView:
    """The field of view without a disc: what is not the black surround, or the whole frame without a surround."""
    height, width = level.shape
    frame = FieldOfView(
        width / 2, height / 2, hypot(width, height) / 2, 0.0, 0.0, float(width), float(height), found=False
    )
    surround, noise = darkest_corner(level)
    if surround > MAX_SURROUND:
        return frame
    lit = largest_region(level > max(surround + np.clip(5.0 * noise, 4.0, _DARK), _DARK))
    # A gentle border is that of a shadow in the retina, not of the surround.
    if not _MIN_REGION < lit.mean() < _MAX_REGION or not border_of(lit, slope_of(level)).is_steep():
        return frame
    outline = region_outline(lit)
    x, y = zip(*outline, strict=True)
    x0, x1, y0, y1 = min(x), max(x), min(y), max(y)
    around = hypot(x1 - x0, y1 - y0) / 2
    return FieldOfView((x0 + x1) / 2, (y0 + y1) / 2, around, x0, y0, x1, y1, found=False, outline=outline)


def region_outline(region: NDArray[np.bool_]) -> Outline:
    """The outer boundary of the largest region, simplified to `_OUTLINE_TOLERANCE` px."""
    from skimage.measure import find_contours

    lines = find_contours(np.pad(region, 1).astype(np.float64), 0.5)  # type: ignore[no-untyped-call]
    line = max(lines, key=len)
    longest = simplify_line(line, _OUTLINE_TOLERANCE)[:-1]
    # find_contours counts from pixel centers, and a row and a column were added.
    height, width = region.shape
    return tuple(
        (min(max(float(x) - 0.5, 0.0), float(width)), min(max(float(y) - 0.5, 0.0), float(height)))
        for y, x in longest
    )


def simplify_line(line: NDArray[np.floating[Any]], tolerance: float) -> NDArray[np.float64]:
    """The corners of a line (n, 2) that are needed so that it moves by no more than `tolerance`.

    The first and the last point stay (Douglas and Peucker 1973).
    """
    from shapely import LineString

    return np.asarray(LineString(line).simplify(tolerance, preserve_topology=False).coords)


def _canvas(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool (H, W): the canvas of one bright color around the photograph, perhaps with black bars around it."""
    from scipy import ndimage

    canvas = np.zeros(small.shape[:2], np.bool_)
    lit = brightest(small) > _DARK
    if not lit.any():
        return canvas
    rows, columns = (np.nonzero(lit.mean(axis=axis) > _BAR)[0] for axis in (1, 0))
    if not len(rows) or not len(columns):
        return canvas
    inner = tuple(_without_bars(lines, length) for lines, length in zip((rows, columns), lit.shape, strict=True))
    part = small[inner]
    if 2 * min(part.shape[0] / lit.shape[0], part.shape[1] / lit.shape[1]) < 1:
        return canvas  # these are no bars, but the surround of a small disc
    border = outer_pixels(part)
    bright = border[border.max(axis=1) > MAX_SURROUND]
    if len(bright) < _CANVAS_BORDER * len(border):
        return canvas
    alike = brightest(np.abs(part - np.median(bright, axis=0))) <= _CANVAS_TOLERANCE
    # A flat disc that is cut above and below has no corners.
    corners = sum(bool(alike[y, x]) for y in (1, -2) for x in (1, -2))
    if corners < _CANVAS_CORNERS or outer_pixels(alike).mean() < _CANVAS_BORDER:
        return canvas
    labels, _ = ndimage.label(alike)
    touching = np.unique(outer_pixels(labels))
    canvas[inner] = np.isin(labels, touching[touching > 0])
    if not border_of(canvas, slope_of(small.mean(axis=2))).is_steep():
        return np.zeros_like(canvas)  # a bright part of the retina ends gently
    # Where the canvas ends, pixels are of mixed color.
    grown: NDArray[np.bool_] = ndimage.binary_dilation(canvas, np.ones((3, 3), bool), iterations=2)
    return grown


def _without_bars(lines: NDArray[np.intp], length: int) -> slice:
    """The rows or columns between black bars, less two where a bar ends, whose pixels are of mixed color."""
    start, stop = int(lines[0]), int(lines[-1]) + 1
    return slice(start + 2 if start else 0, stop - 2 if stop < length else length)


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A copy of at most `_SEARCH_SIDE` px, float32 (H, W, channels)."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _SEARCH_SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)
