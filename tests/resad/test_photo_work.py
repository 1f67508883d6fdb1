"""Work is counted before it begins: files that ask for too much of it are refused, sound ones never."""

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from benchmarks._costly_files import bmp_of_runs, jpeg_of_scans, png, tiff_of_strips
from resad.config import PhotoLimits
from resad.errors import PhotoTooLarge
from resad.photo import read_photo
from resad.photo_work import check_work

LIMITS = PhotoLimits()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jpeg_of_scans(6000), "more than 500 scans"),
        (lambda: jpeg_of_scans(200, side=5000), "more than 96 scans, the limit at its size"),
        (lambda: tiff_of_strips(1_000_000), "1000000 strips or tiles, the limit is 30000"),
        (lambda: png(64, 64, chunks=100_000), "more than 50000 chunks"),
        (lambda: bmp_of_runs(8000) + bytes(4_000_000), "a BMP with run lengths of"),
    ],
)
def test_work_without_end_is_refused_before_it_begins(make: Callable[[], bytes], words: str) -> None:
    data = make()
    began = time.process_time()
    with pytest.raises(PhotoTooLarge, match=words):
        read_photo(data, LIMITS)
    assert time.process_time() - began < 2  # decoded, each of them takes ten times as long


@pytest.mark.parametrize("side", [64, 900])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_what_encoders_write_passes(kind: str, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)
    for options in ({}, {"progressive": True, "optimize": True}):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        check_work(file.getvalue(), LIMITS)


def test_a_run_length_bmp_and_a_strip_for_each_row_pass() -> None:
    check_work(bmp_of_runs(300), LIMITS)
    assert read_photo(tiff_of_strips(2000), LIMITS).pixels.shape == (2000, 64, 3)


def test_bytes_inside_a_segment_are_no_scans() -> None:
    """A camera's preview, itself a JPEG, and whatever a comment holds."""
    file = io.BytesIO()
    Image.new("RGB", (100, 100), (90, 40, 20)).save(file, "JPEG", comment=b"\xff\xda" * 3000)
    assert read_photo(file.getvalue(), LIMITS).pixels.shape == (100, 100, 3)


def test_as_many_scans_as_are_allowed_are_decoded() -> None:
    allowed = jpeg_of_scans(500, side=64)
    assert read_photo(allowed, LIMITS).pixels.shape == (64, 64, 3)
    with pytest.raises(PhotoTooLarge):
        read_photo(jpeg_of_scans(501, side=64), LIMITS)
