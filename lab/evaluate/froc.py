"""FROC: lesions touched against false regions per healthy photograph.

A region is a connected region of the anomaly map strictly above a level, inside the field of view, as
`resad.findings` outlines them.  A lesion is a connected region of the marked pixels in the field of view, and is
touched when a region has a pixel of it.  Both are taken on the prepared square; pixels that touch at a corner
connect.  False regions are counted on the healthy test photographs.  Of each photograph only a summary is kept.

Intervals come from a bootstrap over all test photographs: a resample counts its own healthy photographs, takes the
levels from them and measures its own diseased ones at these.  So the intervals also tell how uncertain the levels
are.  The index's own levels do not depend on the test photographs and are the same in each resample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from math import ceil, floor
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic.dataclasses import dataclass
from scipy import ndimage

from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import RESAMPLES, Figure, Floats, Labels, Pool
from resad.false_regions import RATES, FindingLevel, region_tree
from resad.preparation import Frame

ALL: Final = "all"
LARGE: Final = 64
"""Area from which a lesion is large, px of a prepared square of `_SIDE` px."""
_SIDE: Final = 512
_MOST: Final = 1024
"""Regions that are kept of a photograph: the highest ones."""
_HALF: Final = 128
"""Of the brightness of a marked pixel."""
_CORNERS: Final = np.ones((3, 3))
_HAIR: Final = 1e-9


@plain_dataclass(frozen=True, slots=True, eq=False)
class RegionSteps:
    """How many regions of a photograph lie above any level.

    heights: float64 (n,), falling.  steps: int32 (n,), by how many regions their number changes just below each
    height.  limit: below it there may be regions that are not kept.
    """

    heights: Floats
    steps: NDArray[np.int32]
    limit: float

    def count(self, level: float) -> int:
        """Regions strictly above `level`; at least as many below the limit."""
        return int(self.steps[: np.searchsorted(-self.heights, -level, side="left")].sum())


NO_REGIONS: Final = RegionSteps(np.zeros(0), np.zeros(0, np.int32), 0.0)


@plain_dataclass(frozen=True, slots=True, eq=False)
class PhotoLesions:
    """The lesions of a photograph, (n,) each.

    kind: number of the kind, `ANY_KIND` for lesions of all masks together.  area: px of a prepared square of
    512 px.  peak: the highest value of the map in the lesion.
    """

    kind: NDArray[np.int16]
    area: Floats
    peak: Floats


NO_LESIONS: Final = PhotoLesions(np.zeros(0, np.int16), np.zeros(0), np.zeros(0))
ANY_KIND: Final = -1
"""Number of the kind of lesions of all masks together."""


@plain_dataclass(frozen=True, slots=True, eq=False)
class PhotoSummary:
    """regions: those that touch no marked pixel; none where it is unknown what is marked."""

    regions: RegionSteps
    lesions: PhotoLesions
    marked: bool
    """Whether it is known where the photograph is abnormal."""


UNKNOWN: Final = PhotoSummary(NO_REGIONS, NO_LESIONS, marked=False)
"""Of an abnormal photograph without masks."""


@plain_dataclass(frozen=True, slots=True, eq=False)
class LesionRegions:
    """Regions and lesions of all test photographs.  kinds: the kinds of lesions, in the order of their numbers."""

    photos: tuple[PhotoSummary, ...]
    kinds: tuple[str, ...]

    def only(self, mask: Labels) -> Self:
        """The same for the photographs of `mask`, bool (n,)."""
        chosen = (photo for photo, is_in in zip(self.photos, mask, strict=True) if is_in)
        return type(self)(tuple(chosen), self.kinds)


def summarize(
    values: NDArray[np.float32],
    scored: Labels,
    frame: Frame,
    lesions: dict[str | None, Labels],
    kinds: Sequence[str],
) -> PhotoSummary:
    """The regions and lesions of a photograph.

    Args:
        values: the anomaly map, float32 (S, S), at least 0.
        scored: bool (S, S), the field of view; lesions outside do not count.
        lesions: by kind the marked pixels of the photograph, bool (H, W); empty for a healthy one.
    """
    squares = {kind: project_mask(mask, frame) & scored for kind, mask in lesions.items()}
    marked = np.logical_or.reduce([np.zeros_like(scored), *squares.values()])
    masks = [
        (ANY_KIND, marked),
        *((number, squares[kind]) for number, kind in enumerate(kinds) if kind in squares),
    ]
    parts = [_lesions(number, mask, values, frame.side) for number, mask in masks]
    return PhotoSummary(
        _unmarked_regions(values, scored, marked),
        PhotoLesions(
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.area for part in parts]),
            np.concatenate([part.peak for part in parts]),
        ),
        marked=True,
    )


def project_mask(mask: Labels, frame: Frame) -> Labels:
    """The marked pixels of a photograph, bool (H, W), on its prepared square, bool (S, S).

    A pixel of the square is marked where half of it is.  A lesion too small for that marks the pixel that has the
    most of it.
    """
    x0, y0, x1, y1 = floor(frame.left), floor(frame.top), ceil(frame.right), ceil(frame.bottom)
    part = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).crop((x0, y0, x1, y1))
    box = (frame.left - x0, frame.top - y0, frame.right - x0, frame.bottom - y0)
    square = np.array(part.resize((frame.side, frame.side), Image.Resampling.BOX, box=box)) >= _HALF
    labels, count = ndimage.label(mask, _CORNERS)
    if not count:
        return np.asarray(square)
    ys, xs = np.nonzero(labels)
    across, down = frame.to_prepared(xs + 0.5, ys + 0.5)
    columns, rows = np.floor(across).astype(int), np.floor(down).astype(int)
    inside = (columns >= 0) & (columns < frame.side) & (rows >= 0) & (rows < frame.side)
    label, cell = labels[ys, xs][inside], (rows * frame.side + columns)[inside]
    is_there = np.zeros(count + 1, np.bool_)
    is_there[label[square.flat[cell]]] = True
    lost = ~is_there[label]
    pairs, pixels = np.unique(np.stack([label[lost], cell[lost]]), axis=1, return_counts=True)
    # Of each lost lesion the last pair in this order has the most pixels.
    order = np.lexsort((pixels, pairs[0]))
    last = np.diff(pairs[0][order], append=count + 1) > 0
    square.flat[pairs[1][order][last]] = True
    return np.asarray(square)


def _lesions(kind: int, mask: Labels, values: NDArray[np.float32], side: int) -> PhotoLesions:
    labels, count = ndimage.label(mask, _CORNERS)
    peaks = ndimage.maximum(values, labels, np.arange(1, count + 1)) if count else ()
    pixels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    areas = np.asarray(pixels * (_SIDE / side) ** 2, np.float64)
    return PhotoLesions(np.full(count, kind, np.int16), areas, np.asarray(peaks, np.float64))


def _unmarked_regions(values: NDArray[np.float32], scored: Labels, marked: Labels) -> RegionSteps:
    """The regions that have no marked pixel: all regions less those that have one."""
    tree = region_tree(np.where(scored, values, np.float32(-1)))
    heights, steps = [], []
    for sign, nodes in ((1, np.ones(tree.heights.size, np.bool_)), (-1, tree.containing(marked & scored))):
        peaks, merges = tree.changes(nodes)
        heights += [peaks, merges]
        steps += [np.full(peaks.size, sign, np.int32), np.full(merges.size, -sign, np.int32)]
    peaks = np.sort(heights[0])[::-1]
    limit = float(peaks[_MOST]) if peaks.size > _MOST else 0.0
    return _steps(np.concatenate(heights).astype(np.float64), np.concatenate(steps), limit)


def _steps(heights: Floats, steps: NDArray[np.int32], limit: float) -> RegionSteps:
    """One step per height, without those that cancel out or are not above the limit."""
    distinct, places = np.unique(heights, return_inverse=True)
    sums = np.bincount(places, steps, distinct.size).astype(np.int32)
    kept = (sums != 0) & (distinct > limit)
    return RegionSteps(distinct[kept][::-1], sums[kept][::-1], limit)


@dataclass(frozen=True)
class TouchedLesions:
    """Lesions of one kind, or of `all` masks together, from an area of `smallest_px` on.

    lesions, photos: their number, and that of the photographs that have any.  touched: share of the lesions.
    photos_touched: share of these photographs in which one is touched.  Areas are px of a prepared square of
    512 px.
    """

    kind: str
    smallest_px: int
    lesions: int
    photos: int
    touched: Figure
    photos_touched: Figure

    @property
    def name(self) -> str:
        """The group in words."""
        return lesion_group_name(self.kind, self.smallest_px)


def lesion_group_name(kind: str, smallest_px: int) -> str:
    """`exudate, 64 px+`; `all lesions` for all masks together."""
    name = "all lesions" if kind == ALL else kind
    return f"{name}, {smallest_px} px+" if smallest_px else name


@dataclass(frozen=True)
class FrocPoint:
    """What lies above one level.

    rate: the false regions per healthy photograph that the level is meant for.  false_regions: those that the
    healthy test photographs show; null without such.  unmarked_regions: regions per diseased photograph that touch
    no marked pixel; experts may have missed a lesion there.
    """

    rate: float
    level: float
    false_regions: Figure | None
    unmarked_regions: float
    lesions: tuple[TouchedLesions, ...]

    def group(self, kind: str = ALL, smallest_px: int = 0) -> TouchedLesions | None:
        """The lesions of a kind and size, if there are any."""
        return next((g for g in self.lesions if (g.kind, g.smallest_px) == (kind, smallest_px)), None)


LevelsFrom = Literal["healthy test photographs", "the index's normals"]


@dataclass(frozen=True)
class Froc:
    """The FROC at fixed rates, and the check of the index's own levels.

    points: at levels that the healthy test photographs pass so often, or, without such photographs, the index's
    own.  index_levels: at the levels of findings that the index states for these rates, if it states any.
    """

    levels_from: LevelsFrom
    healthy: int
    diseased: int
    points: tuple[FrocPoint, ...]
    index_levels: tuple[FrocPoint, ...]

    def at(self, rate: float) -> FrocPoint | None:
        """The point of a rate."""
        return next((point for point in self.points if point.rate == rate), None)


@plain_dataclass(frozen=True, slots=True, eq=False)
class ShareCurve:
    """Share of lesions, or of photographs, touched at `rates`, with a 95 % band; float64 (n,) each."""

    kind: str
    smallest_px: int
    of_photos: bool
    rates: Floats
    share: Floats
    low: Floats
    high: Floats


def froc(
    regions: LesionRegions, labels: Labels, levels: Sequence[FindingLevel], resamples: int = RESAMPLES
) -> Froc | None:
    """The FROC of the test photographs; None without marked lesions, or without anything to take levels from.

    Args:
        labels: bool (n,), True where abnormal.
        levels: the index's own, stated for false regions per healthy photograph.
    """
    counts = _Counts(regions, labels)
    stated = [(entry.rate, entry.value) for entry in levels if entry.value is not None]
    if not counts.groups or not (counts.healthy.size or stated):
        return None
    at_stated = _points(counts, *_fixed(counts, stated), resamples) if stated else ()
    if not counts.healthy.size:
        return Froc("the index's normals", 0, counts.diseased.size, at_stated, at_stated)
    points = _points(counts, np.array(RATES), counts.levels_for(np.array(RATES)), resamples)
    return Froc("healthy test photographs", counts.healthy.size, counts.diseased.size, points, at_stated)


def froc_curves(
    regions: LesionRegions, labels: Labels, levels: Sequence[FindingLevel], rates: Floats, resamples: int
) -> tuple[ShareCurve, ...]:
    """The curves of lesions by kind and size, and of photographs, as `froc`; empty where that is None.

    Without healthy test photographs the curves have a point for each rate that the index states, not for `rates`.
    """
    counts = _Counts(regions, labels)
    stated = [(entry.rate, entry.value) for entry in levels if entry.value is not None]
    if not counts.groups or not (counts.healthy.size or stated):
        return ()
    find_levels = counts.levels_for(rates) if counts.healthy.size else None
    if find_levels is None:
        rates, find_levels = _fixed(counts, stated)
    measured = _measure(counts, find_levels, resamples)
    return tuple(
        ShareCurve(group.kind, group.smallest_px, of_photos, rates, *shares[:, number])
        for of_photos, shares in ((False, measured.touched), (True, measured.photos_touched))
        for number, group in enumerate(counts.groups)
    )


_Levels = Callable[[Floats], Floats]
"""How often each photograph is drawn, (b, n) -> levels (b, rates)."""


def _fixed(counts: "_Counts", stated: Sequence[tuple[float, float | None]]) -> tuple[Floats, _Levels]:
    rates, values = np.array(stated, np.float64).T
    return rates, lambda weights: np.tile(values, (len(weights), 1))


@plain_dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Lesions of one kind and size, and per photograph that has any the highest one."""

    kind: str
    smallest_px: int
    peaks: "_Peaks"
    highest: "_Peaks"


@plain_dataclass(frozen=True, slots=True, eq=False)
class _Peaks:
    """photo, peak: (m,), peaks falling."""

    photo: NDArray[np.intp]
    peak: Floats

    def share_above(self, weights: Floats, levels: Floats) -> Floats:
        """The share above each of `levels` (b, r), nan where nothing was drawn, by how often photographs were."""
        drawn = np.cumsum(np.pad(weights[:, self.photo], ((0, 0), (1, 0))), axis=1)
        above = np.searchsorted(-self.peak, -levels, side="left")
        total = drawn[:, -1:]
        return np.asarray(np.take_along_axis(drawn, above, axis=1) / np.where(total > 0, total, np.nan))


def _falling(photo: NDArray[np.intp], peak: Floats) -> _Peaks:
    order = np.argsort(-peak, kind="stable")
    return _Peaks(photo[order], peak[order])


@plain_dataclass(frozen=True, slots=True, eq=False)
class _HealthyRegions:
    """Photograph, height and step of the regions of all healthy photographs, (n,) each, heights falling.

    last_of_equal: bool (n,), where the next height is another one.  limit: below it some regions are missing.
    """

    photo: NDArray[np.intp]
    heights: Floats
    steps: NDArray[np.int32]
    last_of_equal: Labels
    limit: float


class _Counts:
    """The summaries of all photographs side by side.  healthy, diseased: numbers of photographs."""

    def __init__(self, regions: LesionRegions, labels: Labels) -> None:
        self.photos = regions.photos
        marked = np.array([photo.marked for photo in regions.photos], np.bool_)
        self.healthy, self.diseased = np.flatnonzero(~labels), np.flatnonzero(labels & marked)
        chosen = [regions.photos[number].lesions for number in self.diseased]
        photo = np.repeat(self.diseased, [lesions.peak.size for lesions in chosen])
        kind, area, peak = (
            np.concatenate([np.zeros(0), *(getattr(lesions, name) for lesions in chosen)])
            for name in ("kind", "area", "peak")
        )
        kinds = ((ANY_KIND, ALL), *(enumerate(regions.kinds) if len(regions.kinds) > 1 else ()))
        self.groups = [
            _group(name, smallest, photo[of_group], peak[of_group])
            for number, name in kinds
            for smallest in (0, LARGE)
            if (of_group := (kind == number) & (area >= smallest - _HAIR)).any()
        ]

    @property
    def pool(self) -> Pool:
        """Each resample has a diseased photograph with a lesion and, if there are any, a healthy one."""
        n = len(self.photos)
        has_lesion, has_healthy = np.zeros(n, np.bool_), np.full(n, not self.healthy.size)
        has_lesion[self.groups[0].highest.photo] = True
        has_healthy[self.healthy] = True
        nothing = np.zeros((n, 0))
        return Pool(nothing, nothing, has_healthy, has_lesion)

    def levels_for(self, rates: Floats) -> _Levels:
        """The lowest level such that there and everywhere above the healthy show no more than each rate."""

        def levels(weights: Floats) -> Floats:
            return np.array([self._levels(row, rates) for row in weights[:, self.healthy]])

        return levels

    def _levels(self, weights: Floats, rates: Floats) -> Floats:
        healthy = self._healthy_regions
        # Regions just below each height, and the most of them there or above.
        most = np.maximum.accumulate(np.cumsum(weights[healthy.photo] * healthy.steps)[healthy.last_of_equal])
        first_too_many = np.searchsorted(most, rates * weights.sum() + _HAIR, side="right")
        # Where they never show so many, the level at which they show the most: below it regions run together.
        first_too_many = (
            np.minimum(first_too_many, np.searchsorted(most, most[-1]) + 1) if most.size else first_too_many
        )
        values: Floats = np.append(healthy.heights[healthy.last_of_equal], healthy.limit)[first_too_many]
        return values

    @cached_property
    def _healthy_regions(self) -> "_HealthyRegions":
        regions = [self.photos[number].regions for number in self.healthy]
        limit = max(photo.limit for photo in regions)
        photo = np.repeat(np.arange(len(regions)), [entry.heights.size for entry in regions])
        heights = np.concatenate([entry.heights for entry in regions])
        steps = np.concatenate([entry.steps for entry in regions])
        order = np.argsort(-heights, kind="stable")
        order = order[heights[order] > limit]
        last_of_equal = np.diff(heights[order], append=-np.inf) < 0
        return _HealthyRegions(photo[order], heights[order], steps[order], last_of_equal, limit)

    def false_regions(self, weights: Floats, levels: Floats) -> Floats:
        """Regions per healthy photograph above levels (b, r), (b, r); nan without healthy photographs."""
        if not self.healthy.size:
            return np.full(levels.shape, np.nan)
        healthy, drawn = self._healthy_regions, weights[:, self.healthy]
        above = np.searchsorted(-healthy.heights, -levels, side="left")
        counts = np.array(
            [
                np.append(0.0, np.cumsum(row[healthy.photo] * healthy.steps))[places]
                for row, places in zip(drawn, above, strict=True)
            ]
        )
        per_photo: Floats = counts / drawn.sum(axis=1, keepdims=True)
        return per_photo

    def unmarked_regions(self, level: float) -> float:
        """Regions per diseased photograph that touch no marked pixel."""
        return float(np.mean([self.photos[number].regions.count(level) for number in self.diseased]))


def _group(kind: str, smallest: int, photo: NDArray[np.intp], peak: Floats) -> _Group:
    numbers, places = np.unique(photo, return_inverse=True)
    highest = np.full(numbers.size, -np.inf)
    np.maximum.at(highest, places, peak)
    return _Group(kind, smallest, _falling(photo, peak), _falling(numbers, highest))


@plain_dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """At r levels, (r,): value, low and high of each figure.

    false_regions: (3, r).  touched, photos_touched: (3, groups, r).
    """

    levels: Floats
    false_regions: Floats
    touched: Floats
    photos_touched: Floats


def _measure(counts: _Counts, find_levels: _Levels, resamples: int) -> _Measured:
    def measure(weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        levels = find_levels(weights)
        touched, photos_touched = (
            np.stack([peaks.share_above(weights, levels) for peaks in of_groups], axis=1)
            for of_groups in (
                [group.peaks for group in counts.groups],
                [group.highest for group in counts.groups],
            )
        )
        return levels, counts.false_regions(weights, levels), touched, photos_touched

    value = measure(np.ones((1, len(counts.photos))))
    parts = [measure(w) for w in bootstrap.resampled(counts.pool, bootstrap.fresh_generator(), resamples)]
    bounded = [
        np.stack([value[number][0], *_bounds(np.concatenate([part[number] for part in parts]))])
        for number in (1, 2, 3)
    ]
    return _Measured(value[0][0], *bounded)


def _bounds(values: Floats) -> tuple[Floats, Floats]:
    """95 % of `values` (b, ...); resamples without any lesion of a kind, nan, are as if drawn again."""
    if np.isnan(values).all():  # no healthy photographs
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    low, high = np.nanpercentile(values, (2.5, 97.5), axis=0)
    return low, high


def _points(counts: _Counts, rates: Floats, find_levels: _Levels, resamples: int) -> tuple[FrocPoint, ...]:
    measured = _measure(counts, find_levels, resamples)
    return tuple(
        FrocPoint(
            rate=float(rate),
            level=float(measured.levels[at]),
            false_regions=_figure(measured.false_regions[:, at]) if counts.healthy.size else None,
            unmarked_regions=counts.unmarked_regions(float(measured.levels[at])),
            lesions=tuple(
                TouchedLesions(
                    kind=group.kind,
                    smallest_px=group.smallest_px,
                    lesions=group.peaks.peak.size,
                    photos=group.highest.peak.size,
                    touched=_figure(measured.touched[:, number, at]),
                    photos_touched=_figure(measured.photos_touched[:, number, at]),
                )
                for number, group in enumerate(counts.groups)
            ),
        )
        for at, rate in enumerate(rates)
    )


def _figure(value_low_high: Floats) -> Figure:
    value, low, high = value_low_high.tolist()
    return Figure(value, low, high)
