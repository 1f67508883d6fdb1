"""What becomes of listed photographs before anything is computed."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from benchmarks._costly_files import bmp_of_runs, jpeg_of_scans
from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import Duplicate, Skipped, list_photos
from resad.config import PhotoLimits, PreparationConfig
from resad.decoder_pool import DecoderPool
from resad.errors import NotAFundusPhoto

PREPARATION = PreparationConfig(size=128)


def test_outcomes_come_in_order_and_name_the_first_of_equals(drawn: Path, tmp_path: Path) -> None:
    source = sorted((drawn / "train/good").iterdir())
    shutil.copy(source[0], tmp_path / "a.jpg")
    shutil.copy(source[0], tmp_path / "b.jpg")
    Image.new("RGB", (300, 300), "white").save(tmp_path / "c.png")
    shutil.copy(source[1], tmp_path / "d.jpg")
    outcomes = list(load_photos(list_photos(tmp_path), PREPARATION, PhotoLimits(), strict=False))
    first, second, third, fourth = outcomes
    assert isinstance(first, LoadedPhoto)
    assert second == Duplicate(tmp_path / "b.jpg", tmp_path / "a.jpg")
    assert isinstance(third, Skipped)
    assert third.path.name == "c.png"
    assert isinstance(fourth, LoadedPhoto)
    with pytest.raises(NotAFundusPhoto, match=r"c\.png"):
        list(load_photos(list_photos(tmp_path), PREPARATION, PhotoLimits(), strict=True))


def test_a_photograph_of_endless_work_is_left_out_and_not_waited_for(tmp_path: Path, drawn: Path) -> None:
    """By its scans, counted before; and by its time, in a process that is ended."""
    sound = next((drawn / "train/good").glob("*.jpg"))
    for name, data in (
        ("a.jpg", jpeg_of_scans(6000)), ("b.bmp", bmp_of_runs(8900)), ("c.jpg", sound.read_bytes()),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    with closing(DecoderPool(2, 0.25)) as decoders:
        scans, runs, photo = load_photos(
            list_photos(tmp_path), PREPARATION, PhotoLimits(), strict=False, decoder=decoders
        )
    assert isinstance(scans, Skipped)
    assert "more than 500 scans" in scans.reason
    assert isinstance(runs, Skipped)
    assert "more than 0.25 s of processor time" in runs.reason
    assert isinstance(photo, LoadedPhoto)
