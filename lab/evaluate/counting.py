"""One photograph's map against its masks: pixels per bin of their score, in the field of view and everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.datasets import LabeledPhoto
from lab.datasets.masks import read_lesions
from lab.evaluate import metrics
from lab.evaluate.bootstrap import Floats, Labels

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AreaCounts:
    """Rows of histograms (bins,): pixels without mark, marked ones, and `metrics.count_regions` of the marked."""

    normal: Counts
    abnormal: Counts
    regions: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PhotoCounts:
    """fov: inside the field of view.  lesions: per kind asked for its pixels and regions there."""

    fov: AreaCounts
    whole: AreaCounts
    lesions: tuple[tuple[Counts, Floats], ...]


def count_photo(
    labeled: LabeledPhoto,
    values: NDArray[np.float32],
    inside: Labels,
    kinds: Sequence[str],
    edges: NDArray[np.float32],
) -> PhotoCounts:
    """What a map `values` (H, W) says of a photograph whose field of view is `inside` (H, W).

    An abnormal photograph without masks counts for nothing: where it is abnormal nobody knows.
    """
    if labeled.abnormal and not labeled.masks:
        return _nothing(len(edges) - 1, len(kinds))
    lesions = read_lesions(labeled.masks, *values.shape)
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
