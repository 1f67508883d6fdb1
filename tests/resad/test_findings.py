"""Regions of a map in the photo's own px, and where they lie in words."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resad.config import Eye
from resad.field_of_view import FieldOfView
from resad.findings import CENTRAL, CONTOUR_TOLERANCE, Region, find_regions, place_in_words
from resad.preparation import Frame

Map = NDArray[np.float32]
Scored = NDArray[np.bool_]


def identity(side: int) -> Frame:
    return Frame(width=side, height=side, left=0.0, top=0.0, right=float(side), bottom=float(side), side=side)


def all_scored(anomaly_map: Map) -> Scored:
    return np.ones(anomaly_map.shape, dtype=np.bool_)


def flood_fill(anomaly_map: Map, scored: Scored, level: float) -> list[set[tuple[int, int]]]:
    """The slow obvious twin: from every pixel that counts, step to all eight neighbors that count."""
    unvisited = {(y, x) for (y, x), d in np.ndenumerate(anomaly_map) if float(d) > level and scored[y, x]}
    regions = []
    while unvisited:
        region, stack = set(), [unvisited.pop()]
        while stack:
            y, x = stack.pop()
            region.add((y, x))
            neighbors = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & unvisited
            unvisited -= neighbors
            stack.extend(neighbors)
        regions.append(region)
    return regions


def strongest_first(anomaly_map: Map, regions: list[set[tuple[int, int]]]) -> list[set[tuple[int, int]]]:
    return sorted(regions, key=lambda region: min((-anomaly_map[cell], cell) for cell in region))


def enclosed_area(contour: tuple[tuple[int, int], ...]) -> float:
    turns = zip(contour, (*contour[1:], contour[0]), strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in turns)) / 2


def filled_polygon(region: Region, side: int) -> Scored:
    picture = Image.new("1", (side, side))
    ImageDraw.Draw(picture).polygon(list(region.contour), fill=1)
    return np.asarray(picture)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Map, Scored, float]:
    side = draw(st.integers(2, 12))
    # Few different distances, so that ties and distances equal to the level are common.
    distances = st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0, 3.0]), min_size=side**2, max_size=side**2)
    flags = st.lists(st.sampled_from([True, True, True, False]), min_size=side**2, max_size=side**2)
    anomaly_map = np.array(draw(distances), dtype=np.float32).reshape(side, side)
    return (
        anomaly_map,
        np.array(draw(flags)).reshape(side, side),
        draw(st.sampled_from([0.25, 0.5, 0.9, 1.0])),
    )


@st.composite
def frames(draw: st.DrawFn, side: int) -> Frame:
    """Photos larger and smaller than the square, which may reach beyond them."""
    width, height = draw(st.integers(2, 60)), draw(st.integers(2, 60))
    extent = draw(st.floats(1.0, 80.0))
    left, top = draw(st.floats(-20.0, 20.0)), draw(st.floats(-20.0, 20.0))
    return Frame(
        width=width, height=height, left=left, top=top, right=left + extent, bottom=top + extent, side=side
    )


@settings(deadline=None)  # the cores are shared
@given(cases())
def test_regions_are_those_of_the_flood_fill(case: tuple[Map, Scored, float]) -> None:
    anomaly_map, scored, level = case
    expected = strongest_first(anomaly_map, flood_fill(anomaly_map, scored, level))
    regions = find_regions(anomaly_map, scored, identity(len(anomaly_map)), level, limit=1000)
    assert len(regions) == len(expected)
    for region, cells in zip(regions, expected, strict=True):
        ys, xs = zip(*cells, strict=True)
        peak = max(float(anomaly_map[cell]) for cell in cells)
        assert region.peak == peak
        assert region.cell == min(cell for cell in cells if anomaly_map[cell] == peak)
        assert (region.y, region.x) == region.cell
        assert region.area_px == len(cells)
        assert region.area_share == pytest.approx(len(cells) / scored.sum())
        left, top, right, bottom = region.box
        # A box is never narrower than 2 px, and it grows into the photo.
        assert left in (min(xs), min(xs) - (min(xs) == max(xs)))
        assert right in (max(xs), max(xs) + (min(xs) == max(xs)))
        assert top in (min(ys), min(ys) - (min(ys) == max(ys)))
        assert bottom in (max(ys), max(ys) + (min(ys) == max(ys)))


@settings(deadline=None)  # the cores are shared
@given(st.data())
def test_boxes_hold_peaks_and_polygons_in_any_frame(data: st.DataObject) -> None:
    anomaly_map, scored, level = data.draw(cases())
    frame = data.draw(frames(len(anomaly_map)))
    for region in find_regions(anomaly_map, scored, frame, level):
        left, top, right, bottom = region.box
        assert 0 <= left < right < frame.width
        assert 0 <= top < bottom < frame.height
        assert left <= region.x <= right
        assert top <= region.y <= bottom
        assert all(left <= x <= right and top <= y <= bottom for x, y in region.contour)
        assert len(set(region.contour)) >= 3
        assert region.contour[0] != region.contour[-1]
        assert enclosed_area(region.contour) > 0
        assert region.area_px >= 1
        assert 0 < region.area_share <= 1
        numbers = (region.x, region.y, region.area_px, *region.box, *region.cell, *region.contour[0])
        assert {type(number) for number in numbers} == {int}


@settings(deadline=None)  # the cores are shared
@given(cases(), st.integers(1, 5))
def test_a_limit_keeps_the_strongest(case: tuple[Map, Scored, float], limit: int) -> None:
    anomaly_map, scored, level = case
    frame = identity(len(anomaly_map))
    all_regions = find_regions(anomaly_map, scored, frame, level, limit=1000)
    assert find_regions(anomaly_map, scored, frame, level, limit=limit) == all_regions[:limit]


@settings(deadline=None)  # the cores are shared
@given(cases())
def test_nothing_is_above_the_maximum(case: tuple[Map, Scored, float]) -> None:
    anomaly_map, scored, _ = case
    frame = identity(len(anomaly_map))
    highest = float(anomaly_map.max())
    assert find_regions(anomaly_map, scored, frame, highest) == ()
    assert find_regions(anomaly_map, scored, frame, math.inf) == ()
    regions = find_regions(anomaly_map, all_scored(anomaly_map), frame, math.nextafter(highest, -1.0))
    assert sum(region.area_px for region in regions) == int((anomaly_map == highest).sum())


def test_the_level_is_not_rounded_to_float32() -> None:
    anomaly_map = np.full((4, 4), 0.1, dtype=np.float32)
    # float32's 0.1 is a little above float64's; a float32 comparison would call them equal.
    assert len(find_regions(anomaly_map, all_scored(anomaly_map), identity(4), 0.1)) == 1


def test_unscored_pixels_separate_regions() -> None:
    anomaly_map = np.ones((5, 5), dtype=np.float32)
    scored = all_scored(anomaly_map)
    scored[:, 2] = False
    regions = find_regions(anomaly_map, scored, identity(5), 0.5)
    assert [region.box for region in regions] == [(0, 0, 1, 4), (3, 0, 4, 4)]
    assert all(region.area_share == pytest.approx(0.5) for region in regions)


def test_a_single_pixel_becomes_a_square_of_its_photo_pixels() -> None:
    anomaly_map = np.zeros((8, 8), dtype=np.float32)
    anomaly_map[0, 7] = 1.0
    frame = Frame(width=80, height=60, left=0.0, top=-10.0, right=80.0, bottom=70.0, side=8)
    (region,) = find_regions(anomaly_map, all_scored(anomaly_map), frame, 0.5)
    # Prepared row 0 lies above the photo, so the box is cut to the photo's first rows.
    assert region.box == (70, 0, 79, 1)
    assert region.area_px == 100
    anomaly_map[1, 7] = 2.0
    (region,) = find_regions(anomaly_map, all_scored(anomaly_map), frame, 0.5)
    assert region.box == (70, 0, 79, 9)
    assert (region.x, region.y, region.cell) == (75, 5, (1, 7))


def test_the_whole_square_above_the_level_is_outlined_along_the_photos_edge() -> None:
    anomaly_map = np.ones((32, 32), dtype=np.float32)
    frame = Frame(width=64, height=48, left=0.0, top=-8.0, right=64.0, bottom=56.0, side=32)
    (region,) = find_regions(anomaly_map, all_scored(anomaly_map), frame, 0.5)
    assert region.box == (0, 0, 63, 47)
    assert enclosed_area(region.contour) >= 0.97 * 63 * 47


@pytest.mark.parametrize("radius", [6.3, 15.0, 22.7])
@pytest.mark.parametrize("scale", [0.8, 1.0, 5.3])
def test_a_cones_contour_is_its_circle(radius: float, scale: float) -> None:
    side, cx, cy, left, top = 64, 30.2, 33.9, 11.5, -7.25
    ys, xs = np.mgrid[:side, :side] + 0.5
    cone = (40 - np.hypot(xs - cx, ys - cy)).astype(np.float32)
    frame = Frame(
        width=1000,
        height=1000,
        left=left,
        top=top,
        right=left + scale * side,
        bottom=top + scale * side,
        side=side,
    )
    (region,) = find_regions(cone, all_scored(cone), frame, 40 - radius)
    box_left, box_top, box_right, box_bottom = region.box
    for x, y in region.contour:
        deviation = math.hypot(x + 0.5 - left - scale * cx, y + 0.5 - top - scale * cy) - scale * radius
        # Vertices lie on the exact contour: what remains is the rounding to pixels, and the cone's bend
        # inside one prepared px.  Only the cut to the box takes more, at most half a prepared px.
        at_edge = x in (0, box_left, box_right) or y in (0, box_top, box_bottom)
        assert abs(deviation) <= math.sqrt(0.5) + (0.6 if at_edge else 0.1) * scale
    assert len(region.contour) < 40
    assert region.area_px == pytest.approx(math.pi * (scale * radius) ** 2, rel=0.03)


def test_a_contour_covers_its_region_and_ignores_holes() -> None:
    rng = np.random.default_rng(7)
    side = 96
    ys, xs = np.mgrid[:side, :side]
    bumps = np.zeros((side, side))
    for cx, cy, size in rng.uniform((15, 15, 4), (80, 80, 10), size=(8, 3)):
        bumps += np.exp(-((xs - cx) ** 2 + (ys - cy) ** 2) / (2 * size**2))
    ring = (np.hypot(xs - 48, ys - 48) < 30) & (np.hypot(xs - 48, ys - 48) > 20)
    for anomaly_map, solid in ((bumps, bumps > 0.5), (ring, np.hypot(xs - 48, ys - 48) < 30)):
        values = anomaly_map.astype(np.float32)
        regions = find_regions(values, all_scored(values), identity(side), 0.5)
        outlined = np.any([filled_polygon(region, side) for region in regions], axis=0)
        assert (outlined & solid).sum() / (outlined | solid).sum() > 0.93
    assert len(regions) == 1
    assert regions[0].area_px == ring.sum()


def test_simplifying_stays_within_the_tolerance() -> None:
    """No pixel farther than tolerance and rounding from the outline changes sides."""
    side = 80
    ys, xs = np.mgrid[:side, :side] + 0.5
    angle = np.arctan2(ys - 40, xs - 40)
    star = (25 + 6 * np.cos(5 * angle) - np.hypot(xs - 40, ys - 40)).astype(np.float32)
    (region,) = find_regions(star, all_scored(star), identity(side), 0.0)
    outlined = filled_polygon(region, side)
    # Around its outline the star rises by less than 2 per px, so a value of 2 d is more than d away from it.
    slack = (CONTOUR_TOLERANCE + 1.5) * 2
    assert outlined[star > slack].all()
    assert not outlined[star < -slack].any()


def test_parts_that_touch_at_a_corner_share_one_contour() -> None:
    anomaly_map = np.zeros((20, 20), dtype=np.float32)
    anomaly_map[2:10, 2:10] = anomaly_map[10:18, 10:18] = 1.0
    (region,) = find_regions(anomaly_map, all_scored(anomaly_map), identity(20), 0.5)
    outlined = filled_polygon(region, 20)
    assert outlined[5, 5]
    assert outlined[14, 14]
    assert not outlined[5, 14]


def test_the_contour_is_the_outer_one_even_if_a_hole_has_more_points() -> None:
    anomaly_map = np.ones((60, 60), dtype=np.float32)
    anomaly_map[5:55, 4:56:2] = 0.0
    anomaly_map[30, 4:56] = 0.0
    (region,) = find_regions(anomaly_map, all_scored(anomaly_map), identity(60), 0.5)
    assert enclosed_area(region.contour) >= 0.97 * 59 * 59


def test_a_contour_runs_along_the_edge_of_what_is_not_scored() -> None:
    anomaly_map = np.ones((16, 16), dtype=np.float32)
    scored = all_scored(anomaly_map)
    scored[:8, 8:] = False
    frame = Frame(width=160, height=160, left=0.0, top=0.0, right=160.0, bottom=160.0, side=16)
    (region,) = find_regions(anomaly_map, scored, frame, 0.5)
    assert region.area_px == 19200
    assert enclosed_area(region.contour) == pytest.approx(19200, rel=0.025)
    # The notch's edges lie between prepared px 7 and 8, at 80 of the photo's px.
    assert {(80, 75), (85, 80)} <= set(region.contour)


def test_findings_of_a_flat_map_are_in_reading_order() -> None:
    anomaly_map = np.zeros((9, 9), dtype=np.float32)
    anomaly_map[::4, ::4] = 1.0
    regions = find_regions(anomaly_map, all_scored(anomaly_map), identity(9), 0.5)
    assert [region.cell for region in regions] == [(y, x) for y in (0, 4, 8) for x in (0, 4, 8)]


@pytest.mark.parametrize("level", [math.nan, -math.inf])
def test_a_level_must_be_a_number(level: float) -> None:
    anomaly_map = np.ones((4, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="level"):
        find_regions(anomaly_map, all_scored(anomaly_map), identity(4), level)


def test_invalid_arguments_are_refused() -> None:
    anomaly_map = np.ones((4, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"frame takes \(5, 5\)"):
        find_regions(anomaly_map, all_scored(anomaly_map), identity(5), 0.5)
    with pytest.raises(ValueError, match="scored"):
        find_regions(anomaly_map, all_scored(anomaly_map)[:3], identity(4), 0.5)
    with pytest.raises(ValueError, match="limit 0"):
        find_regions(anomaly_map, all_scored(anomaly_map), identity(4), 0.5, limit=0)
    anomaly_map[1, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        find_regions(anomaly_map, all_scored(anomaly_map), identity(4), 0.5)


FIELD = FieldOfView(2100.0, 1400.0, 1600.0, 500.0, 0.0, 3700.0, 2800.0, found=True)
EYES = get_args(Eye)


@pytest.mark.parametrize(
    ("x", "y", "unknown", "right", "left"),
    [
        (3300, 600, "superior, right of the photo", "superior nasal", "superior temporal"),
        (900, 600, "superior, left of the photo", "superior temporal", "superior nasal"),
        (3300, 2200, "inferior, right of the photo", "inferior nasal", "inferior temporal"),
        (900, 2200, "inferior, left of the photo", "inferior temporal", "inferior nasal"),
        (2250, 1300, "central", "central", "central"),
    ],
)
def test_the_quadrants(x: float, y: float, unknown: str, right: str, left: str) -> None:
    """In a photograph of a right eye the optic disc, and so the nose, is on the right."""
    assert place_in_words(x, y, FIELD, None) == unknown
    assert place_in_words(x, y, FIELD, "right") == right
    assert place_in_words(x, y, FIELD, "left") == left


@given(st.floats(0, 4000), st.floats(0, 2800), st.sampled_from([None, *EYES]), st.floats(0.1, 10))
def test_a_place_does_not_depend_on_the_photos_size(x: float, y: float, eye: Eye | None, scale: float) -> None:
    ring = ((x - FIELD.cx) ** 2 + (y - FIELD.cy) ** 2) ** 0.5 / FIELD.radius
    if abs(ring - CENTRAL) > 1e-6 and min(abs(x - FIELD.cx), abs(y - FIELD.cy)) > 1e-6:
        scaled = place_in_words(x * scale, y * scale, FIELD.scaled(scale, scale), eye)
        assert scaled == place_in_words(x, y, FIELD, eye)


@given(st.floats(500, 3700), st.floats(0, 2800))
def test_the_mirrored_eye_has_the_mirrored_place(x: float, y: float) -> None:
    """A left eye's photograph is a right eye's in the mirror: the words stay."""
    if abs(x - FIELD.cx) > 1e-6:
        assert place_in_words(x, y, FIELD, "right") == place_in_words(2 * FIELD.cx - x, y, FIELD, "left")


def test_without_a_disc_the_frame_stands_in() -> None:
    """The circle then goes around the frame: a quarter of its radius would be most of a narrow one."""
    strip = FieldOfView(1000.0, 100.0, 1005.0, 0.0, 0.0, 2000.0, 200.0, found=False)
    assert place_in_words(1020, 100, strip, None) == "central"
    assert place_in_words(1200, 90, strip, None) == "superior, right of the photo"


def test_regions_along_an_edge_and_of_few_pixels_are_doubtful() -> None:
    side = 96  # so that the edge is 2 px wide
    values = np.zeros((side, side), np.float32)
    scored = np.ones((side, side), np.bool_)
    scored[:, :20] = False
    values[40:44, 20:23] = 1.0  # beside what is not scored
    values[84:96, 60:70] = 2.0  # from the square's edge on, but more than half of it further inside
    values[90:96, 30:40] = 3.0  # along the square's edge
    values[90:94, 75:80] = 0.75  # as deep, and not touching it
    values[50:52, 50:53] = 4.0  # 6 px
    values[60:64, 50:52] = 5.0  # 8 px
    regions = {region.peak: region.doubts for region in find_regions(values, scored, identity(side), 0.5)}
    expected = {5.0: (), 4.0: ("few-pixels",), 3.0: ("at-edge",), 2.0: (), 1.0: ("at-edge",), 0.75: ()}
    assert regions == expected


def test_few_pixels_are_counted_where_there_are_fewer() -> None:
    """A photograph of 24 px, enlarged to a square of 96: 6 px of the photograph are 96 of the square."""
    values = np.zeros((96, 96), np.float32)
    values[40:48, 40:52] = 1.0
    frame = Frame(width=24, height=24, left=0.0, top=0.0, right=24.0, bottom=24.0, side=96)
    (region,) = find_regions(values, all_scored(values), frame, 0.5)
    assert (region.area_px, region.doubts) == (6, ("few-pixels",))
