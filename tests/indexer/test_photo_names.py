"""Names and formats as they come: nothing is passed over in silence, and a bad name costs its own row alone."""

import csv
import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from indexer.photos.listing import left_out, list_references, read_rows
from resad.errors import SettingError
from tests.conftest import Run

RAW = os.fsdecode(b"caf\xe9.jpg")
"""A name that is no UTF-8."""
LONG = "n" * 251 + ".jpg"
NEWLINE = "two\nlines.jpg"
FORMULA = '=HYPERLINK("x").jpg'


@pytest.fixture
def eye(drawn: Path) -> Path:
    return drawn / "test/good/drawn_0000.jpg"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_name_gets_its_row_and_its_files(run: Run, small_index: Path, eye: Path, tmp_path: Path) -> None:
    folder, out, table = tmp_path / "in", tmp_path / "out", tmp_path / "out.csv"
    folder.mkdir()
    names = [RAW, LONG, NEWLINE, FORMULA, "-1.jpg", "@a.jpg", "+b.jpg", "back\\slash.jpg", "plain.jpg"]
    for name in names:
        shutil.copy(eye, folder / name)
    arguments = ("score", small_index, folder, "--out", out, "--csv", table, "--geojson", out)
    outcome = run(*arguments, "--findings-csv", tmp_path / "findings.csv", "--coco", tmp_path / "coco.json")
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    scored = rows(table)
    assert len(scored) == len(names)
    assert not any(row["error"] for row in scored)
    assert not any(row["photo"].startswith(("=", "+", "-", "@")) for row in scored)
    assert {'\'=HYPERLINK("x").jpg', "'@a.jpg", "plain.jpg", "two\\nlines.jpg"} <= {row["photo"] for row in scored}
    assert len(table.read_text().splitlines()) == len(names) + 1
    results = sorted(out.glob("*.json"))
    assert len(results) == len(names)
    labels = {json.loads(path.read_text())["file_name"] for path in results}
    assert len(labels) == len(names)
    assert all(path.name.isprintable() and "\\" not in path.name for path in out.iterdir())
    assert all(len(path.name.encode()) <= 255 for path in out.iterdir())
    again = run(*arguments[:-2], "--findings-csv", tmp_path / "findings.csv", "--coco", tmp_path / "coco.json",
                "--geojson", out, "--resume")  # fmt: skip
    assert again.code == 0
    assert "nothing was left to do" in again.out


def test_a_row_whose_file_is_not_there_costs_itself_alone(
    run: Run, small_index: Path, eye: Path, tmp_path: Path
) -> None:
    shutil.copy(eye, tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_text(f"path\na.jpg\ngone.jpg\n{'x' * 300}.jpg\n")
    outcome = run("score", small_index, tmp_path / "list.csv", "--csv", tmp_path / "out.csv")
    assert outcome.code == 2
    assert "2 of 3 photographs could not be scored" in outcome.err
    assert [bool(row["error"]) for row in rows(tmp_path / "out.csv")].count(True) == 2
    (tmp_path / "list.csv").write_text("path\ngone.jpg\n")
    assert "line 2: no such file" in run("score", small_index, tmp_path / "list.csv", "--csv", "x.csv").err


def test_names_in_another_spelling_are_found(eye: Path, tmp_path: Path) -> None:
    folder = tmp_path / unicodedata.normalize("NFD", "Müller")
    folder.mkdir()
    for name in (unicodedata.normalize("NFD", "é1.jpg"), unicodedata.normalize("NFC", "é2.jpg")):
        shutil.copy(eye, folder / name)
    raw = os.fsencode(RAW)
    shutil.copy(eye, tmp_path / RAW)
    text = unicodedata.normalize("NFC", "path\nMüller\\é1.jpg\nMüller/é2.jpg\n.\\Müller\\é2.jpg\n").encode()
    (tmp_path / "list.csv").write_bytes(text + raw + b"\n")
    paths = [row.path for row in read_rows(tmp_path / "list.csv")]
    assert [path.name[-5] for path in paths[:3]] == ["1", "2", "2"]
    assert all(path.is_file() for path in paths)
    (tmp_path / "list.csv").write_bytes("path,patient\nMüller/é1.jpg,M".encode() + raw + b"\n")
    with pytest.raises(SettingError, match="is not UTF-8 text"):
        read_rows(tmp_path / "list.csv")


@pytest.mark.parametrize(
    "word", ["", "nan", "NaN", "N/A", "n/a", "NA", "#N/A", "<NA>", "None", "null", "unknown", "?"]
)
def test_an_unknown_patient_is_no_person(eye: Path, tmp_path: Path, word: str) -> None:
    for name in ("a", "b", "c"):
        shutil.copy(eye, tmp_path / f"{name}.jpg")
    (tmp_path / "list.csv").write_text(
        f"path,patient,eye,camera\na.jpg,{word},{word},{word}\nb.jpg,p1,left,T\nc.jpg,{word},,\n"
    )
    photos = list_references(tmp_path / "list.csv")
    assert [(photo.patient, photo.eye, photo.camera) for photo in photos] == [
        (None, None, None), ("p1", "left", "T"), (None, None, None)
    ]  # fmt: skip


def test_a_patient_is_one_in_any_form_of_its_letters(eye: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(eye, tmp_path / f"{name}.jpg")
    forms = [unicodedata.normalize("NFC", "Müller"), unicodedata.normalize("NFD", "Müller")]
    (tmp_path / "list.csv").write_text(f"path,patient\na.jpg,{forms[0]}\nb.jpg,{forms[1]}\n", encoding="utf-8")
    assert len({photo.patient for photo in list_references(tmp_path / "list.csv")}) == 1


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_every_separator_is_read(eye: Path, tmp_path: Path, separator: str, suffix: str) -> None:
    shutil.copy(eye, tmp_path / "a.jpg")
    path = tmp_path / f"list{suffix}"
    path.write_text(f"path{separator}patient{separator}eye\na.jpg{separator}p1{separator}OS\n")
    (photo,) = list_references(path)
    assert (photo.patient, photo.eye) == ("p1", "left")


def test_what_a_folder_holds_beside_photographs_is_said_in_one_line(
    run: Run, small_index: Path, eye: Path, tmp_path: Path
) -> None:
    for number, suffix in enumerate([".gif", ".gif", ".heic", ".txt", ""]):
        (tmp_path / f"f{number}{suffix}").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / ".thumbnails").mkdir()
    shutil.copy(eye, tmp_path / "a.JPE")
    line = (
        "8 files left out: 2 .gif, 1 .heic, 1 .txt, 1 broken link, 1 hidden folder, 1 hidden photograph, "
        "1 without a suffix"
    )
    assert left_out((tmp_path,)) == line
    outcome = run("score", small_index, tmp_path, "--csv", tmp_path.parent / f"{tmp_path.name}.csv")
    assert outcome.err.count(line) == 1
    shutil.copy(eye, tmp_path / "b.jpg")
    index = shutil.copytree(small_index, tmp_path.parent / "copy")
    forecast = run("build", tmp_path, "--root", tmp_path.parent / "r", "--name", "n", "--forecast-only")
    assert forecast.err.count(line) == 1
    assert run("add", index, tmp_path, "--no-activate").err.count(line) == 1
    assert left_out((eye,)) is None


def test_the_cases_in_the_command(run: Run, small_index: Path, shared: Path, tmp_path: Path) -> None:
    cases = shared / "cases"
    folder = tmp_path / "in"
    folder.mkdir()
    for kind in ("multipage", "other_suffixes", "planar16", "twelve_bits_in_16"):
        for path in (cases / kind).iterdir():
            if path.name != "README":
                shutil.copy(path, folder / path.name)
    outcome = run("score", small_index, folder, "--csv", tmp_path / "out.csv")
    assert outcome.code == 2
    errors = {row["photo"]: row["error"] for row in rows(tmp_path / "out.csv")}
    assert "a TIFF of 2 pages" in errors.pop("two_eyes.tif")
    assert "low 12 bits" in errors.pop("rgb12in16.tif")
    assert not any(errors.values()), errors
    scores = {row["photo"]: row["image_score"] for row in rows(tmp_path / "out.csv")}
    assert scores["planar16_be.tif"] == scores["planar16_le.tif"] == scores["expected.png"]
    with Image.open(cases / "multipage" / "thumb_first.tif") as picture:
        picture.seek(1)
        picture.save(folder / "page.png")
    run("score", small_index, folder / "page.png", "--csv", tmp_path / "page.csv")
    assert rows(tmp_path / "page.csv")[0]["image_score"] == scores["thumb_first.tif"]
