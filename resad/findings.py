"""Findings: the regions of an anomaly map above a level, in the photo's own px, and where they lie in words.

A pixel index (x, y) names the pixel that covers [x, x + 1) x [y, y + 1); boxes include both of their ends.

Places are relative to the field of view, whose center need not be the fovea: photographs are centered on the
macula, on the optic disc, or elsewhere.  Photographs are assumed to be upright, as fundus cameras deliver them: in
a right eye the nasal side is on the right of the photograph, in a left eye on the left.
"""

import math
from dataclasses import dataclass
from itertools import groupby
from math import hypot
from typing import Final

import numpy as np
from numpy.typing import NDArray
from resad_client.records import FindingDoubt
from scipy import ndimage
from skimage.measure import find_contours

from resad.config import Eye
from resad.field_of_view import FieldOfView, simplify_line
from resad.preparation import Frame

CONTOUR_TOLERANCE: Final = 0.25
"""Largest distance between a simplified contour and the exact one, prepared px.  Below 0.35, at which corners of
small regions would be cut off; far below a patch of the paper's grid (8 px), the finest detail of the map."""

_ROUNDING: Final = 1e-6
"""Photo px: a corner this close to a pixel's edge is on it."""

EDGE_SHARE: Final = 1 / 48
"""Of the square's side.  A region is along the edge if at least half of it is this close to where scoring ends, or
twice as far if it touches that: there the trunk sees the black beyond a photograph's edge, or a structure that the
crop cuts through."""
_TOUCHING_PX: Final = 2
FEWEST_PX: Final = 8
"""Half a cell of the finest grid (4 x 4 px).  A smaller region is the tip of a peak that the level barely cuts."""

Points = tuple[tuple[int, int], ...]
Box = tuple[int, int, int, int]
_Place = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Region:
    """One connected region above the level; x, y, box and contour are the photo's own pixel indexes."""

    peak: float
    """Largest distance inside, feature units."""
    x: int
    y: int
    """Position of the peak; if it occurs more than once, the first in reading order of the map."""
    box: Box
    """left, top, right, bottom, all inclusive; at least 2 px a side, so that a contour encloses an area."""
    area_px: int
    """Area in the photo's own px, at least 1."""
    area_share: float
    """Share of the scored part of the field of view, above 0, up to 1."""
    contour: Points
    """Outer boundary as a polygon of at least 3 points, cut to the box, the first not repeated at the end; the
    box's corners if the region is too small for a finer polygon."""
    cell: tuple[int, int]
    """(y, x) of the peak on the prepared S x S map."""
    place: tuple[slice, slice]
    """Rows and columns of the region on that map."""
    doubts: tuple[FindingDoubt, ...] = ()
    """Why the region may be none: `at-edge`, `few-pixels`."""


def find_regions(
    anomaly_map: NDArray[np.float32],
    scored: NDArray[np.bool_],
    frame: Frame,
    level: float,
    *,
    limit: int = 100,
) -> tuple[Region, ...]:
    """The 8-connected regions strictly above `level`, strongest first, equal ones in reading order.

    `anomaly_map` is float32 (S, S) in feature units, `scored` bool (S, S): pixels outside it neither count nor
    connect.  At most `limit` regions, cut to the photo.  Regions along an edge or of few pixels are doubtful, and
    are listed all the same: the level's rate of false regions counts them, and most of them are lesions where a
    photograph has lesions (docs/findings.md).  Raises `ValueError` if the shapes do not fit the frame, a
    distance or the level is not a number, or the limit is below 1.
    """
    _check(anomaly_map, scored, frame, level, limit)
    # float64, because a comparison in float32 would round the level first.
    values = anomaly_map.astype(np.float64)
    labels, count = ndimage.label(scored & (values > level), structure=np.ones((3, 3)))
    if not count:
        return ()
    sizes, places = np.bincount(labels.ravel()), ndimage.find_objects(labels)
    scored_size = int(scored.sum())
    edge_distance = ndimage.distance_transform_edt(np.pad(scored, 1))[1:-1, 1:-1]
    outside = np.pad(np.where(scored, np.minimum(values, level), -np.inf), 1, constant_values=-np.inf)
    regions = []
    for label, y, x in _peaks(values, labels)[:limit]:
        rows, columns = places[label - 1]
        place, size = (rows, columns), int(sizes[label])
        box = _box(place, frame)
        inside = labels[place] == label
        isolated = _isolated(values[place], outside, inside, place, level)
        at_x, at_y = frame.to_photo(x + 0.5, y + 0.5)
        area_px = max(1, round(size * _photo_px_per_prepared_px(frame)))
        regions.append(
            Region(
                peak=float(values[y, x]),
                x=min(max(math.floor(at_x), box[0]), box[2]),
                y=min(max(math.floor(at_y), box[1]), box[3]),
                box=box,
                area_px=area_px,
                area_share=size / scored_size,
                contour=_contour(isolated, level, place, frame, box),
                cell=(y, x),
                place=place,
                doubts=_doubts(edge_distance[place][inside], min(size, area_px), frame.side),
            )
        )
    return tuple(regions)


def _doubts(edge_distance: NDArray[np.float64], size: int, side: int) -> tuple[FindingDoubt, ...]:
    """Of a region whose pixels are so far from the edge (prepared px), and that has `size` px."""
    doubts: list[FindingDoubt] = []
    reach = EDGE_SHARE * side * (2 if edge_distance.min() <= _TOUCHING_PX else 1)
    if float(np.median(edge_distance)) <= reach:
        doubts.append("at-edge")
    if size < FEWEST_PX:
        doubts.append("few-pixels")
    return tuple(doubts)


def _peaks(values: NDArray[np.float64], labels: NDArray[np.signedinteger]) -> list[tuple[int, int, int]]:
    """(label, y, x) of every region's peak, strongest first, equal ones in reading order."""
    inside = np.flatnonzero(labels)
    falling = inside[np.argsort(-values.ravel()[inside], kind="stable")]
    of_label, first = np.unique(labels.ravel()[falling], return_index=True)
    order = np.argsort(first)
    ys, xs = np.unravel_index(falling[first[order]], labels.shape)
    return list(zip(of_label[order].tolist(), ys.tolist(), xs.tolist(), strict=True))


def _isolated(
    values: NDArray[np.float64],
    outside: NDArray[np.float64],
    inside: NDArray[np.bool_],
    place: _Place,
    level: float,
) -> NDArray[np.float64]:
    """The region's part of the map with one px around it, where only the region is above the level.

    `outside` is the whole map, padded by 1, cut at the level and -inf where not scored.  There the peak's mirror
    value below the level is used, so that a contour stays within the scored pixels.
    """
    rows, columns = place
    around = outside[rows.start : rows.stop + 2, columns.start : columns.stop + 2]
    field = np.where(np.isneginf(around), 2 * level - values[inside].max(), around)
    field[1:-1, 1:-1][inside] = values[inside]
    return field


def _contour(isolated: NDArray[np.float64], level: float, place: _Place, frame: Frame, box: Box) -> Points:
    """The simplified outer boundary; `isolated` starts one px above and left of `place`."""
    lines = find_contours(isolated, level, fully_connected="high")  # type: ignore[no-untyped-call]
    outer = max(lines, key=_enclosed)
    simple = simplify_line(outer, CONTOUR_TOLERANCE)[:-1]
    # find_contours counts from pixel centers: index 0 of `isolated` is start - 1, its center start - 0.5.
    ys, xs = (
        np.clip(simple[:, axis] + extent.start - 0.5, extent.start, extent.stop)
        for axis, extent in enumerate(place)
    )
    exact = np.stack(frame.to_photo(xs, ys), axis=1)
    left, top, right, bottom = box
    pixels = np.clip(np.floor(exact).astype(int), (left, top), (right, bottom))
    points = [point for point, _ in groupby(zip(*pixels.T.tolist(), strict=True))]
    if points[0] == points[-1]:
        points.pop()
    if len(points) < 3 or not _enclosed(np.array(points)):
        return ((left, top), (right, top), (right, bottom), (left, bottom))
    return tuple(points)


def _enclosed(points: NDArray[np.number]) -> float:
    """The area inside a closed polygon (n, 2), by the shoelace formula."""
    first, second = points.T
    doubled = float(first @ np.roll(second, 1) - second @ np.roll(first, 1))
    return abs(doubled) / 2


def _box(place: _Place, frame: Frame) -> Box:
    """The photo px that the prepared px of `place` overlap, cut to the photo."""
    rows, columns = place
    left, top = frame.to_photo(columns.start, rows.start)
    right, bottom = frame.to_photo(columns.stop, rows.stop)
    left, right = _span(left, right, frame.width)
    top, bottom = _span(top, bottom, frame.height)
    return left, top, right, bottom


def _span(start: float, stop: float, length: int) -> tuple[int, int]:
    """First and last px index of [start, stop) within 0 .. length - 1; different indexes if length allows."""
    first = min(max(math.floor(start + _ROUNDING), 0), length - 1)
    last = min(max(math.ceil(stop - _ROUNDING) - 1, 0), length - 1)
    if first == last:
        return (first, last + 1) if last + 1 < length else (max(first - 1, 0), last)
    return first, last


def _photo_px_per_prepared_px(frame: Frame) -> float:
    return (frame.right - frame.left) * (frame.bottom - frame.top) / frame.side**2


def _check(
    anomaly_map: NDArray[np.float32], scored: NDArray[np.bool_], frame: Frame, level: float, limit: int
) -> None:
    shape = (frame.side, frame.side)
    if anomaly_map.shape != shape or scored.shape != shape:
        raise ValueError(f"map {anomaly_map.shape} and scored {scored.shape}: the frame takes {shape}")
    if not np.isfinite(anomaly_map).all():
        raise ValueError("a map is finite")
    if not level > -math.inf:
        raise ValueError(f"level {level}: must be a number above -inf")
    if limit < 1:
        raise ValueError(f"limit {limit}: must be at least 1")


CENTRAL: Final = 0.25
"""Share of the field of view's radius within which a point is central: 6 % of the area."""


def place_in_words(x: float, y: float, field: FieldOfView, eye: Eye | None) -> str:
    """`central`, or the quadrant: `superior temporal`; `superior, left of the photo` if the eye is unknown.

    Args:
        x, y: px of the photo.
        field: in px of the photo; without a disc, the frame is used instead.
    """
    across, up = x - field.cx, field.cy - y
    half_width, half_height = field.half_axes
    if not field.found:
        half_width = half_height = min(field.right - field.left, field.bottom - field.top) / 2
    if hypot(across / half_width, up / half_height) <= CENTRAL:
        return "central"
    vertical = "superior" if up > 0 else "inferior"
    side: Eye = "left" if across < 0 else "right"
    if eye is None:
        return f"{vertical}, {side} of the photo"
    return f"{vertical} {'nasal' if side == eye else 'temporal'}"
