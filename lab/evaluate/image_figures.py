"""Figures of image scores: how well they part normal photographs from abnormal ones."""

from pydantic.dataclasses import dataclass

from lab.evaluate import metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.measured import Measured
from resad.calibration import USUAL_RATE


@dataclass(frozen=True)
class ImageFigures:
    """Of image scores.

    balanced_accuracy: at the threshold best for these photographs (as papers do), scores above `threshold`.
    balanced_accuracy_calibrated: at the index's own threshold for a false-positive rate of 5 %; null without one.
    """

    auroc: Figure
    average_precision: Figure
    balanced_accuracy: Figure
    threshold: float
    specificity_at_95_sensitivity: Figure
    specificity_at_99_sensitivity: Figure
    balanced_accuracy_calibrated: Figure | None


@dataclass(frozen=True)
class Calibrated:
    """At the index's own threshold for a false-positive rate of `fpr`; null where a class is missing.

    The intervals are those of Clopper and Pearson, not of the bootstrap.
    """

    fpr: float
    threshold: float
    sensitivity: Figure | None
    specificity: Figure | None


def image_figures(measured: Measured, limit: float | None) -> ImageFigures:
    """Of photographs of both classes; `limit` is the index's own threshold, where it has one."""
    scores, labels = measured.scores, measured.labels
    return ImageFigures(
        auroc=metrics.image_auroc(scores, labels, fresh_generator()),
        average_precision=metrics.average_precision(scores, labels, fresh_generator()),
        balanced_accuracy=metrics.balanced_accuracy(scores, labels, fresh_generator()),
        threshold=metrics.best_threshold(scores, labels),
        specificity_at_95_sensitivity=metrics.specificity_at(scores, labels, 0.95, fresh_generator()),
        specificity_at_99_sensitivity=metrics.specificity_at(scores, labels, 0.99, fresh_generator()),
        balanced_accuracy_calibrated=None
        if limit is None
        else metrics.balanced_accuracy_at(scores, labels, limit, fresh_generator()),
    )


def calibrated(measured: Measured, limit: float) -> Calibrated:
    """Of photographs of either class, at the index's own threshold."""
    normal, abnormal = measured.scores[~measured.labels], measured.scores[measured.labels]
    found = metrics.share_above(abnormal, limit) if len(abnormal) else None
    alarms = metrics.share_above(normal, limit) if len(normal) else None
    specificity = None if alarms is None else Figure(1 - alarms.value, 1 - alarms.high, 1 - alarms.low)
    return Calibrated(USUAL_RATE, limit, found, specificity)
