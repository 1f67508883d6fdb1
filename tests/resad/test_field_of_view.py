"""The disc is found to 1 % of its radius on drawn photographs with all that goes wrong, and on real ones."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resad.config import PhotoLimits, PreparationConfig
from resad.field_of_view import FieldOfView, field_of_view_mask, find_field_of_view
from resad.preparation import prepare
from resad.retina import looks_like_fundus
from resad.rim import Disc, find_disc

Pixels = NDArray[np.uint8]


def draw_disc(width: int, height: int, cx: float, cy: float, radius: float, *, surround: float = 2.0) -> Pixels:
    """A retina-colored disc with dark vessels and a bright optic disc, its edge antialiased."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - cx, y - cy)
    shade = 1.0 - 0.4 * (distance / radius) ** 2
    vessels = np.abs(np.sin((x + 0.3 * y) / radius * 7)) < 0.06
    bright = np.hypot(x - cx - 0.4 * radius, y - cy) < 0.15 * radius
    level = shade * np.where(vessels, 0.5, 1.0) + np.where(bright, 0.3, 0.0)
    inside = np.clip(radius - distance + 0.5, 0.0, 1.0)[..., None]
    retina = level[..., None] * np.array([190.0, 95.0, 45.0])
    picture: NDArray[np.float64] = inside * retina + (1 - inside) * surround
    return picture.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return np.array(image)


def assert_close(field: FieldOfView, cx: float, cy: float, radius: float, share: float = 0.01) -> None:
    assert field.found
    assert abs(field.radius - radius) < share * radius
    assert np.hypot(field.cx - cx, field.cy - cy) < share * radius


@given(
    radius=st.floats(150, 330),
    x=st.floats(-0.2, 0.2),
    y=st.floats(-0.2, 0.2),
    surround=st.floats(0, 40),
    quality=st.integers(20, 95),
)
@settings(max_examples=20, deadline=None)
def test_a_disc_is_found_wherever_it_lies(
    radius: float, x: float, y: float, surround: float, quality: int
) -> None:
    width, height = 720, 480
    cx, cy = width / 2 + x * radius, height / 2 + y * radius
    pixels = jpeg(draw_disc(width, height, cx, cy, radius, surround=surround), quality)
    field = find_field_of_view(pixels)
    assert_close(field, cx, cy, radius)
    expected = (max(cx - radius, 0), max(cy - radius, 0), min(cx + radius, width), min(cy + radius, height))
    edges = (field.left, field.top, field.right, field.bottom)
    assert np.abs(np.subtract(edges, expected)).max() < 0.02 * radius


@pytest.mark.parametrize("radius", [40.0, 90.0, 140.0])
def test_a_tiny_disc_in_a_large_frame(radius: float) -> None:
    pixels = jpeg(draw_disc(1800, 1200, 400.0, 900.0, radius), 60)
    assert_close(find_field_of_view(pixels), 400.0, 900.0, radius)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_an_underexposed_side_does_not_move_the_disc(side: str) -> None:
    pixels = draw_disc(720, 480, 360.0, 240.0, 300.0)
    ramp = np.linspace(0.02, 1.0, 720 if side in ("left", "right") else 480)
    ramp = ramp[::-1] if side in ("right", "bottom") else ramp
    dark = pixels * (ramp[None, :, None] if side in ("left", "right") else ramp[:, None, None])
    assert_close(find_field_of_view(jpeg(dark.astype(np.uint8), 60)), 360.0, 240.0, 300.0)


def test_noise_in_the_surround() -> None:
    pixels = draw_disc(720, 480, 350.0, 250.0, 260.0)
    noisy = pixels + np.random.default_rng(0).normal(6.0, 5.0, pixels.shape)
    assert_close(find_field_of_view(noisy.clip(0, 255).astype(np.uint8)), 350.0, 250.0, 260.0)


def test_text_in_the_corners_and_a_notch_at_the_rim_change_nothing() -> None:
    plain = draw_disc(720, 480, 360.0, 240.0, 260.0)
    image = Image.fromarray(plain)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(32)
    for place in ((4, 4), (560, 4), (4, 440), (560, 440)):
        draw.text(place, "OD 12:30", fill=(255, 255, 0), font=font)
    # A tab beyond the rim, as IDRiD's camera has one, and a bite out of it.
    draw.polygon([(535, 50), (570, 60), (580, 95), (550, 100)], fill=(150, 80, 40))
    draw.rectangle((95, 230, 130, 250), fill=(2, 2, 2))
    field, plain_field = find_field_of_view(jpeg(np.array(image), 60)), find_field_of_view(plain)
    assert_close(field, 360.0, 240.0, 260.0)
    edges, expected = ((f.left, f.top, f.right, f.bottom) for f in (field, plain_field))
    assert np.abs(np.subtract(edges, expected)).max() < 3.0


@given(top=st.integers(15, 90), bottom=st.integers(15, 90))
@settings(max_examples=10, deadline=None)
def test_a_disc_masked_at_the_top_and_bottom(top: int, bottom: int) -> None:
    pixels = draw_disc(512, 512, 256.0, 256.0, 255.0)
    pixels[:top] = 1
    pixels[512 - bottom :] = 1
    field = find_field_of_view(jpeg(pixels, 70))
    assert_close(field, 256.0, 256.0, 255.0)
    assert abs(field.top - top) < 3.0
    assert abs(field.bottom - (512 - bottom)) < 3.0
    assert field.left < 5.0
    assert field.right > 507.0


def test_a_disc_of_which_only_the_left_half_is_in_the_frame() -> None:
    pixels = draw_disc(720, 480, 360.0, 240.0, 300.0)[:, :340]
    field = find_field_of_view(pixels)
    assert_close(field, 360.0, 240.0, 300.0)
    assert field.right == 340.0


def test_a_red_free_photograph() -> None:
    gray = np.repeat(draw_disc(720, 480, 360.0, 240.0, 220.0)[..., 1:2], 3, axis=2)
    assert_close(find_field_of_view(gray), 360.0, 240.0, 220.0)


def retina_fault(pixels: Pixels) -> str | None:
    """Why a photograph cannot show a retina."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    photo = prepare(stream.getvalue(), PreparationConfig(), PhotoLimits())
    return looks_like_fundus(photo.pixels, photo.mask, photo.field_of_view)


def frames_without_a_disc() -> dict[str, Pixels]:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:300, :400]
    bars = np.repeat(((x // 20) % 2 * 200)[..., None], 3, axis=2)
    page = np.full((300, 400, 3), 250)
    page[30:270:12, 30:370:3] = 20
    sky = np.where(y[..., None] < 150, np.array([90, 140, 220]), np.array([60, 120, 40]))
    distance = np.hypot(x - 200.0, y - 150.0)[..., None]
    frames = {
        "black": np.zeros((300, 400, 3)),
        "white": np.full((300, 400, 3), 255),
        "noise": generator.integers(0, 256, (300, 400, 3)),
        "bars": bars,
        "page": page,
        "landscape": sky + generator.normal(0.0, 12.0, (300, 400, 3)),
        "retina": draw_disc(1200, 1200, 600.0, 600.0, 580.0)[450:750, 400:800],
        "vignette": np.maximum(1 - (distance / 270) ** 2, 0.05) * np.array([200, 100, 50]),
    }
    return {name: frame.clip(0, 255).astype(np.uint8) for name, frame in frames.items()}


@pytest.mark.parametrize("name", list(frames_without_a_disc()))
def test_without_a_disc_the_field_of_view_is_the_frame(name: str) -> None:
    field = find_field_of_view(frames_without_a_disc()[name])
    assert not field.found
    assert (field.left, field.top, field.right, field.bottom) == (0.0, 0.0, 400.0, 300.0)
    assert field_of_view_mask(field, 300, 400).all()


def test_the_same_photograph_gives_the_same_disc() -> None:
    pixels = jpeg(draw_disc(720, 480, 350.0, 250.0, 260.0), 40)
    assert find_field_of_view(pixels) == find_field_of_view(pixels.copy())


def test_a_turned_photograph_gives_the_turned_disc() -> None:
    pixels = draw_disc(720, 480, 330.0, 250.0, 270.0)
    field, turned_field = find_field_of_view(pixels), find_field_of_view(np.ascontiguousarray(np.rot90(pixels)))
    assert_close(turned_field, field.cy, 720 - field.cx, field.radius, share=0.003)


def test_the_search_itself_is_good_to_a_fraction_of_a_pixel() -> None:
    for cx, cy, radius in ((200.0, 150.0, 120.0), (190.3, 160.7, 101.4), (201.9, 149.2, 80.6)):
        disc = find_disc(draw_disc(400, 300, cx, cy, radius).max(axis=2).astype(np.float32))
        assert disc is not None
        edges = (max(cx - radius, 0), max(cy - radius, 0), min(cx + radius, 400), min(cy + radius, 300))
        assert np.abs(np.subtract(disc, Disc(cx, cy, radius, *edges))).max() < 0.5


@given(
    field=st.builds(
        FieldOfView,
        *(st.floats(-5, 25) for _ in range(2)),
        st.floats(1, 20),
        *(st.floats(-5, 10) for _ in range(2)),
        *(st.floats(10, 25) for _ in range(2)),
        st.just(True),
    ),
    extent=st.tuples(st.floats(-8, 4), st.floats(-8, 4), st.floats(5, 30), st.floats(5, 30)),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
)
def test_a_pixel_is_inside_when_its_center_is(
    field: FieldOfView, extent: tuple[float, float, float, float], height: int, width: int
) -> None:
    mask = field_of_view_mask(field, height, width, extent)
    left, top, right, bottom = extent
    for i in range(height):
        for j in range(width):
            x, y = left + (j + 0.5) * ((right - left) / width), top + (i + 0.5) * ((bottom - top) / height)
            inside = field.left <= x < field.right and field.top <= y < field.bottom
            assert mask[i, j] == (inside and (x - field.cx) ** 2 + (y - field.cy) ** 2 <= field.radius**2)


def test_scaling_and_shifting_carry_the_mask_along() -> None:
    field = FieldOfView(40.3, 30.1, 25.7, 10.2, 12.4, 66.0, 55.9, found=True)
    mask = field_of_view_mask(field, 60, 80)
    assert np.array_equal(field_of_view_mask(field.scaled(2, 2), 60, 80, (0.0, 0.0, 160.0, 120.0)), mask)
    assert np.array_equal(field_of_view_mask(field.shifted(5, 3), 63, 85)[3:, 5:], mask)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("black", "it is black"),
        ("white", "of it is white"),
        ("page", "of it is white"),
        ("noise", "steeper edges"),
        ("landscape", "its colors vary more"),
        ("bars", "steeper edges"),
    ],
)
def test_frames_without_a_retina_are_refused_with_a_reason(name: str, reason: str) -> None:
    pixels = frames_without_a_disc()[name]
    message = retina_fault(pixels)
    assert message is not None
    assert reason in message
    assert "\n" not in message


def test_possible_retinas_pass() -> None:
    disc = draw_disc(720, 480, 360.0, 240.0, 220.0)
    inner = frames_without_a_disc()["retina"]
    tiny = draw_disc(1800, 1200, 400.0, 900.0, 60.0)
    for pixels in (disc, np.repeat(disc[..., 1:2], 3, axis=2), disc // 4, inner, tiny):
        assert retina_fault(pixels) is None


def test_a_flat_disc_is_blank() -> None:
    y, x = np.mgrid[:480, :720]
    flat = np.repeat((np.hypot(x - 360, y - 240) < 200)[..., None] * np.uint8(90), 3, axis=2)
    field = find_field_of_view(flat)
    assert field.found
    assert "blank" in str(retina_fault(flat))


@pytest.mark.parametrize("name", ["IDRiD_01", "IDRiD_02", "IDRiD_04", "IDRiD_07"])
def test_real_photographs_at_camera_size(shared: Path, name: str) -> None:
    with Image.open(shared / "data/idrid-fullres" / f"{name}.jpg") as image:
        pixels = np.array(image)
    field = find_field_of_view(pixels)
    assert field.found
    assert (field.top, field.bottom) == (0.0, 2848.0)
    # The same rim by another way: where the red along three rows passes a third of its median there.
    for y in (700, 1424, 2100):
        red = pixels[y - 4 : y + 5, :, 0].mean(axis=0)
        lit = np.nonzero(red > np.median(red[1000:3000]) / 3)[0]
        half = np.sqrt(field.radius**2 - (y + 0.5 - field.cy) ** 2)
        assert abs(lit[0] - (field.cx - half)) < 0.01 * field.radius
        assert abs(lit[-1] + 1 - (field.cx + half)) < 0.01 * field.radius
    assert retina_fault(pixels) is None


def test_real_photographs_cropped_to_the_disc(shared: Path) -> None:
    paths = sorted((shared / "data/idrid-512").glob("t*/*/*.jpg"))
    assert len(paths) == 79
    for path in paths[::8]:
        with Image.open(path) as image:
            pixels = np.array(image)
        field = find_field_of_view(pixels)
        assert_close(field, 256.0, 255.0, 256.0)
        # Black bars at the top and bottom, the widest of them in the one photograph from another zoom step.
        assert 35 < field.top < 70, path.name
        assert 440 < field.bottom < 480, path.name
        inside = field_of_view_mask(field, 512, 512)
        assert pixels.max(axis=2)[~inside].mean() < 8, path.name
        assert retina_fault(pixels) is None
