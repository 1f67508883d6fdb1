"""A bright disc on a dark surround, found in a small picture of brightness.

Circles are fitted to the lit region at several levels above the surround, because an underexposed side is lost
at the higher ones and a halo is caught at the lower ones.  The one along which the brightness drops most
clearly wins.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from resad.circle import Circle, Floats, closest_circle, heaviest_circle

_SURROUND: Final = 64.0
"""Brightest level that a surround may have, of 255."""
_RIM_SEEN: Final = 72
"""Degrees of the circle that must show a rim: one in five."""
_WIDEST_GAP: Final = 270
"""Degrees that may go without rim in one piece: a shorter arc does not fix the circle."""
_CLEAR_DROP: Final = 16.0
"""Levels by which the brightness drops at a rim that leaves no doubt."""
_SHALLOW: Final = 0.03
"""A straight cut nearer to the circle's end than this share of the radius is taken for a dark rim."""

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
    """Where it drops on the circle."""
    strays: int
    """Degrees in which it drops near the circle, but not on it."""
    clarity: float
    """Mean drop over the whole circle, as a share of a clear one."""

    def suffices(self) -> bool:
        """Whether enough of the circle shows, well enough spread, and little contradicts it."""
        if len(self.degrees) < max(_RIM_SEEN, 2 * self.strays):
            return False
        return int(np.diff(self.degrees, append=self.degrees[0] + 360).max()) <= _WIDEST_GAP


def find_disc(level: NDArray[np.float32]) -> Disc | None:
    """The disc in `level`, float32 (H, W), 0 to 255; None where no circle fits."""
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
    tall, wide = max(height // 16, 2), max(width // 16, 2)
    ends = ((slice(tall), slice(-tall, None)), (slice(wide), slice(-wide, None)))
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
    away = circle.away(x + 0.5, y + 0.5)
    inside, outside = away < -circle.tolerance(), away > 2.0 * circle.tolerance()
    if not inside.any():
        return False
    full = float(lit[inside].mean())
    spilled = float(above[outside].mean()) if outside.any() else 0.0
    return full > 0.5 and spilled < 0.3


def _rim(level: NDArray[np.float32], circle: Circle) -> _Rim:
    """The rim along `circle`, fitted once more to where exactly the brightness drops at once.

    At once: within 4 % of the radius by half or more of what it drops within 20 %; in small circles, within
    1.6 px and 8 px.
    """
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
    if sharp.sum() >= _RIM_SEEN:
        circle = closest_circle(circle, px[sharp], py[sharp])
    on = sharp & (np.abs(circle.away(px, py)) < circle.tolerance())
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
    ones; where it is then follows from all that show it.
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


def _agreed(ends: list[float | None], otherwise: float) -> float:
    seen = [end for end in ends if end is not None]
    believed = any(end is not None for end in ends[:2])
    return float(np.median(seen)) if believed else max(otherwise, 0.0)


def _straight_end(lit: Bools, cx: float, cy: float, radius: float) -> float | None:
    """y of a straight line at which the region ends above its center, short of the circle and the frame.

    It shows as a row in which the lit share of the circle's chord jumps from little to most; where a dark
    side makes the region end early, the share rises slowly.
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
