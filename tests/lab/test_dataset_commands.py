"""Data sets by name on the command line, from the folder as it was downloaded to figures and a report."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from resad import index
from resad.manifest import read_records
from tests.conftest import Outcome, Run

SMALL = ("--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--coreset", "0.5", "--device", "cpu")
A, B = "A. Segmentation", "B. Disease Grading"
TRAIN, TEST = "a. Training Set", "b. Testing Set"


@pytest.fixture
def run(run: Run) -> Run:
    """As everywhere, with the lines of what is said joined."""

    def call(*arguments: object) -> Outcome:
        outcome = run(*arguments)
        return outcome._replace(err=re.sub(r"\s+", " ", outcome.err))

    return call


@pytest.fixture(scope="module")
def idrid(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn photographs in IDRiD's layout: 3 with lesions, 8 and 2 of grade 0."""
    root = tmp_path_factory.mktemp("idrid")
    for part, split in ((A, TRAIN), (A, TEST), (B, TRAIN), (B, TEST)):
        (root / part / "1. Original Images" / split).mkdir(parents=True)
    masks = root / A / "2. All Segmentation Groundtruths"
    for number in range(3):
        split = TEST if number == 2 else TRAIN
        stem = f"IDRiD_{55 if number == 2 else number + 1:02d}"
        images = root / A / "1. Original Images" / split
        shutil.copy(drawn / f"test/lesion/drawn_{number:04d}.jpg", images / f"{stem}.jpg")
        lesion = np.asarray(Image.open(drawn / f"ground_truth/lesion/drawn_{number:04d}_mask.png")) > 0
        middle = lesion.shape[1] // 2
        halves = (slice(0, middle), slice(middle, None))
        for kind, name, half in zip(("HE", "EX"), ("2. Haemorrhages", "3. Hard Exudates"), halves, strict=True):
            region = np.zeros_like(lesion)
            region[:, half] = lesion[:, half]
            mask = Image.fromarray(region.astype(np.uint8), mode="P")
            mask.putpalette([0, 0, 0, 128, 0, 0])
            (masks / split / name).mkdir(parents=True, exist_ok=True)
            mask.save(masks / split / name / f"{stem}_{kind}.tif")
    (root / B / "2. Groundtruths").mkdir()
    for split, folder, count, labels in (
        (TRAIN, "train/good", 8, "a. IDRiD_Disease Grading_Training Labels.csv"),
        (TEST, "test/good", 2, "b. IDRiD_Disease Grading_Testing Labels.csv"),
    ):
        lines = ["Image name,Retinopathy grade,Risk of macular edema,,,"]
        for number in range(count):
            stem = f"IDRiD_{number + 1:03d}"
            images = root / B / "1. Original Images" / split
            shutil.copy(drawn / f"{folder}/drawn_{number:04d}.jpg", images / f"{stem}.jpg")
            lines.append(f"{stem},0,0,,,")
        (root / B / "2. Groundtruths" / labels).write_text("\n".join(lines))
    return root


def test_every_data_set_is_listed_with_licence_source_and_split(run: Run) -> None:
    text = re.sub(r"[\s│]+", " ", run("datasets").out)
    for words in (
        "idrid-paper", "CC BY 4.0", "IEEE DataPort", "134 of grade 0 to build from", "81 with lesions and 34",
        "adam-paper", "282 without a marked lesion", "118", "mvtec", "folder", "csv",
    ):  # fmt: skip
        assert words in text, words


def test_an_altered_copy_is_refused_and_named(run: Run, idrid: Path, tmp_path: Path) -> None:
    outcome = run("datasets", "export", "idrid-paper", "--data", idrid, "--out", tmp_path / "idrid.csv")
    assert outcome.code == 2
    assert "54 photographs expected, 52 missing" in outcome.err
    assert "photographs not of 4288 x 2848 px" in outcome.err
    assert "is not idrid-paper as it is published" in outcome.err
    assert not (tmp_path / "idrid.csv").exists()


def test_from_the_download_to_figures_and_a_report(run: Run, idrid: Path, tmp_path: Path) -> None:
    table = tmp_path / "idrid.csv"
    exported = run("datasets", "export", "idrid-paper", "--data", idrid, "--out", table, "--altered-copy")
    assert exported.code == 0
    assert "8 photographs to build from, 2 normal and 3 abnormal ones to test on" in exported.out
    assert run("build", table, "--root", tmp_path / "root", "--name", "idrid", *SMALL).code == 0
    assert len(read_records(index.resolve(tmp_path / "root/idrid") / "photos.jsonl")) == 8
    results = {}
    for name, data in (("idrid-paper", idrid), ("csv", table)):
        base = tmp_path / f"of-{name}"
        outcome = run("evaluate", tmp_path / "root/idrid", "--dataset", name, "--data", data, "--altered-copy",
                      "--json", f"{base}.json", "--csv", f"{base}.csv", "--html", f"{base}.html")  # fmt: skip
        assert outcome.code == 0, outcome.err
        results[name] = json.loads(Path(f"{base}.json").read_text())
        assert len(Path(f"{base}.csv").read_text().splitlines()) == 1 + 5
        assert "A. Segmentation" in Path(f"{base}.html").read_text()
    direct, by_csv = results.values()
    assert [lesion["kind"] for lesion in direct["lesions"]] == ["EX", "HE"]
    for part in ("image", "pixel", "lesions", "calibrated", "photos", "guard"):
        assert direct[part] == by_csv[part], part
    assert direct["dataset"] == "idrid-paper"
    assert any("re-hosted copy" in line for line in direct["deviations"])


def test_the_papers_figures_stand_beside(run: Run, small_index: Path, idrid: Path) -> None:
    outcome = run("evaluate", small_index, "--dataset", "idrid-paper", "--data", idrid, "--altered-copy")
    for figure in ("0.941", "0.902", "0.907", "0.819"):
        assert figure in outcome.out


def test_adam_has_pixel_figures_alone(run: Run, small_index: Path, drawn: Path, tmp_path: Path) -> None:
    """Drawn photographs in its layout, masks black where the lesion is: no normal ones to test on."""
    root = tmp_path / "adam"
    for number in range(3):
        for folder, letter, name in (("AMD", "A", "test/lesion"), ("Non-AMD", "N", "train/good")):
            place = root / "AMD-Training400/Training400" / folder
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(drawn / f"{name}/drawn_{number:04d}.jpg", place / f"{letter}{number + 1:04d}.jpg")
        masks = root / "Training400-Lesion/Lesion_Masks/drusen"
        masks.mkdir(parents=True, exist_ok=True)
        with Image.open(drawn / f"ground_truth/lesion/drawn_{number:04d}_mask.png") as mask:
            mask.point(lambda value: 255 - value).save(masks / f"A{number + 1:04d}.bmp")
    out, page = tmp_path / "figures.json", tmp_path / "report.html"
    outcome = run("evaluate", small_index, "--dataset", "adam-paper", "--data", root, "--altered-copy",
                  "--json", out, "--html", page)  # fmt: skip
    assert outcome.code == 0
    assert "0.820" in outcome.out
    figures = json.loads(out.read_text())
    assert figures["photos"] == {"normal": 0, "abnormal": 3, "without_mask": 0, "in_the_index": 0}
    assert figures["image"] is None
    assert figures["pixel"]["fov"]["auroc"] == figures["pixel"]["fov_abnormal_only"]["auroc"]
    assert "image figures need normal and abnormal test photographs" in page.read_text()
    # The same masks, read as what they are, in the other layout.
    run("evaluate", small_index, "--data", drawn, "--json", tmp_path / "mvtec.json")
    same = json.loads((tmp_path / "mvtec.json").read_text())
    assert same["pixel"]["fov_abnormal_only"] == figures["pixel"]["fov_abnormal_only"]


def test_strict_refuses_what_is_in_the_index(run: Run, small_index: Path, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "leaky")
    with Image.open(drawn / "train/good/drawn_0005.jpg") as image:
        image.save(tmp_path / "leaky/test/good/other.png")
    loud = run("evaluate", small_index, "--data", tmp_path / "leaky")
    assert loud.code == 0
    assert "IN THE INDEX good/other.png is r-00006 (the same picture" in loud.err
    assert "1 test photograph is in the index: the figures flatter" in loud.err
    strict = run("evaluate", small_index, "--data", tmp_path / "leaky", "--strict")
    assert strict.code == 2
    assert re.search(r"other\.png is in the index as r-00006", strict.err)


def test_mirror_images_of_what_is_in_the_index_are_reported(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn, tmp_path / "leaky")
    with Image.open(drawn / "train/good/drawn_0005.jpg") as image:
        ImageOps.mirror(image).save(tmp_path / "leaky/test/good/other.jpg", quality=70)
    files = ("--json", tmp_path / "figures.json", "--html", tmp_path / "report.html")
    loud = run("evaluate", small_index, "--data", tmp_path / "leaky", *files)
    assert loud.code == 0
    assert re.search(
        r"IN THE INDEX good/other\.jpg is a mirror image of r-00006 \(\d+ of 255 bits differ\)", loud.err
    )
    (photo,) = json.loads((tmp_path / "figures.json").read_text())["guard"]["photos"]
    assert (photo["photo"], photo["reference"], photo["mirrored"]) == ("good/other.jpg", "r-00006", True)
    assert "good/other.jpg is a mirror image of r-00006" in (tmp_path / "report.html").read_text()
    strict = run("evaluate", small_index, "--data", tmp_path / "leaky", "--strict")
    assert strict.code == 2
    assert "other.jpg is in the index as a mirror image of r-00006" in strict.err


def test_build_names_near_duplicates_among_the_normals(run: Run, drawn: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(drawn / "train/good", photos)
    with Image.open(photos / "drawn_0001.jpg") as image:
        image.resize((180, 120)).save(photos / "zz.jpg", quality=80)
        ImageOps.mirror(image).save(photos / "zzz.jpg", quality=80)
    outcome = run("build", photos, "--root", tmp_path / "root", "--name", "eyes", *SMALL)
    assert outcome.code == 0
    assert re.search(
        r"kept .*zz\.jpg, though it shows the same as .*drawn_0001\.jpg \(\d+ of 255 bits differ\)", outcome.err
    )
    assert re.search(
        r"kept .*zzz\.jpg, though it is a mirror image of .*drawn_0001\.jpg \(\d+ of 255 bits differ\)",
        outcome.err,
    )
    assert len(re.findall("kept", outcome.err)) == 2
    assert "left out together in the calibration" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "idrid"), "there are: idrid-paper, adam-paper"),
        (("--html", "nowhere/report.html"), "--html nowhere/report.html: nowhere is no folder"),
        (("--exclude-list", "gone.txt"), "the exclude list gone.txt cannot be read"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    run: Run, small_index: Path, drawn: Path, arguments: tuple[str, str], message: str
) -> None:
    outcome = run("evaluate", small_index, "--data", drawn, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
