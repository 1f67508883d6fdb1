"""What a build says of unusable ones and of other versions."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Advance, Stages
from indexer.photos.listing import list_references
from indexer.settings import method_config
from resad import index, runtime
from resad.errors import SettingError

CONFIG = method_config("resad", backbone="bundled", size=64, coreset="0.3")


def order(photos: Path, root: Path) -> BuildOptions:
    return BuildOptions(photos, root, "eyes", CONFIG, "bundled", torch.device("cpu"))


def quiet() -> Stages:
    return Stages(Console(quiet=True))


class Interrupted(Stages):
    """Interrupts the calibration, and deletes a listed photograph before any is read."""

    def __init__(self, deleted: Path | None = None) -> None:
        super().__init__(Console(quiet=True))
        self.deleted = deleted

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        if name == "encode" and self.deleted is not None:
            self.deleted.unlink()
        if name == "calibrate":
            raise KeyboardInterrupt
        with super().stage(name, total, unit) as advance:
            yield advance


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


def test_where_none_can_be_used_that_is_said(drawn: Path, tmp_path: Path) -> None:
    photos = mixed(tmp_path / "photos", drawn, set(), 3)
    with pytest.raises(
        SettingError, match=r"holds 0 usable photographs, .* at least 2; 3 were not used; first reason: "
    ):
        build(order(photos, tmp_path / "root"), quiet())


@pytest.mark.parametrize("package", ["resad", "scikit-learn"])
def test_work_of_another_version_is_not_gone_on_with(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    options = order(drawn / "train/good", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(options, Interrupted())
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.7" if name == package else version(name))
    with pytest.raises(SettingError, match=rf"packages was .*{package}.*0\.0\.7"):
        build(replace(options, resume=True), quiet())


def test_a_file_gone_after_it_was_listed_leaves_no_name_in_the_state(drawn: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(drawn / "train/good", photos)
    third = list_references(photos)[2].path
    with pytest.raises(KeyboardInterrupt):
        build(order(photos, tmp_path), Interrupted(third))
    journal = (tmp_path / "eyes" / index.WORK / "photos.jsonl").read_text()
    assert "No such file" in journal
    assert ".jpg" not in journal
    assert runtime.package_version() in (tmp_path / "eyes" / index.WORK / "inputs.json").read_text()
