"""Figures of anomaly maps against masks, from the pixels and lesions of each photograph counted per bin."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import RESAMPLES, Figure, Floats, Labels, Pool, Statistic
from lab.evaluate.metrics.rows import Rows
from resad.errors import SettingError

PRO_LIMIT: Final = 0.3
"""Of the false-positive rate, as everywhere AUPRO is reported (Bergmann et al. 2020, section 4)."""
_COARSE: Final = 2048
"""Bins that are enough for the width of an interval, which rests on few photographs: eight times as fast."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Pixels of each photograph in each bin of `score_edges`.

    Raises `SettingError` if the two differ in shape.
    """

    normal: Rows
    abnormal: Rows

    def __post_init__(self) -> None:
        if self.normal.shape != self.abnormal.shape:
            raise SettingError(f"histograms of shape {self.normal.shape} and {self.abnormal.shape}: must be alike")

    def only(self, chosen: Labels) -> "ScoreHistogram":
        """Of the `chosen` photographs, bool (n,), alone."""
        return ScoreHistogram(self.normal.only(chosen), self.abnormal.only(chosen))


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
    values: NDArray[np.float32], labels: Labels, edges: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One photograph's rows of a `ScoreHistogram`, whole: its normal and abnormal pixels per bin, int64 (bins,).

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


def count_regions(
    values: NDArray[np.float32], lesions: Labels, area: Labels, edges: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Per bin of `edges` the sum over lesions of the share of each one's pixels that lies there: float64 (bins,).

    A lesion is a connected region of `lesions` (corners touch, as in MVTec's own evaluation); of it counts what
    lies in `area`.  All bool or float (H, W).  The sum of the result is the number of lesions that count.
    Raises `SettingError` as `count_pixels`.
    """
    if values.shape != lesions.shape or values.shape != area.shape:
        raise SettingError(f"{values.shape} scores, {lesions.shape} lesions, {area.shape} area: must be alike")
    regions, _ = ndimage.label(lesions, np.ones((3, 3)))
    which = regions[lesions & area]
    sizes = np.bincount(which)
    places = np.searchsorted(edges[1:-1], values[lesions & area], side="right")
    shares: Floats = np.bincount(places, weights=1 / sizes[which], minlength=len(edges) - 1).astype(np.float64)
    return shares


def pixel_auroc(histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES) -> Figure:
    """Area under the ROC curve over all pixels of all photographs, pixels of one bin counting as equal.

    Raises `SettingError` if there are no normal or no abnormal pixels; so do its siblings.
    """
    return _pixel_figure(bootstrap.auroc, histogram.normal, histogram.abnormal, rng, resamples)


def pixel_average_precision(
    histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Average precision over all pixels of all photographs, averaged over all orders within each bin."""
    return _pixel_figure(bootstrap.mixed_average_precision, histogram.normal, histogram.abnormal, rng, resamples)


def pixel_balanced_accuracy(
    histogram: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """The highest (TPR + TNR) / 2 over all pixels that a threshold between two bins reaches."""
    return _pixel_figure(bootstrap.balanced_accuracy, histogram.normal, histogram.abnormal, rng, resamples)


def aupro(
    normal: Rows,
    regions: Rows,
    rng: np.random.Generator,
    limit: float = PRO_LIMIT,
    resamples: int = RESAMPLES,
) -> Figure:
    """Area under the per-region-overlap curve up to a false-positive rate of `limit`, divided by it.

    The mean over all lesions of the share of each that is found, against the share of normal pixels that are
    alarms (Bergmann et al. 2020, section 4).  `normal` as in `ScoreHistogram`, `regions` of `count_regions`.
    """
    if not 0 < limit <= 1:
        raise SettingError(f"limit {limit:g} of the false-positive rate: must be above 0 and at most 1")
    return _pixel_figure(bootstrap.partial_area(limit), normal, regions, rng, resamples)


def pixel_best_threshold(histogram: ScoreHistogram, edges: NDArray[np.float32]) -> float:
    """Where `pixel_balanced_accuracy` is reached: abnormal are the pixels from this edge of the bins on."""
    normal, abnormal = (counts.per_bin()[::-1].cumsum()[::-1] for counts in (histogram.normal, histogram.abnormal))
    return float(edges[int(np.argmax(abnormal / abnormal[0] - normal / normal[0]))])


def paired_pixel_difference(
    a: ScoreHistogram, b: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Pixel AUROC of `a` less that of `b` on the same resamples; their bins may differ, their pixels may not.

    Raises `SettingError` if a photograph has not as many normal and abnormal pixels in one as in the other.
    """
    for left, right in ((a.normal, b.normal), (a.abnormal, b.abnormal)):
        if not np.array_equal(left.per_photo(), right.per_photo()):
            raise SettingError("a paired difference needs the same pixels of the same photographs on both sides")
    pools = whole_pool(a.normal, a.abnormal), whole_pool(b.normal, b.abnormal)
    difference = bootstrap.difference_of(*pools)
    return bootstrap.figure(difference(np.ones((1, a.normal.shape[0])))[0], difference, pools[0], rng, resamples)


def whole_pool(normal: Rows, abnormal: Rows) -> Pool:
    """All bins that hold something, n times as many numbers."""
    return _pool(normal, abnormal, np.arange(normal.shape[1]))


def pixel_pool(normal: Rows, abnormal: Rows) -> Pool:
    """Histograms, or such of regions, in about `_COARSE` bins, which are enough for an interval.

    The first bin is kept apart: it is the zeros.
    """
    bins = normal.shape[1]
    step = -(-(bins - 1) // _COARSE)
    return _pool(normal, abnormal, np.concatenate([[0], 1 + np.arange(bins - 1) // step]))


def _pool(normal: Rows, abnormal: Rows, places: NDArray[np.intp]) -> Pool:
    """With bin b of the histograms in bin `places[b]`, and without bins that nothing is in."""
    sums = _sums(normal, abnormal)
    used = np.bincount(places, weights=sums[0] + sums[1]) > 0
    used[0] = True  # its place matters: `mixed_average_precision` treats the first bin as zeros
    columns, count = (used.cumsum() - 1)[places], int(used.sum())
    return Pool(
        normal.table(columns, count),
        abnormal.table(columns, count),
        normal.per_photo() > 0,
        abnormal.per_photo() > 0,
    )


def _sums(normal: Rows, abnormal: Rows) -> Floats:
    """Over photographs: float64 (2, bins).  Raises `SettingError` where a class is missing."""
    for name, counts in (("normal", normal), ("abnormal", abnormal)):
        if not counts.any():
            raise SettingError(f"no {name} pixels in the test photographs: pixel figures need both")
    return np.stack([normal.per_bin(), abnormal.per_bin()])


def _pixel_figure(
    statistic: Statistic, normal: Rows, abnormal: Rows, rng: np.random.Generator, resamples: int
) -> Figure:
    """The value from all bins; the interval from `_COARSE` of them, moved by what that changes of the value."""
    sums = _sums(normal, abnormal)
    value = float(statistic(sums[:1], sums[1:])[0])
    pool = pixel_pool(normal, abnormal)
    of_weights = pool.under(statistic)
    found = bootstrap.figure(value, of_weights, pool, rng, resamples)
    moved = value - float(of_weights(np.ones((1, normal.shape[0])))[0])
    low, high = np.clip((found.low + moved, found.high + moved), 0, 1)
    return Figure(value, float(low), float(high))
