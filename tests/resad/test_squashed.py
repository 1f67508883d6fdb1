"""Photographs that were squashed, laid on a canvas, cropped or masked: the field of view holds retina alone."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from resad.config import PhotoLimits, PreparationConfig
from resad.field_of_view import field_of_view_mask, find_field_of_view
from resad.preparation import PreparedPhoto, prepare
from resad.retina import looks_like_fundus
from tests.resad.test_field_of_view import draw_disc

Pixels = NDArray[np.uint8]
RADIUS = 150.0


def photograph() -> Pixels:
    """A disc in a square frame, 340 px."""
    return draw_disc(340, 340, 170.0, 172.0, RADIUS)


def squash(pixels: Pixels, across: float, down: float) -> Pixels:
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((round(width * across), round(height * down))))


def prepared(pixels: Pixels) -> PreparedPhoto:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return prepare(file.getvalue(), PreparationConfig(size=256), PhotoLimits())


def dark_share(pixels: Pixels) -> float:
    """Share of the field of view that is black surround; the drawn retina is nowhere so dark."""
    mask = field_of_view_mask(find_field_of_view(pixels), *pixels.shape[:2])
    return float((pixels.max(axis=2)[mask] <= 16).mean())


@pytest.mark.parametrize(("across", "down"), [(1.0, 1.1), (1.1, 1.0), (1.0, 1.5), (1.5, 1.0), (0.75, 1.0)])
def test_a_squashed_photograph_is_prepared_as_the_true_one(across: float, down: float) -> None:
    squashed = prepared(squash(photograph(), across, down))
    field = squashed.field_of_view
    assert field.found
    assert field.stretch == pytest.approx(down / across, rel=0.01)
    assert (field.cx, field.cy) == pytest.approx((170 * across, 172 * down), abs=1.5)
    assert field.half_axes == pytest.approx((RADIUS * across, RADIUS * down), rel=0.01)
    true = prepared(photograph())
    shared_mask = true.mask & squashed.mask
    assert shared_mask.sum() > 0.98 * (true.mask | squashed.mask).sum()
    assert np.abs(true.pixels[shared_mask].astype(int) - squashed.pixels[shared_mask]).mean() < 4


def test_a_place_in_the_square_leads_back_to_the_squashed_photograph() -> None:
    photo = prepared(squash(photograph(), 1.0, 1.3))
    x, y = photo.frame.to_photo(np.array([128.0, 256.0]), np.array([128.0, 256.0]))
    assert x == pytest.approx([170, 170 + RADIUS], abs=2)
    assert y == pytest.approx([172 * 1.3, (172 + RADIUS) * 1.3], abs=2)


@pytest.mark.parametrize("level", [255, 128])
@pytest.mark.parametrize("alone", [True, False], ids=["the disc alone", "the whole frame"])
def test_a_canvas_counts_as_surround_and_is_black_in_the_square(level: int, alone: bool) -> None:
    pixels = photograph()
    if alone:
        y, x = np.mgrid[:340, :340] + 0.5
        pixels = np.where(np.hypot(x - 170, y - 172)[..., None] <= RADIUS, pixels, np.uint8(level))
    photo = prepared(np.pad(pixels, ((20, 60), (90, 30), (0, 0)), constant_values=level))
    field = photo.field_of_view
    assert field.found
    assert (field.cx, field.cy, field.radius) == pytest.approx((260, 192, RADIUS), rel=0.02)
    assert photo.pixels[~photo.mask].max() <= (0 if alone else level)
    assert np.median(photo.pixels[~photo.mask]) <= 16


def shape(name: str) -> Image.Image:
    mask = Image.new("L", (340, 340))
    draw = ImageDraw.Draw(mask)
    match name:
        case "rectangle":
            draw.rectangle((60, 90, 280, 240), fill=255)
        case "rectangle without corners":
            draw.polygon(
                [(100, 60), (240, 60), (280, 100), (280, 230), (240, 270), (100, 270), (60, 230), (60, 100)], 255
            )
        case "round corners":
            draw.rounded_rectangle((60, 80, 280, 260), 45, fill=255)
        case _:
            draw.ellipse((80, 60, 230, 270), fill=255)
            draw.ellipse((110, 90, 290, 260), fill=255)
    return mask


@pytest.mark.parametrize("name", ["rectangle", "rectangle without corners", "round corners", "two ovals"])
def test_where_no_ellipse_fits_the_lit_region_is_the_field_of_view(name: str) -> None:
    kept = np.asarray(shape(name)) > 0
    pixels = np.where(kept[..., None], photograph(), np.uint8(0))
    field = find_field_of_view(pixels)
    mask = field_of_view_mask(field, 340, 340)
    assert (mask & kept).sum() > 0.97 * (mask | kept).sum()
    if not field.found:
        photo = prepared(pixels)
        side = max(np.ptp(np.nonzero(kept), axis=1)) + 1
        assert photo.frame.right - photo.frame.left == pytest.approx(side, abs=4)


@pytest.mark.parametrize("share", [0.95, 0.85, 0.75])
def test_a_square_crop_holds_no_surround(share: float) -> None:
    half = round(share * RADIUS)
    assert dark_share(photograph()[172 - half : 172 + half, 170 - half : 170 + half]) < 0.03


@pytest.mark.parametrize(
    ("name", "true_name", "stretch"),
    [
        ("healthy_tall1.1.jpg", "healthy_true.jpg", 1.1),
        ("healthy_wide1.1.jpg", "healthy_true.jpg", 1 / 1.1),
        ("IDRiD_07_ratio1.1.jpg", "IDRiD_07_true.jpg", 1.1),
        ("IDRiD_07_squashed256.jpg", "IDRiD_07_true.jpg", 512 / 340),
    ],
)
def test_real_squashed_photographs_are_prepared_as_the_true_ones(
    shared: Path, name: str, true_name: str, stretch: float
) -> None:
    config = PreparationConfig(size=256)
    squashed, true = (
        prepare(shared / "cases/squashed" / file, config, PhotoLimits()) for file in (name, true_name)
    )
    assert squashed.field_of_view.stretch == pytest.approx(stretch, rel=0.02)
    shared_mask = squashed.mask & true.mask
    assert shared_mask.sum() > 0.97 * (squashed.mask | true.mask).sum()
    assert np.abs(squashed.pixels[shared_mask].astype(int) - true.pixels[shared_mask]).mean() < 3


@pytest.mark.parametrize("name", ["pale_1", "pale_2", "pale_3"])
def test_pale_photographs_that_fill_the_frame_could_show_a_retina(shared: Path, name: str) -> None:
    path = shared / "cases/pale_full_frame" / f"{name}.jpeg"
    photo = prepare(path, PreparationConfig(), PhotoLimits())
    assert looks_like_fundus(photo.pixels, photo.mask, photo.field_of_view) is None
