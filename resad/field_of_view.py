"""Where a fundus photograph shows the retina: a disc, which a rectangle may cut.

Cameras mask the disc at the top and bottom, or the frame is too small for it.
"""

from dataclasses import dataclass
from math import ceil, hypot
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.disc import find_disc

_LOOK: Final = 384
"""Longer side of the copy that is searched, px."""
_DARK: Final = 16.0
_WHITE: Final = 200.0
"""Levels up to which every channel is dark, and above which every channel makes white, of 255."""
_LEAST_LIT: Final = 0.001
"""Share of a photograph that is not dark."""
_LEAST_CONTRAST: Final = 6.0
"""Levels of 255 between the darkest and the brightest twentieth of a retina."""
_MOST_WHITE: Final = 0.6
"""Share of white pixels above which a frame without a disc is a page."""
_REDDISH: Final = 1.15
"""Red over green, and over blue, in a retina that fills the frame."""


@dataclass(frozen=True, slots=True)
class FieldOfView:
    """The part of a photograph that shows the retina: a disc cut by a rectangle, in px of the photograph."""

    cx: float
    cy: float
    radius: float
    left: float
    top: float
    right: float
    bottom: float
    found: bool
    """False: no disc on a dark surround; the rectangle is the frame and the circle goes around it."""

    def scaled(self, across: float, down: float) -> "FieldOfView":
        """The same field of view where the photograph is `across` times as wide and `down` times as high."""
        x0, x1 = self.left * across, self.right * across
        y0, y1 = self.top * down, self.bottom * down
        radius = self.radius * (across * down) ** 0.5
        return FieldOfView(self.cx * across, self.cy * down, radius, x0, y0, x1, y1, self.found)

    def shifted(self, x: float, y: float) -> "FieldOfView":
        """The same field of view in a photograph with `x` more columns on the left, `y` more rows on top."""
        x0, x1, y0, y1 = self.left + x, self.right + x, self.top + y, self.bottom + y
        return FieldOfView(self.cx + x, self.cy + y, self.radius, x0, y0, x1, y1, self.found)


def find_field_of_view(pixels: NDArray[np.uint8]) -> FieldOfView:
    """The field of view of a photograph, uint8 (H, W, 3) RGB, in its own px.

    The radius is good to 1 % where at least a fifth of the circle shows as an edge on a dark surround; the
    surround may hold some noise and text.  Where no such disc is found, the whole frame is the field of view.
    """
    height, width = pixels.shape[:2]
    seen = _search(pixels)
    margin = 1.2 * seen.radius
    x0, x1 = max(int(seen.cx - margin), 0), min(ceil(seen.cx + margin), width)
    y0, y1 = max(int(seen.cy - margin), 0), min(ceil(seen.cy + margin), height)
    if not seen.found or max(width, height) <= _LOOK or 2 * max(x1 - x0, y1 - y0) > max(width, height):
        return seen
    # A small disc in a large frame was seen in too few pixels.
    nearer = _search(pixels[y0:y1, x0:x1])
    return nearer.shifted(x0, y0) if nearer.found else seen


def field_of_view_mask(
    field: FieldOfView,
    height: int,
    width: int,
    extent: tuple[float, float, float, float] | None = None,
) -> NDArray[np.bool_]:
    """bool (height, width): which pixels of a raster have their center in the disc and in the rectangle.

    The raster covers `extent` (left, top, right, bottom in px of the photograph, which it may exceed) or,
    without one, the photograph pixel by pixel.
    """
    left, top, right, bottom = extent or (0.0, 0.0, float(width), float(height))
    x = left + (np.arange(width) + 0.5) * ((right - left) / width)
    y = (top + (np.arange(height) + 0.5) * ((bottom - top) / height))[:, None]
    disc: NDArray[np.bool_] = (x - field.cx) ** 2 + (y - field.cy) ** 2 <= field.radius**2
    disc &= (x >= field.left) & (x < field.right)
    disc &= (y >= field.top) & (y < field.bottom)
    return disc


def looks_like_fundus(pixels: NDArray[np.uint8], field: FieldOfView) -> str | None:
    """None if `pixels` could show a retina, else why not, in one line.

    `pixels` is the photograph or its prepared square, uint8 (H, W, 3) RGB; of `field` only `found` is used.
    Permissive: a disc on a dark surround passes in any color, red-free and gray included; without one the
    frame must be reddish.
    """
    small = _reduced(pixels)
    lit = small[small.max(axis=2) > _DARK]
    if lit.size < _LEAST_LIT * small.size:
        return f"it is black: {lit.size / small.size:.1%} of it is brighter than {_DARK:.0f} of 255"
    white = lit.min(axis=1) > _WHITE
    if not field.found and white.mean() > _MOST_WHITE:
        return f"{white.mean():.0%} of it is white, as in a document or screenshot"
    low, high = np.percentile(lit.mean(axis=1), (5, 95))
    if high - low < _LEAST_CONTRAST:
        return f"it is blank: its brightness spans {high - low:.0f} of 255 levels"
    if field.found:
        return None
    red, green, blue = lit[~white].mean(axis=0)
    if red < _REDDISH * max(green, blue):
        color = f"mean red {red:.0f}, green {green:.0f}, blue {blue:.0f}"
        return f"it shows no disc on a dark surround and is not reddish ({color})"
    return None


def _search(pixels: NDArray[np.uint8]) -> FieldOfView:
    """The field of view as it shows in a copy of at most `_LOOK` px."""
    height, width = pixels.shape[:2]
    small = _reduced(pixels)
    # The brightest channel: a dim rim often shows in red alone, a red-free photograph in green.
    level = small.max(axis=2)
    disc = find_disc(level)
    if disc is None:
        around = hypot(width, height) / 2
        return FieldOfView(width / 2, height / 2, around, 0.0, 0.0, float(width), float(height), found=False)
    return FieldOfView(*disc, found=True).scaled(width / level.shape[1], height / level.shape[0])


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A copy of at most `_LOOK` px, float32 (H, W, channels)."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _LOOK / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)
