"""`resad-indexer calibrate`: the bank stays, the meaning is the other photographs', nothing is half-written."""

import csv
import shutil
from pathlib import Path
from typing import Final

import pytest
import torch
from PIL import Image, ImageOps
from rich.console import Console

from indexer.build.progress import Stages
from indexer.calibration.calibrate import CalibrationReport, recalibrate
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


def run(place: Path, photos: Path, *, live: bool = True, strict: bool = False) -> CalibrationReport:
    loaded = load_index(place, CPU)
    return recalibrate(place, loaded, photos, PhotoLimits(), Stages(Console(quiet=True)), live=live, strict=strict)


def scores_of(loaded: LoadedIndex, paths: list[Path]) -> list[float]:
    preparation = loaded.manifest.config.preparation
    return [loaded.detector.detect([prepare(p, preparation, PhotoLimits())])[0].image_score for p in paths]


def test_the_new_version_has_the_old_bank_and_the_new_photographs_scores(place: Path, normals: Path) -> None:
    report = run(place, normals / "photos.csv")
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
    version = run(place, normals / "photos.csv").version
    text = (version / CALIBRATION_FILE).read_text()
    assert "Mrs" not in text
    assert "drawn_0" not in text
    assert text.count('"patient":"p-00001"') == 2


def test_the_old_version_stays_as_it_was_and_may_go(place: Path, normals: Path) -> None:
    before = (place / "manifest.json").read_bytes()
    report = run(place, normals / "drawn")
    assert (place / "manifest.json").read_bytes() == before
    shutil.rmtree(place)
    load_index(report.version, CPU)


def test_a_calibration_is_calibrated_again(place: Path, normals: Path) -> None:
    first = run(place, normals / "drawn").version
    second = run(first, normals / "photos.csv")
    assert [entry.operation for entry in second.after.history] == ["build", "calibrate", "calibrate"]
    assert second.after.history[-1].from_version == first.name
    files = [record.name for record in check_files(second.version).files]
    assert files.count(CALIBRATION_FILE) == 1


def test_it_can_be_left_to_lie(place: Path, normals: Path) -> None:
    report = run(place, normals / "drawn", live=False)
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
        run(place, mixed)
    assert index.versions(place.parent) == [place.name]
    assert {path.name for path in place.parent.iterdir()} == {place.name, "CURRENT", ".lock"}


def test_too_few_are_refused_and_unusable_ones_named(place: Path, normals: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((normals / "drawn/train/good").iterdir())[:8]:
        shutil.copy(path, few)
    (few / "broken.jpg").write_bytes(b"no photograph")
    with pytest.raises(SettingError, match=r"holds no more than 8 usable photographs \(1 not used\).* at least 9"):
        run(place, few)
    with pytest.raises(PhotoUnreadable, match=r"broken\.jpg"):
        run(place, few, strict=True)
    (few / "broken.jpg").unlink()
    # With eight listed nothing is read, not even what could not be.
    min(few.iterdir()).write_bytes(b"no photograph")
    with pytest.raises(SettingError, match=r"holds no more than 8 usable photographs \(0 not used\)"):
        run(place, few, strict=True)
    assert index.versions(place.parent) == [place.name]


def test_a_version_outside_an_index_is_refused(place: Path, normals: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    shutil.copytree(place, lone)
    with pytest.raises(IndexInvalid, match="is not below ROOT/NAME"):
        run(lone, normals / "drawn")


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
        run(place, photos)
    assert index.versions(place.parent) == [place.name]


def test_photographs_to_be_tested_on_are_not_taken(place: Path, normals: Path, tmp_path: Path) -> None:
    report = run(place, labeled_csv(tmp_path, normals, ["train"] * 9 + ["test"]))
    assert len(report.after.calibration.scores) == 9


def test_a_copy_of_a_photograph_of_the_bank_is_left_aside(
    place: Path, normals: Path, drawn: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(normals / "drawn/train/good", mixed)
    Image.open(drawn / "train/good/drawn_0003.jpg").save(mixed / "again.jpg", quality=70)
    report = run(place, mixed)
    assert [photo.path.name for photo in report.skipped] == ["again.jpg"]
    assert "shows what r-00004 of the index shows" in report.skipped[0].reason
    assert report.after.calibration == run(place, normals / "drawn").after.calibration
    with pytest.raises(SettingError, match=r"again\.jpg: it shows what r-00004"):
        run(place, mixed, strict=True)


def test_a_mirror_image_of_a_photograph_of_the_bank_is_left_aside(
    place: Path, normals: Path, drawn: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(normals / "drawn/train/good", mixed)
    ImageOps.mirror(Image.open(drawn / "train/good/drawn_0003.jpg")).save(mixed / "flipped.jpg", quality=70)
    report = run(place, mixed)
    assert [photo.path.name for photo in report.skipped] == ["flipped.jpg"]
    assert "is a mirror image of r-00004 of the index" in report.skipped[0].reason
    assert report.after.calibration == run(place, normals / "drawn").after.calibration


def test_what_was_calibrated_on_is_seen_among_test_photographs(
    place: Path, normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = run(place, normals / "drawn").version
    data = tmp_path / "labeled"
    write_dataset(data, 9, train=1, good=0, diseased=1, height=160)
    (data / "test/good").mkdir(parents=True, exist_ok=True)
    shutil.copy(sorted((normals / "drawn/train/good").iterdir())[0], data / "test/good/known.png")
    options = {"data": data, "dataset": "mvtec", "altered_copy": True, "device": "cpu"}
    evaluate_command(version, **options)  # type: ignore[arg-type]
    assert "good/known.png is c-00001 (the same file)" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SettingError, match="c-00001"):
        evaluate_command(version, strict=True, **options)  # type: ignore[arg-type]
