"""The map alone: the format that was asked for, and in each the same numbers as offline."""

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from resad_client.records import INTENDED_USE
from resad_client.watch_command import _HEAD_BYTES, _PICTURE_KEY

from resad.config import PhotoLimits
from resad.engine import ScoredPhoto
from resad.loaded_index import LoadedIndex
from resad.photo import read_photo
from resad.pictures.map_files import read_map_png16, read_map_tiff
from resad.pictures.overlay import overlay_picture
from service.maps import MAP_TYPES, negotiate, raster_size
from service.problems import Refusal
from tests.service.running import JPEG, Served


def fetch(running: Served, photo: bytes, accept: str, **query: int | float | str) -> bytes:
    headers = JPEG | {"Accept": accept}
    answer = running.client.post("/v1/anomaly-map", content=photo, headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == accept
    assert answer.headers["vary"] == "Accept"
    return answer.content


@pytest.mark.parametrize("size", [None, 50])
def test_formats_hold_the_offline_map(
    running: Served, photo: bytes, offline: ScoredPhoto, loaded: LoadedIndex, size: int | None
) -> None:
    frame, query = offline.photo.frame, {} if size is None else {"size": size}
    expected = frame.map_to_photo(offline.detection.anomaly_map, *raster_size(frame.width, frame.height, size))
    exact, full_scale = read_map_tiff(fetch(running, photo, "image/tiff", **query))
    np.testing.assert_allclose(exact, expected, rtol=1e-4, atol=1e-6)
    assert full_scale == loaded.manifest.calibration.full_scale
    npy = np.load(io.BytesIO(fetch(running, photo, "application/x-npy", **query)), allow_pickle=False)
    np.testing.assert_array_equal(npy, exact)
    png, png_scale = read_map_png16(fetch(running, photo, "image/png", **query))
    assert png_scale == full_scale
    np.testing.assert_allclose(png, np.minimum(exact, full_scale), atol=full_scale / 65535)
    assert max(exact.shape) == (size or max(frame.width, frame.height))


def test_an_overlay_is_the_offline_picture(
    running: Served, photo: bytes, offline: ScoredPhoto, loaded: LoadedIndex
) -> None:
    body = fetch(running, photo, "image/png", style="overlay", fpr=0.9, false_regions=2)
    values = offline.photo.frame.map_to_photo(offline.detection.anomaly_map)
    pixels = read_photo(photo, PhotoLimits()).pixels
    expected = overlay_picture(pixels, values, offline.result, loaded.manifest.calibration)
    difference = np.asarray(Image.open(io.BytesIO(body))).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 2
    assert _PICTURE_KEY in body[:_HEAD_BYTES]  # by which a watched folder tells it from a photograph
    small = Image.open(
        io.BytesIO(fetch(running, photo, "image/png", style="overlay", fpr=0.9, false_regions=2, size=60))
    )
    assert small.width < expected.width


def test_an_answer_says_which_index_and_scale(running: Served, photo: bytes, loaded: LoadedIndex) -> None:
    answer = running.client.post("/v1/anomaly-map", content=photo, headers=JPEG)
    manifest = loaded.manifest
    assert answer.headers["resad-index"] == f"{manifest.name}/{manifest.version}"
    assert float(answer.headers["resad-full-scale"]) == manifest.calibration.full_scale


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/*", "application/x-npy"),
        ("IMAGE/TIFF", "image/tiff"),
        ("image/png;q=0.5, image/tiff", "image/tiff"),
        ("image/png;q=0, */*", "image/tiff"),
        ("*/*;q=0.1, application/x-npy;q=0.2", "application/x-npy"),
        ("text/html,application/xhtml+xml,image/webp,*/*;q=0.8", "image/png"),
        ("image/png;q=nan, image/tiff;q=0.001", "image/tiff"),
    ],
)
def test_the_best_of_what_is_accepted(accept: str, expected: str) -> None:
    assert negotiate(accept, overlay=False) == expected


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "image/*;q=0", "application/json"])
def test_nothing_acceptable(running: Served, photo: bytes, accept: str) -> None:
    answer = running.client.post("/v1/anomaly-map", content=photo, headers=JPEG | {"Accept": accept})
    assert answer.status_code == 406
    assert all(name in answer.json()["detail"] for name in MAP_TYPES)


def test_an_overlay_is_no_tiff(running: Served, photo: bytes) -> None:
    headers = JPEG | {"Accept": "image/tiff"}
    assert running.client.post("/v1/anomaly-map?style=overlay", content=photo, headers=headers).status_code == 406


@given(st.text(max_size=60))
def test_any_accept_header_is_handled(accept: str) -> None:
    with suppress(Refusal):
        assert negotiate(accept, overlay=False) in MAP_TYPES


@given(st.integers(64, 9000), st.integers(64, 9000), st.integers(16, 65_536))
def test_a_raster_keeps_the_shape_and_never_grows(width: int, height: int, longest: int) -> None:
    small = raster_size(width, height, longest)
    assert max(small) == min(longest, max(width, height))
    assert abs(small[0] * height - small[1] * width) <= max(width, height)


def test_an_overlay_as_jpeg_and_beside_the_photograph(running: Served, photo: bytes) -> None:
    query: dict[str, str] = {"style": "overlay", "fpr": "0.9"}

    def fetch_overlay(accept: str, **options: str) -> Image.Image:
        headers = {"Content-Type": "image/jpeg", "Accept": accept}
        answer = running.client.post("/v1/anomaly-map", content=photo, headers=headers, params=query | options)
        assert (answer.status_code, answer.headers["content-type"]) == (200, accept)
        return Image.open(io.BytesIO(answer.content))

    png_overlay, jpeg_overlay, side_by_side = (
        fetch_overlay("image/png"),
        fetch_overlay("image/jpeg"),
        fetch_overlay("image/png", layout="side"),
    )
    assert png_overlay.info["resad:intended_use"] == jpeg_overlay.info["comment"].decode() == INTENDED_USE
    assert (png_overlay.format, jpeg_overlay.format, jpeg_overlay.size) == ("PNG", "JPEG", png_overlay.size)
    assert np.abs(np.asarray(png_overlay, float) - np.asarray(jpeg_overlay, float)).mean() < 4
    with Image.open(io.BytesIO(photo)) as image:
        photo_pixels = np.asarray(image.convert("RGB"))
    height, width, _ = photo_pixels.shape
    left_half = np.asarray(side_by_side)[:, :width]
    tops = range(side_by_side.height - height + 1)
    assert any(np.array_equal(left_half[top : top + height], photo_pixels) for top in tops)
    data_url = running.score(photo, map="overlay-jpeg", fpr=0.9).json()["map"]
    assert data_url.startswith("data:image/jpeg;base64,")
