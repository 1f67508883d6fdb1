"""A build that was interrupted, by whatever, and goes on: the bank is the one of a build that never was."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from rich.console import Console

from indexer.build import extraction, references
from indexer.build.build import BuildOptions, build
from indexer.build.feature_store import FeatureStore
from indexer.build.progress import Advance, Stages
from indexer.build.references import LoadedPhoto
from indexer.settings import method_config
from resad import index
from resad.config import updated
from resad.encoder import PatchFeatures
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.preparation import PreparedPhoto, prepare
from tests.conftest import Run

CPU = torch.device("cpu")
SMALL = ("--backbone", "bundled", "--size", "64", "--coreset", "0.3", "--device", "cpu")
CONFIG = method_config("resad", backbone="bundled", size=64, coreset="0.3")


@pytest.fixture(scope="module")
def photos(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some usable ones, a duplicate and a file that is no photograph among them."""
    folder = tmp_path_factory.mktemp("photos")
    for copy in range(14):  # different bytes, so that none is a duplicate
        data = (drawn / f"train/good/drawn_{copy % 8:04d}.jpg").read_bytes()
        (folder / f"{copy:02d}.jpg").write_bytes(data + bytes([copy]))
    shutil.copy(folder / "00.jpg", folder / "05a.jpg")
    (folder / "03a.jpg").write_text("call the clinic")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version that an uninterrupted build makes."""
    return build(_order(photos, tmp_path_factory.mktemp("whole")), _quiet()).version


def _order(photos: Path, root: Path) -> BuildOptions:
    return BuildOptions(photos, root, "eyes", CONFIG, "bundled", CPU)


def _quiet() -> Stages:
    return Stages(Console(quiet=True))


class _Stopped(Stages):
    """Ctrl-C in one of the stages, after so many units."""

    def __init__(self, stage: str, units: int) -> None:
        super().__init__(Console(quiet=True))
        self._stage, self._units = stage, units

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        with super().stage(name, total, unit) as advance:
            count = 0

            def stop(steps: int, note: str = "") -> None:
                nonlocal count
                count += steps
                advance(steps, note)
                if name == self._stage and count >= self._units:
                    raise KeyboardInterrupt

            yield stop


def _same(version: Path, whole: Path) -> None:
    for name in ("memory_bank.faiss", "provenance.npz", "photos.jsonl"):
        assert (version / name).read_bytes() == (whole / name).read_bytes(), name


def _listen_to_interrupts() -> None:
    """As on a terminal: a shell starts what runs in its background with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _command(photos: Path, root: Path) -> tuple[str, ...]:
    return "build", str(photos), "--root", str(root), "--name", "eyes", *SMALL


def _start(photos: Path, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-c", "from indexer.cli import main; main()", *_command(photos, root)),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_listen_to_interrupts,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_half_way_it_goes_on_to_the_same_bank(
    run: Run, photos: Path, whole: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    root = tmp_path / "root"
    journal = root / "eyes" / index.WORK / "photos.jsonl"
    process = _start(photos, root)
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    count = journal.read_bytes().count(b"\n")
    assert 3 <= count < 16
    assert index.versions(root / "eyes") == []
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert "with --resume continues it" in errors
    resumed = run(*_command(photos, root), "--resume")
    assert resumed.code == 0, resumed.err
    _same(index.resolve(root / "eyes"), whole)
    assert not journal.parent.exists()
    assert {path.name for path in (root / "eyes").iterdir()} == {
        ".lock", "CURRENT", index.resolve(root / "eyes").name
    }  # fmt: skip


@pytest.mark.parametrize(("stage", "units"), [("encode", 7), ("calibrate", 3)])
def test_whatever_stage_was_interrupted_nothing_before_it_is_done_again(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, units: int
) -> None:
    order = _order(photos, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped(stage, units))
    assert index.versions(tmp_path / "eyes") == []
    encoded: list[int] = []
    append = FeatureStore.append

    def count_and_append(self: FeatureStore, patches: PatchFeatures) -> None:
        encoded.append(len(patches.cells))
        append(self, patches)

    monkeypatch.setattr(FeatureStore, "append", count_and_append)
    _same(build(replace(order, resume=True), _quiet()).version, whole)
    assert (0 < len(encoded) < 14) if stage == "encode" else not encoded


def test_the_greedy_goes_on_from_its_last_round(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.coreset.k_center._SECONDS", 0.0)
    order = _order(photos, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("coreset", 150))
    with np.load(tmp_path / "eyes" / index.WORK / "coreset.npz") as checkpoint:
        picks = len(checkpoint["rows"])
    assert picks > 100
    advances: list[int] = []

    class Listening(_Stopped):
        @contextmanager
        def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
            with super().stage(name, total, unit) as advance:

                def listen(steps: int, note: str = "") -> None:
                    if name == "coreset":
                        advances.append(steps)
                    advance(steps, note)

                yield listen

    _same(build(replace(order, resume=True), Listening("none", 0)).version, whole)
    assert advances[0] == picks


def test_a_full_disk_loses_nothing(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = FeatureStore.append

    def full(self: FeatureStore, patches: PatchFeatures) -> None:
        if len(self) == 6:
            (tmp_path / "eyes" / index.WORK / "features" / "000006.features").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, patches)

    monkeypatch.setattr(FeatureStore, "append", full)
    order = _order(photos, tmp_path)
    with pytest.raises(OSError, match="No space"):
        build(order, _quiet())
    monkeypatch.undo()
    work = tmp_path / "eyes" / index.WORK
    assert len((work / "photos.jsonl").read_bytes().splitlines()) == 8
    # And as if the machine had stopped: a file and a line that are not whole.
    with (work / "features/000004.features").open("r+b") as file:
        file.truncate(100)
    with (work / "photos.jsonl").open("ab") as journal:
        journal.write(b'{"sha256": "half of a li')
    _same(build(replace(order, resume=True), _quiet()).version, whole)


def test_a_batch_is_encoded_with_the_same_photographs_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a photograph's features may depend on its batch."""
    batches: list[int] = []
    begin = extraction._start

    def listening(encoder: object, outcomes: list[object]) -> object:
        batches.append(sum(isinstance(outcome, LoadedPhoto) for outcome in outcomes))
        return begin(encoder, outcomes)  # type: ignore[arg-type]

    monkeypatch.setattr(extraction, "_start", listening)
    monkeypatch.setattr(extraction, "batch_size", lambda _: 4)
    monkeypatch.setattr("indexer.build.build.batch_size", lambda _: 4)
    order = _order(photos, tmp_path)
    append = FeatureStore.append

    def full(self: FeatureStore, patches: PatchFeatures) -> None:
        if len(self) == 6:  # in the midst of the second batch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, patches)

    monkeypatch.setattr(FeatureStore, "append", full)
    with pytest.raises(OSError, match="No space"):
        build(order, _quiet())
    monkeypatch.setattr(FeatureStore, "append", append)
    batches.clear()
    build(replace(order, resume=True), _quiet())
    assert batches == [4, 4, 2]  # 14 usable ones less one batch


def test_what_could_not_be_read_is_tried_again_and_what_is_no_photograph_is_not(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from an object store that fails for a while: early ones, one of which comes back, and one of the last."""
    store, folder = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    names = sorted(path.name for path in photos.iterdir())
    missing = ("01.jpg", "02.jpg", "12.jpg")

    def order_of(rows: list[str], root: str) -> BuildOptions:
        table = tmp_path / f"{root}.csv"
        table.write_text("path\n" + "".join(f"memory:/{folder}/{name}\n" for name in rows))
        return replace(_order(table, tmp_path / root), resume=True)

    for name in names:
        if name not in missing:
            store.pipe(f"{folder}/{name}", (photos / name).read_bytes())
    order = order_of(names, "stopped")
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("coreset", 150))
    store.pipe(f"{folder}/02.jpg", (photos / "02.jpg").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("calibrate", 3))
    store.pipe(f"{folder}/12.jpg", (photos / "12.jpg").read_bytes())
    reads: list[str] = []

    def listening(path: Path, *more: object, **options: object) -> PreparedPhoto:
        reads.append(path.name)
        return prepare(path, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(references, "prepare", listening)
    resumed = build(order, _quiet())
    assert reads == ["01.jpg", "12.jpg"]
    skipped = {(photo.path.name, photo.reason.split(",")[0]) for photo in resumed.skipped}
    assert {name for name, _ in skipped} == {"01.jpg", "03a.jpg"}
    assert ("01.jpg", "No such file or directory") in skipped
    late = [name for name in names if name not in missing] + ["02.jpg", "12.jpg", "01.jpg"]
    _same(resumed.version, build(order_of(late, "whole"), _quiet()).version)
    store.rm(folder, recursive=True)


def test_other_inputs_are_refused_and_the_work_stays(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    order = replace(_order(folder, tmp_path / "root"), resume=True)
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("encode", 9))
    work = tmp_path / "root/eyes" / index.WORK
    config = updated(CONFIG, "coreset.share", "0.2")
    with pytest.raises(SettingError, match=r"config\.coreset\.share was 0\.3, now it is 0\.2"):
        build(replace(order, config=config), _quiet())
    with pytest.raises(SettingError, match=r"limits\.max_bytes"):
        build(replace(order, limits=replace(order.limits, max_bytes=10**6)), _quiet())
    first = folder / "00.jpg"
    data = first.read_bytes()
    first.write_bytes(data + b"!")
    with pytest.raises(SettingError, match=r"00\.jpg has changed"):
        build(order, _quiet())
    first.write_bytes(data)
    (folder / "99.jpg").write_bytes(data + b"!")
    with pytest.raises(SettingError, match="listed were 16 photographs, now there are 17"):
        build(order, _quiet())
    (folder / "99.jpg").unlink()
    first.rename(folder / "00b.jpg")
    with pytest.raises(SettingError, match=r"photograph 1 has changed: .*00b\.jpg"):
        build(order, _quiet())
    (folder / "00b.jpg").rename(first)
    assert len(list((work / "features").iterdir())) >= 12


def test_nothing_is_left_where_resuming_would_not_help(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    config = method_config("resad", backbone="bundled", size=64, coreset="99999")
    with pytest.raises(SettingError, match="99999 memories asked of"):
        build(replace(_order(photos, root), config=config), _quiet())
    assert not root.exists()
    with pytest.raises(KeyboardInterrupt):
        build(_order(photos, root), _Stopped("encode", 0))
    assert not root.exists()


def test_without_resume_it_begins_again(photos: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(_order(photos, tmp_path), _Stopped("encode", 9))
    (tmp_path / "eyes" / index.WORK / "features/000001.features").write_bytes(b"of no use")
    _same(build(_order(photos, tmp_path), _quiet()).version, whole)
    assert not (tmp_path / "eyes" / index.WORK).exists()


def test_no_file_name_is_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(_order(photos, tmp_path), _Stopped("encode", 12))
    work = tmp_path / "eyes" / index.WORK
    text = (work / "inputs.json").read_text() + (work / "photos.jsonl").read_text()
    assert ".jpg" not in text
    assert str(photos) not in text


def test_fed_like_a_gpu_the_bank_is_the_same_and_so_is_a_resumed_one(
    photos: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches, each begun before the last one is awaited; the CPU stands for the GPU."""
    monkeypatch.setattr(extraction, "_has_gpu", lambda _: True)
    _same(build(_order(photos, tmp_path / "fed"), _quiet()).version, whole)
    order = _order(photos, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("encode", 6))
    _same(build(replace(order, resume=True), _quiet()).version, whole)


def test_two_devices_give_the_bank_of_one(photos: Path, whole: Path, tmp_path: Path) -> None:
    report = build(replace(_order(photos, tmp_path), more_devices=(CPU,)), _quiet())
    _same(report.version, whole)
    assert load_index(tmp_path / "eyes", CPU).manifest.counts.photos == 14
    assert [len(report.skipped), len(report.duplicates)] == [1, 1]


def test_pictures_that_are_kept_are_all_there_after_an_interruption(photos: Path, tmp_path: Path) -> None:
    order = replace(_order(photos, tmp_path / "stopped"), keep_crops=True)
    with pytest.raises(KeyboardInterrupt):
        build(order, _Stopped("encode", 6))
    with pytest.raises(SettingError, match="crops was true, now it is false"):
        build(replace(order, keep_crops=False, resume=True), _quiet())
    resumed = build(replace(order, resume=True), _quiet()).version
    at_once = build(replace(order, root=tmp_path / "at once"), _quiet()).version
    actual, expected = (sorted((version / "evidence").iterdir()) for version in (resumed, at_once))
    assert [file.name for file in actual] == [file.name for file in expected]
    assert [file.read_bytes() for file in actual] == [file.read_bytes() for file in expected]
    assert len(actual) == 14
    assert not (tmp_path / "stopped/eyes" / index.WORK).exists()
