"""An index against labeled photographs: image and pixel figures, each with an interval over photographs."""

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from indexer import metrics
from indexer.bootstrap import Figure
from indexer.datasets import Dataset, LabeledPhoto
from indexer.datasets.mvtec import read_mask
from indexer.metrics import ScoreHistogram
from resad.calibration import threshold
from resad.config import PhotoLimits, PreparationConfig
from resad.detector import Detection
from resad.errors import SettingError
from resad.field_of_view import field_of_view_mask, find_field_of_view
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare
from resad.result import IndexReference, index_reference

_SEED: Final = 0
"""Of the bootstrap."""
_RATE: Final = 0.05
"""False-positive rate of the threshold that balanced accuracy is also stated at."""


@dataclass(frozen=True)
class Counted:
    """Test photographs.

    without_mask: abnormal ones of which nobody marked where; no pixel figure counts them.
    in_the_index: also among the reference photos, by content hash.
    """

    normal: int
    abnormal: int
    without_mask: int
    in_the_index: int


@dataclass(frozen=True)
class ImageFigures:
    """balanced_accuracy: at the threshold best for these photographs (as papers do).

    balanced_accuracy_calibrated: at the index's own threshold for a false-positive rate of 5 %; null without one.
    """

    auroc: Figure
    average_precision: Figure
    balanced_accuracy: Figure
    balanced_accuracy_calibrated: Figure | None


@dataclass(frozen=True)
class PixelFigures:
    """Over all pixels of all photographs; balanced accuracy at the best threshold."""

    auroc: Figure
    average_precision: Figure
    balanced_accuracy: Figure


@dataclass(frozen=True)
class PixelAreas:
    """fov: inside the field of view.  whole: the whole image; its black surround flatters."""

    fov: PixelFigures
    whole: PixelFigures


@dataclass(frozen=True)
class Figures:
    """What `evaluate` writes as JSON; `missing` says why image or pixel figures are null, if they are."""

    index: IndexReference
    dataset: str
    photos: Counted
    image: ImageFigures | None
    pixel: PixelAreas | None
    missing: tuple[str, ...]


@plain_dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Per test photograph, for paired comparisons.  scores: float64 (n,).  labels: bool (n,), True abnormal."""

    photos: tuple[LabeledPhoto, ...]
    scores: NDArray[np.float64]
    labels: NDArray[np.bool_]
    in_the_index: int
    fov: ScoreHistogram
    whole: ScoreHistogram


_FIGURES: Final = TypeAdapter(Figures)


def figures_json(figures: Figures) -> str:
    """`figures` as indented JSON."""
    return _FIGURES.dump_json(figures, indent=2).decode()


def measure_dataset(
    loaded: LoadedIndex, dataset: Dataset, limits: PhotoLimits, on_photo: Callable[[int], None]
) -> Measured:
    """Score every test photograph and count its pixels against its mask, both in the photo's own pixels.

    Raises:
        PhotoError: a test photograph cannot be read.
        SettingError: a mask that does not belong to its photograph.
    """
    return measure_with(
        lambda photo: loaded.detector.detect([photo])[0],
        loaded.manifest.config.preparation,
        loaded.manifest.calibration.full_scale,
        dataset,
        limits,
        on_photo,
        known=frozenset(photo.content_sha256 for photo in loaded.photos),
    )


def measure_with(
    detect: Callable[[PreparedPhoto], Detection],
    preparation: PreparationConfig,
    full_scale: float,
    dataset: Dataset,
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    known: frozenset[str] = frozenset(),
) -> Measured:
    """As `measure_dataset`, by anything that makes a map; `known` are the hashes of what it learned from."""
    if not dataset.test:
        raise SettingError(f"data set {dataset.name} has no test photographs")
    edges = metrics.score_edges(full_scale)
    scores, fov, whole, doubles = [], [], [], 0
    for labeled in dataset.test:
        photo = prepare(labeled.path, preparation, limits)
        detection = detect(photo)
        scores.append(detection.image_score)
        doubles += photo.content_hash in known
        inside, everywhere = _pixel_counts(labeled, photo, detection, edges, limits)
        fov.append(inside)
        whole.append(everywhere)
        on_photo(1)
    return Measured(
        photos=dataset.test,
        scores=np.array(scores),
        labels=np.array([labeled.abnormal for labeled in dataset.test]),
        in_the_index=doubles,
        fov=_histogram(fov),
        whole=_histogram(whole),
    )


def figures(measured: Measured, loaded: LoadedIndex, dataset: Dataset) -> Figures:
    """The figures of what was measured, as far as the data set has both sides of them."""
    labels = measured.labels
    both = labels.any() and not labels.all()
    marked = measured.fov.abnormal.any() and measured.fov.normal.any()
    missing = [] if both else ["image figures need normal and abnormal test photographs"]
    missing += [] if marked else ["pixel figures need masks with lesions inside the field of view"]
    limit = threshold(loaded.manifest.calibration.scores, _RATE).value
    unmarked = sum(photo.abnormal and photo.mask is None for photo in measured.photos)
    return Figures(
        index=index_reference(loaded.manifest),
        dataset=dataset.name,
        photos=Counted(int((~labels).sum()), int(labels.sum()), unmarked, measured.in_the_index),
        image=_image_figures(measured, limit) if both else None,
        pixel=PixelAreas(_pixel_figures(measured.fov), _pixel_figures(measured.whole)) if marked else None,
        missing=tuple(missing),
    )


_Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def _pixel_counts(
    labeled: LabeledPhoto,
    photo: PreparedPhoto,
    detection: Detection,
    edges: NDArray[np.float32],
    limits: PhotoLimits,
) -> tuple[_Counts, _Counts]:
    """Inside the field of view, and over the whole image; nothing where an abnormal photo has no mask."""
    if labeled.abnormal and labeled.mask is None:
        nothing = np.zeros(len(edges) - 1, dtype=np.int64)
        return (nothing, nothing), (nothing, nothing)
    height, width = photo.frame.height, photo.frame.width
    lesions = (
        np.zeros((height, width), dtype=bool) if labeled.mask is None else read_mask(labeled.mask, height, width)
    )
    values = photo.frame.map_to_photo(detection.anomaly_map)
    # Found again on the whole photo: the one of the prepared photo may rest on a coarser decoding, and pixels that
    # are counted must not depend on the settings that are compared.
    field = find_field_of_view(read_photo(labeled.path, limits).pixels)
    inside = field_of_view_mask(field, height, width)
    return (
        metrics.count_pixels(values[inside], lesions[inside], edges),
        metrics.count_pixels(values, lesions, edges),
    )


def _histogram(counts: list[_Counts]) -> ScoreHistogram:
    return ScoreHistogram(np.stack([normal for normal, _ in counts]), np.stack([lesion for _, lesion in counts]))


def _image_figures(measured: Measured, calibrated: float | None) -> ImageFigures:
    scores, labels = measured.scores, measured.labels
    return ImageFigures(
        auroc=metrics.image_auroc(scores, labels, _generator()),
        average_precision=metrics.average_precision(scores, labels, _generator()),
        balanced_accuracy=metrics.balanced_accuracy(scores, labels, _generator()),
        balanced_accuracy_calibrated=None
        if calibrated is None
        else metrics.balanced_accuracy_at(scores, labels, calibrated, _generator()),
    )


def _pixel_figures(histogram: ScoreHistogram) -> PixelFigures:
    return PixelFigures(
        auroc=metrics.pixel_auroc(histogram, _generator()),
        average_precision=metrics.pixel_average_precision(histogram, _generator()),
        balanced_accuracy=metrics.pixel_balanced_accuracy(histogram, _generator()),
    )


def _generator() -> np.random.Generator:
    """A fresh one for each figure: every figure sees the same resampled photographs."""
    return np.random.default_rng(_SEED)
