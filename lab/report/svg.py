"""Charts as SVG text: axes, lines, bands and bars.  Colors are CSS classes: the page says what they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from lab.evaluate.bootstrap import Floats

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44
_DIGITS: Final = 1
"""Of coordinates, px: enough for the eye, and half the file."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with a number at each of `ticks`."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, values: Floats) -> Floats:
        """Where values lie, 0 to 1."""
        return (values - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Chart:
    """A frame of `width` x `height` px to draw in."""

    x: Axis
    y: Axis
    width: int = 420
    height: int = 340

    def line(self, x: Floats, y: Floats, kind: str) -> str:
        """Through the points."""
        return f'<polyline class="{kind}" points="{self._points(x, y)}"/>'

    def area(self, x: Floats, low: Floats, high: Floats, kind: str) -> str:
        """Between two lines over the same x."""
        there, back = self._points(x, high), self._points(x[::-1], low[::-1])
        return f'<polygon class="{kind}" points="{there} {back}"/>'

    def steps(self, edges: Floats, heights: Floats, kind: str) -> str:
        """A histogram: `heights` (n,) over `edges` (n + 1,)."""
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])
        return f'<polygon class="{kind}" points="{self._points(x, y)}"/>'

    def ticks_on_x(self, x: Floats, y: float, length: int, kind: str) -> str:
        """A short upright stroke at each x, hanging from y."""
        top = self._points(x, np.full(len(x), y)).split()
        return "".join(f'<path class="{kind}" d="M{point.replace(",", " ")}v{length}"/>' for point in top)

    def rule(self, x: float, text: str) -> str:
        """An upright line through the whole chart, named at its top."""
        (left, bottom), (_, top) = self._xy(x, self.y.low), self._xy(x, self.y.high)
        anchor, shift = ("end", -6) if self.x.at(np.array(x)) > 0.6 else ("start", 6)
        return (
            f'<path class="rule" d="M{left:.1f} {bottom:.1f}V{top:.1f}"/>'
            f'<text class="note" x="{left + shift:.1f}" y="{top + 12:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def drawn(self, marks: Sequence[str], title: str) -> str:
        """The whole picture; `title` is read to those who cannot see it."""
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">'
            f"{self._frame()}{''.join(marks)}</svg>"
        )

    def _frame(self) -> str:
        parts = []
        for tick in self.x.ticks:
            x, y = self._xy(tick, self.y.low)
            parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}V{_TOP}"/>'
                         f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{tick:g}</text>')  # fmt: skip
        for tick in self.y.ticks:
            x, y = self._xy(self.x.low, tick)
            parts.append(f'<path class="grid" d="M{x:.1f} {y:.1f}H{self.width - _RIGHT}"/>'
                         f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')  # fmt: skip
        middle_x, middle_y = (_LEFT + self.width - _RIGHT) / 2, (_TOP + self.height - _BOTTOM) / 2
        parts.append(f'<text class="axis" x="{middle_x}" y="{self.height - 6}" text-anchor="middle">'
                     f"{escape(self.x.label)}</text>")  # fmt: skip
        parts.append(f'<text class="axis" transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">'
                     f"{escape(self.y.label)}</text>")  # fmt: skip
        return "".join(parts)

    def _xy(self, x: float, y: float) -> tuple[float, float]:
        across, up = self.x.at(np.array(x)), self.y.at(np.array(y))
        return (
            float(_LEFT + across * (self.width - _LEFT - _RIGHT)),
            float(self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM)),
        )

    def _points(self, x: Floats, y: Floats) -> str:
        across = _LEFT + self.x.at(x) * (self.width - _LEFT - _RIGHT)
        down = self.height - _BOTTOM - self.y.at(y) * (self.height - _TOP - _BOTTOM)
        pairs = zip(np.round(across, _DIGITS).tolist(), np.round(down, _DIGITS).tolist(), strict=True)
        return " ".join(f"{a:g},{b:g}" for a, b in pairs)


def even_ticks(low: float, high: float, about: int = 6) -> tuple[float, ...]:
    """Round numbers within [low, high], `about` so many."""
    step = 10.0 ** np.floor(np.log10((high - low) / about))
    step *= min((1, 2, 5, 10), key=lambda factor: abs((high - low) / (factor * step) - about))
    first, last = np.ceil(low / step), np.floor(high / step)
    return tuple(float(np.round(step * number, 10)) for number in np.arange(first, last + 1))
