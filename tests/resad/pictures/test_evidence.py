"""Pictures of evidence: kept only where asked for, cut around the right patch, and gone with one file."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from resad_client.records import Evidence, Finding

from indexer.build.build import BuildReport
from resad import index
from resad.config import PhotoLimits
from resad.errors import IndexInvalid
from resad.index import check_files
from resad.manifest import read_records
from resad.pictures.evidence import CONTEXT, ENLARGED, cell_under, crop_around, draw_strips, file_name, read_square
from resad.preparation import prepare
from tests.conftest import Run, prepared
from tests.indexes import build_small

HALF = CONTEXT // 2


@pytest.fixture(scope="module")
def build_with_crops(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build_small(drawn / "train/good", tmp_path_factory.mktemp("kept"), keep_crops=True)


def test_every_reference_photo_has_one_file_named_after_its_id(build_with_crops: BuildReport, drawn: Path) -> None:
    records = read_records(build_with_crops.version / "photos.jsonl")
    files = sorted(path.name for path in (build_with_crops.version / "evidence").iterdir())
    assert files == [f"{record.id}.jpg" for record in records]
    assert {file_name(record.id) for record in records} < {file.name for file in build_with_crops.manifest.files}
    assert check_files(build_with_crops.version) == build_with_crops.manifest
    for record, path in zip(records, sorted((drawn / "train/good").glob("*.jpg")), strict=True):
        square = read_square(build_with_crops.version, build_with_crops.manifest, record.id)
        assert square is not None
        photo = prepare(path, build_with_crops.manifest.config.preparation, PhotoLimits())
        assert np.abs(square.astype(int) - photo.pixels).mean() < 3  # JPEG
        assert photo.content_hash == record.content_sha256


def test_no_crops_are_kept_by_default(small_index: Path) -> None:
    version = index.resolve(small_index)
    assert not (version / "evidence").exists()
    assert "evidence" not in (version / "manifest.json").read_text()


def test_inspect_says_whether_photographs_are_kept(
    run: Run, small_index: Path, build_with_crops: BuildReport
) -> None:
    def inspect_text(index: Path) -> str:
        return " ".join(re.sub("│", " ", run("inspect", index).out).split())

    assert "photographs kept none (--keep-crops)" in inspect_text(small_index)
    size = sum(path.stat().st_size for path in (build_with_crops.version / "evidence").iterdir()) / 1e6
    assert f"photographs kept 8 as prepared squares, for evidence, {size:.1f} MB" in inspect_text(
        build_with_crops.version
    )


def test_only_what_the_manifest_names_is_opened(build_with_crops: BuildReport, tmp_path: Path) -> None:
    version = tmp_path / "version"
    shutil.copytree(build_with_crops.version, version)
    (version / "evidence/r-99999.jpg").write_bytes((version / "evidence/r-00001.jpg").read_bytes())
    assert read_square(version, build_with_crops.manifest, "r-99999") is None
    assert read_square(version, build_with_crops.manifest, "../evidence/r-00001") is None
    (version / "evidence/r-00001.jpg").unlink()
    with pytest.raises(IndexInvalid, match=r"r-00001\.jpg cannot be read"):
        read_square(version, build_with_crops.manifest, "r-00001")


@given(st.integers(0, 15), st.integers(0, 15))
def test_a_crop_shows_what_lies_around_its_cell(y: int, x: int) -> None:
    """Against a padded copy: the cell's center is in the crop's middle; beyond the square is black."""
    side, grid = 128, (16, 16)
    square = np.random.default_rng(0).integers(30, 256, (side, side, 3), dtype=np.uint8)
    top, left = round((y + 0.5) * 8 - HALF), round((x + 0.5) * 8 - HALF)
    padded = np.pad(square, ((CONTEXT, CONTEXT), (CONTEXT, CONTEXT), (0, 0)))
    part = padded[top + CONTEXT : top + 2 * CONTEXT, left + CONTEXT : left + 2 * CONTEXT]
    enlarged = Image.fromarray(part).resize((CONTEXT * ENLARGED,) * 2, Image.Resampling.BICUBIC)
    crop = np.array(crop_around(square, (y, x), grid))
    difference = (crop != np.array(enlarged)).any(axis=2)
    rows, columns = np.nonzero(difference)
    # Only the frame is drawn: around the cell, whose middle is the crop's, and never upon it.
    middle, reach = CONTEXT * ENLARGED / 2, 4 + 4
    assert abs((rows.min() + rows.max() + 1) / 2 - middle) <= ENLARGED
    assert abs((columns.min() + columns.max() + 1) / 2 - middle) <= ENLARGED
    assert rows.max() - rows.min() <= 2 * ENLARGED * (reach + 1)
    cell = slice(int(middle) - 4 * ENLARGED, int(middle) + 4 * ENLARGED)
    assert not difference[cell, cell].any()


def test_a_cell_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cell \(16, 0\): the grid has \(16, 16\)"):
        crop_around(np.zeros((128, 128, 3), np.uint8), (16, 0), (16, 16))


@given(st.floats(-5, 140), st.floats(-5, 140))
def test_the_cell_under_a_point(x: float, y: float) -> None:
    row, column = cell_under(x, y, 128, (16, 16))
    assert abs(row * 8 + 4 - min(max(y, 0), 128)) <= 4
    assert abs(column * 8 + 4 - min(max(x, 0), 128)) <= 4


def test_a_strip_holds_its_crops_from_left_to_right() -> None:
    photo_pixels, reference_pixels = (
        np.full((128, 128, 3), (200, 90, 40), np.uint8),
        np.full((128, 128, 3), (40, 90, 200), np.uint8),
    )
    evidence = (Evidence("r-00001", 0.5, 8, 8), Evidence("r-00002", 0.6, 8, 8))
    box = ((60, 60, 66, 66), ((60, 60), (66, 60), (66, 66)))
    findings = tuple(
        Finding(rank, 1.5, 0.05, 63, 63, box[0], 49, 0.01, "central", box[1], evidence) for rank in (1, 2)
    )
    squares = {"r-00001": reference_pixels, "r-00002": None}
    picture = np.array(draw_strips(prepared(photo_pixels), findings, squares.__getitem__, (16, 16)))
    colors = [tuple(picture[60, column]) for column in (30, 230, 430)]
    assert colors[:2] == [(200, 90, 40), (40, 90, 200)]
    assert max(colors[2]) < 40  # of which nothing is kept
    assert (picture == (200, 90, 40)).all(axis=2).any(axis=1).sum() == 2 * CONTEXT * ENLARGED


def test_a_mirrored_patch_is_turned_so_that_it_looks_like_the_finding() -> None:
    """The reference is the photograph's own mirror image: turned, its crop shows the same, and only then."""
    reference = np.random.default_rng(0).integers(30, 256, (128, 128, 3), dtype=np.uint8)
    photo = prepared(np.ascontiguousarray(reference[:, ::-1]))
    box = ((40, 60, 46, 66), ((40, 60), (46, 60), (46, 66)))
    evidence = tuple(Evidence("r-00001", 0.5, 7, 10, mirrored=mirrored) for mirrored in (True, False))
    finding = Finding(1, 1.5, 0.05, 43, 59, box[0], 49, 0.01, "central", box[1], evidence)  # cell (7, 5)
    picture = np.array(draw_strips(photo, [finding], lambda _: reference, (16, 16)))
    side, top = CONTEXT * ENLARGED, 48
    finding_crop, turned_crop, plain_crop = (
        picture[top : top + side, left : left + side].astype(int)
        for left in range(8, 8 + 3 * (side + 8), side + 8)
    )
    middle = slice(side // 2 - 4 * ENLARGED, side // 2 + 4 * ENLARGED)  # within the frame
    assert np.abs(finding_crop - turned_crop)[middle, middle].max() <= 1
    assert np.abs(finding_crop - plain_crop)[middle, middle].mean() > 20
    assert np.abs(finding_crop - turned_crop).mean() < 3  # the frame's lines alone, which are off by a pixel


def test_a_build_keeps_crops_with_the_option(run: Run, drawn: Path, tmp_path: Path) -> None:
    options = ("--backbone", "bundled", "--size", "64", "--coreset", "0.5", "--device", "cpu")
    command = ("build", drawn / "train/good", "--root", tmp_path / "root", "--name", "eyes", *options)
    assert run(*command, "--keep-crops").code == 0
    version = index.resolve(tmp_path / "root/eyes")
    names = [file["name"] for file in json.loads((version / "manifest.json").read_text())["files"]]
    assert [name for name in names if name.startswith("evidence/")] == [
        f"evidence/r-{n:05d}.jpg" for n in range(1, 9)
    ]
    with Image.open(io.BytesIO((version / "evidence/r-00001.jpg").read_bytes())) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))
