"""Fit the rim of the disc that shows the retina: circles, and ellipses where the photograph was squashed.

Circles are fitted to the lit region at several levels above the dark surround: an underexposed side is lost at the
higher levels, a halo is caught at the lower ones.  The circle along which the brightness drops most clearly wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resad.lit_regions import STEEP, Bools, Border, Floats, LitRegion, lit_regions

_TOLERANCE: Final = 0.01
"""Largest distance of a point from its circle, as a share of the radius (at least 1 px)."""
_TRIALS: Final = 300
"""Circles through three random points; if half of the points are outliers, one in eight is good."""
_VOTERS: Final = 500
"""Points that vote for those circles."""
_MIN_RIM: Final = 72
"""Degrees of the circle that must show a rim: one in five."""
_WIDEST_GAP: Final = 270
"""Largest gap without rim, degrees: a shorter arc does not determine the circle."""
_CLEAR_DROP: Final = 16.0
"""Levels by which the brightness drops at a clear rim."""
_SHALLOW: Final = 0.03
"""A straight cut closer to the circle's end than this share of the radius counts as a dark rim."""
_EXPLAINED: Final = 0.9
"""Least share of a region's steep border on the disc's rim and cuts; on 90 real photographs, all but ellipses that
circles were fitted to have 0.97 and more, those 0.81 and less."""
_SPILLED: Final = 0.05
"""Largest share of a lit region that is not in the disc."""
_BEYOND_DOUBT: Final = 270
_STRAY: Final = 10
"""A circle is beyond doubt if so many degrees of it show, and so many times as many as near it."""
_BEYOND_DOUBT_IF_CUT: Final = 150
_EXPLAINED_BEYOND_DOUBT: Final = 0.96
"""So is one of which less shows, if nearly all of the border is its rim and its cuts: true of 55 of 56 sound
photographs that are cut above and below, and of none of 70 that were squashed by 10 or 20 %."""
_MIN_ELLIPSE: Final = 120
"""Degrees of an ellipse that must show: a shorter rim does not determine its stretch."""
_ELLIPSE_STRAY: Final = 4
_WIDEST_ELLIPSE_GAP: Final = 150
_CLEARLY: Final = 45
"""Degrees by which an ellipse must be better than the best circle: more on it, fewer near it."""
_MAX_STRETCH: Final = 2.5
_WHOLE: Final = 300
"""Degrees of a rim that is nearly whole."""
_LEAST_STRETCH: Final = 0.035
_LEAST_STRETCH_OF_PART: Final = 0.06
"""Stretches nearer to 1 (their logarithms to 0) are not told from those of sound photographs."""
_ELLIPSE_TRIALS: Final = 1500
"""Ellipses through four random points; if half of the points are outliers, one in sixteen is good."""
_REFINEMENTS: Final = 3
_EXACT: Final = 0.002
_EQUAL: Final = 0.015
"""Stretches that differ by less are the same."""


class Circle(NamedTuple):
    """A circle in continuous px."""

    cx: float
    cy: float
    radius: float

    def distances(self, x: Floats, y: Floats) -> Floats:
        """Distances of points from the circle, px, negative inside."""
        across, down = x - self.cx, y - self.cy
        distances: Floats = np.sqrt(across * across + down * down) - self.radius
        return distances

    def tolerance(self) -> float:
        """Largest distance of a point that belongs to the circle, px."""
        return max(1.0, _TOLERANCE * self.radius)


def heaviest_circle(border: Border, largest: float, generator: np.random.Generator) -> Circle | None:
    """The circle with the most slope near it, of a radius of 4 to `largest` px; None if there is none.

    Random sample consensus (Fischler and Bolles 1981), then least squares on the points near the winner.
    """
    if not border.suffices():
        return None
    x, y, slope = border
    share = slope / slope.sum()
    picks = generator.choice(len(x), size=(_TRIALS, 3), p=share)
    cx, cy, radius = _through_three(x[picks], y[picks])
    possible = (radius > 4) & (radius < largest)
    if not possible.any():
        return None
    cx, cy, radius = cx[possible], cy[possible], radius[possible]
    voters = slice(None, None, max(len(x) // _VOTERS, 1))
    close = _close(x[voters], y[voters], cx, cy, radius, 1.0, np.ones_like(radius))
    best = int(np.argmax(close @ share[voters]))
    circle = Circle(float(cx[best]), float(cy[best]), float(radius[best]))
    inliers = np.abs(circle.distances(x, y)) < 2.0 * circle.tolerance()
    return closest_circle(circle, x[inliers], y[inliers])


def _close(x: Floats, y: Floats, cx: Floats, cy: Floats, radius: Floats, px: float, stretch: Floats) -> Bools:
    """bool (ellipses, points): whether each point belongs to each upright ellipse.

    In float32 and by squares, in a fifth of the time: a point within 0.001 px of the tolerance may change sides.

    Args:
        radius: geometric mean of the half axes.
        px: one pixel, in the units of the others.
        stretch: height over width.
    """
    tolerance = np.maximum(px, _TOLERANCE * radius)
    across = x.astype(np.float32) - _column(cx)
    down = y.astype(np.float32) - _column(cy)
    squared = across * across * _column(stretch) + down * down * _column(1.0 / stretch)
    close: Bools = squared > _column(np.maximum(radius - tolerance, 0.0) ** 2)
    close &= squared < _column((radius + tolerance) ** 2)
    return close


def _column(values: Floats) -> NDArray[np.float32]:
    return values.astype(np.float32)[:, None]


def closest_circle(start: Circle, x: Floats, y: Floats) -> Circle:
    """The circle closest to all points, at least three; points more than half a px away count less."""
    from scipy.optimize import least_squares

    def residuals(values: Floats) -> Floats:
        return Circle(*values).distances(x, y)

    def slopes(values: Floats) -> Floats:
        across, down = values[0] - x, values[1] - y
        away = np.maximum(np.hypot(across, down), 1e-9)
        return np.stack([across / away, down / away, np.full_like(x, -1.0)], axis=1)

    fit = least_squares(residuals, start, slopes, loss="soft_l1", f_scale=0.5)
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


class Disc(NamedTuple):
    """A circle or upright ellipse and the rectangle that cuts it, in continuous px of the picture.

    radius: of an ellipse the geometric mean of its half axes.  stretch: its height over its width.
    """

    cx: float
    cy: float
    radius: float
    left: float
    top: float
    right: float
    bottom: float
    stretch: float = 1.0


class _Rim(NamedTuple):
    """A circle along which the brightness drops."""

    circle: Circle
    degrees: NDArray[np.intp]
    """Angles at which the brightness drops on the circle."""
    x: Floats
    y: Floats
    """Where exactly it drops at these angles, px."""
    strays: int
    """Number of degrees in which it drops near the circle, but not on it."""
    clarity: float
    """Mean drop over the whole circle, as a share of a clear one."""

    def beats(self, rim: "_Rim") -> bool:
        """Whether clearly more shows on this circle than on the other, and clearly less contradicts it."""
        more, fewer = len(self.degrees) - len(rim.degrees), rim.strays - self.strays
        return more + fewer >= _CLEARLY

    def determines_ellipse(self) -> bool:
        """Whether the rim is so long that its stretch shows."""
        long = len(self.degrees) >= max(_MIN_ELLIPSE, _ELLIPSE_STRAY * self.strays)
        return long and self._widest_gap() <= _WIDEST_ELLIPSE_GAP

    def suffices(self) -> bool:
        """Whether enough of the circle shows, in enough directions, and little contradicts it."""
        if len(self.degrees) < max(_MIN_RIM, 2 * self.strays):
            return False
        return self._widest_gap() <= _WIDEST_GAP

    def _widest_gap(self) -> int:
        """Degrees between neighboring angles at which the rim shows, at most."""
        if not len(self.degrees):
            return 360
        return int(np.diff(self.degrees, append=self.degrees[0] + 360).max())


def find_disc(level: NDArray[np.float32]) -> Disc | None:
    """The disc in `level`, float32 (H, W), 0 to 255; None where neither a circle nor an ellipse fits.

    An ellipse is a disc whose photograph was resized without keeping its aspect.  It must fit clearly better than
    the best circle, and enough of it must show to determine its stretch.
    """
    regions = lit_regions(level)
    fit = _fit_circle(level, regions)
    if fit is not None and not (fit.rim.suffices() and fit.explained >= _EXPLAINED):
        fit = None
    if fit is None or fit.is_doubtful():
        ellipses = (_fit_ellipse(level, stretch) for stretch in _stretches(regions))
        best = max((e for e in ellipses if e is not None), key=lambda e: len(e.fit.rim.degrees), default=None)
        if best is not None and (fit is None or best.fit.rim.beats(fit.rim)):
            return best.disc()
    return None if fit is None else fit.disc


@dataclass(frozen=True)
class _Fit:
    """The clearest rim of a picture, and the lit regions, one per level, around which circles were fitted."""

    rim: _Rim
    regions: list[LitRegion]

    @cached_property
    def disc(self) -> Disc:
        """The disc with its straight cuts."""
        return _cut(self.rim.circle, [region.lit for region in self.regions])

    @cached_property
    def explained(self) -> float:
        """Share of a lit region's steep border on the disc's rim and cuts, at most; 0 if no region lies in it."""
        outside = _outside(self.disc, self.regions[0].lit.shape)
        shares = (
            _explained_share(self.disc, region.border)
            for region in self.regions
            if (region.lit & outside).sum() / region.lit.sum() <= _SPILLED
        )
        return max(shares, default=0.0)

    def is_doubtful(self) -> bool:
        """Whether an ellipse may fit better: little of the circle shows, or much is near it and not on it."""
        shown = len(self.rim.degrees)
        if _STRAY * self.rim.strays > shown:
            return True
        cut = shown >= _BEYOND_DOUBT_IF_CUT and self.explained >= _EXPLAINED_BEYOND_DOUBT
        return shown < _BEYOND_DOUBT and not cut


class _Ellipse(NamedTuple):
    """The fit of a circle in a picture whose stretch was undone.

    across, down: px of the stretched picture per px of the other.
    """

    fit: _Fit
    across: float
    down: float

    def is_stretched(self) -> bool:
        """Whether its stretch differs from 1 by more than the error of a fit."""
        whole = len(self.fit.rim.degrees) >= _WHOLE
        return abs(log(self.down / self.across)) > (_LEAST_STRETCH if whole else _LEAST_STRETCH_OF_PART)

    def disc(self) -> Disc:
        """The disc in px of the stretched picture."""
        cx, cy, radius, left, top, right, bottom, _ = self.fit.disc
        across, down = self.across, self.down
        edges = (left * across, top * down, right * across, bottom * down)
        return Disc(cx * across, cy * down, radius * (across * down) ** 0.5, *edges, down / across)


def _outside(disc: Disc, shape: tuple[int, ...]) -> Bools:
    """bool (H, W): pixels that are not in the disc."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    circle = Circle(disc.cx, disc.cy, disc.radius)
    inside = circle.distances(x + 0.5, y + 0.5) <= circle.tolerance()
    inside &= (x >= disc.left - 1) & (x < disc.right) & (y >= disc.top - 1) & (y < disc.bottom)
    return ~inside


def _explained_share(disc: Disc, border: Border) -> float:
    """Share of the steep part of a border that lies on the disc's circle or its straight cuts."""
    x, y, slope = border
    weight = np.where(slope >= STEEP, slope, 0.0)
    if not weight.any():
        return 1.0
    circle = Circle(disc.cx, disc.cy, disc.radius)
    reach = 3.0 * circle.tolerance()
    close = np.abs(circle.distances(x, y)) < reach
    for values, edges in ((x, (disc.left, disc.right)), (y, (disc.top, disc.bottom))):
        for edge in edges:
            close |= np.abs(values - edge) < reach
    return float(weight[close].sum() / weight.sum())


def _fit_circle(level: NDArray[np.float32], regions: Sequence[LitRegion]) -> _Fit | None:
    """The clearest of the circles around the picture's lit regions; None where none has one."""
    generator = np.random.default_rng(0)
    rims: list[_Rim] = []
    enclosed: list[LitRegion] = []
    for region in regions:
        circle = heaviest_circle(region.border, float(max(level.shape)), generator)
        if circle is not None and _encloses(circle, region):
            rims.append(_rim(level, circle))
            enclosed.append(region)
    rim = max(rims, key=lambda rim: rim.clarity, default=None)
    return None if rim is None else _Fit(rim, enclosed)


def _fit_ellipse(level: NDArray[np.float32], stretch: float) -> _Ellipse | None:
    """The ellipse of about this stretch; None where too little of one shows."""
    ellipse = None
    for _ in range(_REFINEMENTS):
        height, width = level.shape
        size = (
            (width, max(round(height / stretch), 1)) if stretch > 1 else (max(round(width * stretch), 1), height)
        )
        picture = np.asarray(Image.fromarray(level).resize(size, Image.Resampling.BILINEAR))
        fit = _fit_circle(picture, lit_regions(picture))
        if fit is None or not (fit.rim.determines_ellipse() and fit.explained >= _EXPLAINED):
            return ellipse
        ellipse = _Ellipse(fit, width / size[0], height / size[1])
        rest = _stretch_of(fit.rim)
        stretch *= rest
        if abs(rest - 1.0) < _EXACT:
            break
    return ellipse if ellipse is not None and ellipse.is_stretched() else None


def _stretches(regions: Sequence[LitRegion]) -> list[float]:
    """Stretches of the ellipses around the lit regions, without those that are nearly 1 or equal another."""
    generator = np.random.default_rng(0)
    stretches: list[float] = []
    for region in regions:
        stretch = heaviest_stretch(region.border, generator)
        if stretch is not None and all(abs(log(stretch / earlier)) > _EQUAL for earlier in (1.0, *stretches)):
            stretches.append(stretch)
    return stretches


def heaviest_stretch(border: Border, generator: np.random.Generator) -> float | None:
    """Height over width of the upright ellipse with the most slope near it; None if there is none.

    Random sample consensus on four points each: y^2 + p x^2 + q x + r y + t = 0; p is the squared stretch.
    """
    if not border.suffices():
        return None
    x, y, slope = border
    # Around 0 and about 1 long, so that the equations are well conditioned.
    scale = max(float(np.ptp(x)), float(np.ptp(y)))
    x, y = (x - x.mean()) / scale, (y - y.mean()) / scale
    share = slope / slope.sum()
    picks = generator.choice(len(x), size=(_ELLIPSE_TRIALS, 4), p=share)
    px, py = x[picks], y[picks]
    system = np.stack([px**2, px, py, np.ones_like(px)], axis=2)
    solvable = np.abs(np.linalg.det(system)) > 1e-9
    p, q, r, t = np.linalg.solve(system[solvable], -(py[solvable] ** 2)[..., None])[..., 0].T
    possible = (p > _MAX_STRETCH**-2) & (p < _MAX_STRETCH**2)
    p, q, r, t = p[possible], q[possible], r[possible], t[possible]
    cx, cy = -q / (2 * p), -r / 2
    radius = np.sqrt(np.maximum(cy**2 + p * cx**2 - t, 0.0)) / p**0.25
    possible = (radius > 4 / scale) & (radius < 1.0)
    if not possible.any():
        return None
    p, cx, cy, radius = p[possible], cx[possible], cy[possible], radius[possible]
    voters = slice(None, None, max(len(x) // _VOTERS, 1))
    close = _close(x[voters], y[voters], cx, cy, radius, 1.0 / scale, np.sqrt(p))
    return float(np.sqrt(p[np.argmax(close @ share[voters])]))


def _stretch_of(rim: _Rim) -> float:
    """Height over width of the upright ellipse closest to the rim's points."""
    from scipy.optimize import least_squares

    cx, cy, radius = rim.circle

    def residuals(values: Floats) -> Floats:
        x0, y0, size, log_stretch = values
        root = np.exp(log_stretch / 2)
        distances: Floats = np.hypot((rim.x - x0) * root, (rim.y - y0) / root) - size
        return distances

    fit = least_squares(residuals, (cx, cy, radius, 0.0), loss="soft_l1", f_scale=0.5, x_scale=(1, 1, 1, 1e-2))
    return float(np.exp(fit.x[3]))


def _encloses(circle: Circle, region: LitRegion) -> bool:
    """Whether the lit region is most of the circle's inside, and little outside is above the level."""
    y, x = np.ogrid[: region.lit.shape[0], : region.lit.shape[1]]
    distance = circle.distances(x + 0.5, y + 0.5)
    inside, outside = distance < -circle.tolerance(), distance > 2.0 * circle.tolerance()
    if not inside.any():
        return False
    full = float(region.lit[inside].mean())
    spilled = float(region.above[outside].mean()) if outside.any() else 0.0
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
    return _Rim(circle, np.nonzero(on)[0], px[on], py[on], int((sharp & ~on).sum()), clarity)


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
