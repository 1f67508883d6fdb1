"""The index directory: nothing half-written, nothing changed unnoticed, one writer at a time."""

import multiprocessing
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from resad import index
from resad.calibration import Calibration, Quantile, Threshold
from resad.config import MethodConfig
from resad.errors import IndexInvalid, SettingError
from resad.index import check_files, delete_version, publish, staging_folder
from resad.manifest import FORMAT, Counts, FileRecord, Manifest, Quality, read_manifest
from resad.quality import QualityLimits


def manifest(version: str, files: tuple[FileRecord, ...]) -> Manifest:
    return Manifest(
        format=FORMAT, name="eyes", version=version, history=(), config=MethodConfig(), fingerprint="sha256:f",
        weights="random:0", weights_sha256="sha256:w", device="cpu", counts=Counts(2, 20, 5, 8, (4, 4)),
        calibration=Calibration((1.0, 2.0), (1.0, 3.0), (Threshold(0.5, 2.0, 1, 2),), (Quantile(1, 3),)),
        quality=Quality(0.5, 0.4, 8, (), 1), photo_quality=QualityLimits(2, 1.0, ()),
        probe_score=1.0, packages=(), files=files,
    )  # fmt: skip


def publish_bank(root: Path, version: str = "20260101T000000Z-0000", content: bytes = b"memories") -> Path:
    with staging_folder(root, "eyes") as scratch:
        staging = scratch / "version"
        staging.mkdir()
        (staging / "bank").write_bytes(content)
        return publish(staging, root / "eyes", lambda files: manifest(version, files))[0]


def visible_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def stop_half_way(root: Path, error: BaseException) -> None:
    with staging_folder(root, "eyes") as scratch:
        (scratch / "half").write_bytes(b"x")
        raise error


def test_published_is_live_and_activation_goes_back(tmp_path: Path) -> None:
    with pytest.raises(IndexInvalid, match="neither"):
        index.resolve(tmp_path / "eyes")
    first = publish_bank(tmp_path)
    assert visible_names(tmp_path / "eyes") == {first.name, "CURRENT"}
    assert index.resolve(tmp_path / "eyes") == first
    second = publish_bank(tmp_path, "20260102T000000Z-0000")
    assert index.live_version(tmp_path / "eyes") == second.name
    assert index.resolve(first) == first
    assert index.versions(tmp_path / "eyes") == [first.name, second.name]
    index.activate(tmp_path / "eyes", first.name)
    assert index.resolve(tmp_path / "eyes") == first
    assert visible_names(tmp_path / "eyes") == {first.name, second.name, "CURRENT"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_stopped_at_the_last_moment_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """At the sync of the index's folder, and where CURRENT is replaced."""
    live = publish_bank(tmp_path)
    original = getattr(os, step)

    def stop(*arguments: Any) -> None:
        target = Path(f"/proc/self/fd/{arguments[0]}").resolve() if step == "fsync" else Path(arguments[1])
        if target in (tmp_path / "eyes", tmp_path / "eyes/CURRENT"):
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(os, step, stop)
    with pytest.raises(KeyboardInterrupt):
        publish_bank(tmp_path, "20260102T000000Z-0000")
    monkeypatch.undo()
    assert visible_names(tmp_path / "eyes") == {live.name, "CURRENT"}
    assert index.resolve(tmp_path / "eyes") == live


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(tmp_path / "root", KeyboardInterrupt())
    assert not (tmp_path / "root").exists()
    live = publish_bank(tmp_path / "root")
    with pytest.raises(OSError, match="full"):
        stop_half_way(tmp_path / "root", OSError("disk full"))
    assert visible_names(tmp_path / "root/eyes") == {live.name, "CURRENT"}


def _write_forever(root: Path) -> None:
    with staging_folder(root, "eyes") as scratch:
        (scratch / "half").write_bytes(b"x")
        (root / "started").touch()
        time.sleep(60)


def test_a_killed_writer_is_cleaned_up_and_a_living_one_respected(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_forever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(SettingError, match="another process"):
        publish_bank(tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert any(name.startswith(".staging") for name in visible_names(tmp_path / "eyes"))
    version = publish_bank(tmp_path)
    assert visible_names(tmp_path / "eyes") == {version.name, "CURRENT"}


def test_every_change_to_a_file_is_noticed(tmp_path: Path) -> None:
    version = publish_bank(tmp_path)
    assert check_files(version) == read_manifest(version / "manifest.json")
    bank = version / "bank"
    bank.write_bytes(b"memorieS")
    with pytest.raises(IndexInvalid, match="bank was changed"):
        check_files(version)
    bank.write_bytes(b"memories!")
    with pytest.raises(IndexInvalid, match="9 bytes, its manifest says 8"):
        check_files(version)
    bank.unlink()
    with pytest.raises(IndexInvalid, match="bank is missing"):
        check_files(version)


def test_a_manifest_that_does_not_fit_is_named(tmp_path: Path) -> None:
    version = publish_bank(tmp_path)
    path = version / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(IndexInvalid, match="format 99"):
        read_manifest(path)
    path.write_text(text.replace('"memories"', '"memory"'))
    with pytest.raises(IndexInvalid, match="memor"):
        read_manifest(path)
    path.write_text(
        text.replace('"share": 0.001', '"share": 0.001, "relative": true')
    )  # as earlier versions had it
    with pytest.raises(IndexInvalid, match=r"config\.score\.relative: unknown to this version \(given: True\)"):
        read_manifest(path)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(IndexInvalid):
        read_manifest(path)


@pytest.mark.parametrize("name", ["", "../eyes", "Eyes", "a/b", ".hidden", "a" * 65, "eyes\n"])
def test_names_never_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match="cannot name an index"), staging_folder(tmp_path, name):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("pointer", ["../../etc", "20990101T000000Z-0000", ""])
def test_a_broken_pointer_is_refused(tmp_path: Path, pointer: str) -> None:
    publish_bank(tmp_path)
    (tmp_path / "eyes/CURRENT").write_text(pointer)
    with pytest.raises(IndexInvalid, match="not a version"):
        index.resolve(tmp_path / "eyes")


def test_activating_an_unknown_version_lists_the_others(tmp_path: Path) -> None:
    version = publish_bank(tmp_path)
    with pytest.raises(IndexInvalid, match=version.name):
        index.activate(tmp_path / "eyes", "20990101T000000Z-0000")


def test_version_names_sort_by_time() -> None:
    names = [index.new_version() for _ in range(50)]
    assert len(set(names)) > 45
    assert all(later[:16] >= earlier[:16] for earlier, later in pairwise(names))


def test_the_live_version_stays_and_others_go_whole(tmp_path: Path) -> None:
    first, second = publish_bank(tmp_path), publish_bank(tmp_path, "20260102T000000Z-0000")
    with pytest.raises(IndexInvalid, match="is live and cannot be deleted"):
        delete_version(tmp_path / "eyes", second.name)
    delete_version(tmp_path / "eyes", first.name)
    assert visible_names(tmp_path / "eyes") == {second.name, "CURRENT"}


def test_a_version_is_written_once(tmp_path: Path) -> None:
    version = publish_bank(tmp_path)
    with pytest.raises(IndexInvalid, match="already"):
        publish_bank(tmp_path, version.name, b"other")
    assert (version / "bank").read_bytes() == b"memories"


def test_files_whose_hash_is_skipped_must_exist(tmp_path: Path) -> None:
    version = publish_bank(tmp_path)
    (version / "bank").write_bytes(b"memorieS")
    check_files(version, skip_hash=("ba",))
    (version / "bank").unlink()
    with pytest.raises(IndexInvalid, match="bank is missing"):
        check_files(version, skip_hash=("ba",))
