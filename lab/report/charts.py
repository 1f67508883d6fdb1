"""The report's charts: ROC, precision and recall, region overlap, and the scores of both kinds."""

from typing import Final

import numpy as np

from lab.evaluate import curves
from lab.evaluate.bootstrap import Figure, Floats
from lab.evaluate.curves import Curve
from lab.evaluate.figures import Figures
from lab.evaluate.measured import Measured
from lab.evaluate.metrics import PRO_LIMIT
from lab.report.svg import Axis, Chart, even_ticks

_FIFTHS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_POINTS: Final = 400
_BINS: Final = 24


def roc_chart(curve: Curve, title: str) -> str:
    """TPR against FPR with the diagonal of chance."""
    chart = Chart(Axis("false-positive rate", 0, 1, _FIFTHS), Axis("true-positive rate", 0, 1, _FIFTHS))
    ends = np.array([0.0, 1.0])
    return chart.drawn([*_band_and_line(chart, curve), chart.line(ends, ends, "chance")], title)


def precision_chart(curve: Curve, prevalence: float, title: str) -> str:
    """Precision against recall with the level that chance reaches."""
    chart = Chart(Axis("recall", 0, 1, _FIFTHS), Axis("precision", 0, 1, _FIFTHS))
    chance = chart.line(np.array([0.0, 1.0]), np.full(2, prevalence), "chance")
    return chart.drawn([*_band_and_line(chart, curve), chance], title)


def overlap_chart(curve: Curve, title: str) -> str:
    """Share of each lesion found against the FPR; beyond the limit of AUPRO nothing is shown."""
    chart = Chart(
        Axis("false-positive rate of pixels", 0, PRO_LIMIT, (0, 0.1, 0.2, 0.3)),
        Axis("share of each lesion found", 0, 1, _FIFTHS),
    )
    chance = chart.line(np.array([0.0, PRO_LIMIT]), np.array([0.0, PRO_LIMIT]), "chance")
    return chart.drawn([*_band_and_line(chart, _until(curve, PRO_LIMIT)), chance], title)


def score_chart(measured: Measured, figures: Figures) -> str:
    """How many photographs of both kinds have which image score, and the index's own threshold."""
    scores, labels = measured.scores, measured.labels
    limit = None if figures.calibrated is None else figures.calibrated.threshold
    shown = [*scores.tolist(), *([] if limit is None else [limit])]
    room = 0.04 * (max(shown) - min(shown)) or 0.1 * max(abs(shown[0]), 1e-6)
    low, high = min(shown) - room, max(shown) + room
    edges = np.linspace(low, high, _BINS + 1)
    normal, abnormal = (np.histogram(scores[chosen], edges)[0].astype(float) for chosen in (~labels, labels))
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
        own = figures.calibrated
        marks.append(chart.rule(own.threshold, f"threshold for {own.fpr:.0%}: {own.threshold:#.4g}"))
    return chart.drawn(marks, "Histograms of image scores")


def interval(figure: Figure) -> str:
    """`0.847 (0.726 to 0.947)`."""
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def image_charts(measured: Measured, figures: Figures) -> list[tuple[str, str]]:
    """Caption and SVG of each, as far as there are figures for them."""
    found = []
    if figures.image is not None:
        image = figures.image
        found.append((f"Image scores: AUROC {interval(image.auroc)}",
                      roc_chart(curves.image_roc(measured), "ROC curve of image scores")))  # fmt: skip
        share = float(measured.labels.mean())
        found.append((f"Image scores: average precision {interval(image.average_precision)}",
                      precision_chart(curves.image_precision(measured), share, "Precision")))  # fmt: skip
    if figures.pixel is not None:
        fov = figures.pixel.fov
        found.append((f"Pixels in the field of view: AUROC {interval(fov.auroc)}",
                      roc_chart(curves.pixel_roc(measured), "ROC curve of pixels")))  # fmt: skip
        found.append((f"Lesions in the field of view: AUPRO {interval(fov.aupro)}",
                      overlap_chart(curves.region_overlap(measured), "Region overlap")))  # fmt: skip
    return found


def _band_and_line(chart: Chart, curve: Curve) -> list[str]:
    thin = _thinned(curve)
    return [chart.area(curve.grid, curve.low, curve.high, "band"), chart.line(*thin, "curve")]


def _thinned(curve: Curve) -> tuple[Floats, Floats]:
    """At most `_MOST_POINTS` of the points, evenly along the curve's length."""
    if len(curve.x) <= _MOST_POINTS:
        return curve.x, curve.y
    length = np.concatenate([[0.0], np.hypot(np.diff(curve.x), np.diff(curve.y)).cumsum()])
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _MOST_POINTS)))
    return curve.x[chosen], curve.y[chosen]


def _until(curve: Curve, limit: float) -> Curve:
    inside, near = curve.x < limit, curve.grid <= limit + 1e-9
    x = np.append(curve.x[inside], limit)
    y = np.append(curve.y[inside], np.interp(limit, curve.x, curve.y))
    return Curve(x, y, curve.grid[near], curve.low[near], curve.high[near])
