"""Colors depend on a distance alone; lines and marks are where they should be, at every size."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from resad.pictures.overlay import MapScale, colorize, draw_overlay, draw_panels

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]

SCALE = MapScale(low=1.0, threshold=2.0, high=3.0)

distances = st.floats(0.0, 10.0, width=32)


def plain(height: int, width: int, gray: int) -> Pixels:
    return np.full((height, width, 3), gray, dtype=np.uint8)


def calm(height: int, width: int) -> Map:
    return np.zeros((height, width), dtype=np.float32)


def square(low: int, high: int) -> list[tuple[int, int]]:
    return [(low, low), (high, low), (high, high), (low, high)]


def lightness(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIE L* (0 to 100) of sRGB colors (..., 3) from 0 to 1, by the standard's formulas."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    l_star: NDArray[np.float64] = 116 * np.cbrt(luminance) - 16
    return l_star


def dichromat(rgb: NDArray[np.floating], matrix: list[list[float]]) -> NDArray[np.float64]:
    """sRGB as seen without one kind of cone: the matrix works on linear light."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = np.clip(linear @ np.array(matrix).T, 0.0, 1.0)
    srgb: NDArray[np.float64] = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return srgb


@settings(deadline=None)  # the cores are shared
@given(st.lists(distances, min_size=1, max_size=20))
def test_a_color_depends_on_its_own_distance_alone(values: list[float]) -> None:
    colors = colorize(np.array([values], dtype=np.float32), SCALE)
    assert colors.shape == (1, len(values), 4)
    assert colors.dtype == np.uint8
    for place, value in enumerate(values):
        color = colorize(np.array([[value]], dtype=np.float32), SCALE)
        assert color[0, 0].tolist() == colors[0, place].tolist()


@settings(deadline=None)
@given(distances, distances)
def test_alpha_is_nothing_at_low_and_rises_to_opaque_at_high(distance_a: float, distance_b: float) -> None:
    smaller, larger = sorted((distance_a, distance_b))
    alpha = colorize(np.array([[smaller, larger, SCALE.low, SCALE.high]], dtype=np.float32), SCALE)[0, :, 3]
    assert alpha[0] <= alpha[1]
    assert alpha[0] == 0 or smaller > SCALE.low
    assert alpha[1] == 255 or larger < SCALE.high
    assert (alpha[2], alpha[3]) == (0, 255)


def test_the_threshold_colors_nothing() -> None:
    anomaly_map = np.linspace(0, 4, 64, dtype=np.float32).reshape(8, 8)
    expected = colorize(anomaly_map, MapScale(1.0, None, 3.0))
    np.testing.assert_array_equal(colorize(anomaly_map, SCALE), expected)


def test_colors_are_even_steps_in_lightness() -> None:
    colors = colorize(np.linspace(1.0, 3.0, 33, dtype=np.float32)[None], SCALE)[0, :, :3] / 255
    steps = np.diff(lightness(colors))
    assert steps.min() > 0
    assert steps.max() < 1.6 * steps.min()
    assert lightness(colors)[-1] - lightness(colors)[0] > 45


# Full severity, from Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color
# vision deficiency", table 1.
@pytest.mark.parametrize(
    "matrix",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ],
    ids=["protanopia", "deuteranopia", "tritanopia"],
)
def test_the_order_of_the_colors_survives_color_blindness(matrix: list[list[float]]) -> None:
    colors = colorize(np.linspace(1.0, 3.0, 17, dtype=np.float32)[None], SCALE)[0, :, :3] / 255
    assert np.diff(lightness(dichromat(colors, matrix))).min() > 1.0


@settings(deadline=None, max_examples=25)
@given(st.integers(64, 160), st.integers(64, 160), st.text(max_size=60))
def test_the_photo_stays_as_it_is_where_the_map_is_calm(height: int, width: int, title: str) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = photo.copy()
    anomaly_map = rng.uniform(0, SCALE.low, (height, width)).astype(np.float32)
    bare = draw_overlay(photo, anomaly_map, SCALE, [])
    assert bare.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(bare)[:height, :width], photo)
    titled = draw_overlay(photo, anomaly_map, SCALE, [], title=title)
    band = titled.height - bare.height
    assert titled.width == bare.width
    assert (band > 0) == bool(title.split())
    np.testing.assert_array_equal(np.asarray(titled)[band:], np.asarray(bare))
    np.testing.assert_array_equal(photo, before)


def test_a_long_title_is_cut_short_inside_the_picture() -> None:
    picture = np.asarray(draw_overlay(plain(200, 200, 0), calm(200, 200), SCALE, [], title="W" * 500))
    short = np.asarray(draw_overlay(plain(200, 200, 0), calm(200, 200), SCALE, [], title="W"))
    assert picture.shape == short.shape
    band = picture[: picture.shape[0] - 200]
    ground = band[0, 0]
    assert (band[:, -6:] == ground).all()
    assert (band != ground).any(axis=2).sum() > 10 * (short[: len(band)] != ground).any(axis=2).sum()


def test_a_hot_spot_is_colored_where_it_is_and_nowhere_else() -> None:
    anomaly_map = calm(120, 150)
    anomaly_map[30:40, 100:120] = 9.0
    picture = np.asarray(draw_overlay(plain(120, 150, 90), anomaly_map, SCALE, []))[:120, :150]
    changed = (picture != 90).any(axis=2)
    np.testing.assert_array_equal(changed, anomaly_map > 0)
    # Opaque colors still let a fifth of the photo through.
    top = colorize(np.array([[9.0]], dtype=np.float32), SCALE)[0, 0, :3]
    np.testing.assert_allclose(picture[35, 110], 0.8 * top + 0.2 * 90, atol=1.5)


@pytest.mark.parametrize("gray", [0, 128, 255])
@pytest.mark.parametrize("side", [64, 300, 1100])
def test_an_outline_shows_on_dark_and_on_bright(gray: int, side: int) -> None:
    low, high = side // 4, 3 * side // 4
    picture = np.asarray(
        draw_overlay(plain(side, side, gray), calm(side, side), SCALE, [square(low, high)]), dtype=int
    )[:side, :side]
    reach = max(3, side // 100)
    for row in range(low + 2 * reach, high - 2 * reach):
        profile = picture[row, low - reach : low + reach + 1, 0]
        assert profile.max() - profile.min() >= 150
    background = np.ones((side, side), dtype=bool)
    background[low - reach : high + reach + 1, low - reach : high + reach + 1] = False
    background[low + reach + 1 : high - reach, low + reach + 1 : high - reach] = True
    assert (picture[background] == gray).all()


@pytest.mark.parametrize("side", [420, 840, 1680])
def test_lines_are_as_wide_as_the_picture_asks_and_lie_on_the_outline(side: int) -> None:
    low, high = side // 4, 3 * side // 4
    outline = [square(low, high)]
    row = np.asarray(draw_overlay(plain(side, side, 0), calm(side, side), SCALE, outline))[
        side // 2, : side // 2, 0
    ]
    width = float(row.sum()) / 255
    assert width == pytest.approx(side / 420, abs=0.5)
    center = float(row @ (np.arange(side // 2) + 0.5)) / float(row.sum())
    assert center == pytest.approx(low + 0.5, abs=0.5)


def test_an_outline_may_be_open_or_closed() -> None:
    photo, anomaly_map, points = plain(100, 100, 50), calm(100, 100), square(20, 70)
    open_picture = draw_overlay(photo, anomaly_map, SCALE, [points])
    closed_picture = draw_overlay(photo, anomaly_map, SCALE, [[*points, points[0]]])
    difference = np.abs(np.asarray(open_picture, dtype=int) - np.asarray(closed_picture, dtype=int))
    assert (difference.max(axis=2) > 40).sum() <= 4


def bar_of(picture: Image.Image, width: int) -> NDArray[np.int64]:
    return np.asarray(picture, dtype=np.int64)[:, width:]


def strip_of(bar: NDArray[np.int64]) -> tuple[slice, int]:
    """The rows of the colors, and a column inside them: the one with the longest run that is not ground."""
    ground = bar[-1, -1]
    runs = []
    for column in range(bar.shape[1]):
        edges = np.flatnonzero(np.diff((bar[:, column] != ground).any(axis=1), prepend=False, append=False))
        runs += [(stop - start, -column, start, stop) for start, stop in edges.reshape(-1, 2)]
    _, column, start, stop = max(runs)
    return slice(start, stop), -column + 3


@settings(deadline=None, max_examples=20)
@given(st.floats(1.0, 3.0), st.integers(100, 500))
def test_the_threshold_is_marked_at_its_place_on_the_bar(threshold: float, side: int) -> None:
    photo, anomaly_map = plain(side, side, 0), calm(side, side)
    bare_bar = bar_of(draw_overlay(photo, anomaly_map, MapScale(1.0, None, 3.0), []), side)
    marked_bar = bar_of(draw_overlay(photo, anomaly_map, MapScale(1.0, threshold, 3.0), []), side)
    rows, column = strip_of(bare_bar)
    length = rows.stop - rows.start
    assert length > 0.6 * side
    mark = np.flatnonzero((bare_bar[:, column] != marked_bar[:, column]).any(axis=1))
    expected = rows.start + (3.0 - threshold) / 2.0 * (length - 1)
    assert abs(mark.mean() - expected) <= 2
    assert len(mark) <= 4


@pytest.mark.parametrize("side", [90, 400])
def test_the_bar_shows_the_maps_colors_over_mid_gray_in_even_steps(side: int) -> None:
    scale = MapScale(1.0, None, 3.0)
    bar = bar_of(draw_overlay(plain(side, side, 0), calm(side, side), scale, []), side)
    rows, column = strip_of(bar)
    values = np.linspace(3.0, 1.0, rows.stop - rows.start, dtype=np.float32)
    colors = colorize(values[None], scale)[0].astype(float)
    cover = 0.8 * colors[:, 3:] / 255
    np.testing.assert_allclose(bar[rows, column], colors[:, :3] * cover + 128 * (1 - cover), atol=1.5)


@pytest.mark.parametrize(
    "scale",
    [
        MapScale(0.0, None, 1e-3),
        MapScale(0.9, 0.95, 1.0),
        MapScale(20.0, 31.2, 64.0),
        MapScale(0.0, 0.0, 5000.0),
        MapScale(1.0, 0.2, 2.0),
        MapScale(1.0, 7.0, 2.0),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 300), (700, 90)])
def test_any_scale_and_shape_can_be_drawn_and_looks_different(scale: MapScale, height: int, width: int) -> None:
    picture = draw_overlay(plain(height, width, 0), calm(height, width), scale, [])
    assert picture.height >= height
    assert picture.width > width
    bar = bar_of(picture, width)
    assert (bar[:, -3:] == bar[-1, -1]).all(), "the numbers end before the edge"
    other_picture = draw_overlay(plain(height, width, 0), calm(height, width), MapScale(3.0, 3.5, 4.0), [])
    assert picture.size != other_picture.size or not np.array_equal(bar, bar_of(other_picture, width))


def test_panels_stand_side_by_side_with_one_bar() -> None:
    rng = np.random.default_rng(3)
    photo = rng.integers(0, 200, (128, 160, 3), dtype=np.uint8)
    anomaly_map = calm(128, 160)
    anomaly_map[40:60, 40:60] = 9.0
    mask = anomaly_map > 0
    single = draw_overlay(photo, anomaly_map, SCALE, [square(40, 59)])
    two = draw_panels(photo, anomaly_map, SCALE, [square(40, 59)], None, "two")
    three = draw_panels(photo, anomaly_map, SCALE, [square(40, 59)], mask, "three")
    step = three.width - two.width
    assert two.width - single.width == step
    assert step >= 160
    top = three.height - single.height
    pixels = np.asarray(three)[top:]
    np.testing.assert_array_equal(pixels[:128, :160], photo)
    np.testing.assert_array_equal(pixels[:, step : step + 160], np.asarray(single)[:, :160])
    np.testing.assert_array_equal(pixels[:, 3 * step :], np.asarray(single)[:, step:])
    np.testing.assert_array_equal(np.asarray(two)[-single.height :, step:], np.asarray(single))


def test_a_mask_is_ringed_from_outside() -> None:
    photo = plain(128, 128, 100)
    mask = np.zeros((128, 128), dtype=np.bool_)
    mask[30:50, 60:90] = True
    mask[100, 20] = True
    picture = draw_panels(photo, calm(128, 128), SCALE, [], mask)
    step = picture.width - draw_panels(photo, calm(128, 128), SCALE, [], None).width
    panel = np.asarray(picture)[-128:, 2 * step : 2 * step + 128]
    changed = (panel != 100).any(axis=2)
    assert not changed[mask].any()
    ys, xs = np.nonzero(mask)
    for y, x in np.argwhere(~mask):
        nearest = math.sqrt(float(((ys - y) ** 2 + (xs - x) ** 2).min()))
        if nearest <= 2:
            assert changed[y, x]
        elif nearest > 4:
            assert not changed[y, x]
    empty = draw_panels(photo, calm(128, 128), SCALE, [], np.zeros_like(mask))
    assert (np.asarray(empty)[-128:, 2 * step : 2 * step + 128] == 100).all()


@pytest.mark.parametrize(
    ("low", "threshold", "high"),
    [(-0.1, None, 1.0), (1.0, None, 1.0), (2.0, None, 1.0), (0.0, None, math.inf), (math.nan, None, 1.0)],
)
def test_a_scale_must_rise(low: float, threshold: float | None, high: float) -> None:
    with pytest.raises(ValueError, match="map scale"):
        MapScale(low, threshold, high)


def test_a_threshold_must_be_finite() -> None:
    with pytest.raises(ValueError, match="threshold nan"):
        MapScale(0.0, math.nan, 1.0)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="must be"):
        draw_overlay(plain(64, 64, 0), calm(64, 65), SCALE, [])
    with pytest.raises(ValueError, match="must be"):
        draw_panels(plain(64, 64, 0), calm(64, 64), SCALE, [], np.zeros((64, 65), dtype=np.bool_))
    with pytest.raises(ValueError, match="finite"):
        colorize(np.array([[np.nan]], dtype=np.float32), SCALE)


def test_colors_stand_out_from_a_real_retina(shared: Path) -> None:
    """From half the scale on, a color differs from the photo by more than the photo's own texture does."""
    lesions = shared / "data/idrid-512/test/lesion"
    for path in sorted(lesions.glob("*.jpg"))[:3]:
        with Image.open(path) as image:
            photo = np.asarray(image.convert("RGB"))
        half = np.full(photo.shape[:2], (SCALE.low + SCALE.high) / 2, dtype=np.float32)
        picture = np.asarray(draw_overlay(photo, half, SCALE, []), dtype=float)[: len(photo), : photo.shape[1]]
        lit = photo.max(axis=2) > 60
        redness = (picture[..., 0] - picture[..., 2])[lit].mean()
        photo_redness = (photo[..., 0].astype(float) - photo[..., 2])[lit]
        assert photo_redness.mean() - redness > photo_redness.std()
