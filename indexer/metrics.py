"""How well scores separate normal from abnormal, with 95 % intervals.

The unit that is resampled is always the photograph, as the pixels of one photograph are far from independent
(percentile bootstrap; Efron and Tibshirani 1993, chapter 13).  A resample in which one class is missing is
drawn again.  Equal generators give equal resamples for every image figure of the same photographs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import digamma
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from resad.errors import SettingError

RESAMPLES: Final = 2000
_CHUNK: Final = 64
"""Resamples held at a time: 8 MB per class at 2**14 bins.  Part of what makes a result repeatable."""

_Floats = NDArray[np.float64]
_Labels = NDArray[np.bool_]
_Statistic = Callable[[_Floats, _Floats], _Floats]
"""Counts of normal and abnormal per bin, lowest first, each (resamples, bins) -> one value per resample."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval, which has no width where all resamples agree (a perfect AUROC)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Pixels of each photograph in each bin of `score_edges`: int64 (n_photos, bins), lowest bin first.

    Raises `SettingError` if the two differ in shape.
    """

    normal: NDArray[np.int64]
    abnormal: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.normal.ndim != 2 or self.normal.shape != self.abnormal.shape:
            raise SettingError(f"histograms of shape {self.normal.shape} and {self.abnormal.shape}: must be alike")


def image_auroc(scores: _Floats, labels: _Labels, rng: np.random.Generator, resamples: int = RESAMPLES) -> Figure:
    """Area under the ROC curve of image scores (n,) against `labels` (n,), True where abnormal.

    Raises `SettingError` if a class is missing, a score is not finite or the shapes differ; so do the others.
    """
    pool = _image_pool(scores, labels)
    return _figure(roc_auc_score(labels, scores), pool.under(_auroc), pool, rng, resamples)


def average_precision(
    scores: _Floats, labels: _Labels, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Average precision of image scores (n,), equal scores entering together."""
    pool = _image_pool(scores, labels)
    value = average_precision_score(labels, scores)
    return _figure(value, pool.under(_average_precision), pool, rng, resamples)


def balanced_accuracy(
    scores: _Floats, labels: _Labels, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """The highest (TPR + TNR) / 2 any threshold reaches: it flatters, and each resample picks its own."""
    pool = _image_pool(scores, labels)
    false_rate, true_rate, _ = roc_curve(labels, scores)
    value = (1 + (true_rate - false_rate).max()) / 2
    return _figure(value, pool.under(_balanced_accuracy), pool, rng, resamples)


def balanced_accuracy_at(
    scores: _Floats, labels: _Labels, threshold: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """(TPR + TNR) / 2 where every image score above `threshold` is called abnormal."""
    _check_images(scores, labels)
    # The ROC curve of a yes-or-no answer is two straight lines; the area under them is the balanced accuracy.
    return image_auroc((scores > threshold).astype(np.float64), labels, rng, resamples)


def paired_difference(
    scores_a: _Floats,
    scores_b: _Floats,
    labels: _Labels,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Figure:
    """Image AUROC of `scores_a` less that of `scores_b` (n,), same photographs and same resamples."""
    a, b = _image_pool(scores_a, labels), _image_pool(scores_b, labels)
    value = roc_auc_score(labels, scores_a) - roc_auc_score(labels, scores_b)
    return _figure(value, _difference(a, b), a, rng, resamples)


def score_edges(full_scale: float, bins: int = 2**14) -> NDArray[np.float32]:
    """Edges of `bins` bins over the patch scores [0, full_scale): float32 (bins + 1,), squares of even steps.

    Squares, because the scale has to be fixed before the scores are known: with a `full_scale` 20 times too
    large even steps leave 800 bins to work with, squares 3600.  The first bin holds hardly more than zeros.
    Measured on drawn scores with the full scale up to 4 times the highest score: pixel AUROC within 3e-5 and
    average precision within 2e-4 of the figures without bins; at 20 times, within 1e-4 and 4e-4.
    """
    if not 0 < full_scale < np.inf or bins < 2:
        raise SettingError(f"full scale {full_scale} in {bins} bins: must be above 0, in 2 bins or more")
    return (full_scale * np.linspace(0, 1, bins + 1) ** 2).astype(np.float32)


def count_pixels(
    values: NDArray[np.float32], labels: _Labels, edges: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One photograph's rows of a `ScoreHistogram`: its normal and abnormal pixels per bin, int64 (bins,).

    `values` and `labels` (True where abnormal) share any shape: a whole map, or the pixels inside the field
    of view.  The first and the last bin also take what lies below and beyond the scale.
    Raises `SettingError` if the shapes differ or a value is not finite.
    """
    if values.shape != labels.shape:
        raise SettingError(f"{values.shape} scores for {labels.shape} labels: must be alike")
    if not np.isfinite(values).all():
        raise SettingError("an anomaly map holds a value that is not finite")
    places = np.searchsorted(edges[1:-1], values, side="right")
    normal, abnormal = (np.bincount(places[chosen], minlength=len(edges) - 1) for chosen in (~labels, labels))
    return normal.astype(np.int64), abnormal.astype(np.int64)


def pixel_auroc(histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES) -> Figure:
    """Area under the ROC curve over all pixels of all photographs, pixels of one bin counting as equal.

    Raises `SettingError` if there are no normal or no abnormal pixels; so do its siblings.
    """
    return _pixel_figure(_auroc, histogram, rng, resamples)


def pixel_average_precision(
    histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Average precision over all pixels of all photographs, averaged over all orders within each bin."""
    return _pixel_figure(_mixed_average_precision, histogram, rng, resamples)


def pixel_balanced_accuracy(
    histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """The highest (TPR + TNR) / 2 over all pixels that a threshold between two bins reaches."""
    return _pixel_figure(_balanced_accuracy, histogram, rng, resamples)


def paired_pixel_difference(
    a: ScoreHistogram, b: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Pixel AUROC of `a` less that of `b` on the same resamples; their bins may differ, their pixels may not.

    Raises `SettingError` if a photograph has not as many normal and abnormal pixels in one as in the other.
    """
    pools = _pixel_pool(a), _pixel_pool(b)
    for left, right in ((a.normal, b.normal), (a.abnormal, b.abnormal)):
        if not np.array_equal(left.sum(axis=1), right.sum(axis=1)):
            raise SettingError("a paired difference needs the same pixels of the same photographs on both sides")
    difference = _difference(*pools)
    return _figure(difference(np.ones((1, len(a.normal))))[0], difference, pools[0], rng, resamples)


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Counts per photograph and bin (n, bins), summed over each resample, and who has any of each (n,)."""

    normal: "_Floats | csr_array[Any]"
    abnormal: "_Floats | csr_array[Any]"
    has_normal: _Labels
    has_abnormal: _Labels

    def under(self, statistic: _Statistic) -> Callable[[_Floats], _Floats]:
        """`statistic` as a function of how often each photograph is drawn: (resamples, n) -> (resamples,)."""
        return lambda weights: statistic(weights @ self.normal, weights @ self.abnormal)


def _difference(a: _Pool, b: _Pool) -> Callable[[_Floats], _Floats]:
    auroc_a, auroc_b = a.under(_auroc), b.under(_auroc)
    return lambda weights: auroc_a(weights) - auroc_b(weights)


def _check_images(scores: _Floats, labels: _Labels) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise SettingError(f"{scores.shape} image scores for {labels.shape} labels: must be alike")
    if not np.isfinite(scores).all():
        raise SettingError(f"the image score of photograph {np.argmin(np.isfinite(scores))} is not finite")
    for name, missing in (("normal", labels.all()), ("abnormal", not labels.any())):
        if missing:
            raise SettingError(f"no {name} test photographs: image figures need both")


def _image_pool(scores: _Floats, labels: _Labels) -> _Pool:
    """One bin per distinct score, so that nothing is lost; sparse, as each photograph has a single one."""
    _check_images(scores, labels)
    distinct, places = np.unique(scores, return_inverse=True)
    rows, shape = np.arange(len(scores)), (len(scores), len(distinct))
    normal, abnormal = (csr_array((np.where(c, 1.0, 0.0), (rows, places)), shape=shape) for c in (~labels, labels))
    return _Pool(normal, abnormal, ~labels, labels)


def _pixel_pool(histogram: ScoreHistogram) -> _Pool:
    normal, abnormal = histogram.normal, histogram.abnormal
    for name, counts in (("normal", normal), ("abnormal", abnormal)):
        if not counts.any():
            raise SettingError(f"no {name} pixels in the test photographs: pixel figures need both")
    used = (normal.sum(axis=0) + abnormal.sum(axis=0)) > 0
    used[0] = True  # its place matters: `_mixed_average_precision` treats the first bin as zeros
    return _Pool(
        normal[:, used].astype(np.float64),
        abnormal[:, used].astype(np.float64),
        normal.sum(axis=1) > 0,
        abnormal.sum(axis=1) > 0,
    )


def _pixel_figure(
    statistic: _Statistic, histogram: ScoreHistogram, rng: np.random.Generator, resamples: int
) -> Figure:
    pool = _pixel_pool(histogram)
    of_weights = pool.under(statistic)
    return _figure(of_weights(np.ones((1, len(histogram.normal))))[0], of_weights, pool, rng, resamples)


def _figure(
    value: float,
    statistic: Callable[[_Floats], _Floats],
    pool: _Pool,
    rng: np.random.Generator,
    resamples: int,
) -> Figure:
    if resamples < 1:
        raise SettingError(f"{resamples} resamples: must be 1 or more")
    values = np.concatenate([statistic(weights) for weights in _resamples(pool, rng, resamples)])
    low, high = np.percentile(values, (2.5, 97.5))
    return Figure(float(value), float(low), float(high))


def _resamples(pool: _Pool, rng: np.random.Generator, resamples: int) -> Iterator[_Floats]:
    """How often each photograph is drawn, (at most `_CHUNK`, n) at a time, both classes always among them."""
    n = len(pool.has_normal)
    even = np.full(n, 1 / n)
    for start in range(0, resamples, _CHUNK):
        weights = rng.multinomial(n, even, size=min(_CHUNK, resamples - start))
        while len(lacking := _lacking(weights, pool)):
            weights[lacking] = rng.multinomial(n, even, size=len(lacking))
        yield weights.astype(np.float64)


def _lacking(weights: NDArray[np.int64], pool: _Pool) -> NDArray[np.intp]:
    normal, abnormal = (weights[:, has].any(axis=1) for has in (pool.has_normal, pool.has_abnormal))
    return np.flatnonzero(~(normal & abnormal))


def _from_top(counts: _Floats) -> _Floats:
    """How many lie in each bin and above."""
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1]


def _auroc(normal: _Floats, abnormal: _Floats) -> _Floats:
    below = normal.cumsum(axis=1) - normal / 2
    pairs = normal.sum(axis=1) * abnormal.sum(axis=1)
    return np.asarray((abnormal * below).sum(axis=1) / pairs)


def _average_precision(normal: _Floats, abnormal: _Floats) -> _Floats:
    hits, taken = _from_top(abnormal), _from_top(normal + abnormal)
    return np.asarray((abnormal * hits / np.maximum(taken, 1)).sum(axis=1) / hits[:, 0])


def _mixed_average_precision(normal: _Floats, abnormal: _Floats) -> _Floats:
    """As `_average_precision`, but a bin's pixels enter one by one: the mean over all orders within the bins.

    That makes the error of the binning second order.  Only the first bin, of zeros, is a true tie.
    With h hits among the n pixels above it, the t-th of a bin's m pixels, if a hit, is expected to bring the
    precision to (h + 1 + c (t - 1)) / (n + t), c = (a - 1) / (m - 1); summed over t by the digamma function.
    """
    both = normal + abnormal
    hits, taken = _from_top(abnormal), _from_top(both)
    n, h = taken - both, hits - abnormal
    c = np.maximum(abnormal - 1, 0) / np.maximum(both - 1, 1)
    sums = digamma(taken + 1) - digamma(n + 1)
    precision = c + (h + 1 - c * (n + 1)) * sums / np.maximum(both, 1)
    precision[:, 0] = hits[:, 0] / taken[:, 0]
    return np.asarray((abnormal * precision).sum(axis=1) / hits[:, 0])


def _balanced_accuracy(normal: _Floats, abnormal: _Floats) -> _Floats:
    hits, alarms = _from_top(abnormal), _from_top(normal)
    margin = (hits / hits[:, :1] - alarms / alarms[:, :1]).max(axis=1)
    return np.asarray((1 + margin) / 2)  # the first column is the threshold that takes all: never below one half
