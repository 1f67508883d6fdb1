"""`resad-indexer score` over many photographs: nothing lost, nothing scored twice, nothing replaced unasked."""

import csv
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resad.engine import CheckedPhoto, Engine, ScoredPhoto, ScoreOptions
from resad.pictures.map_files import read_map_tiff
from resad.preparation import PreparedPhoto
from tests.conftest import Run
from tests.indexes import build_small, without_levels
from tests.service.running import until


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """Two folders with files of one name, and one that differs in its ending alone."""
    for ward in ("a", "b"):
        (tmp_path / "in" / ward).mkdir(parents=True)
        shutil.copy(drawn / "test/lesion/drawn_0000.jpg", tmp_path / "in" / ward / "eye.jpg")
    with Image.open(drawn / "test/good/drawn_0000.jpg") as image:
        image.save(tmp_path / "in/a/eye.png")
    return tmp_path / "in"


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["photo"] for row in rows}) == len(rows)
    return {row["photo"]: row for row in rows}


def names(folder: Path) -> list[str]:
    """Of all files but the journal."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())


def test_folders_are_kept_and_tables_written(run: Run, older_index: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(
        "score", older_index, folder, "--overlays", out, "--geojson", out, "--csv", tmp_path / "out.csv",
        "--findings-csv", tmp_path / "findings.csv", "--coco", tmp_path / "coco.json", "--fpr", "0.9",
        "--layout", "side", "--overlay-format", "jpeg",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    stems = ("a/eye-2", "a/eye", "b/eye")
    assert names(out) == sorted(f"{stem}{end}" for stem in stems for end in (".geojson", "_overlay.jpg"))
    with Image.open(out / "a/eye_overlay.jpg") as image:
        assert image.format == "JPEG"
        assert image.width > 2 * 240  # the photograph twice, and the color bar
    rows = table(tmp_path / "out.csv")
    assert list(rows) == ["a/eye.jpg", "a/eye.png", "b/eye.jpg"]
    assert rows["a/eye.jpg"]["image_score"] == rows["b/eye.jpg"]["image_score"]
    coco = json.loads((tmp_path / "coco.json").read_text())
    with (tmp_path / "findings.csv").open(newline="") as file:
        findings = list(csv.DictReader(file))
    assert len(findings) == len(coco["annotations"]) == sum(int(row["findings"]) for row in rows.values()) > 0


def test_a_run_goes_on_and_replaces_nothing_unasked(
    run: Run, small_index: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    words = ("score", small_index, folder, "--csv", tmp_path / "out.csv", "--json", tmp_path / "json")
    assert run(*words).code == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "json").rglob("*.json")}
    refused = run(*words)
    assert refused.code == 2
    assert "out.csv exists: --resume continues the run that wrote it" in refused.err
    shutil.copy(folder / "a/eye.jpg", folder / "broken.jpg")
    shutil.copy(folder / "a/eye.jpg", folder / "a/eye.jpeg")
    resumed = run(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert "2 photographs, 3 more by an earlier run" in resumed.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # The new file sorts first, but the name without a number is given away.
    assert names(tmp_path / "json") == ["a/eye-2.json", "a/eye-3.json", "a/eye.json", "b/eye.json", "broken.json"]
    file_names = {path.stem: json.loads(path.read_text())["file_name"] for path in (tmp_path / "json/a").iterdir()}
    assert file_names == {"eye": "a/eye.jpg", "eye-2": "a/eye.png", "eye-3": "a/eye.jpeg"}
    assert not any(row["error"] for row in table(tmp_path / "out.csv").values())
    # What lay there before the run is nobody's to replace, though the run goes on.
    shutil.copy(folder / "a/eye.jpg", folder / "late.jpg")
    (tmp_path / "json/late.json").write_text("mine")
    os.utime(tmp_path / "json/late.json", (1, 1))
    older_file = run(*words, "--resume")
    assert older_file.code == 2
    assert "late.json is older than the run: move it away, or --overwrite replaces it" in older_file.err
    assert (tmp_path / "json/late.json").read_text() == "mine"
    (tmp_path / "json/late.json").write_text("left half way by a killed run")
    assert run(*words, "--resume").code == 0
    assert json.loads((tmp_path / "json/late.json").read_text())["file_name"] == "late.jpg"
    changed = run(*words, "--resume", "--fpr", "0.5")
    assert changed.code == 2
    assert "fpr was None, now it is 0.5" in changed.err
    assert run(*words, "--overwrite").code == 0
    assert "nothing would be written" in run(*words[:3]).err


def test_no_photograph_ends_a_run_and_a_full_disk_does(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        shutil.copy(drawn / f"train/good/drawn_000{number}.jpg", tmp_path / f"in/{number}.jpg")
    words = (
        "score", small_index, tmp_path / "in", "--csv", tmp_path / "out.csv", "--overlays", tmp_path / "pictures",
        "--overlay-format", "jpeg",
    )  # fmt: skip
    prepare, score, write = Engine.prepare, Engine.score_checked, Image.Image.save
    second = hashlib.sha256((tmp_path / "in/1.jpg").read_bytes()).hexdigest()
    pictures: list[int] = []

    def prepare_all_but_the_first(self: Engine, source: Path) -> PreparedPhoto:
        if source.name == "0.jpg":
            raise MemoryError("key-of-somebody")
        return prepare(self, source)

    def score_all_but_the_second(self: Engine, checked: CheckedPhoto, options: ScoreOptions) -> ScoredPhoto:
        if checked.photo.content_hash == second:
            raise RuntimeError("key-of-somebody\nand more")
        return score(self, checked, options)

    def save_all_but_one(failure: Exception, number: int) -> Callable[..., None]:
        def save(*arguments: Any, **settings: Any) -> None:
            pictures.append(1)
            if len(pictures) == number:
                raise failure
            write(*arguments, **settings)

        return save

    monkeypatch.setattr(Engine, "prepare", prepare_all_but_the_first)
    monkeypatch.setattr(Engine, "score_checked", score_all_but_the_second)
    monkeypatch.setattr(Image.Image, "save", save_all_but_one(ZeroDivisionError("key-of-somebody"), 1))
    outcome = run(*words)
    assert outcome.code == 2
    assert "3 of 4 photographs could not be scored" in " ".join(outcome.err.split())
    assert "key-of-somebody" not in outcome.err
    kinds = {name: row["error"] for name, row in table(tmp_path / "out.csv").items()}
    assert kinds == {
        "0.jpg": "it could not be scored (MemoryError)",
        "1.jpg": "it could not be scored (RuntimeError)",
        "2.jpg": "it could not be scored (ZeroDivisionError)",
        "3.jpg": "",
    }
    monkeypatch.setattr(Engine, "prepare", prepare)
    monkeypatch.setattr(Engine, "score_checked", score)
    disk_full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Image.Image, "save", save_all_but_one(disk_full, len(pictures) + 2))
    full = run(*words, "--resume")
    assert full.code == 2
    assert "No space left on device" in full.err
    monkeypatch.setattr(Image.Image, "save", write)
    assert run(*words, "--resume").code == 0
    assert not any(row["error"] for row in table(tmp_path / "out.csv").values())


@pytest.mark.long
def test_a_killed_run_is_resumed(run: Run, small_index: Path, drawn: Path, tmp_path: Path) -> None:
    photos = tmp_path / "in"
    photos.mkdir()
    for number in range(24):
        shutil.copy(drawn / f"train/good/drawn_000{number % 8}.jpg", photos / f"{number:02}.jpg")
    words: tuple[str | Path, ...] = (
        "score", small_index, photos, "--json", tmp_path / "json", "--csv", tmp_path / "out.csv",
    )  # fmt: skip
    first = subprocess.Popen(
        (sys.executable, "-c", "from indexer.cli import main; main()", *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: len(list((tmp_path / "json").glob("*.json"))) >= 8, 90)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "json").glob("*.json")}
    assert len(before) < 24
    resumed = run(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert "more by an earlier run" in resumed.out
    assert sum(path.stat().st_mtime_ns != changed for path, changed in before.items()) <= 1
    assert list(table(tmp_path / "out.csv")) == [f"{number:02}.jpg" for number in range(24)]


def test_the_eye_comes_from_the_csv_or_the_option(
    run: Run, older_index: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "list.csv").write_text("path,eye\na/eye.jpg,OD\nb/eye.jpg,\n")
    outcome = run(
        "score", older_index, folder / "list.csv", "--eye", "left", "--out", tmp_path / "out", "--fpr", "0.9",
        "--map-format", "tiff",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    places = []
    for ward in ("a", "b"):
        result = json.loads((tmp_path / f"out/{ward}/eye.json").read_text())
        places.append([finding["place"] for finding in result["findings"]])
        dense, _ = read_map_tiff((tmp_path / f"out/{ward}/eye_map.tif").read_bytes())
        assert dense.max() >= result["image_score"]
    swapped = {"nasal": "temporal", "temporal": "nasal"}
    mirrored = [" ".join(swapped.get(word, word) for word in place.split()) for place in places[0]]
    assert mirrored == places[1]
    assert any(place != "central" for place in places[0])


def test_strips_where_the_index_keeps_crops(run: Run, drawn: Path, folder: Path, tmp_path: Path) -> None:
    build_small(drawn / "train/good", tmp_path / "root", keep_crops=True)
    without_levels(tmp_path / "root/drawn", tmp_path / "root/older")
    outcome = run(
        "score",
        tmp_path / "root/older",
        folder / "b",
        "--out",
        tmp_path / "out",
        "--fpr",
        "0.9",
        "--evidence",
        "2",
    )
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "out/eye_evidence.jpg") as image:
        assert image.width == 8 + 3 * 200
    assert names(tmp_path / "out") == ["eye.json", "eye_evidence.jpg", "eye_map.png", "eye_overlay.png"]
