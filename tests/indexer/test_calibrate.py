"""`resad-indexer calibrate`: the bank stays, the meaning is the other photographs', nothing is half-written."""

import csv
import html
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from rich.console import Console

from indexer.build.progress import Stages
from indexer.calibration.calibrate import CalibrationReport, recalibrate
from indexer.calibration.lines import origin_line
from lab.commands.evaluate import evaluate_command
from lab.drawing import write_dataset
from resad import index
from resad.calibration import threshold
from resad.config import PhotoLimits
from resad.errors import IndexInvalid, PhotoUnreadable, SettingError
from resad.index import check_files
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.manifest import CALIBRATION_FILE, read_manifest
from resad.preparation import prepare
from tests.conftest import Run

CPU: Final = torch.device("cpu")


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten drawn normals that are in no index, and a CSV that names two cameras."""
    folder = tmp_path_factory.mktemp("others")
    write_dataset(folder / "drawn", 5, train=10, good=0, diseased=0, height=160)
    with (folder / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "patient", "camera"])
        for number, path in enumerate(sorted((folder / "drawn/train/good").iterdir())):
            rows.writerow([path.relative_to(folder), f"Mrs {number // 2}", "Canon" if number < 4 else "Topcon"])
    return folder


@pytest.fixture
def place(small_index: Path, tmp_path: Path) -> Path:
    """A copy of the small index that may be changed: ROOT/NAME/VERSION."""
    shutil.copytree(small_index, tmp_path / "root/drawn")
    return index.resolve(tmp_path / "root/drawn")


def recalibrated(place: Path, photos: Path, *, live: bool = True, strict: bool = False) -> CalibrationReport:
    loaded = load_index(place, CPU)
    return recalibrate(place, loaded, photos, PhotoLimits(), Stages(Console(quiet=True)), live=live, strict=strict)


@pytest.fixture(scope="module")
def on_all(small_index: Path, normals: Path, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    """The small index calibrated on all the normals, for comparison."""
    copy = shutil.copytree(small_index, tmp_path_factory.mktemp("calibrated") / "drawn")
    return recalibrated(index.resolve(copy), normals / "drawn")


def scores_of(loaded: LoadedIndex, paths: list[Path]) -> list[float]:
    preparation = loaded.manifest.config.preparation
    return [loaded.detector.detect([prepare(p, preparation, PhotoLimits())])[0].image_score for p in paths]


def test_the_new_version_has_the_old_bank_and_the_new_photographs_scores(place: Path, normals: Path) -> None:
    report = recalibrated(place, normals / "photos.csv")
    assert index.resolve(place.parent).name == report.after.version == report.version.name
    new = load_index(report.version, CPU)
    expected = scores_of(new, sorted((normals / "drawn/train/good").iterdir()))
    calibration = new.manifest.calibration
    assert calibration.scores == pytest.approx(sorted(expected))
    assert calibration.source == "separate"
    assert {group.camera: len(group.normals.scores) for group in calibration.cameras} == {"Canon": 4, "Topcon": 6}
    assert calibration.thresholds[2] == threshold(calibration.scores, 0.1)
    assert new.manifest.photo_quality.photos == 10
    for name in ("memory_bank.faiss", "provenance.npz", "photos.jsonl", "backbone.safetensors", "probe.png"):
        assert (report.version / name).read_bytes() == (place / name).read_bytes()
    assert check_probe(new, report.version) == 0
    assert [entry.operation for entry in new.manifest.history] == ["build", "calibrate"]
    assert new.manifest.history[-1].from_version == place.name
    assert new.manifest.fingerprint == report.before.fingerprint


def test_patients_and_file_names_are_not_written(place: Path, normals: Path) -> None:
    version = recalibrated(place, normals / "photos.csv").version
    text = (version / CALIBRATION_FILE).read_text()
    assert "Mrs" not in text
    assert "drawn_0" not in text
    assert text.count('"patient":"p-00001"') == 2


def test_the_old_version_stays_as_it_was_and_may_go(place: Path, normals: Path) -> None:
    before = (place / "manifest.json").read_bytes()
    report = recalibrated(place, normals / "drawn")
    assert (place / "manifest.json").read_bytes() == before
    shutil.rmtree(place)
    load_index(report.version, CPU)


def test_a_calibration_is_calibrated_again(place: Path, normals: Path) -> None:
    first = recalibrated(place, normals / "drawn").version
    second = recalibrated(first, normals / "photos.csv")
    assert [entry.operation for entry in second.after.history] == ["build", "calibrate", "calibrate"]
    assert second.after.history[-1].from_version == first.name
    files = [record.name for record in check_files(second.version).files]
    assert files.count(CALIBRATION_FILE) == 1


def test_it_can_be_left_to_lie(place: Path, normals: Path) -> None:
    report = recalibrated(place, normals / "drawn", live=False)
    assert index.live_version(place.parent) == place.name
    assert report.after.version in index.versions(place.parent)
    assert read_manifest(report.version / "manifest.json") == report.after


def test_a_photograph_of_the_bank_is_refused_and_nothing_is_left(
    place: Path, normals: Path, drawn: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(normals / "drawn/train/good", mixed)
    shutil.copy(drawn / "train/good/drawn_0003.jpg", mixed / "renamed.jpg")
    with pytest.raises(SettingError, match=r"renamed\.jpg is in the index \(as r-00004\)"):
        recalibrated(place, mixed)
    assert index.versions(place.parent) == [place.name]
    assert {path.name for path in place.parent.iterdir()} == {place.name, "CURRENT", ".lock"}


def test_too_few_are_refused_and_unusable_ones_named(place: Path, normals: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((normals / "drawn/train/good").iterdir())[:8]:
        shutil.copy(path, few)
    (few / "broken.jpg").write_bytes(b"no photograph")
    with pytest.raises(SettingError, match=r"holds no more than 8 usable photographs \(1 not used\).* at least 9"):
        recalibrated(place, few)
    with pytest.raises(PhotoUnreadable, match=r"broken\.jpg"):
        recalibrated(place, few, strict=True)
    (few / "broken.jpg").unlink()
    # With eight listed nothing is read, not even what could not be.
    min(few.iterdir()).write_bytes(b"no photograph")
    with pytest.raises(SettingError, match=r"holds no more than 8 usable photographs \(0 not used\)"):
        recalibrated(place, few, strict=True)
    assert index.versions(place.parent) == [place.name]


def test_a_version_outside_an_index_is_refused(place: Path, normals: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    shutil.copytree(place, lone)
    with pytest.raises(IndexInvalid, match="is not below ROOT/NAME"):
        recalibrated(lone, normals / "drawn")


def labeled_csv(folder: Path, normals: Path, words: list[str]) -> Path:
    """A CSV of the first photographs of `normals`, with a label or a split for each."""
    photos = sorted((normals / "drawn/train/good").iterdir())
    lines = [f"{path},{word}\n" for path, word in zip(photos, words, strict=False)]
    column = "label" if "abnormal" in words else "split"
    (folder / "said.csv").write_text(f"path,{column}\n" + "".join(lines))
    return folder / "said.csv"


def test_photographs_labeled_abnormal_are_refused(place: Path, normals: Path, tmp_path: Path) -> None:
    photos = labeled_csv(tmp_path, normals, ["normal"] * 8 + ["abnormal"] * 2)
    with pytest.raises(SettingError, match=r"2 photographs, the first .*drawn_0008\.jpg, are labeled abnormal"):
        recalibrated(place, photos)
    assert index.versions(place.parent) == [place.name]


def test_photographs_to_be_tested_on_are_not_taken(place: Path, normals: Path, tmp_path: Path) -> None:
    report = recalibrated(place, labeled_csv(tmp_path, normals, ["train"] * 9 + ["test"]))
    assert len(report.after.calibration.scores) == 9


def test_a_copy_of_a_photograph_of_the_bank_is_left_aside(
    place: Path, normals: Path, on_all: CalibrationReport, drawn: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(normals / "drawn/train/good", mixed)
    Image.open(drawn / "train/good/drawn_0003.jpg").save(mixed / "again.jpg", quality=70)
    report = recalibrated(place, mixed)
    assert [photo.path.name for photo in report.skipped] == ["again.jpg"]
    assert "shows what r-00004 of the index shows" in report.skipped[0].reason
    assert report.after.calibration == on_all.after.calibration
    with pytest.raises(SettingError, match=r"again\.jpg: it shows what r-00004"):
        recalibrated(place, mixed, strict=True)


def test_a_mirror_image_of_a_photograph_of_the_bank_is_left_aside(
    place: Path, normals: Path, on_all: CalibrationReport, drawn: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(normals / "drawn/train/good", mixed)
    ImageOps.mirror(Image.open(drawn / "train/good/drawn_0003.jpg")).save(mixed / "flipped.jpg", quality=70)
    report = recalibrated(place, mixed)
    assert [photo.path.name for photo in report.skipped] == ["flipped.jpg"]
    assert "is a mirror image of r-00004 of the index" in report.skipped[0].reason
    assert report.after.calibration == on_all.after.calibration


def test_what_was_calibrated_on_is_seen_among_test_photographs(
    place: Path, normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = recalibrated(place, normals / "drawn").version
    data = tmp_path / "labeled"
    write_dataset(data, 9, train=1, good=0, diseased=1, height=160)
    (data / "test/good").mkdir(parents=True, exist_ok=True)
    shutil.copy(sorted((normals / "drawn/train/good").iterdir())[0], data / "test/good/known.png")
    options = {"data": data, "dataset": "mvtec", "altered_copy": True, "device": "cpu"}
    evaluate_command(version, **options)  # type: ignore[arg-type]
    assert "good/known.png is c-00001 (the same file)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SettingError, match="c-00001"):
        evaluate_command(version, strict=True, **options)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """Somebody at a terminal, who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def with_bad_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 normals, the first two of which are not: their upper half is yellow."""
    folder = tmp_path_factory.mktemp("normals")
    write_dataset(folder, 29, train=24, good=0, diseased=0, height=160)
    for number, path in enumerate(sorted((folder / "train/good").iterdir())[:2]):
        with Image.open(path) as image:
            pixels = np.array(image)
        upper = np.arange(160)[:, None] < 80 + 10 * number
        pixels[(pixels.max(axis=2) > 30) & upper] = (255, 240, 120)
        Image.fromarray(pixels).save(path, quality=95)
    return folder / "train/good"


def test_a_terminal_is_asked_before_a_calibration_is_live(
    run: Run, place: Path, normals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if thresholds hardly change: what was calibrated decides verdicts at once."""
    command = ("calibrate", place.parent, normals / "photos.csv", "--device", "cpu")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    declined = run(*command)
    assert declined.code == 1
    assert "make it live?" in declined.out + declined.err
    assert "before" in declined.out
    assert index.versions(place.parent) == [place.name]
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run(*command).code == 0
    assert len(index.versions(place.parent)) == 2


@pytest.mark.long
def test_bad_photographs_are_named_where_they_calibrate_audited_and_reported(
    run: Run, place: Path, with_bad_photos: Path, drawn: Path, tmp_path: Path
) -> None:
    command = ("calibrate", place.parent, with_bad_photos, "--device", "cpu")
    refused = run(*command)
    assert refused.code == 2
    named = re.findall(r"c-\d{5} \((.*)\): score", refused.err)
    assert list(map(Path, named[:2])) == sorted(with_bad_photos.iterdir())[:2]
    assert "outliers move the 5% threshold by more than a quarter" in refused.err
    assert "repeat the command with --yes" in refused.err
    assert index.versions(place.parent) == [place.name]
    assert run(*command, "--yes").code == 0
    audited = run(
        "audit", place.parent, "--photos", with_bad_photos, "--json", tmp_path / "audit.json",
        "--html", tmp_path / "audit.html", "--top", "2",
    )  # fmt: skip
    assert audited.code == 0, audited.err
    document = json.loads((tmp_path / "audit.json").read_text())
    assert (document["references"], document["calibrating"], document["matched"]) == (8, 24, 24)
    calibrating = [photo["place"] for photo in document["photos"] if photo["id"].startswith("c")]
    assert calibrating[:2] == named[:2]
    assert {photo["id"][0] for photo in document["photos"]} == {"r", "c"}
    page = (tmp_path / "audit.html").read_text()
    assert "8 reference photographs and 24 of the calibration" in page
    assert f"<code>{named[0]}</code>" in page
    evaluated = run(
        "evaluate", place.parent, "--data", drawn, "--json", tmp_path / "figures.json",
        "--html", tmp_path / "report.html", "--device", "cpu",
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    origin = json.loads((tmp_path / "figures.json").read_text())["calibration"]
    assert origin.startswith("24 normal photographs outside the memory bank, by calibrate at ")
    assert origin in evaluated.out
    assert origin in html.unescape((tmp_path / "report.html").read_text())
    assert re.search(r"outliers: \d of the 24 normals moves? the 5% threshold", evaluated.err)


def test_several_photographs_are_set_aside_at_once(run: Run, place: Path, with_bad_photos: Path) -> None:
    bad = sorted(with_bad_photos.iterdir())[:2]
    names = [word for path in bad for word in ("--set-aside", path)]
    outcome = run("calibrate", place.parent, with_bad_photos, *names, "--yes", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert re.search(r"set aside: c-00001 \(\S*0000\.jpg\), c-00002 \(\S*0001\.jpg\)", outcome.out + outcome.err)
    live = index.resolve(place.parent)
    calibration = read_manifest(live / "manifest.json").calibration
    assert calibration.set_aside == ("c-00001", "c-00002")
    assert len((live / CALIBRATION_FILE).read_text().splitlines()) == len(calibration.scores) == 22


def test_the_origin_of_a_calibration_is_told_of_its_own_photographs_too(place: Path) -> None:
    line = origin_line(read_manifest(place / "manifest.json"))
    assert line.startswith("8 reference photos, each left out of the bank to score it, by build at ")
    assert line.endswith("scored in this version's bank")
