"""PNG files: Pillow reads the numbers back, whatever the bands, and the entries."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from resad.pictures.png import Kind, png_parts

pictures = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: arrays(np.uint8, (*size, 3)) | arrays(np.uint16, size)
)


def written(numbers: np.ndarray, rows: int) -> bytes:
    bands = (numbers[start : start + rows] for start in range(0, len(numbers), rows))
    kind: Kind = "rgb" if numbers.dtype == np.uint8 else "gray16"
    return b"".join(png_parts(bands, (numbers.shape[1], numbers.shape[0]), kind, {"resad:unit": "Öre"}))


@given(pictures, st.integers(1, 50))
def test_pillow_reads_the_numbers_and_the_entries(numbers: np.ndarray, rows: int) -> None:
    with Image.open(io.BytesIO(written(numbers, rows))) as image:
        assert image.mode == ("RGB" if numbers.dtype == np.uint8 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), numbers)
        assert image.info["resad:unit"] == "Öre"


@given(pictures)
def test_every_chunk_has_its_checksum_and_the_end_comes_last(numbers: np.ndarray) -> None:
    data = written(numbers, 8)
    at, names = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(name + content),)
        names.append(name)
        at += 12 + length
    assert names[:2] == [b"IHDR", b"tEXt"]
    assert names[-1] == b"IEND"
    assert set(names[2:-1]) == {b"IDAT"}


@pytest.mark.parametrize("side", [64, 512])
def test_a_smooth_picture_takes_little_more_than_by_pillow(side: int) -> None:
    y, x = np.mgrid[:side, :side] / side
    noise = np.random.default_rng(0).normal(0, 2, (side, side, 3))
    smooth = 120 + 60 * np.sin(3 * x + 2 * y)[..., None]
    picture = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    assert len(written(picture, 64)) < 1.3 * len(file.getvalue())
