from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from indexer.photos.listing import ReferencePhoto
from lab.datasets import LabeledPhoto, LesionMask
from lab.datasets.dataset import read_lesions, read_mask
from lab.datasets.layouts import read_mvtec
from resad.errors import PhotoUnreadable, SettingError


def draw(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two kinds, made in an order that is not the sorted one; the second has no masks."""
    root = tmp_path / "retina"
    for name in ("test/spots/b.jpg", "test/spots/a.JPG", "test/good/d.png", "test/blur/c.png"):
        draw(root / name)
    for name in ("train/good/2.png", "train/good/1.png"):
        draw(root / name)
    for name in ("spots/b_mask.png", "spots/a_mask.png", "EX/a_EX.png", "good/d_mask.png"):
        draw(root / "ground_truth" / name, "L")
    return root


def test_the_layout_is_read_in_order(root: Path) -> None:
    masks = root / "ground_truth" / "spots"
    dataset = read_mvtec(root)
    assert dataset.name == "retina"
    assert dataset.train == tuple(ReferencePhoto(root / f"train/good/{n}.png") for n in (1, 2))
    # Of the photograph a there is a mask of its exudates beside the one of everything.
    exudates = LesionMask(root / "ground_truth/EX/a_EX.png", "EX")
    assert dataset.test == (
        LabeledPhoto(root / "test/blur/c.png", abnormal=True, kind="blur"),
        LabeledPhoto(root / "test/good/d.png", abnormal=False, kind="good"),
        LabeledPhoto(root / "test/spots/a.JPG", True, "spots", (LesionMask(masks / "a_mask.png"), exudates)),
        LabeledPhoto(root / "test/spots/b.jpg", True, "spots", (LesionMask(masks / "b_mask.png", "spots"),)),
    )


def test_what_is_no_photograph_is_ignored(root: Path) -> None:
    expected = read_mvtec(root)
    for name in ("test/spots/Thumbs.db", "test/spots/._b.jpg", "test/.cache/x.png", "test/readme.txt"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (root / "test/spots/folder.png").mkdir()
    assert read_mvtec(root) == expected


def test_the_name_is_that_of_the_folder_however_it_is_reached(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert read_mvtec(Path()).name == "retina"


def test_train_may_be_missing(tmp_path: Path) -> None:
    draw(tmp_path / "test/good/a.png")
    assert read_mvtec(tmp_path).train == ()


def test_a_single_missing_mask_is_named(root: Path) -> None:
    missing = root / "ground_truth/spots/a_mask.png"
    missing.unlink()
    with pytest.raises(SettingError) as caught:
        read_mvtec(root)
    assert str(missing) in str(caught.value)
    assert str(root / "test/spots/a.JPG") in str(caught.value)


def test_no_test_photographs_is_refused_with_the_layout(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SettingError, match=r"test/good, test/<kind>, ground_truth/<kind>/<photo>_mask\.png"):
            read_mvtec(tmp_path)
        (tmp_path / "test" / "good").mkdir(parents=True, exist_ok=True)


MODES: dict[str, int | tuple[int, ...]] = {
    "1": 1,
    "L": 255,
    "RGB": (0, 0, 1),
    "RGBA": (1, 0, 0, 255),
    "LA": (7, 255),
    "I;16": 256,
    "P": 1,
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_is_where_it_is_not_black(tmp_path: Path, mode: str) -> None:
    lesion = {(1, 0), (7, 5), (3, 2)}
    black = {"RGBA": (0, 0, 0, 255), "LA": (0, 255)}.get(mode, 0)
    image = Image.new(mode, (8, 6), black)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 0, 0])
    for xy in lesion:
        image.putpixel(xy, MODES[mode])
    image.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", height=6, width=8)
    assert mask.dtype == np.bool_
    assert mask.shape == (6, 8)
    assert {(int(x), int(y)) for y, x in zip(*np.nonzero(mask), strict=True)} == lesion


def test_a_palette_counts_by_its_colors_not_its_numbers(tmp_path: Path) -> None:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((2, 3), 0)
    image.save(tmp_path / "m.png", transparency=b"\xff\x80")
    mask = read_mask(tmp_path / "m.png", height=6, width=8)
    assert np.argwhere(mask).tolist() == [[3, 2]]


def test_how_a_mask_is_marked_is_said(tmp_path: Path) -> None:
    """IDRiD counts by a palette's numbers, whatever their colors; ADAM marks lesions in black."""
    image = Image.new("P", (4, 3))
    image.putpalette([9, 9, 9, 0, 0, 0])
    image.putpixel((2, 1), 1)
    image.save(tmp_path / "m.tif")
    assert np.argwhere(read_mask(tmp_path / "m.tif", 3, 4, "number")).tolist() == [[1, 2]]
    assert np.argwhere(read_mask(tmp_path / "m.tif", 3, 4, "black")).tolist() == [[1, 2]]
    assert np.argwhere(~read_mask(tmp_path / "m.tif", 3, 4)).tolist() == [[1, 2]]


@given(arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20))))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mask_comes_back_as_it_was_written(tmp_path: Path, mask: NDArray[np.bool_]) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", *mask.shape), mask)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = draw(tmp_path / "m.png", "L", (8, 6))
    with pytest.raises(SettingError, match=r"m\.png is 8 x 6, its photograph 6 x 8$"):
        read_mask(path, height=8, width=6)


def test_a_damaged_mask_is_refused(tmp_path: Path) -> None:
    whole = draw(tmp_path / "m.png", "RGB", (64, 64)).read_bytes()
    for content in (b"no image", whole[: len(whole) // 2], b""):
        (tmp_path / "m.png").write_bytes(content)
        with pytest.raises(PhotoUnreadable, match=r"m\.png"):
            read_mask(tmp_path / "m.png", 64, 64)


def test_idrid_is_read_whole(shared: Path) -> None:
    dataset = read_mvtec(shared / "data" / "idrid-512")
    assert dataset.name == "idrid-512"
    assert (len(dataset.train), len(dataset.test)) == (36, 43)
    assert [photo.kind for photo in dataset.test] == ["good"] * 16 + ["lesion"] * 27
    kinds = set()
    for photo in dataset.test:
        assert photo.abnormal == bool(photo.masks) == (photo.kind == "lesion")
        if photo.masks:
            assert photo.masks[0].path.stem == f"{photo.path.stem}_mask"
            with Image.open(photo.path) as image:
                lesions = read_lesions(photo.masks, image.height, image.width)
            kinds |= set(lesions)
            union = np.logical_or.reduce([mask for kind, mask in lesions.items() if kind is not None])
            assert 0 < lesions[None].mean() < 0.3
            assert np.array_equal(lesions[None], union)  # the mask of everything is that of all lesions
    assert kinds == {None, "MA", "HE", "EX", "SE"}
