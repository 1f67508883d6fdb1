"""How well scores separate normal from abnormal, with 95 % intervals.

The unit that is resampled is always the photograph, as the pixels of one photograph are far from independent
(percentile bootstrap; Efron and Tibshirani 1993, chapter 13).  A resample in which one class is missing is
drawn again.  Equal generators give equal resamples for every image figure of the same photographs.

    images   one score and one label a photograph
    pixels   histograms of maps against masks
"""

from lab.evaluate.metrics.images import (
    average_precision,
    balanced_accuracy,
    balanced_accuracy_at,
    best_threshold,
    image_auroc,
    image_pool,
    paired_difference,
    share_above,
    specificity_at,
)
from lab.evaluate.metrics.pixels import (
    PRO_LIMIT,
    ScoreHistogram,
    aupro,
    count_pixels,
    count_regions,
    paired_pixel_difference,
    pixel_auroc,
    pixel_average_precision,
    pixel_balanced_accuracy,
    pixel_best_threshold,
    pixel_pool,
    score_edges,
    whole_pool,
)
from lab.evaluate.metrics.rows import GatheredRows, Rows

__all__ = [
    "PRO_LIMIT",
    "GatheredRows",
    "Rows",
    "ScoreHistogram",
    "aupro",
    "average_precision",
    "balanced_accuracy",
    "balanced_accuracy_at",
    "best_threshold",
    "count_pixels",
    "count_regions",
    "image_auroc",
    "image_pool",
    "paired_difference",
    "paired_pixel_difference",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_balanced_accuracy",
    "pixel_best_threshold",
    "pixel_pool",
    "score_edges",
    "share_above",
    "specificity_at",
    "whole_pool",
]
