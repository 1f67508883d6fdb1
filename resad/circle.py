"""The circle on which the most of a set of weighted points lie."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

_TOLERANCE: Final = 0.01
"""How far a point may lie from the circle, as a share of the radius (but 1 px at least)."""
_TRIALS: Final = 300
"""Circles through three random points; with half of the points astray one in eight is good."""
_VOTERS: Final = 500
"""Points that vote on those circles."""

Floats = NDArray[np.float64]


class Circle(NamedTuple):
    """A circle in continuous px."""

    cx: float
    cy: float
    radius: float

    def away(self, x: Floats, y: Floats) -> Floats:
        """Distances of points from the circle, px, negative inside."""
        return np.hypot(x - self.cx, y - self.cy) - self.radius

    def tolerance(self) -> float:
        """How far from it a point still belongs to it, px."""
        return max(1.0, _TOLERANCE * self.radius)


def heaviest_circle(
    x: Floats, y: Floats, weight: Floats, largest: float, generator: np.random.Generator
) -> Circle | None:
    """The circle with the most weight near it, of a radius of 4 to `largest` px; None where there is none.

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
    away = np.abs(np.hypot(x[voters] - cx[:, None], y[voters] - cy[:, None]) - radius[:, None])
    near = away < np.maximum(1.0, _TOLERANCE * radius)[:, None]
    best = int(np.argmax(near @ share[voters]))
    circle = Circle(float(cx[best]), float(cy[best]), float(radius[best]))
    close = np.abs(circle.away(x, y)) < 2.0 * circle.tolerance()
    return closest_circle(circle, x[close], y[close])


def closest_circle(start: Circle, x: Floats, y: Floats) -> Circle:
    """The circle closest to all points, those more than half a px away counting less; at least three points."""

    def away(values: Floats) -> Floats:
        return Circle(*values).away(x, y)

    found = least_squares(away, start, loss="soft_l1", f_scale=0.5)
    return Circle(*(float(value) for value in found.x))


def _through_three(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Center and radius of the circle through each row's three points (n, 3); NaN where they lie on a line."""
    bx, by = x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]
    dx, dy = x[:, 2] - x[:, 0], y[:, 2] - y[:, 0]
    area = 2.0 * (bx * dy - by * dx)
    area = np.where(area == 0, np.nan, area)
    b, d = bx**2 + by**2, dx**2 + dy**2
    ux, uy = (dy * b - by * d) / area, (bx * d - dx * b) / area
    return x[:, 0] + ux, y[:, 0] + uy, np.hypot(ux, uy)
