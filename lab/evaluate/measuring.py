"""Every test photograph scored, and its pixels counted against its masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.photos.near_duplicates import Hashed, perceptual_hash, same_pictures
from lab.datasets import Dataset, LabeledPhoto
from lab.evaluate import metrics
from lab.evaluate.counting import AreaCounts, PhotoCounts, count_photo
from lab.evaluate.measured import InTheIndex, LesionCounts, Measured
from lab.evaluate.metrics import GatheredRows, ScoreHistogram
from resad.config import PhotoLimits, PreparationConfig
from resad.detector import Detection
from resad.errors import SettingError, naming
from resad.field_of_view import field_of_view_mask, find_field_of_view
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare


class Known(Hashed, Protocol):
    """A photograph that the index was built from or calibrated on."""

    @property
    def id(self) -> str:
        """In the index: `r-00001`, or `c-00001` where it was calibrated on."""
        ...


def measure_dataset(
    loaded: LoadedIndex,
    dataset: Dataset,
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    calibrated_on: Sequence[Known] = (),
    strict: bool = False,
) -> Measured:
    """Score every test photograph and count its pixels against its mask, both in the photo's own pixels.

    Args:
        calibrated_on: photographs that the index's calibration rests on beside its own.
    Raises:
        PhotoError: a test photograph cannot be read.
        SettingError: a mask that does not belong to its photograph; with `strict`, a test photograph that is in
            the index.
    """
    return measure_with(
        lambda photo: loaded.detector.detect([photo])[0],
        loaded.manifest.config.preparation,
        loaded.manifest.calibration.full_scale,
        dataset,
        limits,
        on_photo,
        references=(*loaded.photos, *calibrated_on),
        strict=strict,
    )


def measure_with(
    detect: Callable[[PreparedPhoto], Detection],
    preparation: PreparationConfig,
    full_scale: float,
    dataset: Dataset,
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    references: Sequence[Known] = (),
    strict: bool = False,
) -> Measured:
    """As `measure_dataset`, by anything that makes a map; `references` are what it learned from."""
    if not dataset.test:
        raise SettingError(f"data set {dataset.name} has no test photographs")
    masks = [mask for labeled in dataset.test for mask in labeled.masks]
    kinds = sorted({mask.kind for mask in masks if mask.kind is not None})
    # Without a mask in the whole set there is no pixel figure: nothing to count into 16,384 bins for.
    edges = metrics.score_edges(full_scale) if masks else metrics.score_edges(full_scale, 2)
    scores, doubles, counts = [], [], _Gathered(kinds, len(edges) - 1)
    for number, labeled in enumerate(dataset.test):
        with naming(labeled.path):
            photo = prepare(labeled.path, preparation, limits)
        doubles += (double := _look_up(number, labeled, photo, references))
        if double and strict:
            how = "as a mirror image of" if double[0].mirrored else "as"
            raise SettingError(
                f"{labeled.path} is in the index {how} {double[0].reference}: figures from it would flatter"
            )
        detection = detect(photo)
        scores.append(detection.image_score)
        counts.add(_count(labeled, photo, detection, kinds, edges, limits))
        on_photo(1)
    labels = np.array([labeled.abnormal for labeled in dataset.test])
    return Measured(
        photos=dataset.test,
        scores=np.array(scores),
        labels=labels,
        in_the_index=tuple(doubles),
        fov=counts.fov.histogram(),
        whole=counts.whole.histogram(),
        fov_regions=counts.fov.regions.rows(),
        whole_regions=counts.whole.regions.rows(),
        lesions=counts.lesions(),
        edges=edges,
    )


@dataclass(frozen=True, slots=True)
class _Hashes:
    content_sha256: str
    perceptual_hash: str


def _look_up(
    number: int, labeled: LabeledPhoto, photo: PreparedPhoto, references: Sequence[Known]
) -> list[InTheIndex]:
    hashes = _Hashes(photo.content_hash, perceptual_hash(photo.pixels))
    found = same_pictures([hashes], references)
    return [InTheIndex(number, references[one.second].id, one.bits, one.mirrored) for one in found]


def _count(
    labeled: LabeledPhoto,
    photo: PreparedPhoto,
    detection: Detection,
    kinds: Sequence[str],
    edges: NDArray[np.float32],
    limits: PhotoLimits,
) -> PhotoCounts:
    height, width = photo.frame.height, photo.frame.width
    # Found again on the whole photo: the one of the prepared photo may rest on a coarser decoding, and pixels that
    # are counted must not depend on the settings that are compared.
    with naming(labeled.path):
        field = find_field_of_view(read_photo(labeled.path, limits).pixels)
    inside = field_of_view_mask(field, height, width)
    return count_photo(labeled, photo.frame.map_to_photo(detection.anomaly_map), inside, kinds, edges)


class _GatheredArea:
    """The counts of one area, photograph by photograph."""

    def __init__(self, bins: int) -> None:
        self._normal, self._abnormal, self.regions = (GatheredRows(bins) for _ in range(3))

    def add(self, one: AreaCounts) -> None:
        self._normal.add(one.normal)
        self._abnormal.add(one.abnormal)
        self.regions.add(one.regions)

    def histogram(self) -> ScoreHistogram:
        return ScoreHistogram(self._normal.rows(), self._abnormal.rows())


class _Gathered:
    """What was counted so far: of a photograph only the bins that hold something."""

    def __init__(self, kinds: Sequence[str], bins: int) -> None:
        self.fov, self.whole = _GatheredArea(bins), _GatheredArea(bins)
        self._lesions = [(kind, GatheredRows(bins), GatheredRows(bins)) for kind in kinds]

    def add(self, counts: PhotoCounts) -> None:
        self.fov.add(counts.fov)
        self.whole.add(counts.whole)
        for (_, pixels, regions), found in zip(self._lesions, counts.lesions, strict=True):
            pixels.add(found[0])
            regions.add(found[1])

    def lesions(self) -> tuple[LesionCounts, ...]:
        return tuple(LesionCounts(kind, pixels.rows(), regions.rows()) for kind, pixels, regions in self._lesions)
