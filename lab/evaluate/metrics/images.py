"""Figures of image scores against labels, one of each a photograph.  Raises as `image_auroc`, all of them."""

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import RESAMPLES, Figure, Floats, Labels, Pool
from resad.errors import SettingError


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
    """The highest (TPR + TNR) / 2 any threshold reaches: it flatters, and each resample picks its own."""
    pool = image_pool(scores, labels)
    false_rate, true_rate, _ = roc_curve(labels, scores)
    value = (1 + (true_rate - false_rate).max()) / 2
    return bootstrap.figure(value, pool.under(bootstrap.balanced_accuracy), pool, rng, resamples)


def balanced_accuracy_at(
    scores: Floats, labels: Labels, threshold: float, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Figure:
    """(TPR + TNR) / 2 where every image score above `threshold` is called abnormal."""
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
    """Where `balanced_accuracy` is reached: abnormal are the scores above it, itself one of the `scores`.

    The highest one, where several do equally well.
    """
    _check_images(scores, labels)
    candidates = np.unique(scores)
    normal, abnormal = np.sort(scores[~labels]), np.sort(scores[labels])
    below = np.searchsorted(normal, candidates, side="right") / len(normal)
    found = 1 - np.searchsorted(abnormal, candidates, side="right") / len(abnormal)
    gain = below + found
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
    """One bin per distinct score, so that nothing is lost; sparse, as each photograph has a single one."""
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
