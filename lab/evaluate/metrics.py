"""How well scores separate normal from abnormal, with 95 % intervals.

Image metrics take one score and one label per photograph; pixel metrics take histograms of anomaly maps against
masks.  The unit that is resampled is always the photograph, because the pixels of one photograph are far from
independent (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).  Equal generators give equal resamples
for every image metric of the same photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import RESAMPLES, Figure, Floats, Labels, Pool, Statistic
from resad.errors import SettingError


@dataclass(frozen=True, slots=True, eq=False)
class SparseCounts:
    """Counts per photograph and bin, (n, bins), lowest bin first.

    Most counts are 0: a normal photograph has no lesion, and a map has its own range.  Ten thousand photographs
    fit into memory, a tenth of what a dense table takes.

    matrix: int32 for pixels, float64 for regions.
    """

    matrix: "csr_array[Any]"

    @classmethod
    def of(cls, table: "NDArray[np.int64] | Floats") -> Self:
        """The same as a dense `table` (n, bins)."""
        builder = SparseCountsBuilder(table.shape[1])
        for row in table:
            builder.add(row)
        return cls(builder.build().matrix)

    @property
    def shape(self) -> tuple[int, int]:
        """Photographs and bins."""
        photos, bins = self.matrix.shape
        return photos, bins

    def any(self) -> bool:
        """Whether any count is above 0."""
        return self.matrix.nnz > 0

    def per_bin(self) -> Floats:
        """Sums over photographs: float64 (bins,)."""
        return np.asarray(np.ones(self.shape[0]) @ self.matrix, dtype=np.float64)

    def per_photo(self) -> Floats:
        """Sums over bins: float64 (n,)."""
        return np.asarray(self.matrix @ np.ones(self.shape[1]), dtype=np.float64)

    def only(self, mask: Labels) -> "SparseCounts":
        """The counts of the photographs of `mask`, bool (n,)."""
        return SparseCounts(self.matrix[mask])

    def row(self, number: int) -> Floats:
        """The counts of a photograph: float64 (1, bins)."""
        return np.asarray(self.matrix[[number]].toarray(), dtype=np.float64)

    def table(self, columns: NDArray[np.intp], count: int) -> Floats:
        """A dense float64 (n, count), with bin b added to column `columns[b]`."""
        matrix = self.matrix
        merged = csr_array(
            (matrix.data.astype(np.float64), columns[matrix.indices], matrix.indptr),
            shape=(matrix.shape[0], count),
        )
        return np.asarray(merged.toarray())


class SparseCountsBuilder:
    """Collects `SparseCounts` photograph by photograph."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._columns: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int32 | np.float64]] = []

    def add(self, row: "NDArray[np.int64] | Floats") -> None:
        """Add the next photograph's counts (bins,), none negative."""
        columns = np.flatnonzero(row)
        self._columns.append(columns.astype(np.int32))
        # A photograph has fewer than 2**31 pixels.
        kind = np.float64 if row.dtype == np.float64 else np.int32
        self._counts.append(row[columns].astype(kind))

    def build(self) -> SparseCounts:
        """The counts; the builder is empty afterwards."""
        ends = np.cumsum([0, *(len(columns) for columns in self._columns)])
        counts, self._counts = _joined(self._counts), []
        columns, self._columns = _joined(self._columns), []
        return SparseCounts(csr_array((counts, columns, ends), shape=(len(ends) - 1, self._bins)))


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def image_auroc(scores: Floats, labels: Labels, rng: np.random.Generator, resamples: int = RESAMPLES) -> Figure:
    """Area under the ROC curve of image scores (n,) against `labels` (n,), True where abnormal.

    Raises `SettingError` if a class is missing, a score is not finite or the shapes differ; so do the others.
    """
    pool = image_pool(scores, labels)
    return bootstrap.figure(roc_auc_score(labels, scores), pool.under(bootstrap.auroc), pool, rng, resamples)


def average_precision(
    scores: Floats, labels: Labels, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Average precision of image scores (n,), equal scores entering together."""
    pool = image_pool(scores, labels)
    value = average_precision_score(labels, scores)
    return bootstrap.figure(value, pool.under(bootstrap.average_precision), pool, rng, resamples)


def balanced_accuracy(
    scores: Floats, labels: Labels, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """The highest (TPR + TNR) / 2 of any threshold, chosen anew in each resample; optimistic."""
    pool = image_pool(scores, labels)
    false_rate, true_rate, _ = roc_curve(labels, scores)
    value = (1 + (true_rate - false_rate).max()) / 2
    return bootstrap.figure(value, pool.under(bootstrap.balanced_accuracy), pool, rng, resamples)


def balanced_accuracy_at(
    scores: Floats, labels: Labels, threshold: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """(TPR + TNR) / 2 at `threshold`: image scores above it are abnormal."""
    _check_images(scores, labels)
    # The ROC curve of a yes-or-no answer is two straight lines; the area under them is the balanced accuracy.
    return image_auroc((scores > threshold).astype(np.float64), labels, rng, resamples)


def specificity_at(
    scores: Floats, labels: Labels, sensitivity: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """The highest TNR of a threshold whose TPR is at least `sensitivity`; each resample picks its own."""
    if not 0 < sensitivity <= 1:
        raise SettingError(f"sensitivity {sensitivity:g}: must be above 0 and at most 1")
    pool = image_pool(scores, labels)
    of_weights = pool.under(bootstrap.specificity_at(sensitivity))
    return bootstrap.figure(of_weights(np.ones((1, len(scores))))[0], of_weights, pool, rng, resamples)


def share_above(scores: Floats, threshold: float) -> Figure:
    """The share of `scores` (n,) above `threshold`: sensitivity of abnormal ones, false-positive rate of normal.

    With the exact interval of Clopper and Pearson (1934): resamples of photographs that all agree have no width.
    """
    above = int((scores > threshold).sum())
    interval = binomtest(above, len(scores)).proportion_ci(0.95, method="exact")
    return Figure(above / len(scores), float(interval.low), float(interval.high))


def best_threshold(scores: Floats, labels: Labels) -> float:
    """The threshold of `balanced_accuracy`, one of the `scores`: scores above it are abnormal.

    The highest of several equally good ones.
    """
    _check_images(scores, labels)
    candidates = np.unique(scores)
    normal, abnormal = np.sort(scores[~labels]), np.sort(scores[labels])
    below = np.searchsorted(normal, candidates, side="right") / len(normal)
    sensitivity = 1 - np.searchsorted(abnormal, candidates, side="right") / len(abnormal)
    gain = below + sensitivity
    return float(candidates[np.flatnonzero(gain >= gain.max() - 1e-12)[-1]])


def paired_difference(
    scores_a: Floats,
    scores_b: Floats,
    labels: Labels,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Figure:
    """Image AUROC of `scores_a` less that of `scores_b` (n,), same photographs and same resamples."""
    a, b = image_pool(scores_a, labels), image_pool(scores_b, labels)
    value = roc_auc_score(labels, scores_a) - roc_auc_score(labels, scores_b)
    return bootstrap.figure(value, bootstrap.difference_of(a, b), a, rng, resamples)


def image_pool(scores: Floats, labels: Labels) -> Pool:
    """A pool with a bin per distinct score, sparse because each photograph has a single score."""
    _check_images(scores, labels)
    distinct, places = np.unique(scores, return_inverse=True)
    rows, shape = np.arange(len(scores)), (len(scores), len(distinct))
    normal, abnormal = (csr_array((np.where(c, 1.0, 0.0), (rows, places)), shape=shape) for c in (~labels, labels))
    return Pool(normal, abnormal, ~labels, labels)


def _check_images(scores: Floats, labels: Labels) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise SettingError(f"{scores.shape} image scores for {labels.shape} labels: must be alike")
    if not np.isfinite(scores).all():
        raise SettingError(f"the image score of photograph {np.argmin(np.isfinite(scores))} is not finite")
    for name, missing in (("normal", labels.all()), ("abnormal", not labels.any())):
        if missing:
            raise SettingError(f"no {name} test photographs: image figures need both")


PRO_LIMIT: Final = 0.3
"""Of the false-positive rate, as everywhere AUPRO is reported (Bergmann et al. 2020, section 4)."""
_COARSE: Final = 2048
"""Bins that are enough for the width of an interval, which rests on few photographs: eight times as fast."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Pixels of each photograph in each bin of `score_edges`.

    Raises `SettingError` if the two differ in shape.
    """

    normal: SparseCounts
    abnormal: SparseCounts

    def __post_init__(self) -> None:
        if self.normal.shape != self.abnormal.shape:
            raise SettingError(f"histograms of shape {self.normal.shape} and {self.abnormal.shape}: must be alike")

    def only(self, mask: Labels) -> "ScoreHistogram":
        """The histogram of the photographs of `mask`, bool (n,)."""
        return ScoreHistogram(self.normal.only(mask), self.abnormal.only(mask))


def score_edges(full_scale: float, bins: int = 2**14) -> NDArray[np.float32]:
    """Edges of `bins` bins over the patch scores [0, full_scale): float32 (bins + 1,), squares of even steps.

    Squares, because the scale has to be fixed before the scores are known: with a `full_scale` 20 times too
    large even steps leave 800 bins to work with, squares 3600.  The first bin holds hardly more than zeros.
    Measurement on drawn scores with the full scale up to 4 times the highest score: pixel AUROC within 3e-5 and
    average precision within 2e-4 of the figures without bins; at 20 times, within 1e-4 and 4e-4.
    """
    if not 0 < full_scale < np.inf or bins < 2:
        raise SettingError(f"full scale {full_scale} in {bins} bins: must be above 0, in 2 bins or more")
    return (full_scale * np.linspace(0, 1, bins + 1) ** 2).astype(np.float32)


def count_pixels(
    values: NDArray[np.float32], labels: Labels, edges: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A photograph's normal and abnormal pixels per bin, each int64 (bins,), for a `ScoreHistogram`.

    `values` and `labels` (True where abnormal) share any shape: a whole map, or the pixels inside the field
    of view.  The first and the last bin also take what lies below and beyond the scale.
    Raises `SettingError` if the shapes differ or a value is not finite.
    """
    if values.shape != labels.shape:
        raise SettingError(f"{values.shape} scores for {labels.shape} labels: must be alike")
    if not np.isfinite(values).all():
        raise SettingError("an anomaly map holds a value that is not finite")
    places = np.searchsorted(edges[1:-1], values, side="right")
    normal, abnormal = (np.bincount(places[mask], minlength=len(edges) - 1) for mask in (~labels, labels))
    return normal.astype(np.int64), abnormal.astype(np.int64)


def count_regions(
    values: NDArray[np.float32], lesions: Labels, area: Labels, edges: NDArray[np.float32]
) -> NDArray[np.float64]:
    """For each bin the sum over lesions of the share of their pixels in it: float64 (bins,).

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
    """Area under the ROC curve over all pixels of all photographs, with ties within a bin.

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
    normal: SparseCounts,
    regions: SparseCounts,
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
    """The threshold of `pixel_balanced_accuracy`, an edge of the bins: pixels from it on are abnormal."""
    normal, abnormal = (counts.per_bin()[::-1].cumsum()[::-1] for counts in (histogram.normal, histogram.abnormal))
    return float(edges[int(np.argmax(abnormal / abnormal[0] - normal / normal[0]))])


def paired_pixel_difference(
    a: ScoreHistogram, b: ScoreHistogram, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """Pixel AUROC of `a` less that of `b` on the same resamples; their bins may differ, their pixels may not.

    Raises `SettingError` if a photograph has not as many normal and abnormal pixels in one as in the other.
    """
    for counts_a, counts_b in ((a.normal, b.normal), (a.abnormal, b.abnormal)):
        if not np.array_equal(counts_a.per_photo(), counts_b.per_photo()):
            raise SettingError("a paired difference needs the same pixels of the same photographs on both sides")
    pools = whole_pool(a.normal, a.abnormal), whole_pool(b.normal, b.abnormal)
    difference = bootstrap.difference_of(*pools)
    return bootstrap.figure(difference(np.ones((1, a.normal.shape[0])))[0], difference, pools[0], rng, resamples)


def whole_pool(normal: SparseCounts, abnormal: SparseCounts) -> Pool:
    """A pool with all bins that are not empty."""
    return _pool(normal, abnormal, np.arange(normal.shape[1]))


def pixel_pool(normal: SparseCounts, abnormal: SparseCounts) -> Pool:
    """A pool with about `_COARSE` bins, which are enough for an interval.

    The first bin stays apart, because it holds the zeros.
    """
    bins = normal.shape[1]
    step = -(-(bins - 1) // _COARSE)
    return _pool(normal, abnormal, np.concatenate([[0], 1 + np.arange(bins - 1) // step]))


def _pool(normal: SparseCounts, abnormal: SparseCounts, places: NDArray[np.intp]) -> Pool:
    """A pool with bin b of the histograms in bin `places[b]`, without empty bins."""
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


def _sums(normal: SparseCounts, abnormal: SparseCounts) -> Floats:
    """Sums over photographs: float64 (2, bins).  Raises `SettingError` where a class is missing."""
    for name, counts in (("normal", normal), ("abnormal", abnormal)):
        if not counts.any():
            raise SettingError(f"no {name} pixels in the test photographs: pixel figures need both")
    return np.stack([normal.per_bin(), abnormal.per_bin()])


def _pixel_figure(
    statistic: Statistic, normal: SparseCounts, abnormal: SparseCounts, rng: np.random.Generator, resamples: int
) -> Figure:
    """The value from all bins; the interval from `_COARSE` bins, shifted by the difference of the two values."""
    sums = _sums(normal, abnormal)
    value = float(statistic(sums[:1], sums[1:])[0])
    pool = pixel_pool(normal, abnormal)
    of_weights = pool.under(statistic)
    coarse = bootstrap.figure(value, of_weights, pool, rng, resamples)
    shift = value - float(of_weights(np.ones((1, normal.shape[0])))[0])
    low, high = np.clip((coarse.low + shift, coarse.high + shift), 0, 1)
    return Figure(value, float(low), float(high))
