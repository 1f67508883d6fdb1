"""Curves on logarithmic axes, side by side, as SVG."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Final, NamedTuple

_WIDTH, _HEIGHT, _MARGIN = 380, 300, 56
_COLORS: Final = ("#1b6ca8", "#c8501e", "#3a7d44")


class Series(NamedTuple):
    """One curve; all values above 0."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def chart(across: str, panels: Sequence[tuple[str, Sequence[Series]]]) -> str:
    """A panel for each title with its curves over `across`."""
    body = "".join(
        f'<g transform="translate({number * _WIDTH} 0)">{_panel(across, title, series)}</g>'
        for number, (title, series) in enumerate(panels)
    )
    size = f'width="{len(panels) * _WIDTH}" height="{_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{body}</svg>\n'


def _panel(across: str, title: str, series: Sequence[Series]) -> str:
    x = _Axis([value for one in series for value in one.x], _MARGIN, _WIDTH - 16)
    y = _Axis([value for one in series for value in one.y], _HEIGHT - _MARGIN, 28)
    parts = [f'<text x="{_MARGIN}" y="16" font-weight="bold">{title}</text>']
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 14}" text-anchor="middle">{across}</text>')
    bottom, right = _HEIGHT - _MARGIN, _WIDTH - 16
    for value in x.ticks():
        parts.append(_line(x.at(value), 28, x.at(value), bottom))
        parts.append(f'<text x="{x.at(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:,.4g}</text>')
    for value in y.ticks():
        parts.append(_line(_MARGIN, y.at(value), right, y.at(value)))
        parts.append(f'<text x="{_MARGIN - 6}" y="{y.at(value) + 4:.1f}" text-anchor="end">{value:,.4g}</text>')
    for number, one in enumerate(series):
        points = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(one.x, one.y, strict=True))
        color = _COLORS[number % len(_COLORS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{_MARGIN + 8}" y="{42 + 15 * number}" fill="{color}">{one.name}</text>')
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


class _Axis:
    """Logarithmic, from `low` to `high` px; whole steps of 1, 2 and 5 times powers of ten."""

    def __init__(self, values: Sequence[float], low: float, high: float) -> None:
        self._low, self._high = low, high
        self._begin, self._end = log10(min(values)) - 0.05, log10(max(values)) + 0.05

    def at(self, value: float) -> float:
        return self._low + (log10(value) - self._begin) / (self._end - self._begin) * (self._high - self._low)

    def ticks(self) -> list[float]:
        powers = range(floor(self._begin), ceil(self._end) + 1)
        steps = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        return [value for value in steps if self._begin <= log10(value) <= self._end]
