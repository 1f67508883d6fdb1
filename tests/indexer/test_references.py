"""What becomes of listed photographs before anything is computed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import Duplicate, Skipped, list_photos
from resad.config import PhotoLimits, PreparationConfig
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
