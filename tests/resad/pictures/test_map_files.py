"""The files give back the map they were given, on the scale they say."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from resad.pictures.map_files import (
    UNIT,
    map_npy,
    map_png16,
    map_tiff,
    read_map_png16,
    read_map_tiff,
)

FINGERPRINT = "sha256:" + "0f" * 32


@st.composite
def maps(draw: st.DrawFn, high: float = 1e6) -> NDArray[np.float32]:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    values = draw(
        st.lists(st.floats(0, high, width=32), min_size=height * width, max_size=height * width),
    )
    return np.array(values, dtype=np.float32).reshape(height, width)


full_scales = st.floats(1e-3, 1e6)


@settings(deadline=None)  # the cores are shared
@given(maps(), full_scales)
def test_png_is_within_half_a_step_and_saturates_at_the_full_scale(
    anomaly_map: NDArray[np.float32], full_scale: float
) -> None:
    values, scale = read_map_png16(map_png16(anomaly_map, full_scale, FINGERPRINT))
    assert scale == full_scale
    assert values.dtype == np.float32
    expected = np.minimum(anomaly_map.astype(np.float64), full_scale)
    # Half a step of the 16 bits, and the rounding of what comes back to float32.
    assert np.all(np.abs(values - expected) <= full_scale / 65535 / 2 * (1 + 1e-9) + full_scale * 2**-24)


@settings(deadline=None)  # the cores are shared
@given(maps(high=100.0))
def test_png_is_the_formula_pixel_by_pixel(anomaly_map: NDArray[np.float32]) -> None:
    with Image.open(io.BytesIO(map_png16(anomaly_map, 3.7, FINGERPRINT))) as image:
        assert (image.format, image.mode) == ("PNG", "I;16")
        assert image.size == anomaly_map.shape[::-1]
        for (y, x), distance in np.ndenumerate(anomaly_map):
            assert image.getpixel((x, y)) == round(65535 * min(float(distance) / 3.7, 1.0))


def test_png_gray_does_not_depend_on_the_rest_of_the_map() -> None:
    calm = np.full((4, 4), 0.5, dtype=np.float32)
    wild = calm.copy()
    wild[0, 0] = 40.0
    calm_values, _ = read_map_png16(map_png16(calm, 2.0, FINGERPRINT))
    wild_values, _ = read_map_png16(map_png16(wild, 2.0, FINGERPRINT))
    assert wild_values[0, 0] == 2.0
    np.testing.assert_array_equal(calm_values[1:], wild_values[1:])


def test_png_says_unit_scale_and_fingerprint_as_plain_text() -> None:
    data = map_png16(np.ones((2, 3), dtype=np.float32), 1 / 3, FINGERPRINT)
    assert data.count(b"tEXtresad:") == 3
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["resad:unit"] == UNIT
        assert float(image.info["resad:full_scale"]) == 1 / 3
        assert image.info["resad:fingerprint"] == FINGERPRINT


@settings(deadline=None)  # the cores are shared
@given(maps(), full_scales)
def test_tiff_is_exact(anomaly_map: NDArray[np.float32], full_scale: float) -> None:
    data = map_tiff(anomaly_map, full_scale, FINGERPRINT)
    values, scale = read_map_tiff(data)
    assert scale == full_scale
    assert values.dtype == np.float32
    assert values.tobytes() == anomaly_map.tobytes()
    with Image.open(io.BytesIO(data)) as image:
        facts = json.loads(image.getexif()[270])
    assert facts == {"unit": UNIT, "full_scale": full_scale, "fingerprint": FINGERPRINT}


@settings(deadline=None)  # the cores are shared
@given(maps())
def test_npy_is_exact(anomaly_map: NDArray[np.float32]) -> None:
    values = np.load(io.BytesIO(map_npy(anomaly_map)), allow_pickle=False)
    assert (values.dtype, values.shape) == (anomaly_map.dtype, anomaly_map.shape)
    assert values.tobytes() == anomaly_map.tobytes()


def test_a_strided_view_is_written_in_its_own_order() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    view = whole[::-2, 1::3]
    np.testing.assert_array_equal(np.load(io.BytesIO(map_npy(view))), view)
    np.testing.assert_array_equal(read_map_tiff(map_tiff(view, 24.0, FINGERPRINT))[0], view)
    np.testing.assert_allclose(read_map_png16(map_png16(view, 24.0, FINGERPRINT))[0], view, atol=24 / 65535)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[np.nan, 1.0]], dtype=np.float32),
        np.array([[1.0, np.inf]], dtype=np.float32),
        np.array([[1.0, -0.001]], dtype=np.float32),
        np.ones((2, 2), dtype=np.float64),
        np.ones((2, 2, 1), dtype=np.float32),
        np.ones((0, 2), dtype=np.float32),
    ],
    ids=["nan", "infinite", "negative", "float64", "three axes", "empty"],
)
def test_invalid_maps_are_refused(array: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="a map is"):
        map_png16(array, 1.0, FINGERPRINT)
    with pytest.raises(ValueError, match="a map is"):
        map_tiff(array, 1.0, FINGERPRINT)
    with pytest.raises(ValueError, match="a map is"):
        map_npy(array)


@pytest.mark.parametrize("full_scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_full_scale_must_be_positive_and_finite(full_scale: float) -> None:
    anomaly_map = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="full scale"):
        map_png16(anomaly_map, full_scale, FINGERPRINT)
    with pytest.raises(ValueError, match="full scale"):
        map_tiff(anomaly_map, full_scale, FINGERPRINT)


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        _encode(Image.new("L", (3, 3)), "PNG"),
        _encode(Image.new("I;16", (3, 3)), "PNG"),
        map_png16(np.random.default_rng(0).random((40, 40), dtype=np.float32), 1.0, FINGERPRINT)[:900],
        map_tiff(np.ones((3, 3), dtype=np.float32), 1.0, FINGERPRINT),
    ],
    ids=["nothing", "text", "8 bit", "no scale", "cut off", "the other kind"],
)
def test_read_map_png16_refuses_other_files(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an anomaly map"):
        read_map_png16(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        _encode(Image.new("F", (3, 3)), "TIFF"),
        _encode(Image.new("L", (3, 3)), "TIFF"),
        map_tiff(np.ones((40, 40), dtype=np.float32), 1.0, FINGERPRINT)[:900],
        map_png16(np.ones((3, 3), dtype=np.float32), 1.0, FINGERPRINT),
    ],
    ids=["nothing", "no scale", "8 bit", "cut off", "the other kind"],
)
def test_read_map_tiff_refuses_other_files(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an anomaly map"):
        read_map_tiff(data)
