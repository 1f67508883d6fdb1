"""Every test photograph scored, and its pixels counted against its masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer import metrics
from indexer.bootstrap import Floats, Labels
from indexer.datasets import Dataset, LabeledPhoto
from indexer.evaluate.counting import AreaCounts, Counts, PhotoCounts, count_photo
from indexer.look_alikes import Hashed, perceptual_hash, same_pictures
from indexer.metrics import ScoreHistogram
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


@dataclass(frozen=True, slots=True)
class InTheIndex:
    """A test photograph that is among the reference photos.

    photo: its number among the test photographs.  reference: the id of the other.  bits: how many differ of their
    perceptual hashes; None for the same file.
    """

    photo: int
    reference: str
    bits: int | None


@dataclass(frozen=True, slots=True, eq=False)
class LesionCounts:
    """One kind of lesion inside the field of view, per photograph and bin: pixels, and regions as for AUPRO."""

    kind: str
    pixels: Counts
    regions: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Per test photograph, for paired comparisons.

    scores: float64 (n,).  labels: bool (n,), True abnormal.  fov, whole: pixels per bin of `edges`.
    fov_regions, whole_regions: float64 (n, bins), as `metrics.count_regions`.
    """

    photos: tuple[LabeledPhoto, ...]
    scores: Floats
    labels: Labels
    in_the_index: tuple[InTheIndex, ...]
    fov: ScoreHistogram
    whole: ScoreHistogram
    fov_regions: Floats
    whole_regions: Floats
    lesions: tuple[LesionCounts, ...]
    edges: NDArray[np.float32]

    def only(self, chosen: Labels) -> "Measured":
        """The same of the `chosen` photographs, bool (n,), alone; `in_the_index` is not carried over."""
        return replace(
            self,
            photos=tuple(photo for photo, taken in zip(self.photos, chosen, strict=True) if taken),
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            in_the_index=(),
            fov=ScoreHistogram(self.fov.normal[chosen], self.fov.abnormal[chosen]),
            whole=ScoreHistogram(self.whole.normal[chosen], self.whole.abnormal[chosen]),
            fov_regions=self.fov_regions[chosen],
            whole_regions=self.whole_regions[chosen],
            lesions=tuple(LesionCounts(one.kind, one.pixels[chosen], one.regions[chosen]) for one in self.lesions),
        )


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
    # Without a mask in the whole set there is no pixel figure: nothing to hold 16,384 bins a photograph for.
    edges = metrics.score_edges(full_scale) if masks else metrics.score_edges(full_scale, 2)
    scores, counts, doubles = [], [], []
    for number, labeled in enumerate(dataset.test):
        with naming(labeled.path):
            photo = prepare(labeled.path, preparation, limits)
        doubles += (double := _look_up(number, labeled, photo, references))
        if double and strict:
            raise SettingError(
                f"{labeled.path} is in the index as {double[0].reference}: figures from it would flatter"
            )
        detection = detect(photo)
        scores.append(detection.image_score)
        counts.append(_count(labeled, photo, detection, kinds, edges, limits))
        on_photo(1)
    labels = np.array([labeled.abnormal for labeled in dataset.test])
    return _measured(dataset.test, np.array(scores), labels, tuple(doubles), counts, kinds, edges)


@dataclass(frozen=True, slots=True)
class _Hashes:
    content_sha256: str
    perceptual_hash: str


def _look_up(
    number: int, labeled: LabeledPhoto, photo: PreparedPhoto, references: Sequence[Known]
) -> list[InTheIndex]:
    hashes = _Hashes(photo.content_hash, perceptual_hash(photo.pixels))
    found = same_pictures([hashes], references)
    return [InTheIndex(number, references[one.second].id, one.bits) for one in found]


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


def _measured(
    photos: tuple[LabeledPhoto, ...],
    scores: Floats,
    labels: Labels,
    doubles: tuple[InTheIndex, ...],
    counts: Sequence[PhotoCounts],
    kinds: Sequence[str],
    edges: NDArray[np.float32],
) -> Measured:
    fov, whole = [one.fov for one in counts], [one.whole for one in counts]
    return Measured(
        photos=photos,
        scores=scores,
        labels=labels,
        in_the_index=doubles,
        fov=_histogram(fov),
        whole=_histogram(whole),
        fov_regions=np.stack([area.regions for area in fov]),
        whole_regions=np.stack([area.regions for area in whole]),
        lesions=tuple(
            LesionCounts(
                kind,
                np.stack([one.lesions[place][0] for one in counts]),
                np.stack([one.lesions[place][1] for one in counts]),
            )
            for place, kind in enumerate(kinds)
        ),
        edges=edges,
    )


def _histogram(areas: Sequence[AreaCounts]) -> ScoreHistogram:
    return ScoreHistogram(np.stack([area.normal for area in areas]), np.stack([area.abnormal for area in areas]))
