"""Charts of the report as SVG: ROC, precision and recall, region overlap, FROC, histograms of scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from lab.evaluate import bootstrap, metrics
from lab.evaluate.bootstrap import Figure, Floats, Labels, Pool
from lab.evaluate.figures import Figures
from lab.evaluate.froc import ALL, ShareCurve, froc_curves, lesion_group_name
from lab.evaluate.measuring import Measurement
from lab.evaluate.metrics import PRO_LIMIT
from resad.calibration import Calibration
from resad.false_regions import RATES

_RESAMPLES: Final = 500
"""Of a band, which is read off a picture."""
_GRID: Final = np.linspace(0, 1, 201)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A curve through points (x, y) with a 95 % band from `low` to `high` at x = `grid`; all float64 (n,)."""

    x: Floats
    y: Floats
    grid: Floats
    low: Floats
    high: Floats


def image_roc(measured: Measurement) -> Curve:
    """TPR against FPR of image scores."""
    return _with_band(metrics.image_pool(measured.scores, measured.labels), _roc, _RESAMPLES)


def image_precision(measured: Measurement) -> Curve:
    """Precision against recall of image scores."""
    return _with_band(metrics.image_pool(measured.scores, measured.labels), _precision, _RESAMPLES)


def pixel_roc(measured: Measurement) -> Curve:
    """TPR against FPR of pixels in the field of view."""
    pool = metrics.pixel_pool(measured.fov.normal, measured.fov.abnormal)
    return _with_band(pool, _roc, _RESAMPLES)


def region_overlap(measured: Measurement) -> Curve:
    """Mean share of each lesion above the threshold against the FPR of pixels, in the field of view."""
    pool = metrics.pixel_pool(measured.fov.normal, measured.fov_regions)
    return _with_band(pool, _roc, _RESAMPLES)


_Points = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Counts of normal and abnormal per bin, lowest first, (bins,) -> x and y of the curve, x rising."""


def _with_band(pool: Pool, points: _Points, resamples: int) -> Curve:
    rows = [
        np.interp(_GRID, *points(normal, abnormal))
        for weights in bootstrap.resampled(pool, bootstrap.fresh_generator(), resamples)
        for normal, abnormal in zip(_dense(weights, pool.normal), _dense(weights, pool.abnormal), strict=True)
    ]
    low, high = np.percentile(np.array(rows), (2.5, 97.5), axis=0)
    once = np.ones((1, len(pool.has_normal)))
    x, y = points(_dense(once, pool.normal)[0], _dense(once, pool.abnormal)[0])
    return Curve(x, y, _GRID, low, high)


def _dense(weights: Floats, counts: "Floats | csr_array[np.float64]") -> Floats:
    return np.asarray(weights @ counts)


def _roc(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    x, y = (np.concatenate([[0.0], counts[::-1].cumsum() / counts.sum()]) for counts in (normal, abnormal))
    return x, y


def _precision(normal: Floats, abnormal: Floats) -> tuple[Floats, Floats]:
    """Precision against recall in steps: the area below is the average precision."""
    hits, alarms = abnormal[::-1].cumsum(), normal[::-1].cumsum()
    new: Labels = np.diff(hits, prepend=0.0) > 0
    recall, precision = hits[new] / hits[-1], hits[new] / (hits[new] + alarms[new])
    return np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2)


_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44
_DIGITS: Final = 1
"""Of coordinates, px: enough for the eye, and half the file."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`, with a number at each of `ticks`; `octaves`: each doubling takes the same length."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    octaves: bool = False

    def at(self, values: Floats) -> Floats:
        """Positions of values along the axis, 0 to 1."""
        if self.octaves:
            return np.asarray(np.log2(values / self.low) / np.log2(self.high / self.low))
        return (values - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Chart:
    """A frame of `width` x `height` px to draw in."""

    x: Axis
    y: Axis
    width: int = 420
    height: int = 340

    def line(self, x: Floats, y: Floats, kind: str) -> str:
        """A line through points."""
        return f'<polyline class="{kind}" points="{self._points(x, y)}"/>'

    def area(self, x: Floats, low: Floats, high: Floats, kind: str) -> str:
        """The area between two lines over the same x."""
        upper, lower = self._points(x, high), self._points(x[::-1], low[::-1])
        return f'<polygon class="{kind}" points="{upper} {lower}"/>'

    def steps(self, edges: Floats, heights: Floats, kind: str) -> str:
        """A histogram: `heights` (n,) over `edges` (n + 1,)."""
        x = np.repeat(edges, 2)
        y = np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])
        return f'<polygon class="{kind}" points="{self._points(x, y)}"/>'

    def ticks_on_x(self, x: Floats, y: float, length: int, kind: str) -> str:
        """A short vertical stroke below y at each x."""
        top = self._points(x, np.full(len(x), y)).split()
        return "".join(f'<path class="{kind}" d="M{point.replace(",", " ")}v{length}"/>' for point in top)

    def rule(self, x: float, text: str) -> str:
        """A vertical line through the whole chart with a label at its top."""
        (left, bottom), (_, top) = self._xy(x, self.y.low), self._xy(x, self.y.high)
        anchor, shift = ("end", -6) if self.x.at(np.array(x)) > 0.6 else ("start", 6)
        return (
            f'<path class="rule" d="M{left:.1f} {bottom:.1f}V{top:.1f}"/>'
            f'<text class="note" x="{left + shift:.1f}" y="{top + 12:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def svg(self, marks: Sequence[str], title: str) -> str:
        """The chart as SVG; `title` is for screen readers."""
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


_FROC_RATES: Final = np.geomspace(min(RATES), max(RATES), 41)
_FIFTHS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_POINTS: Final = 400
_BINS: Final = 24


def roc_chart(curve: Curve, title: str) -> str:
    """TPR against FPR with the diagonal of chance."""
    chart = Chart(Axis("false-positive rate", 0, 1, _FIFTHS), Axis("true-positive rate", 0, 1, _FIFTHS))
    ends = np.array([0.0, 1.0])
    return chart.svg([*_band_and_line(chart, curve), chart.line(ends, ends, "chance")], title)


def precision_chart(curve: Curve, prevalence: float, title: str) -> str:
    """Precision against recall with the level that chance reaches."""
    chart = Chart(Axis("recall", 0, 1, _FIFTHS), Axis("precision", 0, 1, _FIFTHS))
    chance = chart.line(np.array([0.0, 1.0]), np.full(2, prevalence), "chance")
    return chart.svg([*_band_and_line(chart, curve), chance], title)


def overlap_chart(curve: Curve, title: str) -> str:
    """Mean share of each lesion above the threshold against the FPR, up to the limit of AUPRO."""
    chart = Chart(
        Axis("false-positive rate of pixels", 0, PRO_LIMIT, (0, 0.1, 0.2, 0.3)),
        Axis("share of each lesion found", 0, 1, _FIFTHS),
    )
    chance = chart.line(np.array([0.0, PRO_LIMIT]), np.array([0.0, PRO_LIMIT]), "chance")
    return chart.svg([*_band_and_line(chart, _until(curve, PRO_LIMIT)), chance], title)


def score_chart(measured: Measurement, figures: Figures) -> str:
    """Histograms of normal and abnormal image scores with the index's own threshold."""
    scores, labels = measured.scores, measured.labels
    limit = None if figures.calibrated is None else figures.calibrated.threshold
    values = [*scores.tolist(), *([] if limit is None else [limit])]
    margin = 0.04 * (max(values) - min(values)) or 0.1 * max(abs(values[0]), 1e-6)
    low, high = min(values) - margin, max(values) + margin
    edges = np.linspace(low, high, _BINS + 1)
    normal, abnormal = (np.histogram(scores[mask], edges)[0].astype(float) for mask in (~labels, labels))
    top = float(max(normal.max(), abnormal.max(), 1))
    wholes = tuple(tick for tick in even_ticks(0, top, 4) if tick == int(tick))
    chart = Chart(
        Axis("image score", low, high, even_ticks(low, high, 8)),
        Axis("photographs", -0.14 * top, 1.12 * top, wholes),
        width=880,
        height=300,
    )
    marks = [chart.steps(edges, normal, "normal"), chart.steps(edges, abnormal, "abnormal")]
    marks += [
        chart.ticks_on_x(scores[~labels], -0.02 * top, 8, "rug-normal"),
        chart.ticks_on_x(scores[labels], -0.07 * top, 8, "rug-abnormal"),
    ]
    if figures.calibrated is not None:
        fpr, limit = figures.calibrated.fpr, figures.calibrated.threshold
        marks.append(chart.rule(limit, f"threshold for {fpr:.0%}: {limit:#.4g}"))
    return chart.svg(marks, "Histograms of image scores")


def interval(figure: Figure) -> str:
    """`0.847 (0.726 to 0.947)`."""
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def image_charts(measured: Measurement, figures: Figures) -> list[tuple[str, str]]:
    """Caption and SVG of each chart that has figures."""
    charts = []
    if figures.image is not None:
        image = figures.image
        charts.append((f"Image scores: AUROC {interval(image.auroc)}",
                      roc_chart(image_roc(measured), "ROC curve of image scores")))  # fmt: skip
        share = float(measured.labels.mean())
        charts.append((f"Image scores: average precision {interval(image.average_precision)}",
                      precision_chart(image_precision(measured), share, "Precision")))  # fmt: skip
    if figures.pixel is not None:
        fov = figures.pixel.fov
        charts.append((f"Pixels in the field of view: AUROC {interval(fov.auroc)}",
                      roc_chart(pixel_roc(measured), "ROC curve of pixels")))  # fmt: skip
        charts.append((f"Lesions in the field of view: AUPRO {interval(fov.aupro)}",
                      overlap_chart(region_overlap(measured), "Region overlap")))  # fmt: skip
    return charts


def froc_charts(measured: Measurement, figures: Figures, calibration: Calibration) -> list[tuple[str, str]]:
    """Caption and SVG of the FROC: lesions by size and by kind, and photographs with a lesion touched."""
    if figures.froc is None:
        return []
    curves = froc_curves(
        measured.lesion_regions, measured.labels, calibration.finding_levels, _FROC_RATES, _RESAMPLES
    )
    charts = []
    for curve in curves:
        if curve.kind != ALL and (curve.of_photos or curve.smallest_px):
            continue  # in the table
        name = lesion_group_name(curve.kind, curve.smallest_px)
        caption = f"FROC: photographs with {name} touched" if curve.of_photos else f"FROC: {name} touched"
        charts.append((caption, _froc_chart(curve, caption)))
    return charts


def _froc_chart(curve: ShareCurve, title: str) -> str:
    chart = Chart(
        Axis("false regions per healthy photograph", min(RATES), max(RATES), RATES, octaves=True),
        Axis("share of photographs" if curve.of_photos else "share of lesions", 0, 1, _FIFTHS),
    )
    marks = [
        chart.area(curve.rates, curve.low, curve.high, "band"),
        chart.line(curve.rates, curve.share, "curve"),
    ]
    return chart.svg(marks, title)


def _band_and_line(chart: Chart, curve: Curve) -> list[str]:
    thin = _thinned(curve)
    return [chart.area(curve.grid, curve.low, curve.high, "band"), chart.line(*thin, "curve")]


def _thinned(curve: Curve) -> tuple[Floats, Floats]:
    """At most `_MOST_POINTS` of the points, evenly along the curve's length."""
    if len(curve.x) <= _MOST_POINTS:
        return curve.x, curve.y
    length = np.concatenate([[0.0], np.hypot(np.diff(curve.x), np.diff(curve.y)).cumsum()])
    numbers = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _MOST_POINTS)))
    return curve.x[numbers], curve.y[numbers]


def _until(curve: Curve, limit: float) -> Curve:
    inside, near = curve.x < limit, curve.grid <= limit + 1e-9
    x = np.append(curve.x[inside], limit)
    y = np.append(curve.y[inside], np.interp(limit, curve.x, curve.y))
    return Curve(x, y, curve.grid[near], curve.low[near], curve.high[near])
