"""Drawn photographs: reproducible, anatomically placed, changed by lesions where their masks say so only."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from lab.drawing import LESION_KINDS, DrawnPhoto, Eye, LesionKind, draw_photo, write_dataset
from lab.drawing.retina import draw_scene
from lab.drawing.vessels import draw_vessels
from resad.errors import SettingError

HEIGHT = 128
REACH = 3
"""px at that height: what the soft edge of a lesion and the focus blur reach beyond a mask."""
BRIGHT: tuple[LesionKind, ...] = ("exudate", "drusen", "cotton_wool_spot")
DARK: tuple[LesionKind, ...] = ("hemorrhage", "microaneurysm")

seeds = st.integers(0, 2**63)
kinds = st.sampled_from(LESION_KINDS)
few_examples = settings(max_examples=6, deadline=None)


def draw(seed: int, *lesions: LesionKind, height: int = HEIGHT, eye: Eye | None = None) -> DrawnPhoto:
    return draw_photo(np.random.default_rng(seed), height=height, lesions=lesions, eye=eye)


def from_disc(photo: DrawnPhoto) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Every pixel's distance to the center of the optic disc, px."""
    cx, cy, _ = photo.optic_disc
    y, x = np.indices(photo.pixels.shape[:2])
    return np.asarray(np.hypot(x + 0.5 - cx, y + 0.5 - cy))


def gray(photo: DrawnPhoto) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(photo.pixels.mean(axis=2))


@few_examples
@given(seed=seeds)
def test_the_seed_decides_every_pixel_and_mask(seed: int) -> None:
    first, same, second = draw(seed, *LESION_KINDS), draw(seed, *LESION_KINDS), draw(seed + 1, *LESION_KINDS)
    assert np.array_equal(first.pixels, same.pixels)
    assert np.array_equal(first.mask, same.mask)
    assert (first.pixels != second.pixels).mean() > 0.5


def test_one_generator_gives_one_photo_after_another() -> None:
    rng = np.random.default_rng(3)
    first, second = draw_photo(rng, height=64), draw_photo(rng, height=64)
    assert not np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("height", [64, 101, 256, 512])
def test_the_size_is_the_one_asked_for(height: int) -> None:
    photo = draw(7, *LESION_KINDS, height=height)
    assert photo.pixels.shape == (height, round(1.5 * height), 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.mask.shape == photo.pixels.shape[:2]
    assert [lesion.kind for lesion in photo.lesion_masks] == list(LESION_KINDS)
    assert all(lesion.mask.any() for lesion in photo.lesion_masks)


@pytest.mark.parametrize("seed", range(2))
def test_a_seed_shows_the_same_view_at_every_size(seed: int) -> None:
    small, large = draw(seed, height=128), draw(seed, height=512)
    shrunk = np.asarray(Image.fromarray(large.pixels).reduce(4), dtype=float)
    assert np.abs(shrunk - small.pixels).mean() < 3.0
    assert np.allclose(np.array(large.optic_disc) / 4, small.optic_disc)


@few_examples
@given(seed=seeds)
def test_a_healthy_photo_has_no_lesions_and_a_black_surround(seed: int) -> None:
    photo = draw(seed)
    assert photo.lesion_masks == ()
    assert not photo.mask.any()
    scene = photo.scene
    inside, near = scene.inside(2), scene.inside(-0.06 * scene.field_radius)
    assert photo.pixels[~near].max() < 12
    assert photo.pixels[inside][:, 0].min() > 20


@few_examples
@given(seed=seeds, kind=kinds)
def test_a_requested_lesion_lies_in_the_field_of_view_and_off_the_optic_disc(seed: int, kind: LesionKind) -> None:
    photo = draw(seed, kind)
    (lesion,) = photo.lesion_masks
    assert lesion.kind == kind
    assert lesion.mask.any()
    assert not (lesion.mask & ~photo.scene.inside()).any()
    assert from_disc(photo)[lesion.mask].min() > photo.optic_disc[2]
    assert photo.pixels[lesion.mask][:, 0].min() > 20
    assert lesion.mask.sum() < 0.25 * photo.scene.inside().sum()


@few_examples
@given(seed=seeds, kind=kinds)
def test_lesions_change_what_their_mask_covers_and_nothing_else(seed: int, kind: LesionKind) -> None:
    healthy, diseased = draw(seed), draw(seed, kind)
    changed = (healthy.pixels != diseased.pixels).any(axis=2)
    reached = ndimage.binary_dilation(diseased.mask, iterations=REACH)
    assert not changed[~reached].any()
    assert changed[diseased.mask].mean() > 0.9


@few_examples
@given(seed=seeds, kind=kinds)
def test_bright_lesions_only_brighten_and_dark_ones_only_darken(seed: int, kind: LesionKind) -> None:
    healthy, diseased = draw(seed), draw(seed, kind)
    difference = diseased.pixels.astype(int) - healthy.pixels
    assert (difference >= 0).all() if kind in BRIGHT else (difference <= 0).all()
    assert abs(difference[diseased.mask][:, 1].mean()) > 2


@pytest.mark.parametrize("seed", range(3))
def test_a_kind_is_drawn_the_same_in_any_company(seed: int) -> None:
    together = draw(seed, *LESION_KINDS)
    for lesion in together.lesion_masks:
        (alone,) = draw(seed, lesion.kind).lesion_masks
        assert np.array_equal(alone.mask, lesion.mask)
    union = np.any([lesion.mask for lesion in together.lesion_masks], axis=0)
    assert np.array_equal(together.mask, union)


@pytest.mark.parametrize("seed", range(6))
def test_left_and_right_eyes_are_mirrored(seed: int) -> None:
    left, right = draw(seed, eye="left"), draw(seed, eye="right")
    for photo, side in ((left, -1), (right, 1)):
        cx, _, radius = photo.optic_disc
        assert side * (cx - photo.scene.fovea_x) > 3 * radius
        distance, bright = from_disc(photo), gray(photo)
        disc, around = distance < 0.8 * radius, (distance > 1.8 * radius) & (distance < 2.5 * radius)
        assert bright[disc].mean() > 1.25 * bright[around & photo.scene.inside()].mean()
    center = left.scene.field_cx
    assert center == right.scene.field_cx
    assert left.optic_disc[0] - center == pytest.approx(center - right.optic_disc[0])


def test_the_eye_is_drawn_where_none_is_given() -> None:
    eyes = [draw_scene(np.random.default_rng(seed), 64, None).eye for seed in range(200)]
    assert 70 < eyes.count("left") < 130
    drawn = draw(5, height=64)
    assert np.array_equal(drawn.pixels, draw(5, height=64, eye=drawn.eye).pixels)


def test_the_macula_is_darker_than_what_surrounds_it() -> None:
    ratios = []
    for seed in range(9):
        photo = draw(seed, height=128)
        scene = photo.scene
        y, x = np.indices(photo.pixels.shape[:2])
        distance = np.hypot(x + 0.5 - scene.fovea_x, y + 0.5 - scene.fovea_y) / scene.unit
        ring = (distance > 0.4) & (distance < 0.6) & (from_disc(photo) > 1.5 * scene.disc_radius)
        bright = gray(photo)
        ratios.append(bright[distance < 0.1].mean() / bright[ring & scene.inside(3)].mean())
    assert np.median(ratios) < 0.85


@few_examples
@given(seed=seeds)
def test_vessels_leave_the_disc_up_and_down_and_spare_the_fovea(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, HEIGHT, None)
    clear = np.ones((3, scene.height, scene.width), dtype=np.float32)
    draw_vessels(rng, scene, clear)
    u, v = scene.eye_axes((scene.height, scene.width))
    distance = np.hypot(u, v) * scene.unit / scene.disc_radius
    shade = 1 - clear[1]
    ring = (distance > 0.9) & (distance < 1.1) & scene.inside()
    for side in (v < -abs(u), v > abs(u)):
        assert shade[ring & side].max() > 0.2
    assert shade.min() > -0.02
    assert 0.03 < (shade > 0.05)[scene.inside()].mean() < 0.4
    assert shade[np.hypot(u - 1, v - scene.dip) < 0.13].max() == 0


@pytest.mark.parametrize(
    ("height", "lesions", "eye", "message"),
    [(63, (), None, "63"), (128, ("freckle",), None, "freckle"), (128, (), "middle", "middle")],
)
def test_what_cannot_be_drawn_is_refused(
    height: int, lesions: tuple[str, ...], eye: str | None, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        draw_photo(np.random.default_rng(0), height=height, lesions=lesions, eye=eye)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_dataset_has_mvtecs_layout(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    write_dataset(folder, 5, train=2, good=1, diseased=3, height=96)
    assert names(folder) == [
        *(f"ground_truth/lesion/drawn_000{i}_mask.png" for i in range(3)),
        "test/good/drawn_0000.jpg",
        *(f"test/lesion/drawn_000{i}.jpg" for i in range(3)),
        *(f"train/good/drawn_000{i}.jpg" for i in range(2)),
    ]
    for photo in folder.rglob("*.jpg"):
        with Image.open(photo) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (144, 96))
    for mask in folder.rglob("*.png"):
        with Image.open(mask) as image:
            assert (image.mode, image.size) == ("L", (144, 96))
            assert set(np.unique(np.asarray(image))) == {0, 255}


def test_a_photo_of_a_dataset_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_dataset(tmp_path / "few", 5, train=1, good=1, diseased=1, height=64)
    write_dataset(tmp_path / "many", 5, train=3, good=2, diseased=2, height=64)
    write_dataset(tmp_path / "other", 6, train=1, good=1, diseased=1, height=64)
    for name in names(tmp_path / "few"):
        content = (tmp_path / "few" / name).read_bytes()
        assert content == (tmp_path / "many" / name).read_bytes()
        assert content != (tmp_path / "other" / name).read_bytes()
    drawn = [path.read_bytes() for path in (tmp_path / "many").rglob("*.jpg")]
    assert len(set(drawn)) == len(drawn)


def test_a_dataset_fills_an_empty_folder_and_no_other(tmp_path: Path) -> None:
    empty, full, file = tmp_path / "empty", tmp_path / "full", tmp_path / "file"
    empty.mkdir()
    full.mkdir()
    (full / "note.txt").write_text("kept")
    file.write_text("kept")
    write_dataset(empty, 0, train=1, good=0, diseased=0, height=64)
    assert names(empty) == ["train/good/drawn_0000.jpg"]
    for path in (empty, full, file):
        with pytest.raises(SettingError, match=path.name):
            write_dataset(path, 0, train=1, good=0, diseased=0, height=64)
    assert names(full) == ["note.txt"]


@pytest.mark.parametrize(
    ("seed", "train", "good", "diseased", "height"),
    [(-1, 1, 1, 1, 64), (0, -1, 1, 1, 64), (0, 1, -1, 1, 64), (0, 1, 1, -1, 64), (0, 1, 1, 1, 63)],
)
def test_a_dataset_of_impossible_numbers_leaves_nothing(
    tmp_path: Path, seed: int, train: int, good: int, diseased: int, height: int
) -> None:
    with pytest.raises(SettingError):
        write_dataset(tmp_path / "new", seed, train=train, good=good, diseased=diseased, height=height)
    assert not (tmp_path / "new").exists()
