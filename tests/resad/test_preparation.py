"""The square shows what it says it shows, and everything found in it comes back to the photograph's own pixels."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from resad.config import PhotoLimits, PreparationConfig
from resad.errors import PhotoUnreadable
from resad.photo import Photo, read_photo
from resad.preparation import Frame, PreparedPhoto, ThisProcess, prepare

Pixels = NDArray[np.uint8]
LIMITS = PhotoLimits()


def draw_disc(width: int, height: int, cx: float, cy: float, radius: float) -> Pixels:
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - cx, y - cy)
    waves = 1.0 + 0.2 * np.sin(x / radius * 9) * np.cos(y / radius * 7)
    level = np.clip(radius - distance + 0.5, 0.0, 1.0) * (1.0 - 0.4 * (distance / radius) ** 2) * waves
    retina: NDArray[np.float64] = level[..., None] * np.array([150.0, 80.0, 40.0])
    return retina.clip(0, 255).astype(np.uint8)


def encode(pixels: Pixels, kind: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=95, subsampling=0, exif=exif.tobytes())
    return stream.getvalue()


frames = st.builds(
    lambda width, height, left, top, across, down, side: Frame(
        width, height, left, top, left + across, top + down, side
    ),
    st.integers(1, 60),
    st.integers(1, 60),
    st.floats(-30, 30),
    st.floats(-30, 30),
    st.floats(1, 90),
    st.floats(1, 90),
    st.integers(1, 40),
)


@given(frame=frames, x=st.floats(-100, 100), y=st.floats(-100, 100))
def test_to_photo_and_to_prepared_are_inverse(frame: Frame, x: float, y: float) -> None:
    assert frame.to_photo(*frame.to_prepared(x, y)) == pytest.approx((x, y), abs=1e-9)
    assert frame.to_prepared(*frame.to_photo(x, y)) == pytest.approx((x, y), abs=1e-9)
    assert frame.to_photo(0.0, 0.0) == (frame.left, frame.top)
    side = float(frame.side)
    assert frame.to_photo(side, side) == pytest.approx((frame.right, frame.bottom))
    points = frame.to_photo(np.array([x, y]), np.array([y, x]))
    assert (points[0][0], points[1][0]) == frame.to_photo(x, y)


@given(frame=frames, seed=st.integers(0, 99), raster=st.none() | st.tuples(st.integers(1, 50), st.integers(1, 50)))
@settings(deadline=None)
def test_a_map_comes_back_as_a_pixel_by_pixel_reading_would(
    frame: Frame, seed: int, raster: tuple[int, int] | None
) -> None:
    values = np.random.default_rng(seed).random((frame.side, frame.side), dtype=np.float32)
    width, height = raster or (frame.width, frame.height)
    photo_map = frame.map_to_photo(values, *(raster or ()))
    assert photo_map.shape == (height, width)
    assert photo_map.dtype == np.float32
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x * (frame.width / width), y * (frame.height / height)
    column, row = frame.to_prepared(x, y)
    expected = ndimage.map_coordinates(
        values, [row - 0.5, column - 0.5], order=1, mode="nearest", output=np.float64
    )
    inside = (x >= frame.left) & (x < frame.right) & (y >= frame.top) & (y < frame.bottom)
    assert np.allclose(photo_map, np.where(inside, expected, 0.0), atol=1e-5)


def test_a_linear_ramp_comes_back_exactly() -> None:
    frame = Frame(300, 200, -20.0, -50.0, 320.0, 290.0, 64)
    center = np.arange(64) + 0.5
    x, y = frame.to_photo(*np.meshgrid(center, center))
    photo_map = frame.map_to_photo((3 * x - 2 * y).astype(np.float32))
    y_photo, x_photo = np.mgrid[:200, :300] + 0.5
    assert np.abs(photo_map - (3 * x_photo - 2 * y_photo)).max() < 1e-3


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the map is"):
        Frame(300, 200, 0.0, 0.0, 300.0, 200.0, 64).map_to_photo(np.zeros((32, 32), np.float32))


def brightest(pixels: Pixels) -> tuple[float, float]:
    """Center of the white dot, in continuous px."""
    white = pixels.min(axis=2).astype(float)
    white[white < 0.5 * white.max()] = 0
    row, column = ndimage.center_of_mass(white)
    return column + 0.5, row + 0.5


TURNS = {1: lambda a: a, 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a), 8: lambda a: np.rot90(a, -1)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("crop", ["field_of_view", "none"])
def test_a_dot_is_found_where_it_was_drawn(kind: str, orientation: int, crop: str) -> None:
    # Neither side is a multiple of 8, so that a JPEG's reduced size is rounded.
    upright = draw_disc(1205, 907, 610.0, 450.0, 430.0)
    upright[620:636, 790:806] = 255
    data = encode(np.ascontiguousarray(TURNS[orientation](upright)), kind, orientation)
    config = PreparationConfig(size=208, crop="none" if crop == "none" else "field_of_view")
    photo = prepare(data, config, LIMITS)
    assert (photo.frame.width, photo.frame.height) == (1205, 907)
    x, y = photo.frame.to_photo(*brightest(photo.pixels))
    scale_x = (photo.frame.right - photo.frame.left) / 208
    scale_y = (photo.frame.bottom - photo.frame.top) / 208
    assert abs(x - 798) < scale_x
    assert abs(y - 628) < scale_y
    # And back again, by the way that a map takes.
    dot = (photo.pixels.min(axis=2) > 128).astype(np.float32)
    row, column = ndimage.center_of_mass(photo.frame.map_to_photo(dot))
    assert abs(column + 0.5 - 798) < 1.5 * scale_x
    assert abs(row + 0.5 - 628) < 1.5 * scale_y


def test_the_square_is_centered_on_the_disc_and_as_wide_as_it() -> None:
    pixels = draw_disc(640, 420, 300.0, 215.0, 250.0)
    photo = prepare(encode(pixels), PreparationConfig(size=256), LIMITS)
    field, frame = photo.field_of_view, photo.frame
    assert field.found
    assert (field.cx, field.cy, field.radius) == pytest.approx((300, 215, 250), abs=1.5)
    assert frame.extent == (
        field.cx - field.radius,
        field.cy - field.radius,
        field.cx + field.radius,
        field.cy + field.radius,
    )
    # What the square shows, read off the photograph one pixel at a time, black beyond it.
    center = np.arange(256) + 0.5
    x, y = frame.to_photo(*np.meshgrid(center, center))
    green = pixels[..., 1].astype(float)
    expected = ndimage.map_coordinates(green, [y - 0.5, x - 0.5], order=1, mode="constant", cval=0.0)
    distance = np.hypot(x - 300, y - 215)
    # Not at the rim and the frame's edge, where a pixel of the square is the mean of bright and black.
    steady = (np.abs(distance - 250) > 4) & (np.abs(y) > 4) & (np.abs(y - 420) > 4)
    assert np.abs(photo.pixels[..., 1] - expected)[steady].max() < 3
    inside = (
        (distance <= field.radius) & (y >= field.top) & (y < field.bottom) & (x >= field.left) & (x < field.right)
    )
    assert np.array_equal(photo.mask, inside)


def test_without_a_crop_the_whole_frame_is_squashed() -> None:
    pixels = draw_disc(640, 420, 300.0, 215.0, 190.0)
    photo = prepare(encode(pixels), PreparationConfig(size=256, crop="none"), LIMITS)
    assert photo.frame == Frame(640, 420, 0.0, 0.0, 640.0, 420.0, 256)
    assert photo.mask.all()
    resized = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR)
    assert np.array_equal(photo.pixels, np.asarray(resized))
    assert photo.field_of_view.found


@pytest.mark.parametrize("size", [(640, 420), (420, 640), (512, 512)])
def test_a_frame_without_a_disc_is_padded_to_a_square(size: tuple[int, int]) -> None:
    width, height = size
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([150 + 50 * np.sin(x / 40), 80 + 20 * np.cos(y / 30), 40 + 0 * x], axis=2).astype(np.uint8)
    photo = prepare(encode(pixels), PreparationConfig(size=128), LIMITS)
    assert not photo.field_of_view.found
    longer = max(size)
    assert photo.frame.right - photo.frame.left == photo.frame.bottom - photo.frame.top == longer
    assert photo.mask.sum() == pytest.approx(128 * 128 * min(size) / longer, rel=0.02)
    assert (photo.pixels[photo.mask].max(axis=1) > 60).all()
    assert photo.pixels[ndimage.binary_erosion(~photo.mask, border_value=1)].max(initial=0) == 0


class FullSize(ThisProcess):
    def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
        return read_photo(source, limits)


@pytest.mark.parametrize(("radius", "size"), [(430.0, 208), (430.0, 96), (110.0, 208), (110.0, 64)])
def test_a_reduced_decoding_shows_the_same(radius: float, size: int) -> None:
    data = encode(draw_disc(1200, 904, 610.0, 450.0, radius), "JPEG")
    config = PreparationConfig(size=size)
    reduced = prepare(data, config, LIMITS)
    full = prepare(data, config, LIMITS, decoder=FullSize())
    small, large = reduced.field_of_view, full.field_of_view
    assert abs(small.radius - large.radius) < 0.005 * radius
    assert np.hypot(small.cx - large.cx, small.cy - large.cy) < 0.005 * radius
    assert np.abs(reduced.pixels.astype(int) - full.pixels).mean() < 1.5
    assert (reduced.mask != full.mask).mean() < 0.02


def shrinks_used(data: bytes, config: PreparationConfig) -> list[int]:
    shrinks: list[int] = []

    class Recorder(ThisProcess):
        def read_photo(self, source: bytes | Path, limits: PhotoLimits, *, shrink: int = 1) -> Photo:
            shrinks.append(shrink)
            return read_photo(source, limits, shrink=shrink)

    prepare(data, config, LIMITS, decoder=Recorder())
    return shrinks


@pytest.mark.parametrize(
    ("size", "crop", "radius", "expected"),
    [
        (96, "field_of_view", 430.0, [8]),  # 904 / 8 = 113
        (128, "field_of_view", 430.0, [4]),  # 904 / 4 = 226, / 8 = 113
        (96, "field_of_view", 110.0, [8, 2]),  # the disc: 220 / 2 = 110
        (512, "field_of_view", 430.0, [1]),
        (2048, "field_of_view", 430.0, [1]),
        (96, "none", 110.0, [8]),
    ],
)
def test_no_more_is_decoded_than_the_square_needs(
    size: int, crop: str, radius: float, expected: list[int]
) -> None:
    data = encode(draw_disc(1200, 904, 610.0, 450.0, radius), "JPEG")
    config = PreparationConfig(size=size, crop="none" if crop == "none" else "field_of_view")
    assert shrinks_used(data, config) == expected


def assert_same(first: PreparedPhoto, second: PreparedPhoto) -> None:
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.mask, second.mask)
    for name in ("frame", "field_of_view", "content_hash"):
        assert getattr(first, name) == getattr(second, name)


def test_a_path_and_its_bytes_are_prepared_alike(tmp_path: Path) -> None:
    data = encode(draw_disc(640, 420, 300.0, 215.0, 190.0), "JPEG", orientation=6)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    photo = prepare(path, PreparationConfig(size=128), LIMITS)
    assert_same(photo, prepare(data, PreparationConfig(size=128), LIMITS))
    assert (photo.frame.width, photo.frame.height) == (420, 640)
    assert photo.pixels.shape == (128, 128, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.mask.shape == (128, 128)
    assert photo.mask.dtype == np.bool_


def test_damage_is_named() -> None:
    with pytest.raises(PhotoUnreadable):
        prepare(encode(draw_disc(640, 420, 300.0, 215.0, 190.0))[:500], PreparationConfig(), LIMITS)


@pytest.mark.parametrize("name", ["IDRiD_01", "IDRiD_04"])
def test_a_real_photograph_reduced_and_full(shared: Path, name: str) -> None:
    path = shared / "data/idrid-fullres" / f"{name}.jpg"
    reduced = prepare(path, PreparationConfig(), LIMITS)
    full = prepare(path, PreparationConfig(), LIMITS, decoder=FullSize())
    assert np.abs(reduced.pixels.astype(int) - full.pixels).mean() < 1.5
    # The square, carried back, lies on the photograph and not a few pixels beside it.
    with Image.open(path) as image:
        green = np.asarray(image)[..., 1].astype(np.float32)
    back = full.frame.map_to_photo(full.pixels[..., 1].astype(np.float32))
    assert (back[:, np.arange(4288) + 0.5 < full.frame.left] == 0).all()

    def error(x: int, y: int) -> float:
        return float(
            np.abs(back[200:-200, 500:-800] - np.roll(green, (y, x), axis=(0, 1))[200:-200, 500:-800]).mean()
        )

    assert error(0, 0) < min(error(2, 0), error(-2, 0), error(0, 2), error(0, -2))
