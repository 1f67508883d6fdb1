"""Colors depend on a distance alone; lines and marks are where they should be, at every size."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from resad.calibration import calibrate
from resad.pictures.overlay import (
    MapScale,
    Outline,
    caption,
    colorize,
    draw_overlay,
    draw_panels,
    overlay_picture,
    style_for,
    wrap,
)
from service.schemas import example_result

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]

SCALE = MapScale(low=1.0, threshold=2.0, high=3.0)

# Full severity, from Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color
# vision deficiency", table 1.
DICHROMATS = [
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
DICHROMAT_NAMES = ["protanopia", "deuteranopia", "tritanopia"]

distances = st.floats(0.0, 10.0, width=32)


def plain(height: int, width: int, gray: int) -> Pixels:
    return np.full((height, width, 3), gray, dtype=np.uint8)


def calm(height: int, width: int) -> Map:
    return np.zeros((height, width), dtype=np.float32)


def square(low: int, high: int, peak: float | None = None, *, doubtful: bool = False) -> Outline:
    return Outline([(low, low), (high, low), (high, high), (low, high)], peak, doubtful)


def evenly_colored(count: int) -> NDArray[np.float64]:
    """(count, 3) colors of the scale at even steps, from 0 to 1."""
    at = np.array([[SCALE.distance(position) for position in np.linspace(0, 1, count)]], dtype=np.float32)
    colors: NDArray[np.float64] = colorize(at, SCALE)[0, :, :3] / 255
    return colors


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
    colors = evenly_colored(33)
    steps = np.diff(lightness(colors))
    assert steps.min() > 0
    assert steps.max() < 1.6 * steps.min()
    assert lightness(colors)[-1] - lightness(colors)[0] > 45


@pytest.mark.parametrize("matrix", DICHROMATS, ids=DICHROMAT_NAMES)
def test_the_order_of_the_colors_survives_color_blindness(matrix: list[list[float]]) -> None:
    colors = evenly_colored(17)
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
    with_foot = draw_overlay(photo, anomaly_map, SCALE, [], foot=title)
    assert with_foot.height == titled.height
    np.testing.assert_array_equal(np.asarray(with_foot)[: bare.height], np.asarray(bare))
    np.testing.assert_array_equal(photo, before)


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=80), st.integers(40, 400))
def test_wrapping_loses_nothing_and_stays_inside(text: str, room: int) -> None:
    style = style_for(plain(64, 64, 0))
    lines = wrap(text, style, room)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(line.strip() for line in lines)
    assert all(style.font.getlength(line) <= room for line in lines)


def test_a_long_title_takes_more_lines_inside_the_picture() -> None:
    picture = np.asarray(draw_overlay(plain(200, 200, 0), calm(200, 200), SCALE, [], title="W" * 100))
    short = np.asarray(draw_overlay(plain(200, 200, 0), calm(200, 200), SCALE, [], title="W"))
    band = picture[: picture.shape[0] - 200]
    assert len(band) > 2 * (short.shape[0] - 200)
    ground = band[0, 0]
    assert (band[:, -3:] == ground).all()


def test_a_hot_spot_is_colored_where_it_is_and_nowhere_else() -> None:
    anomaly_map = calm(120, 150)
    anomaly_map[30:40, 100:120] = 9.0
    picture = np.asarray(draw_overlay(plain(120, 150, 90), anomaly_map, SCALE, []))[:120, :150]
    changed = (picture != 90).any(axis=2)
    # The lines around it reach two px out.
    np.testing.assert_array_equal(changed & (anomaly_map > 0), anomaly_map > 0)
    assert not (changed & ~ndimage.binary_dilation(anomaly_map > 0, iterations=3)).any()
    # The strongest tint lets three quarters of the photo through.
    top = colorize(np.array([[9.0]], dtype=np.float32), SCALE)[0, 0, :3]
    np.testing.assert_allclose(picture[35, 110], 0.25 * top + 0.75 * 90, atol=1.5)


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
    photo, anomaly_map, outline = plain(100, 100, 50), calm(100, 100), square(20, 70)
    open_picture = draw_overlay(photo, anomaly_map, SCALE, [outline])
    closed = Outline([*outline.points, outline.points[0]])
    closed_picture = draw_overlay(photo, anomaly_map, SCALE, [closed])
    difference = np.abs(np.asarray(open_picture, dtype=int) - np.asarray(closed_picture, dtype=int))
    assert (difference.max(axis=2) > 40).sum() <= 4


@pytest.mark.parametrize("peak", [1.5, 2.0, 2.5, 9.0])
def test_an_outline_has_the_color_of_its_peak(peak: float) -> None:
    side = 840
    picture = np.asarray(
        draw_overlay(plain(side, side, 90), calm(side, side), SCALE, [square(200, 600, peak)]), dtype=int
    )
    color = colorize(np.array([[peak]], dtype=np.float32), SCALE)[0, 0, :3].astype(int)
    assert np.abs(picture[400, 198:203] - color).sum(axis=1).min() <= 9


def test_a_doubtful_outline_is_dashed() -> None:
    side = 420
    solid, dashed = (
        np.asarray(draw_overlay(plain(side, side, 0), calm(side, side), SCALE, [square(100, 300, doubtful=flag)]))
        for flag in (False, True)
    )
    lit = [(picture[120:280, 100, 0] > 128).mean() for picture in (solid, dashed)]
    assert lit[0] == 1
    assert 0.3 < lit[1] < 0.8


def test_lines_inside_tell_strengths_apart() -> None:
    """A cone: its contours at half and three quarters of the colors are circles of those colors, and no others."""
    side = 420
    ys, xs = np.mgrid[:side, :side] + 0.5
    cone = np.clip(3.5 - np.hypot(xs - 210, ys - 210) / 60, 0, 4).astype(np.float32)
    photo = plain(side, side, 90)
    picture = np.asarray(draw_overlay(photo, cone, SCALE, [square(5, 15)]), dtype=float)[:side, :side]
    tint = colorize(cone, SCALE)
    cover = 0.25 * tint[..., 3:] / 255
    lines = np.abs(picture - (tint[..., :3] * cover + 90 * (1 - cover))).max(axis=2) > 12
    lines[:30, :30] = False
    radii = np.hypot(xs - 210, ys - 210)[lines]
    distances_at = [SCALE.distance(0.75)]  # the other one, 1.5, lies below the threshold of 2
    for distance in distances_at:
        radius = 60 * (3.5 - distance)
        assert (np.abs(radii - radius) < 3).sum() > 4 * radius
    assert all(min(abs(r - 60 * (3.5 - d)) for d in distances_at) < 4 for r in radii.tolist())
    assert lightness(np.array(SCALE.color(SCALE.distance(0.75))) / 255) > lightness(
        np.array(SCALE.color(2.0)) / 255
    )


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
    expected = rows.start + (1 - math.sqrt((threshold - 1.0) / 2.0)) * (length - 1)
    assert abs(mark.mean() - expected) <= 2
    assert len(mark) <= 4


@pytest.mark.parametrize("side", [90, 400])
def test_the_bar_shows_the_lines_colors_in_even_steps(side: int) -> None:
    scale = MapScale(1.0, None, 3.0)
    bar = bar_of(draw_overlay(plain(side, side, 0), calm(side, side), scale, []), side)
    rows, column = strip_of(bar)
    values = 1 + 2 * np.linspace(1.0, 0.0, rows.stop - rows.start) ** 2
    colors = colorize(values[None].astype(np.float32), scale)[0, :, :3].astype(float)
    np.testing.assert_allclose(bar[rows, column], colors, atol=3)


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


def lab(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """CIE L*a*b* of sRGB colors from 0 to 1."""
    values: NDArray[np.float64] = rgb2lab(np.clip(rgb, 0, 1).reshape(1, -1, 3))[0]
    return values


@pytest.mark.parametrize("matrix", [np.eye(3).tolist(), *DICHROMATS], ids=["normal", *DICHROMAT_NAMES])
def test_colors_differ_from_lesions_blood_and_vessels_of_real_photographs(
    shared: Path, matrix: list[list[float]]
) -> None:
    """From the level of findings on: 20 from all that photographs show, four times a clear difference."""
    data = shared / "data/idrid-512"
    line_colors = lab(dichromat(evenly_colored(17)[5:], matrix))
    compared = 0
    for path in sorted((data / "test/lesion").glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            photo = np.asarray(image.convert("RGB")) / 255
        vessels_and_all = photo[photo.max(axis=2) > 0.25]
        samples = [vessels_and_all[::997]]
        for kind in ("EX", "HE"):
            mask = data / f"ground_truth/{kind}/{path.stem}_{kind}.png"
            if mask.is_file():
                with Image.open(mask) as image:
                    samples.append(photo[np.asarray(image.convert("L")) > 0][::7])
        for sample in samples:
            distance = np.linalg.norm(lab(dichromat(sample, matrix))[:, None] - line_colors[None], axis=2)
            assert np.quantile(distance.min(axis=1), 0.01) > 20, path.name
            compared += len(sample)
    assert compared > 2000


def test_a_lesion_stays_visible_under_its_map(shared: Path) -> None:
    """Inside every finding's line, three quarters of the lesion's own contrast remain."""
    path = shared / "data/idrid-512/test/lesion/IDRiD_10.jpg"
    with Image.open(path) as image:
        photo = np.asarray(image.convert("RGB"))
    with Image.open(shared / "data/idrid-512/ground_truth/EX/IDRiD_10_EX.png") as image:
        lesion = np.asarray(image.convert("L")) > 0
    strongest = np.where(lesion, np.float32(9), np.float32(0))
    picture = np.asarray(draw_overlay(photo, strongest, SCALE, [square(1, 9)]))[: len(photo), : photo.shape[1]]
    inside = ndimage.binary_erosion(lesion, iterations=4)
    assert inside.sum() > 500
    contrasts = [image[inside].astype(float).std(axis=0).sum() for image in (photo, picture)]
    assert contrasts[1] > 0.7 * contrasts[0]


def test_a_picture_says_what_it_shows() -> None:
    result = example_result()
    lines = caption(result)
    assert lines[0] == ("abnormal, image score 0.5812, p 0.0196, compared with 134 healthy photographs; 1 finding")
    assert lines[1] == "index idrid, version 20261122T101500Z-3f9c"
    doubtful = dataclasses.replace(
        result,
        quality=dataclasses.replace(result.quality, acceptable=False, reasons=("too-dark", "blurred")),
        findings=(dataclasses.replace(result.findings[0], doubts=("few-pixels",)),),
    )
    assert caption(doubtful)[0].startswith("abnormal (doubtful: too dark, blurred), image score 0.5812")
    assert caption(doubtful)[0].endswith("; 1 finding, 1 of them doubtful (dashed)")
    unsupported = dataclasses.replace(result, abnormal=None, p_value=None, findings=())
    assert caption(unsupported)[0] == (
        "no verdict, image score 0.5812, compared with 134 healthy photographs; 0 findings"
    )


def test_a_picture_has_its_photos_name_where_it_is_known() -> None:
    calibration = calibrate(
        [0.1 * n for n in range(1, 30)], [0.2 * n for n in range(1, 30)], np.arange(50.0, dtype=np.float32)
    )
    photo, anomaly_map = plain(256, 256, 90), calm(256, 256)
    named, nameless = (
        overlay_picture(photo, anomaly_map, example_result(), calibration, name=name)
        for name in ("eye of nobody.jpg", "")
    )
    assert named.height > nameless.height
    assert named.width == nameless.width
    np.testing.assert_array_equal(np.asarray(named)[-256:], np.asarray(nameless)[-256:])
