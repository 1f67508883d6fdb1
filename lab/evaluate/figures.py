"""Figures of an evaluation, each with an interval over photographs; every variant has its own name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from resad_client.records import INTENDED_USE, IndexReference

from indexer.calibration.lines import origin_line
from lab.datasets import Dataset
from lab.evaluate import metrics
from lab.evaluate.agreement import Agreement
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.froc import Froc, froc
from lab.evaluate.measuring import IndexMatch, LesionCounts, Measurement, names_of
from lab.evaluate.metrics import ScoreHistogram, SparseCounts
from lab.evaluate.painted import PaintedResults
from resad.calibration import USUAL_RATE, threshold
from resad.config import MethodConfig
from resad.engine import index_reference
from resad.loaded_index import LoadedIndex
from resad.manifest import ReferenceRecord
from resad.runtime import PackageVersion, packages


@dataclass(frozen=True)
class SamePhoto:
    """A test photograph that is in the index as `reference`.

    bits: of 255 that differ; null for the same file.  mirrored: it is a mirror image of `reference`.
    """

    photo: str
    reference: str
    bits: int | None
    mirrored: bool

    @property
    def description(self) -> str:
        """The match in words."""
        return f"{self.photo} is {'a mirror image of ' if self.mirrored else ''}{self.reference}"


@dataclass(frozen=True)
class Overlap:
    """Overlap of test photographs and index; with any, every figure is too good.

    photos: test photographs in the index.  patients: with photographs on both sides; null where unknown, and
    `why`.
    """

    photos: tuple[SamePhoto, ...]
    patients: tuple[str, ...] | None
    why: str | None


def find_overlap(measured: Measurement, dataset: Dataset, references: Sequence[ReferenceRecord]) -> Overlap:
    """Test photographs that are in the index, and patients that have photographs on both sides."""
    photos = _same_photos(names_of(measured.photos), measured.in_the_index)
    patients, reason = _shared_patients(dataset, references)
    return Overlap(photos, patients, reason)


def _same_photos(names: Sequence[str], matches: Sequence[IndexMatch]) -> tuple[SamePhoto, ...]:
    return tuple(SamePhoto(names[match.photo], match.reference, match.bits, match.mirrored) for match in matches)


def _shared_patients(
    dataset: Dataset, references: Sequence[ReferenceRecord]
) -> tuple[tuple[str, ...] | None, str | None]:
    """Patients of test photographs and of the index or the training photographs; and why that may not be known."""
    tested = {photo.patient for photo in dataset.test if photo.patient is not None}
    if not tested:
        return None, "the data set names no patients"
    # Without --keep-names an index holds running numbers, which mean nothing outside it.
    in_index = {record.patient for record in references if record.name is not None and record.patient is not None}
    trained = {photo.patient for photo in dataset.train if photo.patient is not None}
    shared = tuple(sorted(tested & (in_index | trained)))
    if in_index:
        return shared, None
    if trained:
        return shared, "compared with the data set's training photographs, not the index's"
    if any(record.patient is not None for record in references):
        return None, "the index numbers its patients; one built with --keep-names can be compared"
    return None, "the index names no patients"


@dataclass(frozen=True)
class ImageFigures:
    """Figures of image scores.

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
    """Figures at the index's own threshold for the false-positive rate `fpr`; null where a class is missing.

    The intervals are those of Clopper and Pearson, not of the bootstrap.
    """

    fpr: float
    threshold: float
    sensitivity: Figure | None
    specificity: Figure | None


def image_figures(measured: Measurement, limit: float | None) -> ImageFigures:
    """Figures of image scores of both classes.  limit: the index's own threshold, if it has one."""
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


def calibrated(measured: Measurement, limit: float) -> Calibrated:
    """Sensitivity and specificity at the index's own threshold `limit`."""
    normal, abnormal = measured.scores[~measured.labels], measured.scores[measured.labels]
    sensitivity = metrics.share_above(abnormal, limit) if len(abnormal) else None
    alarms = metrics.share_above(normal, limit) if len(normal) else None
    specificity = None if alarms is None else Figure(1 - alarms.value, 1 - alarms.high, 1 - alarms.low)
    return Calibrated(USUAL_RATE, limit, sensitivity, specificity)


@dataclass(frozen=True)
class PixelFigures:
    """Figures of all pixels of a variant's photographs.

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
    """Figures of pixels.  fov: inside the field of view.  whole: the whole image, whose black surround is easy.

    Of all photographs that are normal or have masks, or only of the abnormal ones.
    """

    fov: PixelFigures
    whole: PixelFigures
    fov_abnormal_only: PixelFigures
    whole_abnormal_only: PixelFigures


@dataclass(frozen=True)
class LesionFigures:
    """Figures of one kind of lesion against pixels outside all masks, inside the field of view.

    photos: that have it.  lesions: connected regions.
    """

    kind: str
    photos: int
    lesions: int
    auroc: Figure
    auroc_abnormal_only: Figure
    average_precision: Figure
    aupro: Figure


def pixel_variants(measured: Measurement, abnormal: Measurement) -> PixelVariants:
    """Figures of all variants.  abnormal: the measurement of the abnormal photographs."""
    return PixelVariants(
        fov=_pixel_figures(measured.fov, measured.fov_regions, measured),
        whole=_pixel_figures(measured.whole, measured.whole_regions, measured),
        fov_abnormal_only=_pixel_figures(abnormal.fov, abnormal.fov_regions, measured),
        whole_abnormal_only=_pixel_figures(abnormal.whole, abnormal.whole_regions, measured),
    )


def _pixel_figures(histogram: ScoreHistogram, regions: SparseCounts, measured: Measurement) -> PixelFigures:
    return PixelFigures(
        photos=int((histogram.normal.per_photo() + histogram.abnormal.per_photo() > 0).sum()),
        auroc=metrics.pixel_auroc(histogram, fresh_generator()),
        average_precision=metrics.pixel_average_precision(histogram, fresh_generator()),
        aupro=metrics.aupro(histogram.normal, regions, fresh_generator()),
        balanced_accuracy=metrics.pixel_balanced_accuracy(histogram, fresh_generator()),
        threshold=metrics.pixel_best_threshold(histogram, measured.edges),
    )


def lesion_figures(measured: Measurement, abnormal: Measurement) -> tuple[LesionFigures, ...]:
    """Figures of each kind of lesion; empty where all masks are of one kind, which `pixel_variants` covers."""
    if len(measured.lesions) < 2:
        return ()
    pairs = zip(measured.lesions, abnormal.lesions, strict=True)
    return tuple(_lesion(lesion, subset, measured, abnormal) for lesion, subset in pairs if lesion.pixels.any())


def _lesion(
    lesion: LesionCounts, in_abnormal: LesionCounts, measured: Measurement, abnormal: Measurement
) -> LesionFigures:
    histogram = ScoreHistogram(measured.fov.normal, lesion.pixels)
    only_abnormal = ScoreHistogram(abnormal.fov.normal, in_abnormal.pixels)
    return LesionFigures(
        kind=lesion.kind,
        photos=int((lesion.pixels.per_photo() > 0).sum()),
        lesions=round(lesion.regions.per_bin().sum()),
        auroc=metrics.pixel_auroc(histogram, fresh_generator()),
        auroc_abnormal_only=metrics.pixel_auroc(only_abnormal, fresh_generator()),
        average_precision=metrics.pixel_average_precision(histogram, fresh_generator()),
        aupro=metrics.aupro(measured.fov.normal, lesion.regions, fresh_generator()),
    )


@dataclass(frozen=True)
class Counted:
    """Numbers of test photographs.

    without_mask: abnormal ones of which nobody marked where; no pixel figure counts them.
    in_the_index: also among the reference photos, by content hash or perceptual hash.
    """

    normal: int
    abnormal: int
    without_mask: int
    in_the_index: int


@dataclass(frozen=True)
class PaintedFigures:
    """Painted lesions found on healthy photographs.  in_the_index: those that are; they flatter the figures."""

    results: PaintedResults
    in_the_index: tuple[SamePhoto, ...]


@dataclass(frozen=True)
class AgreementFigures:
    """Agreement of readers.  in_the_index: marked photographs that are; they flatter the figures of the index."""

    results: Agreement
    in_the_index: tuple[SamePhoto, ...]


@dataclass(frozen=True)
class Figures:
    """Figures of an evaluation, written as JSON.  missing: why image or pixel figures are null.

    froc: lesions touched against false regions.  painted, agreement: figures of `--painted` and `--marks`,
    where these were given.
    calibration: where that of the index comes from, in words.
    deviations: in what the copy of the data set is not the published one.
    """

    index: IndexReference
    dataset: str
    photos: Counted
    image: ImageFigures | None
    calibrated: Calibrated | None
    pixel: PixelVariants | None
    lesions: tuple[LesionFigures, ...]
    froc: Froc | None
    painted: PaintedFigures | None
    agreement: AgreementFigures | None
    guard: Overlap
    missing: tuple[str, ...]
    deviations: tuple[str, ...]
    settings: MethodConfig
    packages: tuple[PackageVersion, ...]
    calibration: str
    intended_use: str = INTENDED_USE


@dataclass(frozen=True)
class UnlabeledEvaluation:
    """Figures of painted lesions and of readers' marks, without a data set, written as JSON."""

    index: IndexReference
    painted: PaintedFigures | None
    agreement: AgreementFigures | None
    settings: MethodConfig
    packages: tuple[PackageVersion, ...]
    intended_use: str = INTENDED_USE


_FIGURES: Final = TypeAdapter(Figures)
_UNLABELED: Final = TypeAdapter(UnlabeledEvaluation)


def figures_json(figures: Figures) -> str:
    """`figures` as indented JSON."""
    return _FIGURES.dump_json(figures, indent=2).decode()


def unlabeled_json(evaluation: UnlabeledEvaluation) -> str:
    """`evaluation` as indented JSON."""
    return _UNLABELED.dump_json(evaluation, indent=2).decode()


def painted_figures(
    results: PaintedResults, matches: Sequence[IndexMatch], paths: Sequence[Path]
) -> PaintedFigures:
    """Figures of painted photographs; `matches`: those of `paths` that are in the index."""
    return PaintedFigures(results, _same_photos([path.name for path in paths], matches))


def agreement_figures(
    results: Agreement, matches: Sequence[IndexMatch], paths: Sequence[Path]
) -> AgreementFigures:
    """Agreement of readers; `matches`: those of `paths` that are in the index."""
    return AgreementFigures(results, _same_photos([path.name for path in paths], matches))


def unlabeled_evaluation(
    loaded: LoadedIndex, painted: PaintedFigures | None, agreement: AgreementFigures | None
) -> UnlabeledEvaluation:
    """Figures without a data set, with the index."""
    manifest = loaded.manifest
    return UnlabeledEvaluation(index_reference(manifest), painted, agreement, manifest.config, packages())


def figures(
    measured: Measurement,
    loaded: LoadedIndex,
    dataset: Dataset,
    painted: PaintedFigures | None = None,
    agreement: AgreementFigures | None = None,
) -> Figures:
    """All figures; where the data set lacks photographs or masks they are None, with a reason in `missing`."""
    labels = measured.labels
    both_classes = labels.any() and not labels.all()
    abnormal = measured.only(labels)
    # Of the abnormal photographs alone: they are the ones that both variants need pixels of both classes in.
    marked = abnormal.fov.abnormal.any() and abnormal.fov.normal.any()
    missing = [] if both_classes else ["image figures need normal and abnormal test photographs"]
    missing += [] if marked else ["pixel figures need masks with lesions inside the field of view"]
    curve = froc(measured.lesion_regions, labels, loaded.manifest.calibration.finding_levels)
    if marked and curve is None:
        missing.append("FROC figures need normal test photographs, or an index that states levels of findings")
    limit = threshold(loaded.manifest.calibration.scores, USUAL_RATE).value
    unmarked = sum(photo.abnormal and not photo.masks for photo in measured.photos)
    doubles = len(measured.in_the_index)
    return Figures(
        index=index_reference(loaded.manifest),
        dataset=dataset.name,
        photos=Counted(int((~labels).sum()), int(labels.sum()), unmarked, doubles),
        image=image_figures(measured, limit) if both_classes else None,
        calibrated=None if limit is None else calibrated(measured, limit),
        pixel=pixel_variants(measured, abnormal) if marked else None,
        lesions=lesion_figures(measured, abnormal) if marked else (),
        froc=curve,
        painted=painted,
        agreement=agreement,
        guard=find_overlap(measured, dataset, loaded.photos),
        missing=tuple(missing),
        deviations=dataset.deviations,
        settings=loaded.manifest.config,
        packages=packages(),
        calibration=origin_line(loaded.manifest),
    )
