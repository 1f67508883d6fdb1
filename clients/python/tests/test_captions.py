"""Names over overlays: the picture below is as it came, and so are its remarks."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resad_client.captions import with_name
from resad_client.records import INTENDED_USE


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
