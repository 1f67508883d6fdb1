"""What was measured -> curves with a 95 % band over photographs, for the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from lab.evaluate import bootstrap, metrics
from lab.evaluate.bootstrap import Floats, Labels, Pool
from lab.evaluate.measured import Measured

_RESAMPLES: Final = 500
"""Of a band, which is read off a picture."""
_GRID: Final = np.linspace(0, 1, 201)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Points (x, y) in order, and at `grid` the band from `low` to `high`; all float64, one dimension."""

    x: Floats
    y: Floats
    grid: Floats
    low: Floats
    high: Floats


def image_roc(measured: Measured) -> Curve:
    """TPR against FPR of image scores."""
    return _with_band(metrics.image_pool(measured.scores, measured.labels), _roc, _RESAMPLES)


def image_precision(measured: Measured) -> Curve:
    """Precision against recall of image scores."""
    return _with_band(metrics.image_pool(measured.scores, measured.labels), _precision, _RESAMPLES)


def pixel_roc(measured: Measured) -> Curve:
    """TPR against FPR of pixels in the field of view."""
    pool = metrics.pixel_pool(measured.fov.normal, measured.fov.abnormal)
    return _with_band(pool, _roc, _RESAMPLES)


def region_overlap(measured: Measured) -> Curve:
    """Mean share of each lesion that is found against the FPR of pixels, in the field of view."""
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
    """In steps, a level up to each recall that is reached: the area below is the average precision."""
    hits, alarms = abnormal[::-1].cumsum(), normal[::-1].cumsum()
    new: Labels = np.diff(hits, prepend=0.0) > 0
    recall, precision = hits[new] / hits[-1], hits[new] / (hits[new] + alarms[new])
    return np.repeat(np.concatenate([[0.0], recall]), 2)[1:-1], np.repeat(precision, 2)
