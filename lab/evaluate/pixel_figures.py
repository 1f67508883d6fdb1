"""Figures of anomaly maps: how well their pixels part what is marked, of all kinds or of one, from the rest."""

from pydantic.dataclasses import dataclass

from lab.evaluate import metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.measured import LesionCounts, Measured
from lab.evaluate.metrics import Rows, ScoreHistogram


@dataclass(frozen=True)
class PixelFigures:
    """Over all pixels of all photographs of the variant.

    aupro: mean over lesions of the share found, up to a false-positive rate of 0.3.
    balanced_accuracy: at the best threshold, pixels of at least `threshold`.
    """

    photos: int
    auroc: Figure
    average_precision: Figure
    aupro: Figure
    balanced_accuracy: Figure
    threshold: float


@dataclass(frozen=True)
class PixelVariants:
    """fov: inside the field of view.  whole: the whole image; its black surround flatters.

    Of all photographs that are normal or marked, or of the abnormal ones among them alone.
    """

    fov: PixelFigures
    whole: PixelFigures
    fov_abnormal_only: PixelFigures
    whole_abnormal_only: PixelFigures


@dataclass(frozen=True)
class LesionFigures:
    """Of one kind of lesion against unmarked pixels inside the field of view; other lesions count for nothing.

    photos: that have it.  lesions: connected regions.
    """

    kind: str
    photos: int
    lesions: int
    auroc: Figure
    auroc_abnormal_only: Figure
    average_precision: Figure
    aupro: Figure


def pixel_variants(measured: Measured, abnormal: Measured) -> PixelVariants:
    """Of all photographs, and of the abnormal ones among them; both have pixels of both classes."""
    return PixelVariants(
        fov=_pixel_figures(measured.fov, measured.fov_regions, measured),
        whole=_pixel_figures(measured.whole, measured.whole_regions, measured),
        fov_abnormal_only=_pixel_figures(abnormal.fov, abnormal.fov_regions, measured),
        whole_abnormal_only=_pixel_figures(abnormal.whole, abnormal.whole_regions, measured),
    )


def _pixel_figures(histogram: ScoreHistogram, regions: Rows, measured: Measured) -> PixelFigures:
    return PixelFigures(
        photos=int((histogram.normal.per_photo() + histogram.abnormal.per_photo() > 0).sum()),
        auroc=metrics.pixel_auroc(histogram, fresh_generator()),
        average_precision=metrics.pixel_average_precision(histogram, fresh_generator()),
        aupro=metrics.aupro(histogram.normal, regions, fresh_generator()),
        balanced_accuracy=metrics.pixel_balanced_accuracy(histogram, fresh_generator()),
        threshold=metrics.pixel_best_threshold(histogram, measured.edges),
    )


def lesion_figures(measured: Measured, abnormal: Measured) -> tuple[LesionFigures, ...]:
    """Per kind of lesion that was met; nothing where all marks are of one kind, whose figures are those of all."""
    if len(measured.lesions) < 2:
        return ()
    pairs = zip(measured.lesions, abnormal.lesions, strict=True)
    return tuple(_lesion(all_, some, measured, abnormal) for all_, some in pairs if all_.pixels.any())


def _lesion(every: LesionCounts, some: LesionCounts, measured: Measured, abnormal: Measured) -> LesionFigures:
    histogram = ScoreHistogram(measured.fov.normal, every.pixels)
    only_abnormal = ScoreHistogram(abnormal.fov.normal, some.pixels)
    return LesionFigures(
        kind=every.kind,
        photos=int((every.pixels.per_photo() > 0).sum()),
        lesions=round(every.regions.per_bin().sum()),
        auroc=metrics.pixel_auroc(histogram, fresh_generator()),
        auroc_abnormal_only=metrics.pixel_auroc(only_abnormal, fresh_generator()),
        average_precision=metrics.pixel_average_precision(histogram, fresh_generator()),
        aupro=metrics.aupro(measured.fov.normal, every.regions, fresh_generator()),
    )
