"""Maps come back as they were sent, and nothing else passes for one."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resad_client import ProtocolError, Result, from_json, map_bytes, read_map_npy, read_map_png16
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
