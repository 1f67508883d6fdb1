"""Which photographs whitening is fitted to, and what a build says of unusable ones and of other versions."""

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from rich.console import Console

from indexer import build as building
from indexer.build import build
from indexer.build_order import BuildOrder
from indexer.fitting import evenly
from indexer.options import method
from indexer.photos import ReferencePhoto, list_photos, list_references
from indexer.progress import Stages
from resad import index, runtime
from resad.config import PhotoLimits
from resad.errors import SettingError

CONFIG = method("resad", backbone="bundled", size=64, coreset="0.3")


def order(photos: Path, root: Path) -> BuildOrder:
    return BuildOrder(photos, root, "eyes", CONFIG, "bundled", torch.device("cpu"))


def quiet() -> Stages:
    return Stages(Console(quiet=True))


def mixed(folder: Path, drawn: Path, usable: set[int], count: int) -> Path:
    """Photographs in order; those whose number is not in `usable` are none."""
    folder.mkdir()
    for number in range(count):
        if number in usable:
            data = (drawn / f"train/good/drawn_{number % 8:04d}.jpg").read_bytes()
            (folder / f"{number:02d}.jpg").write_bytes(data + bytes([number]))
        else:
            (folder / f"{number:02d}.jpg").write_text("call the clinic")
    return folder


def fitted(photos: Path, most: int) -> int:
    some = evenly(photos, list_photos(photos), CONFIG.preparation, PhotoLimits(), most, strict=False)
    return len(list(some))


def test_neighbors_stand_in_for_those_that_cannot_be_used(drawn: Path, tmp_path: Path) -> None:
    every_second = mixed(tmp_path / "photos", drawn, {1, 3, 5, 7}, 8)
    assert fitted(every_second, 4) == 4
    assert fitted(mixed(tmp_path / "few", drawn, {3}, 8), 4) == 1
    assert fitted(mixed(tmp_path / "all", drawn, set(range(8)), 8), 4) == 4


def test_a_build_lives_with_every_step_th_unusable(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "FITTED", 4)
    report = build(order(mixed(tmp_path / "photos", drawn, {1, 3, 5, 7}, 8), tmp_path / "root"), quiet())
    assert report.manifest.counts.photos == 4


def test_where_none_can_be_used_that_is_said(drawn: Path, tmp_path: Path) -> None:
    photos = mixed(tmp_path / "photos", drawn, set(), 3)
    with pytest.raises(
        SettingError, match=r"holds 0 usable photographs, .* at least 2; 3 were left aside; first reason: "
    ):
        build(order(photos, tmp_path / "root"), quiet())


@pytest.mark.parametrize("package", ["resad", "scikit-learn"])
def test_work_of_another_version_is_not_gone_on_with(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ask = order(drawn / "train/good", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(building, "leave_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(ask, quiet())
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.7" if name == package else version(name))
    with pytest.raises(SettingError, match=rf"packages was .*{package}.*0\.0\.7"):
        build(replace(ask, resume=True), quiet())


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_file_gone_after_it_was_listed_leaves_no_name_in_the_work(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(drawn / "train/good", photos)
    listing = list_references

    def losing(source: Path) -> tuple[ReferencePhoto, ...]:
        listed = listing(source)
        listed[2].path.unlink()
        return listed

    monkeypatch.setattr(building, "list_references", losing)
    monkeypatch.setattr(building, "leave_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(order(photos, tmp_path), quiet())
    journal = (tmp_path / "eyes" / index.WORK / "photos.jsonl").read_text()
    assert "No such file" in journal
    assert ".jpg" not in journal
    assert runtime.package_version() in (tmp_path / "eyes" / index.WORK / "inputs.json").read_text()
