"""Percentile bootstrap over photographs of statistics that depend on counts per bin alone.

A photograph's scores are counted per bin once; a resample weighs the photographs' counts and adds them up, which
makes thousands of resamples one matrix product.  A resample in which one class is missing is drawn again (Efron
and Tibshirani 1993, chapter 13).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import digamma

from resad.errors import SettingError

RESAMPLES: Final = 2000
_CHUNK: Final = 64
"""Resamples at a time: 8 MB per class at 2**14 bins.  Results depend on it by the order of random numbers."""

_HAIR: Final = 1e-12
"""Tolerance for rates that may differ by rounding."""

_SEED: Final = 0

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Statistic = Callable[[Floats, Floats], Floats]
"""Counts of normal and abnormal per bin, lowest first, each (resamples, bins) -> one value per resample."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval, which has no width where all resamples agree (a perfect AUROC)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Counts per photograph and bin (n, bins), and which photographs have any normal or abnormal ones (n,)."""

    normal: "Floats | csr_array[Any]"
    abnormal: "Floats | csr_array[Any]"
    has_normal: Labels
    has_abnormal: Labels

    def under(self, statistic: Statistic) -> Callable[[Floats], Floats]:
        """`statistic` as a function of how often each photograph is drawn: (resamples, n) -> (resamples,)."""
        return lambda weights: statistic(weights @ self.normal, weights @ self.abnormal)


def fresh_generator() -> np.random.Generator:
    """A generator with the fixed seed: every figure sees the same resamples of photographs."""
    return np.random.default_rng(_SEED)


def figure(
    value: float,
    statistic: Callable[[Floats], Floats],
    pool: Pool,
    rng: np.random.Generator,
    resamples: int,
) -> Figure:
    """`value` with the interval of `statistic` over resamples of the pool's photographs."""
    if resamples < 1:
        raise SettingError(f"{resamples} resamples: must be 1 or more")
    values = np.concatenate([statistic(weights) for weights in resampled(pool, rng, resamples)])
    low, high = np.percentile(values, (2.5, 97.5))
    return Figure(float(value), float(low), float(high))


def resampled(pool: Pool, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """How often each photograph is drawn, (at most `_CHUNK`, n) at a time, with both classes in every resample."""
    n = len(pool.has_normal)
    even = np.full(n, 1 / n)
    for start in range(0, resamples, _CHUNK):
        weights = rng.multinomial(n, even, size=min(_CHUNK, resamples - start))
        while len(lacking := _lacking(weights, pool)):
            weights[lacking] = rng.multinomial(n, even, size=len(lacking))
        yield weights.astype(np.float64)


def _lacking(weights: NDArray[np.int64], pool: Pool) -> NDArray[np.intp]:
    normal, abnormal = (weights[:, has].any(axis=1) for has in (pool.has_normal, pool.has_abnormal))
    return np.flatnonzero(~(normal & abnormal))


def difference_of(a: Pool, b: Pool) -> Callable[[Floats], Floats]:
    """AUROC of `a` less that of `b`, for the same weights of the same photographs."""
    auroc_a, auroc_b = a.under(auroc), b.under(auroc)
    return lambda weights: auroc_a(weights) - auroc_b(weights)


def _from_top(counts: Floats) -> Floats:
    """Counts in each bin and above."""
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1]


def auroc(normal: Floats, abnormal: Floats) -> Floats:
    """Area under the ROC curve, with ties within a bin."""
    below = normal.cumsum(axis=1) - normal / 2
    pairs = normal.sum(axis=1) * abnormal.sum(axis=1)
    return np.asarray((abnormal * below).sum(axis=1) / pairs)


def average_precision(normal: Floats, abnormal: Floats) -> Floats:
    """Average precision with the counts of a bin taken together."""
    hits, positives = _from_top(abnormal), _from_top(normal + abnormal)
    return np.asarray((abnormal * hits / np.maximum(positives, 1)).sum(axis=1) / hits[:, 0])


def mixed_average_precision(normal: Floats, abnormal: Floats) -> Floats:
    """As `average_precision`, but a bin's pixels enter one by one: the mean over all orders within the bins.

    That makes the error of the binning second order.  Only the first bin, of zeros, is a true tie.
    With h hits among the n pixels above it, the t-th of a bin's m pixels, if a hit, is expected to bring the
    precision to (h + 1 + c (t - 1)) / (n + t), c = (a - 1) / (m - 1); summed over t by the digamma function.
    """
    total = normal + abnormal
    hits, positives = _from_top(abnormal), _from_top(total)
    n, h = positives - total, hits - abnormal
    c = np.maximum(abnormal - 1, 0) / np.maximum(total - 1, 1)
    sums = digamma(positives + 1) - digamma(n + 1)
    precision = c + (h + 1 - c * (n + 1)) * sums / np.maximum(total, 1)
    precision[:, 0] = hits[:, 0] / positives[:, 0]
    return np.asarray((abnormal * precision).sum(axis=1) / hits[:, 0])


def balanced_accuracy(normal: Floats, abnormal: Floats) -> Floats:
    """The highest (TPR + TNR) / 2 that a threshold between two bins reaches."""
    hits, alarms = _from_top(abnormal), _from_top(normal)
    margin = (hits / hits[:, :1] - alarms / alarms[:, :1]).max(axis=1)
    return np.asarray((1 + margin) / 2)  # the first column is the threshold that takes all: never below one half


def specificity_at(sensitivity: float) -> Statistic:
    """The highest TNR of a threshold between two bins whose TPR is at least `sensitivity`, in (0, 1]."""

    def statistic(normal: Floats, abnormal: Floats) -> Floats:
        hits, alarms = _from_top(abnormal), _from_top(normal)
        enough = hits >= (sensitivity - _HAIR) * hits[:, :1]
        # Alarms only rise towards lower thresholds: the fewest are at the highest threshold that finds enough.
        fewest = np.where(enough, alarms, np.inf).min(axis=1)
        return np.asarray(1 - fewest / alarms[:, 0])

    return statistic


def partial_area(limit: float) -> Statistic:
    """Area under the ROC curve up to the false-positive rate `limit`, as a share of `limit`, in (0, 1].

    With a histogram of regions (`metrics.count_regions`) for the abnormal this is AUPRO (Bergmann et al. 2020).
    Between two thresholds the curve is a straight line, as everywhere here.
    """

    def statistic(normal: Floats, abnormal: Floats) -> Floats:
        x, y = _curve(normal), _curve(abnormal)
        start, end = np.minimum(x[:, :-1], limit), np.minimum(x[:, 1:], limit)
        rise = np.diff(y, axis=1) / np.maximum(np.diff(x, axis=1), _HAIR)
        middle = y[:, :-1] + rise * ((start + end) / 2 - x[:, :-1])
        return np.asarray((middle * (end - start)).sum(axis=1) / limit)

    return statistic


def _curve(counts: Floats) -> Floats:
    """The share of counts in the highest 0, 1, ... bins: (resamples, bins + 1)."""
    cumulative = counts[:, ::-1].cumsum(axis=1)
    return np.concatenate([np.zeros((len(cumulative), 1)), cumulative / cumulative[:, -1:]], axis=1)
