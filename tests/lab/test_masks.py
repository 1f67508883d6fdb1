"""Masks count what a person would mark: exact ones as they are, lossy and resized ones from half the maximum."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lab.datasets.dataset import read_mask
from resad.errors import PhotoUnreadable

SIDE = 120


def blobs() -> NDArray[np.bool_]:
    y, x = np.mgrid[:SIDE, :SIDE]
    centers = ((30, 40, 9), (80, 30, 14), (70, 90, 6), (20, 100, 4))
    return np.asarray(np.logical_or.reduce([(x - a) ** 2 + (y - b) ** 2 <= r * r for a, b, r in centers]))


LESIONS = blobs()


def read(
    image: Image.Image, tmp_path: Path, kind: str = "PNG", **options: object
) -> tuple[NDArray[np.bool_], int]:
    path = tmp_path / f"m.{kind.lower()}"
    image.save(path, kind, **options)
    soft: list[Path] = []
    return read_mask(path, image.height, image.width, on_soft=soft.append), len(soft)


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("value", [1, 100, 255])
def test_two_values_are_as_they_are(tmp_path: Path, value: int) -> None:
    mask, soft = read(Image.fromarray(LESIONS.astype(np.uint8) * value), tmp_path)
    assert (soft, np.array_equal(mask, LESIONS)) == (0, True)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("color", [None, (255, 0, 0), (0, 255, 0)])
def test_a_lossy_mask(tmp_path: Path, quality: int, color: tuple[int, int, int] | None) -> None:
    picture = LESIONS[..., None] * np.array(color or (255, 255, 255), dtype=np.uint8)
    image = Image.fromarray(picture.astype(np.uint8))
    mask, soft = read(image if color else image.convert("L"), tmp_path, "JPEG", quality=quality, subsampling=0)
    assert soft == 1
    assert overlap(mask, LESIONS) > 0.93


@pytest.mark.parametrize(
    "resample", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BICUBIC]
)
def test_a_resized_mask(tmp_path: Path, resample: Image.Resampling) -> None:
    large = Image.fromarray(np.kron(LESIONS, np.ones((3, 3), np.uint8)).astype(np.uint8) * 255)
    mask, soft = read(large.resize((SIDE, SIDE), resample), tmp_path)
    assert soft == 1
    assert overlap(mask, LESIONS) > 0.97


@pytest.mark.parametrize("kind", ["L", "I;16", "F", "RGB"])
def test_soft_edges_of_any_depth(tmp_path: Path, kind: str) -> None:
    soft_edges = ndimage.gaussian_filter(LESIONS.astype(float), 1.0)
    soft_edges /= soft_edges.max()
    scale = {"L": 255, "I;16": 65535, "F": 1, "RGB": 255}[kind]
    dtype = {"L": np.uint8, "I;16": np.uint16, "F": np.float32, "RGB": np.uint8}[kind]
    pixels = (soft_edges * scale).astype(dtype)
    image = Image.fromarray(np.dstack([pixels] * 3) if kind == "RGB" else pixels)
    mask, soft = read(image, tmp_path, "TIFF")
    assert soft == 1
    assert overlap(mask, soft_edges >= 0.5) > 0.98


@pytest.mark.parametrize("ground", [(0, 0, 0, 0), (255, 255, 255, 0), (9, 200, 30, 0)])
@pytest.mark.parametrize("color", [(255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 0, 255), (255, 0, 0, 90)])
def test_a_layer_on_a_transparent_ground(tmp_path: Path, ground: tuple[int, ...], color: tuple[int, ...]) -> None:
    picture = np.where(LESIONS[..., None], np.array(color, np.uint8), np.array(ground, np.uint8))
    mask, soft = read(Image.fromarray(picture), tmp_path)
    assert (soft, np.array_equal(mask, LESIONS)) == (0, True)


def test_an_opaque_layer_counts_by_its_colors(tmp_path: Path) -> None:
    picture = np.dstack([LESIONS.astype(np.uint8) * 255] * 3 + [np.full_like(LESIONS, 255, dtype=np.uint8)])
    assert np.array_equal(read(Image.fromarray(picture), tmp_path)[0], LESIONS)


def test_kinds_by_color_and_by_number_all_count(tmp_path: Path) -> None:
    labels = ndimage.label(LESIONS)[0].astype(np.uint8)
    assert labels.max() == 4
    colors = np.array([(0, 0, 0), (64, 0, 0), (0, 128, 0), (255, 255, 0), (0, 0, 200)], np.uint8)
    palette = Image.fromarray(labels, "P")
    palette.putpalette(colors.ravel().tolist())
    for image in (Image.fromarray(labels), Image.fromarray(colors[labels]), palette):
        mask, soft = read(image, tmp_path)
        assert (soft, np.array_equal(mask, LESIONS)) == (0, True)


def test_a_palette_of_grays_is_soft_too(tmp_path: Path) -> None:
    soft_edges = (ndimage.gaussian_filter(LESIONS.astype(float), 1.0) * 255).astype(np.uint8)
    image = Image.fromarray(soft_edges).quantize(64)
    mask, soft = read(image, tmp_path)
    assert soft == 1
    assert overlap(mask, soft_edges >= 128) > 0.95


def test_a_lossy_mask_that_marks_in_black(tmp_path: Path) -> None:
    path = tmp_path / "m.jpg"
    Image.fromarray((~LESIONS).astype(np.uint8) * 255).save(path, quality=80)
    assert overlap(read_mask(path, SIDE, SIDE, "black"), LESIONS) > 0.95


def test_several_pages_are_refused(tmp_path: Path) -> None:
    stream = BytesIO()
    image = Image.fromarray(LESIONS.astype(np.uint8))
    image.save(stream, "TIFF", save_all=True, append_images=[image])
    (tmp_path / "m.tif").write_bytes(stream.getvalue())
    with pytest.raises(PhotoUnreadable, match=r"m\.tif has 2 pages"):
        read_mask(tmp_path / "m.tif", SIDE, SIDE)


@pytest.mark.parametrize("name", ["jpeg_mask.png", "resized_mask.png"])
def test_the_case(shared: Path, name: str) -> None:
    folder = shared / "cases" / "soft_mask"
    soft: list[Path] = []
    exact, mask = (read_mask(folder / file, 512, 512, on_soft=soft.append) for file in ("exact_mask.png", name))
    assert soft == [folder / name]
    assert exact.sum() == 633
    # Reducing a mask takes away lesions of a few pixels; none is made larger.
    assert (0.9 if name.startswith("jpeg") else 0.7) < mask.sum() / exact.sum() < 1.1
