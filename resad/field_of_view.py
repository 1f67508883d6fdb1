"""Find the field of view: the disc, possibly cut by a rectangle, that shows the retina in a fundus photograph.

Cameras mask the disc at the top and bottom, or the frame is too small for it.

Circles are fitted to the lit region at several levels above the dark surround: an underexposed side is lost at the
higher levels, a halo is caught at the lower ones.  The circle along which the brightness drops most clearly wins.
"""

from dataclasses import dataclass
from math import ceil, hypot
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SEARCH_SIDE: Final = 384
"""Longer side of the copy that is searched, px."""
_DARK: Final = 16.0
_WHITE: Final = 200.0
"""Levels up to which every channel is dark, and above which every channel makes white, of 255."""
_MIN_LIT: Final = 0.001
"""Least share of a photograph that is not dark."""
_MIN_CONTRAST: Final = 6.0
"""Least levels of 255 between the darkest and the brightest twentieth of a retina."""
_MAX_WHITE: Final = 0.6
"""Share of white pixels above which a frame without a disc is a page."""
_REDDISH: Final = 1.15
"""Least ratio of red to green, and to blue, in a retina that fills the frame."""


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
    """False: there is no disc on a dark surround; the rectangle is the frame and the circle goes around it."""

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

    The radius is accurate to 1 % if at least a fifth of the circle shows as an edge on a dark surround; the
    surround may hold some noise and text.  Without such a disc, the whole frame is the field of view.
    """
    height, width = pixels.shape[:2]
    field = _search(pixels)
    margin = 1.2 * field.radius
    x0, x1 = max(int(field.cx - margin), 0), min(ceil(field.cx + margin), width)
    y0, y1 = max(int(field.cy - margin), 0), min(ceil(field.cy + margin), height)
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
    """bool (height, width): the pixels of a raster whose centers lie in the disc and in the rectangle.

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
    if lit.size < _MIN_LIT * small.size:
        return f"it is black: {lit.size / small.size:.1%} of it is brighter than {_DARK:.0f} of 255"
    white = lit.min(axis=1) > _WHITE
    if not field.found and white.mean() > _MAX_WHITE:
        return f"{white.mean():.0%} of it is white, as in a document or screenshot"
    low, high = np.percentile(lit.mean(axis=1), (5, 95))
    if high - low < _MIN_CONTRAST:
        return f"it is blank: its brightness spans {high - low:.0f} of 255 levels"
    if field.found:
        return None
    red, green, blue = lit[~white].mean(axis=0)
    if red < _REDDISH * max(green, blue):
        color = f"mean red {red:.0f}, green {green:.0f}, blue {blue:.0f}"
        return f"it shows no disc on a dark surround and is not reddish ({color})"
    return None


def _search(pixels: NDArray[np.uint8]) -> FieldOfView:
    """The field of view, searched in a copy of at most `_SEARCH_SIDE` px."""
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
    """A copy of at most `_SEARCH_SIDE` px, float32 (H, W, channels)."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _SEARCH_SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32)


_TOLERANCE: Final = 0.01
"""Largest distance of a point from its circle, as a share of the radius (at least 1 px)."""
_TRIALS: Final = 300
"""Circles through three random points; if half of the points are outliers, one in eight is good."""
_VOTERS: Final = 500
"""Points that vote for those circles."""

Floats = NDArray[np.float64]


class Circle(NamedTuple):
    """A circle in continuous px."""

    cx: float
    cy: float
    radius: float

    def distances(self, x: Floats, y: Floats) -> Floats:
        """Distances of points from the circle, px, negative inside."""
        return np.hypot(x - self.cx, y - self.cy) - self.radius

    def tolerance(self) -> float:
        """Largest distance of a point that belongs to the circle, px."""
        return max(1.0, _TOLERANCE * self.radius)


def heaviest_circle(
    x: Floats, y: Floats, weight: Floats, largest: float, generator: np.random.Generator
) -> Circle | None:
    """The circle with the most weight near it, of a radius of 4 to `largest` px; None if there is none.

    Random sample consensus (Fischler and Bolles 1981), then least squares on the points near the winner.
    """
    if len(x) < 32 or not weight.any():
        return None
    share = weight / weight.sum()
    picks = generator.choice(len(x), size=(_TRIALS, 3), p=share)
    cx, cy, radius = _through_three(x[picks], y[picks])
    possible = (radius > 4) & (radius < largest)
    if not possible.any():
        return None
    cx, cy, radius = cx[possible], cy[possible], radius[possible]
    voters = slice(None, None, max(len(x) // _VOTERS, 1))
    distance = np.abs(np.hypot(x[voters] - cx[:, None], y[voters] - cy[:, None]) - radius[:, None])
    close = distance < np.maximum(1.0, _TOLERANCE * radius)[:, None]
    best = int(np.argmax(close @ share[voters]))
    circle = Circle(float(cx[best]), float(cy[best]), float(radius[best]))
    inliers = np.abs(circle.distances(x, y)) < 2.0 * circle.tolerance()
    return closest_circle(circle, x[inliers], y[inliers])


def closest_circle(start: Circle, x: Floats, y: Floats) -> Circle:
    """The circle closest to all points, at least three; points more than half a px away count less."""

    from scipy.optimize import least_squares

    def residuals(values: Floats) -> Floats:
        return Circle(*values).distances(x, y)

    fit = least_squares(residuals, start, loss="soft_l1", f_scale=0.5)
    return Circle(*(float(value) for value in fit.x))


def _through_three(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Center and radius of the circle through each row's three points (n, 3); NaN where they lie on a line."""
    bx, by = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
    dx, dy = x[:, 2] - x[:, 0], y[:, 2] - y[:, 0]
    area = 2.0 * (bx * dy - by * dx)
    area = np.where(area == 0, np.nan, area)
    b, d = bx**2 + by**2, dx**2 + dy**2
    ux, uy = (dy * b - by * d) / area, (bx * d - dx * b) / area
    return x[:, 0] + ux, y[:, 0] + uy, np.hypot(ux, uy)


_SURROUND: Final = 64.0
"""Brightest level that a surround may have, of 255."""
_MIN_RIM: Final = 72
"""Degrees of the circle that must show a rim: one in five."""
_WIDEST_GAP: Final = 270
"""Largest gap without rim, degrees: a shorter arc does not determine the circle."""
_CLEAR_DROP: Final = 16.0
"""Levels by which the brightness drops at a clear rim."""
_SHALLOW: Final = 0.03
"""A straight cut closer to the circle's end than this share of the radius counts as a dark rim."""

Bools = NDArray[np.bool_]


class Disc(NamedTuple):
    """A circle and the rectangle that cuts it, in continuous px of the picture."""

    cx: float
    cy: float
    radius: float
    left: float
    top: float
    right: float
    bottom: float


class _Rim(NamedTuple):
    """A circle along which the brightness drops."""

    circle: Circle
    degrees: NDArray[np.intp]
    """Angles at which the brightness drops on the circle."""
    strays: int
    """Number of degrees in which it drops near the circle, but not on it."""
    clarity: float
    """Mean drop over the whole circle, as a share of a clear one."""

    def suffices(self) -> bool:
        """Whether enough of the circle shows, in enough directions, and little contradicts it."""
        if len(self.degrees) < max(_MIN_RIM, 2 * self.strays):
            return False
        return int(np.diff(self.degrees, append=self.degrees[0] + 360).max()) <= _WIDEST_GAP


def find_disc(level: NDArray[np.float32]) -> Disc | None:
    """The disc in `level`, float32 (H, W), 0 to 255; None where no circle fits."""
    from scipy import ndimage

    generator = np.random.default_rng(0)
    # A shadow's border is gentle, the rim's is steep.
    slope = ndimage.gaussian_gradient_magnitude(level.astype(np.float64), 1.5)
    rims: list[_Rim] = []
    regions: list[Bools] = []
    for threshold in _thresholds(level):
        above = level > threshold
        lit = _largest_region(above)
        x, y = _border(lit)
        steepness = slope[y.astype(int), x.astype(int)]
        circle = heaviest_circle(x, y, steepness, float(max(level.shape)), generator)
        if circle is not None and _encloses(circle, lit, above):
            rims.append(_rim(level, circle))
            regions.append(lit)
    rim = max(rims, key=lambda rim: rim.clarity, default=None)
    if rim is None or not rim.suffices():
        return None
    return _cut(rim.circle, regions)


def _thresholds(level: NDArray[np.float32]) -> list[float]:
    """Levels from just above the darkest corner's noise to half of the brightest, in doubling steps."""
    height, width = level.shape
    rows, columns = max(height // 16, 2), max(width // 16, 2)
    ends = ((slice(rows), slice(-rows, None)), (slice(columns), slice(-columns, None)))
    corner = min((level[y, x] for y in ends[0] for x in ends[1]), key=lambda part: float(np.median(part)))
    surround = float(np.median(corner))
    noise = float(np.median(np.abs(corner - surround)))
    top = float(level.max()) - surround
    step = max(4.0, 5.0 * noise)
    steps: list[float] = []
    while surround <= _SURROUND and step < 0.5 * top:
        steps.append(surround + step)
        step *= 2.0
    return steps


def _largest_region(above: Bools) -> Bools:
    """The largest connected region of `above`, thin lines cut off, holes filled."""
    from scipy import ndimage

    labels, count = ndimage.label(ndimage.binary_opening(above, np.ones((3, 3), bool)))
    if count == 0:
        return np.zeros_like(above)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled: Bools = ndimage.binary_fill_holes(labels == largest)
    return filled


def _border(lit: Bools) -> tuple[Floats, Floats]:
    """x and y of the borders between lit pixels and unlit neighbors; the picture's own edge is none."""
    y_across, x_across = np.nonzero(lit[:, 1:] != lit[:, :-1])
    y_down, x_down = np.nonzero(lit[1:] != lit[:-1])
    x = np.concatenate([x_across + 1.0, x_down + 0.5])
    y = np.concatenate([y_across + 0.5, y_down + 1.0])
    return x, y


def _encloses(circle: Circle, lit: Bools, above: Bools) -> bool:
    """Whether the lit region is most of the circle's inside, and little outside is above the level."""
    y, x = np.ogrid[: lit.shape[0], : lit.shape[1]]
    distance = circle.distances(x + 0.5, y + 0.5)
    inside, outside = distance < -circle.tolerance(), distance > 2.0 * circle.tolerance()
    if not inside.any():
        return False
    full = float(lit[inside].mean())
    spilled = float(above[outside].mean()) if outside.any() else 0.0
    return full > 0.5 and spilled < 0.3


def _rim(level: NDArray[np.float32], circle: Circle) -> _Rim:
    """The rim along `circle`, fitted once more to where exactly the brightness drops sharply.

    Sharply: within 4 % of the radius by at least half of its drop within 20 %; in small circles, within
    1.6 px and 8 px.
    """
    from scipy import ndimage

    reach = max(0.1, 4.0 / circle.radius)
    shares = np.linspace(1.0 - reach, 1.0 + reach, 41)
    angles = np.radians(np.arange(360) + 0.5)
    x = circle.cx + circle.radius * shares * np.cos(angles)[:, None]
    y = circle.cy + circle.radius * shares * np.sin(angles)[:, None]
    profiles = ndimage.map_coordinates(level, [y - 0.5, x - 0.5], order=1, mode="nearest").astype(np.float64)
    inner, outer = profiles[:, 15:18].mean(axis=1), profiles[:, 23:26].mean(axis=1)
    drop = inner - outer
    # The frame's own edge is no rim.
    framed = (x[:, 25] > 0) & (x[:, 25] < level.shape[1]) & (y[:, 25] > 0) & (y[:, 25] < level.shape[0])
    sharp = framed & (drop > 3.0) & (2.0 * drop >= profiles[:, 0] - profiles[:, -1])
    at = np.interp(_crossing(profiles[:, 14:27], (inner + outer) / 2), np.arange(13), shares[14:27])
    px, py = circle.cx + circle.radius * at * np.cos(angles), circle.cy + circle.radius * at * np.sin(angles)
    if sharp.sum() >= _MIN_RIM:
        circle = closest_circle(circle, px[sharp], py[sharp])
    on = sharp & (np.abs(circle.distances(px, py)) < circle.tolerance())
    clarity = float(np.where(on, np.minimum(drop / _CLEAR_DROP, 1.0), 0.0).mean())
    return _Rim(circle, np.nonzero(on)[0], int((sharp & ~on).sum()), clarity)


def _crossing(profiles: Floats, middle: Floats) -> Floats:
    """Fractional column at which each row falls through its `middle` for the last time."""
    columns = profiles.shape[1]
    last = columns - 1 - np.argmax(profiles[:, ::-1] > middle[:, None], axis=1)
    last = np.minimum(last, columns - 2)
    rows = np.arange(len(profiles))
    high, low = profiles[rows, last], profiles[rows, last + 1]
    fraction: Floats = np.clip((high - middle) / np.maximum(high - low, 1e-6), 0.0, 1.0)
    position: Floats = last + fraction
    return position


def _cut(circle: Circle, regions: list[Bools]) -> Disc:
    """The disc with the sides at which the lit regions, one per level, end in a straight line short of it.

    A line counts if one of the two lowest levels shows it, since a dark side has straight ends at the higher
    levels.  Its position is the median over all levels that show it.
    """
    height, width = regions[0].shape
    cx, cy, radius = circle
    top = [_straight_end(lit, cx, cy, radius) for lit in regions]
    bottom = [_straight_end(lit[::-1], cx, height - cy, radius) for lit in regions]
    left = [_straight_end(lit.T, cy, cx, radius) for lit in regions]
    right = [_straight_end(lit.T[::-1], cy, width - cx, radius) for lit in regions]
    x0, y0 = _agreed(left, cx - radius), _agreed(top, cy - radius)
    x1, y1 = width - _agreed(right, width - cx - radius), height - _agreed(bottom, height - cy - radius)
    return Disc(cx, cy, radius, x0, y0, x1, y1)


def _agreed(ends: list[float | None], default: float) -> float:
    lines = [end for end in ends if end is not None]
    certain = any(end is not None for end in ends[:2])
    return float(np.median(lines)) if certain else max(default, 0.0)


def _straight_end(lit: Bools, cx: float, cy: float, radius: float) -> float | None:
    """y of a straight line at which the region ends above its center, short of the circle and the frame.

    At such a row the lit share of the circle's chord jumps from small to large.  If a dark side makes the region
    end early, the share rises slowly.
    """
    end = max(cy - radius, 0.0)
    rows = np.arange(int(end), min(max(int(cy), int(end) + 1), lit.shape[0]))
    half = np.sqrt(np.maximum(radius**2 - (rows + 0.5 - cy) ** 2, 0.0))
    chord = np.abs(np.arange(lit.shape[1]) + 0.5 - cx) < half[:, None]
    share = (lit[rows] & chord).sum(axis=1) / np.maximum(chord.sum(axis=1), 1)
    first = int(np.argmax(share > 0.5))
    before, after = share[max(first - 3, 0)], share[min(first + 3, len(share) - 1)]
    short = rows[first] - end > max(1.5, _SHALLOW * radius)
    return float(rows[first]) if short and share[first] > 0.5 and before < 0.2 and after > 0.8 else None
