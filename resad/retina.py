"""Tell pictures that cannot show a retina from photographs that could: pages, logos, scenes, plain frames.

A retina is smooth: few steep edges, thin lines of moderate contrast, colors that vary together.  Color itself
decides nothing here: gray, red-free and swapped channels have reasons of their own (`resad.quality`).  The limits
lie beyond all of 114 photographs of IDRiD, HEI-MED and many cameras; what they refuse is in docs/results.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.field_of_view import FieldOfView
from resad.lit_regions import brightest

_SIDE: Final = 256
"""Side of the copy that is looked at, px."""
_RIM: Final = 10
"""Rim of the field of view that is not looked at, px of the copy."""
_DARK: Final = 16.0
_WHITE: Final = 200.0
"""Levels up to which every channel is dark, and above which every channel makes white, of 255."""
_MIN_LIT: Final = 0.001
"""Least share of a photograph that is not dark."""
_MIN_CONTRAST: Final = 6.0
"""Least levels of 255 between the darkest and the brightest twentieth of a retina."""
_MAX_WHITE: Final = 0.6
"""Share of white pixels above which a frame without a disc is a page."""
_MAX_BETWEEN: Final = 1.08
"""Largest ratio by which green may lie outside of red and blue in a retina that fills the frame."""
_MAX_ROUGH: Final = 0.12
_MAX_EDGE: Final = 0.27
"""Slopes of the logarithm of the green channel, per px: of the steepest tenth, and of the steepest hundredth."""
_MIN_EDGE: Final = 0.05
"""Of a frame without a disc and of one color: less is a plain surface."""
_MAX_LINES: Final = 0.27
"""Depth of thin dark lines, as a share of the brightness: of the deepest tenth of the pixels."""
_MAX_FLAT: Final = 0.93
"""Largest share of pixels that equal their neighbor."""
_MAX_VARIETY: Final = 0.22
_MIN_VARIETY: Final = 0.016
"""How much colors vary apart from brightness; less than the least is one color."""
_GRAY: Final = 1.02
"""Ratio of the brightest to the darkest channel up to which a frame of one color is gray."""
_MIN_CONVEX: Final = 0.93
"""Least share of its convex hull that a lit region fills."""


def looks_like_fundus(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], field: FieldOfView) -> str | None:
    """None if `pixels` could show a retina, else why not, in one line.

    Args:
        pixels: the photograph or its prepared square, uint8 (H, W, 3) RGB.
        mask: its field of view, bool (H, W).
        field: of it only `found` is used.
    """
    # A smaller picture is interpolated: copies of its pixels would look drawn.
    method = Image.Resampling.BOX if min(mask.shape) >= _SIDE else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(pixels).resize((_SIDE, _SIDE), method), dtype=np.float32)
    lit = small[brightest(small) > _DARK]
    if lit.size < _MIN_LIT * small.size:
        return f"it is black: {lit.size / small.size:.1%} of it is brighter than {_DARK:.0f} of 255"
    white = -brightest(-lit) > _WHITE
    if not field.found and white.mean() > _MAX_WHITE:
        return f"{white.mean():.0%} of it is white, as in a document or screenshot"
    low, high = np.percentile(lit.mean(axis=1), (5, 95))
    if high - low < _MIN_CONTRAST:
        return f"it is blank: its brightness spans {high - low:.0f} of 255 levels"
    small_mask = np.asarray(Image.fromarray(mask).resize((_SIDE, _SIDE), Image.Resampling.NEAREST))
    if fault := _shape(small_mask, field):
        return fault
    inner = _inner(small_mask)
    rough, edge = _slopes(small, inner)
    return _texture(small, inner, rough, edge) or _colors(small, inner, edge, field)


def _shape(mask: NDArray[np.bool_], field: FieldOfView) -> str | None:
    """Why the lit region is none of a camera."""
    from skimage.morphology import convex_hull_image

    if field.found or mask.all() or not mask.any():
        return None
    hull = convex_hull_image(mask)  # type: ignore[no-untyped-call]
    share = float(mask.sum() / hull.sum())
    if share < _MIN_CONVEX:
        return (
            f"its lit part has the outline of an object, not of a camera's mask: it fills {share:.0%} of its hull"
        )
    return None


def _slopes(small: NDArray[np.float32], inner: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope of the logarithm of the green channel that a tenth, and a hundredth, of the pixels exceed."""
    from scipy import ndimage

    green = small[:, :, 1].astype(np.float64)
    rough, edge = np.percentile(ndimage.gaussian_gradient_magnitude(np.log(green + 10.0), 1.0)[inner], (90, 99))
    return float(rough), float(edge)


def _texture(small: NDArray[np.float32], inner: NDArray[np.bool_], rough: float, edge: float) -> str | None:
    """Why the picture is too rough, or drawn."""
    from scipy import ndimage

    if rough > _MAX_ROUGH or edge > _MAX_EDGE:
        return (
            f"it has more and steeper edges than a retina: slopes of {rough:.2f} and {edge:.2f}, at most "
            f"{_MAX_ROUGH:g} and {_MAX_EDGE:g}"
        )
    smooth = ndimage.gaussian_filter(small[:, :, 1].astype(np.float64), 1.0)
    depth = (ndimage.grey_closing(smooth, (9, 9)) - smooth) / (smooth.mean() + 5.0)
    lines = float(np.percentile(depth[inner], 90))
    if lines > _MAX_LINES:
        return f"its dark lines are deeper than vessels: {lines:.2f} of the brightness, at most {_MAX_LINES:g}"
    equal = float((brightest(np.abs(np.diff(small, axis=1))) == 0)[inner[:, 1:]].mean())
    if equal > _MAX_FLAT:
        return f"it is drawn, not photographed: {equal:.0%} of its pixels equal their neighbors"
    return None


def _colors(small: NDArray[np.float32], inner: NDArray[np.bool_], edge: float, field: FieldOfView) -> str | None:
    """Why the colors are not those of a retina, in whatever order its channels are."""
    inside = small[inner].astype(np.float64)
    singular = np.linalg.svd(inside[::7], compute_uv=False)
    variety = float(singular[1] / singular[0]) if singular[0] > 0 else 0.0
    if variety > _MAX_VARIETY:
        return f"its colors vary more than a retina's: {variety:.2f}, at most {_MAX_VARIETY:g}"
    if field.found:
        return None
    if variety < _MIN_VARIETY and edge < _MIN_EDGE:
        return f"it is a plain surface: no disc on a dark surround, one color, slopes of {edge:.2f} at most"
    red, green, blue = inside.mean(axis=0)
    if variety < _MIN_VARIETY and max(red, green, blue) < _GRAY * min(red, green, blue):
        return "it shows no disc on a dark surround and is gray"
    if green > _MAX_BETWEEN * max(red, blue) or _MAX_BETWEEN * green < min(red, blue):
        color = f"mean red {red:.0f}, green {green:.0f}, blue {blue:.0f}"
        return f"it shows no disc on a dark surround and is not of a retina's colors ({color})"
    return None


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The field of view without its rim, whose edge is no texture."""
    from scipy import ndimage

    inner: NDArray[np.bool_] = ndimage.binary_erosion(mask, iterations=_RIM)
    return inner if inner.any() else mask if mask.any() else np.ones_like(mask)
