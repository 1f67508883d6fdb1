"""What is said where p-values may be too low since photographs left, and of those that were not found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.drawing import write_dataset
from tests.conftest import Run
from tests.indexer.lifecycle.small import copy_photos

ROLLBACK = "resad-indexer rollback, and remove with --photos"


def test_photographs_that_stay_and_were_not_found_are_named(
    run: Run, plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    folder = copy_photos(photos[:3], tmp_path / "h1")
    removal = run("remove", plain, "--photo", "r-00001", "--photos", folder)
    assert removal.code == 0
    assert f"2 of the 4 photographs that stay were not found in {folder}: r-00004, r-00005\n" in removal.err
    assert "STALE" in removal.err
    assert ROLLBACK in removal.err
    assert run("rollback", plain).code == 0
    whole = run("remove", plain, "--photo", "r-00001", "--photos", copy_photos(photos[1:5], tmp_path / "all"))
    assert "not found" not in whole.err
    assert "STALE" not in whole.err


def test_where_no_place_is_given_nothing_is_missing_there(run: Run, plain: Path, keeping: Path) -> None:
    removal = run("remove", plain, "--photo", "r-00001")
    assert "not found" not in removal.err
    assert ROLLBACK in removal.err
    second_removal = run("remove", keeping, "--photo", "r-00001", "--photos", keeping.parent)
    assert "not found" not in second_removal.err
    assert "STALE" not in second_removal.err


def test_with_normals_outside_the_bank_no_photograph_that_stays_helps(
    run: Run, plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    write_dataset(tmp_path / "others", 5, train=9, good=0, diseased=0, height=160)
    assert run("calibrate", plain, tmp_path / "others/train/good", "--device", "cpu").code == 0
    removal = run("remove", plain, "--photo", "r-00001", "--photos", copy_photos(photos[:5], tmp_path / "all"))
    assert "STALE" in removal.err
    assert "resad-indexer calibrate mends that" in removal.err
    assert ROLLBACK not in removal.err


def test_score_warns_of_a_stale_index_and_of_no_other(
    run: Run, plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    sound = run("score", plain, photos[6], "--csv", tmp_path / "sound.csv", "--device", "cpu")
    assert (sound.code, "STALE" in sound.err) == (0, False)
    run("remove", plain, "--photo", "r-00001")
    stale = run("score", plain, photos[6], photos[7], "--csv", tmp_path / "stale.csv", "--device", "cpu")
    assert (stale.code, stale.err.count("STALE"), stale.out.count("STALE")) == (0, 1, 0)


def test_so_it_does_over_a_cluster(
    run: Run, plain: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def workers(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(device="cpu")

    monkeypatch.setattr("cluster.commands.workers_at", workers)
    monkeypatch.setattr("cluster.commands.score_over_workers", lambda *_, **__: (_ for _ in ()))
    arguments = ("score", plain, photos[6], "--out", tmp_path, "--cluster", "auto")
    assert "STALE" not in run(*arguments).err
    run("remove", plain, "--photo", "r-00001")
    assert run(*arguments).err.count("STALE") == 1
