"""Score every test photograph and count the pixels of its anomaly map against its masks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.dataset import read_lesions
from lab.evaluate import froc, metrics
from lab.evaluate.bootstrap import Floats, Labels
from lab.evaluate.froc import LesionRegions, PhotoSummary
from lab.evaluate.metrics import ScoreHistogram, SparseCounts, SparseCountsBuilder
from resad.config import PhotoLimits, PreparationConfig
from resad.detector import Detection
from resad.errors import SettingError, naming
from resad.field_of_view import field_of_view_mask, find_field_of_view
from resad.loaded_index import LoadedIndex
from resad.near_duplicates import HashedPhoto, match_near_duplicates, perceptual_hash
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare


def names_of(photos: Sequence[LabeledPhoto]) -> list[str]:
    """Names for reports: paths below the folder that all share, as `test/good/a.jpg`."""
    shared = Path(os.path.commonpath([photo.path.parent for photo in photos]))
    return [photo.path.relative_to(shared).as_posix() for photo in photos]


@dataclass(frozen=True, slots=True)
class IndexMatch:
    """A test photograph that shows the same as a photograph of the index.

    photo: number of the test photograph.  reference: id of the index's photograph.  bits: differing bits of their
    perceptual hashes; None for the same file.  mirrored: one was compared with the mirror image of the other.
    """

    photo: int
    reference: str
    bits: int | None
    mirrored: bool


@dataclass(frozen=True, slots=True, eq=False)
class LesionCounts:
    """Counts of one kind of lesion inside the field of view: pixels, and regions for AUPRO."""

    kind: str
    pixels: SparseCounts
    regions: SparseCounts


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Scores and pixel counts of every test photograph.

    scores: float64 (n,).  labels: bool (n,), True abnormal.  fov, whole: pixels per bin of `edges`.
    fov_regions, whole_regions: as `metrics.count_regions`.  lesion_regions: what the FROC needs.
    soft_masks: those with more than two values, of which at least half of the maximum counts.
    """

    photos: tuple[LabeledPhoto, ...]
    scores: Floats
    labels: Labels
    in_the_index: tuple[IndexMatch, ...]
    fov: ScoreHistogram
    whole: ScoreHistogram
    fov_regions: SparseCounts
    whole_regions: SparseCounts
    lesions: tuple[LesionCounts, ...]
    edges: NDArray[np.float32]
    lesion_regions: LesionRegions
    soft_masks: tuple[Path, ...] = ()

    def only(self, mask: Labels) -> "Measurement":
        """The same for the photographs of `mask`, bool (n,), without `in_the_index`."""
        return replace(
            self,
            photos=tuple(photo for photo, is_in in zip(self.photos, mask, strict=True) if is_in),
            scores=self.scores[mask],
            labels=self.labels[mask],
            in_the_index=(),
            fov=self.fov.only(mask),
            whole=self.whole.only(mask),
            fov_regions=self.fov_regions.only(mask),
            whole_regions=self.whole_regions.only(mask),
            lesions=tuple(
                LesionCounts(lesion.kind, lesion.pixels.only(mask), lesion.regions.only(mask))
                for lesion in self.lesions
            ),
            lesion_regions=self.lesion_regions.only(mask),
        )


Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AreaCounts:
    """Counts per bin, (bins,): pixels outside masks, pixels inside, and `metrics.count_regions` of the masks."""

    normal: Counts
    abnormal: Counts
    regions: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PhotoCounts:
    """Counts of a photograph.  fov: inside the field of view.  lesions: pixels and regions there, by kind."""

    fov: AreaCounts
    whole: AreaCounts
    lesions: tuple[tuple[Counts, Floats], ...]


def count_photo(
    lesions: dict[str | None, Labels] | None,
    values: NDArray[np.float32],
    inside: Labels,
    kinds: Sequence[str],
    edges: NDArray[np.float32],
) -> PhotoCounts:
    """Counts of an anomaly map `values` (H, W).

    Args:
        lesions: the marked pixels (H, W) by kind; None where it is unknown where the photograph is abnormal, which
            then counts nothing.
        inside: (H, W), the field of view.
    """
    if lesions is None:
        return _nothing(len(edges) - 1, len(kinds))
    none = np.zeros(values.shape, dtype=bool)
    marked = np.logical_or.reduce([none, *lesions.values()])
    everywhere = np.ones(values.shape, dtype=bool)
    return PhotoCounts(
        fov=_area(values, marked, inside, edges),
        whole=_area(values, marked, everywhere, edges),
        lesions=tuple(_lesion(values, lesions.get(kind, none), inside, edges) for kind in kinds),
    )


def _area(values: NDArray[np.float32], marked: Labels, area: Labels, edges: NDArray[np.float32]) -> AreaCounts:
    normal, abnormal = metrics.count_pixels(values[area], marked[area], edges)
    return AreaCounts(normal, abnormal, metrics.count_regions(values, marked, area, edges))


def _lesion(
    values: NDArray[np.float32], lesion: Labels, inside: Labels, edges: NDArray[np.float32]
) -> tuple[Counts, Floats]:
    _, pixels = metrics.count_pixels(values[inside], lesion[inside], edges)
    return pixels, metrics.count_regions(values, lesion, inside, edges)


def _nothing(bins: int, kinds: int) -> PhotoCounts:
    none, nothing = np.zeros(bins, dtype=np.int64), np.zeros(bins)
    area = AreaCounts(none, none, nothing)
    return PhotoCounts(area, area, ((none, nothing),) * kinds)


class IndexPhoto(HashedPhoto, Protocol):
    """A photograph that the index was built from or calibrated on."""

    @property
    def id(self) -> str:
        """Id in the index: `r-00001`, or `c-00001` for a photograph of the calibration."""
        ...


def measure_dataset(
    loaded: LoadedIndex,
    dataset: Dataset,
    limits: PhotoLimits,
    on_photo: Callable[[int], None],
    *,
    calibrated_on: Sequence[IndexPhoto] = (),
    strict: bool = False,
) -> Measurement:
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
    references: Sequence[IndexPhoto] = (),
    strict: bool = False,
) -> Measurement:
    """As `measure_dataset` with any detector; `references` are the photographs that it learned from."""
    if not dataset.test:
        raise SettingError(f"data set {dataset.name} has no test photographs")
    masks = [mask for labeled in dataset.test for mask in labeled.masks]
    kinds = sorted({mask.kind for mask in masks if mask.kind is not None})
    # Without a mask in the whole set there is no pixel figure: nothing to count into 16,384 bins for.
    edges = metrics.score_edges(full_scale) if masks else metrics.score_edges(full_scale, 2)
    soft_masks: list[Path] = []
    scores, matches, counts, summaries = [], [], _CountsBuilder(kinds, len(edges) - 1), []
    for number, labeled in enumerate(dataset.test):
        with naming(labeled.path):
            photo = prepare(labeled.path, preparation, limits)
        matches += match_index(number, labeled.path, photo, references, strict=strict)
        detection = detect(photo)
        scores.append(detection.image_score)
        unknown = labeled.abnormal and not labeled.masks
        height, width = photo.frame.height, photo.frame.width
        lesions = None if unknown else read_lesions(labeled.masks, height, width, on_soft=soft_masks.append)
        counts.add(_count(labeled, lesions, photo, detection, kinds, edges, limits))
        summaries.append(_summary(lesions, photo, detection, kinds))
        on_photo(1)
    labels = np.array([labeled.abnormal for labeled in dataset.test])
    return Measurement(
        photos=dataset.test,
        scores=np.array(scores),
        labels=labels,
        in_the_index=tuple(matches),
        fov=counts.fov.histogram(),
        whole=counts.whole.histogram(),
        fov_regions=counts.fov.regions.build(),
        whole_regions=counts.whole.regions.build(),
        lesions=counts.lesions(),
        edges=edges,
        lesion_regions=LesionRegions(tuple(summaries), tuple(kinds)),
        soft_masks=tuple(soft_masks),
    )


def _summary(
    lesions: dict[str | None, Labels] | None, photo: PreparedPhoto, detection: Detection, kinds: Sequence[str]
) -> PhotoSummary:
    if lesions is None:
        return froc.UNKNOWN
    return froc.summarize(detection.anomaly_map, detection.scored, photo.frame, lesions, kinds)


@dataclass(frozen=True, slots=True)
class _Hashes:
    content_sha256: str
    perceptual_hash: str


def match_index(
    number: int, path: Path, photo: PreparedPhoto, references: Sequence[IndexPhoto], *, strict: bool
) -> list[IndexMatch]:
    """The match of a test photograph, its number and its file, with the index's photographs, if there is one.

    Raises `SettingError` with `strict` if there is one.
    """
    hashes = _Hashes(photo.content_hash, perceptual_hash(photo.pixels))
    pairs = match_near_duplicates([hashes], references)
    matches = [IndexMatch(number, references[pair.second].id, pair.bits, pair.mirrored) for pair in pairs]
    if matches and strict:
        how = "as a mirror image of" if matches[0].mirrored else "as"
        raise SettingError(f"{path} is in the index {how} {matches[0].reference}: figures from it would flatter")
    return matches


def _count(
    labeled: LabeledPhoto,
    lesions: dict[str | None, Labels] | None,
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
    return count_photo(lesions, photo.frame.map_to_photo(detection.anomaly_map), inside, kinds, edges)


class _AreaBuilder:
    """Collects the counts of an area."""

    def __init__(self, bins: int) -> None:
        self._normal, self._abnormal, self.regions = (SparseCountsBuilder(bins) for _ in range(3))

    def add(self, counts: AreaCounts) -> None:
        self._normal.add(counts.normal)
        self._abnormal.add(counts.abnormal)
        self.regions.add(counts.regions)

    def histogram(self) -> ScoreHistogram:
        return ScoreHistogram(self._normal.build(), self._abnormal.build())


class _CountsBuilder:
    """Collects the counts of all photographs."""

    def __init__(self, kinds: Sequence[str], bins: int) -> None:
        self.fov, self.whole = _AreaBuilder(bins), _AreaBuilder(bins)
        self._lesions = [(kind, SparseCountsBuilder(bins), SparseCountsBuilder(bins)) for kind in kinds]

    def add(self, counts: PhotoCounts) -> None:
        self.fov.add(counts.fov)
        self.whole.add(counts.whole)
        for (_, pixels, regions), lesion in zip(self._lesions, counts.lesions, strict=True):
            pixels.add(lesion[0])
            regions.add(lesion[1])

    def lesions(self) -> tuple[LesionCounts, ...]:
        return tuple(
            LesionCounts(kind, pixels.build(), regions.build()) for kind, pixels, regions in self._lesions
        )
