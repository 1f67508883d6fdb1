"""What is left out together: against a slow closure, and in an index whose photographs vouch for each other."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.lifecycle.add import AddOptions, add
from indexer.settings import method_config
from resad.errors import SettingError
from resad.manifest import ReferenceRecord, read_records
from resad.near_duplicates import DuplicatePair, group_photos

CPU = torch.device("cpu")
QUIET = Stages(Console(quiet=True))


@given(st.data())
def test_groups_are_the_closure_of_all_pairs(data: st.DataObject) -> None:
    patients = data.draw(st.lists(st.none() | st.sampled_from("abc"), max_size=9))
    numbers = st.integers(0, max(len(patients) - 1, 0))
    ends = data.draw(st.lists(st.tuples(numbers, numbers), max_size=5)) if patients else []
    slow = [
        {number} | {row for row, patient in enumerate(patients) if patient == who and who is not None}
        for number, who in enumerate(patients)
    ]
    for first, second in ends:
        slow[first] |= {second}
        slow[second] |= {first}
    for _ in patients:
        slow = [set().union(*(slow[member] for member in group)) for group in slow]
    assert group_photos(patients, [DuplicatePair(*pair, bits=3) for pair in ends]) == slow


def _built(photos: Path, root: Path) -> Path:
    """On texture features alone, and mirror images are searched."""
    settings = ["resc.levels=[]", "backbone.stages=[2,3]", "search.mirrored=true"]
    config = method_config("resad", backbone="bundled", size=128, coreset="0.2", settings=settings)
    return build(BuildOptions(photos, root, "eyes", config, "bundled", CPU), QUIET).version


def _record(version: Path, number: int) -> ReferenceRecord:
    return read_records(version / "photos.jsonl")[number]


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for file in sorted((drawn / "train/good").glob("*.jpg"))[:6]:
        shutil.copy(file, folder)
    return folder


def _copy(photos: Path, name: str, *, mirrored: bool) -> None:
    """The first photograph, smaller and written again."""
    with Image.open(min(photos.glob("drawn*"))) as image:
        picture = ImageOps.mirror(image) if mirrored else image
        picture.resize((image.width * 4 // 5, image.height * 4 // 5)).save(photos / name, quality=90)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copy_does_not_vouch_for_its_original(photos: Path, tmp_path: Path, mirrored: bool) -> None:
    single_score = _record(_built(photos, tmp_path / "alone"), 0).score
    _copy(photos, "zz.jpg", mirrored=mirrored)
    version = _built(photos, tmp_path / "together")
    assert _record(version, 0).score > 0.95 * single_score
    assert _record(version, 6).score > 0.95 * single_score


def test_nor_does_one_that_is_added(photos: Path, tmp_path: Path) -> None:
    single_score = _record(_built(photos, tmp_path), 0).score
    new = tmp_path / "new"
    new.mkdir()
    _copy(photos, "../new/zz.jpg", mirrored=True)
    version = add(AddOptions(tmp_path / "eyes", new, CPU), QUIET).derived.version
    assert _record(version, 6).score > 0.95 * single_score


def test_copies_of_one_photograph_make_no_index(photos: Path, tmp_path: Path) -> None:
    _copy(photos, "zz.jpg", mirrored=False)
    for file in sorted(photos.glob("drawn*"))[1:]:
        file.unlink()
    with pytest.raises(
        SettingError, match=r"holds 2 usable photographs, all of one .*copies of each other: .*at least 2 "
    ):
        _built(photos, tmp_path)
