"""One CSV for build, score and evaluate."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resad_client.csv_text import known

from indexer.photos.listing import PhotoRow, ReferencePhoto, list_photos, list_references, read_rows, rows_csv
from lab.datasets import Dataset, LabeledPhoto, LesionMask
from lab.datasets.layouts import listed_csv, read_listed
from resad.errors import SettingError


def listed(folder: Path, text: str) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg", "m.png", "n.png"):
        (folder / name).touch()
    path = folder / "photos.csv"
    path.write_text(text)
    return path


FULL = (
    "path,label,kind,mask,marked,split,patient,eye,camera\n"
    "a.jpg,normal,,,,train,p1,OS,Topcon\n"
    "b.jpg,1,DR,EX=m.png; n.png,black,test,p2,,\n"
    "c.jpg,0,,,,test,,,\n"
)


def test_every_column_is_read(tmp_path: Path) -> None:
    first, second, third = read_rows(listed(tmp_path, FULL))
    assert first == PhotoRow(
        tmp_path / "a.jpg", "normal", split="train", patient="p1", eye="left", camera="Topcon"
    )
    masks = (LesionMask(tmp_path / "m.png", "EX", "black"), LesionMask(tmp_path / "n.png", None, "black"))
    assert second == PhotoRow(tmp_path / "b.jpg", "abnormal", "DR", masks, "test", "p2")
    assert third == PhotoRow(tmp_path / "c.jpg", "normal", split="test")


def test_masks_are_told_apart_where_semicolons_separate_columns(tmp_path: Path) -> None:
    text = 'path;label;kind;mask;marked\nb.jpg;1;DR;"EX=m.png; n.png";black\n'
    (row,) = read_rows(listed(tmp_path, text))
    masks = (LesionMask(tmp_path / "m.png", "EX", "black"), LesionMask(tmp_path / "n.png", None, "black"))
    assert (row.kind, row.masks) == ("DR", masks)
    with pytest.raises(SettingError, match="quote a value with a semicolon"):
        read_rows(listed(tmp_path, text.replace('"', "")))


def test_build_takes_the_training_rows_evaluate_the_others_score_all(tmp_path: Path) -> None:
    path = listed(tmp_path, FULL)
    assert list_references(path) == (ReferencePhoto(tmp_path / "a.jpg", "p1", "left", "Topcon"),)
    dataset = read_listed(path)
    assert dataset.name == "photos"
    assert dataset.train == list_references(path)
    assert [(photo.path.name, photo.abnormal, photo.kind) for photo in dataset.test] == [
        ("b.jpg", True, "DR"),
        ("c.jpg", False, "good"),
    ]
    assert [photo.path.name for photo in list_photos(path)] == ["a.jpg", "b.jpg", "c.jpg"]


def test_without_a_split_every_row_is_taken(tmp_path: Path) -> None:
    assert len(list_references(listed(tmp_path, "path\na.jpg\nb.jpg\n"))) == 2
    assert len(read_listed(listed(tmp_path, "path,label\na.jpg,normal\nb.jpg,abnormal\n")).test) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,sick\n", r"line 2: label 'sick' is none of normal, 0, abnormal, 1"),
        ("path,split\na.jpg,val\n", r"line 2: split 'val' is none of train, test"),
        ("path,mask,marked\na.jpg,m.png,white\n", r"marked 'white' is none of color, number, black"),
        ("path,label,mask\na.jpg,normal,m.png\n", r"line 2: a normal photograph with a mask"),
        ("path,label,mask\na.jpg,abnormal,EX=gone.png\n", r"line 2: no such file: .*gone\.png"),
    ],
)
def test_a_cell_that_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_rows(listed(tmp_path, text))


def test_no_index_learns_from_abnormal_photographs(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"a\.jpg is labeled abnormal; an index learns from normal ones alone"):
        list_references(listed(tmp_path, "path,label\na.jpg,abnormal\n"))
    text = "path,label,split\na.jpg,abnormal,train\nb.jpg,normal,test\n"
    with pytest.raises(SettingError, match=r"a\.jpg is labeled abnormal"):
        list_references(listed(tmp_path, text))
    with pytest.raises(SettingError, match=r"a\.jpg is labeled abnormal, but of the split train"):
        read_listed(tmp_path / "photos.csv")
    with pytest.raises(SettingError, match="no row has the split train"):
        list_references(listed(tmp_path, "path,split\na.jpg,test\n"))


def test_what_cannot_be_tested_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"a\.jpg has no label"):
        read_listed(listed(tmp_path, "path\na.jpg\n"))
    with pytest.raises(SettingError, match="no row to test on"):
        read_listed(listed(tmp_path, "path,split\na.jpg,train\n"))
    with pytest.raises(SettingError, match="no file"):
        read_listed(tmp_path / "gone.csv")


words = st.none() | st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12).filter(
    lambda text: known(text) == text
)
files = st.sampled_from(["a.jpg", "b.jpg", "c.jpg"])
eyes = st.sampled_from(["left", "right", None])


@given(
    train=st.lists(st.tuples(files, words, eyes, words), max_size=3),
    test=st.lists(
        st.tuples(files, st.booleans(), st.sampled_from([(), ("EX",), ("EX", None)]), words, eyes),
        min_size=1,
        max_size=4,
    ),
    marked=st.sampled_from(["color", "number", "black"]),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_data_set_comes_back_as_it_was_written(tmp_path: Path, train, test, marked) -> None:  # type: ignore[no-untyped-def]
    listed(tmp_path, "path\na.jpg\n")
    masks = {kind: LesionMask(tmp_path / "m.png", kind, marked) for kind in ("EX", None)}
    dataset = Dataset(
        "photos",
        tuple(ReferencePhoto(tmp_path / name, who, eye, camera) for name, who, eye, camera in train),
        tuple(
            LabeledPhoto(tmp_path / name, bad, "DR, late" if bad else "good",
                         tuple(masks[kind] for kind in kinds) if bad else (), who, eye)
            for name, bad, kinds, who, eye in test
        ),
    )  # fmt: skip
    (tmp_path / "photos.csv").write_bytes(listed_csv(dataset))
    assert read_listed(tmp_path / "photos.csv") == dataset


def test_masks_marked_in_two_ways_cannot_be_written(tmp_path: Path) -> None:
    masks = (LesionMask(tmp_path / "m.png", "EX", "black"), LesionMask(tmp_path / "n.png", "HE", "number"))
    with pytest.raises(SettingError, match="marked in different ways"):
        rows_csv([PhotoRow(tmp_path / "a.jpg", "abnormal", masks=masks)])
