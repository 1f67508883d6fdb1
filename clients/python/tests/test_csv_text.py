"""CSV: no cell is a formula, what is written is read back, and tables in every usual form are read."""

import csv
import io
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad_client.csv_text import csv_row, known, locate, read_table
from resad_client.errors import PhotoUnusable, SettingError
from resad_client.photos import folders_left_out, left_out_line, list_photos
from resad_client.run_files import unique_labels, unique_places

FORMULAS = ("=1+1", "+1 (a)", "-x", "@SUM(A1)", "\t=1", "\r=1", "\uff1dcmd", '=HYPERLINK("http://x")')


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text_and_is_read_back(tmp_path: Path, text: str) -> None:
    (cell,) = next(csv.reader(io.StringIO(csv_row([text]), newline="")))
    assert cell == f"'{text}"
    (tmp_path / "a.csv").write_text(csv_row(["path"]) + csv_row([text]), encoding="utf-8", newline="")
    assert read_table(tmp_path / "a.csv").lines[0].cells == (text,)


@pytest.mark.parametrize("value", [-0.5, -3, 1e-300, True, None, "-0.5", "+7", "-1e-5"])
def test_numbers_stay_numbers(value: object) -> None:
    (cell,) = next(csv.reader([csv_row([value, 1])]))[:1]
    expected = {True: "true", None: ""}.get(value, str(value)) if not isinstance(value, str) else value  # type: ignore[call-overload]
    assert cell == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=2, max_size=5))
def test_every_text_is_one_cell_and_none_is_a_formula(cells: list[str]) -> None:
    row = next(csv.reader(io.StringIO(csv_row(cells), newline="")))
    assert [cell.lstrip("'") for cell in row] == [cell.lstrip("'") for cell in cells]
    assert all(cell[:1] not in "=+-@\t\r\n" or cell[1:].isalnum() or not cell for cell in row)


def test_a_separator_of_other_spreadsheets_begins_no_cell() -> None:
    assert csv_row(["a;=1+1", "b\t=2"]) == '"a;=1+1","b\t=2"\n'


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_separator(tmp_path: Path, separator: str) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "list.tsv").write_text(f"path{separator}eye{separator}patient\na.jpg{separator}OD{separator}nan\n")
    (photo,) = list_photos(tmp_path / "list.tsv")
    assert (photo.label, photo.eye, photo.patient) == ("a.jpg", "right", None)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "a.csv").write_bytes("path,patient\na.jpg,Müller\n".encode(encoding))
        with pytest.raises(SettingError, match="is not UTF-8 text"):
            read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("word", ["nan", "N/A", " unknown ", "-", "", None, "NULL", "#N/A"])
def test_a_word_for_unknown_is_no_value(word: str | None) -> None:
    assert known(word) is None


def test_names_are_found_in_the_disk_s_spelling(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    (tmp_path / apart).mkdir()
    (tmp_path / apart / "1.jpg").touch()
    assert locate(tmp_path, f"{composed}\\1.jpg").is_file()
    assert locate(tmp_path, f"{composed}/1.jpg").is_file()
    assert locate(tmp_path, "gone\\1.jpg") == tmp_path / "gone\\1.jpg"
    (tmp_path / "a\\b.jpg").touch()
    assert locate(tmp_path, "a\\b.jpg") == tmp_path / "a\\b.jpg"
    assert locate(tmp_path, "x" * 300) == tmp_path / ("x" * 300)


def test_labels_are_printable_and_unique(tmp_path: Path) -> None:
    for name in ("a\nb.jpg", "a\\nb.jpg", os.fsdecode(b"\xff.jpg")):
        (tmp_path / name).touch()
    photos = list_photos(tmp_path)
    labels = unique_labels([photo.label for photo in photos], [photo.path for photo in photos])
    assert len(set(labels)) == 3
    assert all(label.isprintable() for label in labels)


def test_places_are_short_enough_and_apart() -> None:
    labels = ["n" * 250 + "a.jpg", "n" * 250 + "b.jpg", "\u00e9" * 125 + ".jpg", "x\\y.jpg"]
    labels += [f"{unicodedata.normalize(form, 'é')}.jpg" for form in ("NFC", "NFD")]
    places = unique_places(labels)
    assert len({unicodedata.normalize("NFC", place).casefold() for place in places}) == len(labels)
    assert all(len(f".{place}_evidence.jpg.12345678".encode()) <= 255 for place in places)
    assert "\\" not in "".join(places)
    assert unique_places(["a/1.jpg", "a/1.png"]) == ["a/1", "a/1-2"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    assert left_out_line([]) is None
    assert (
        left_out_line([".gif", ".gif", "broken link", "broken link"]) == "4 files left out: 2 .gif, 2 broken links"
    )
    (tmp_path / "a.gif").touch()
    assert folders_left_out([tmp_path, tmp_path / "a.gif"]) == "1 file left out: 1 .gif"
    with pytest.raises(PhotoUnusable, match=r"no photographs in it .*; 1 file left out: 1 \.gif"):
        list_photos(tmp_path)
