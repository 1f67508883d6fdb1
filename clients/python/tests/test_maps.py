"""Maps come back as they were sent, nothing else passes for one, and a name above an overlay leaves it whole."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resad_client import ProtocolError, Result, from_json, map_bytes, read_map_npy, read_map_png16
from resad_client.maps import with_name
from resad_client.records import INTENDED_USE
from samples import EXAMPLE, JPEG, PNG, npy

VALUES = np.linspace(0, 5, 35, dtype=np.float32).reshape(5, 7)


def png16(levels: np.ndarray[tuple[int, int], np.dtype[np.uint16]], **facts: str) -> bytes:
    info, file = PngInfo(), io.BytesIO()
    for name, text in facts.items():
        info.add_text(f"resad:{name}", text)
    Image.fromarray(levels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def test_npy_is_exact() -> None:
    anomaly_map = read_map_npy(npy(VALUES))
    assert anomaly_map.values.dtype == np.float32
    assert anomaly_map.values.shape == (5, 7)
    assert anomaly_map.values.tobytes() == VALUES.tobytes()
    assert anomaly_map.full_scale is None


@pytest.mark.parametrize(
    "values",
    [VALUES.astype(np.float64), VALUES.astype(">f4"), VALUES[0], VALUES[:0], -VALUES, VALUES * np.float32("nan")],
    ids=["float64", "big endian", "1-D", "empty", "negative", "nan"],
)
def test_other_arrays_are_refused(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    with pytest.raises(ProtocolError, match="an anomaly map is"):
        read_map_npy(npy(values))


def test_pickles_are_never_opened() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[object()]], dtype=object), allow_pickle=True)
    with pytest.raises(ProtocolError, match="no anomaly map"):
        read_map_npy(file.getvalue())


@given(st.binary(), st.integers(0, 127), st.sampled_from([npy(VALUES), b"", b"\x93NUMPY\x01\x00"]))
def test_damaged_npy_never_raises_anything_else(noise: bytes, place: int, base: bytes) -> None:
    data = base[:place] + noise + base[place + len(noise) :]
    try:
        assert read_map_npy(data).values.dtype == np.float32
    except ProtocolError:
        assert data != base or not base.endswith(VALUES.tobytes())


def test_a_map_too_large_for_any_memory_is_refused() -> None:
    data = npy(VALUES)
    huge_file = data.replace(b"(5, 7), }              ", b"(9999999999, 999999), }")
    assert len(huge_file) == len(data)
    assert huge_file != data
    with pytest.raises(ProtocolError):
        read_map_npy(huge_file)


def test_png16_is_the_contracts_formula() -> None:
    levels = np.array([[0, 1, 65535], [40000, 7, 65534]], dtype=np.uint16)
    anomaly_map = read_map_png16(png16(levels, full_scale="3.7"))
    assert anomaly_map.full_scale == 3.7
    assert anomaly_map.values.dtype == np.float32
    np.testing.assert_allclose(anomaly_map.values, levels / 65535 * 3.7, rtol=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        PNG,
        b"",
        png16(np.zeros((2, 2), np.uint16)),
        png16(np.zeros((2, 2), np.uint16), full_scale="wide"),
        png16(np.zeros((2, 2), np.uint16), full_scale="nan"),
        png16(np.ones((9, 9), np.uint16), full_scale="2.0")[:-40],
    ],
    ids=["jpeg", "8 bit", "empty", "no scale", "scale in words", "nan scale", "cut off"],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not an anomaly map"):
        read_map_png16(data)


def test_map_bytes_takes_the_data_url_apart() -> None:
    result = from_json(Result, EXAMPLE)
    with pytest.raises(ValueError, match="ask for one"):
        map_bytes(result)
    url = "data:image/png;base64,"
    assert map_bytes(replace(result, map=url + base64.b64encode(PNG).decode())) == PNG
    for bad_url in (
        "",
        url,
        url + "====",
        url + "@@@@",
        url + base64.b64encode(JPEG).decode(),
        "https://elsewhere/a.png",
    ):
        with pytest.raises(ProtocolError, match="PNG"):
            map_bytes(replace(result, map=bad_url))


def picture(kind: str, width: int = 300, height: int = 80) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    entries = PngInfo()
    entries.add_text("resad:intended_use", INTENDED_USE)
    options = {"pnginfo": entries} if kind == "PNG" else {"comment": INTENDED_USE, "quality": 95}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=120), st.integers(60, 400))
def test_the_picture_stays_as_it_is_below_its_name(name: str, width: int) -> None:
    plain = picture("PNG", width)
    named = Image.open(io.BytesIO(with_name(plain, name)))
    before = np.asarray(Image.open(io.BytesIO(plain)))
    assert named.format == "PNG"
    assert named.width == width
    np.testing.assert_array_equal(np.asarray(named)[-80:], before)
    band = np.asarray(named)[:-80]
    assert (band[:, -1] == (17, 17, 17)).all()
    if name.strip() and name.isascii() and name.strip().isalnum():
        assert (band != 17).any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_remarks_stay(kind: str) -> None:
    named = Image.open(io.BytesIO(with_name(picture(kind), "eye.jpg")))
    assert named.format == kind
    remarks = [text.decode() if isinstance(text, bytes) else str(text) for text in named.info.values()]
    assert INTENDED_USE in remarks


def test_a_long_name_is_not_cut() -> None:
    heights = [Image.open(io.BytesIO(with_name(picture("PNG"), "W" * count))).height for count in (5, 60, 120)]
    assert heights == sorted(set(heights))


def test_what_is_no_picture_stays_as_it_is() -> None:
    assert with_name(b"\x89PNG no picture", "eye.jpg") == b"\x89PNG no picture"
