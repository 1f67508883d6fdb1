import os
from pathlib import Path

import pytest
from resad_client.photos import PHOTO_SUFFIXES

from indexer.photos.listing import (
    ReferencePhoto,
    find_photos,
    list_photos,
    unused_rows_and_columns,
)
from resad.errors import SettingError


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def listed(root: Path) -> list[str]:
    return [photo.path.relative_to(root).as_posix() for photo in list_photos(root)]


def write_csv(root: Path, text: str, encoding: str = "utf-8") -> Path:
    put(root, "a.jpg", "sub/b.png")
    path = root / "photos.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_tree_is_listed_by_relative_path(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/z.PNG", "a-b/1.tif", "a/deep/er/c.jpeg", "B.webp", "notes.txt", "a/none", "jpg")
    # As text, "a-b/" comes before "a/": the order is that of the whole path, on every system.
    assert listed(tmp_path) == ["B.webp", "a-b/1.tif", "a/deep/er/c.jpeg", "a/z.PNG", "b.jpg"]
    assert list_photos(tmp_path)[-1] == ReferencePhoto(tmp_path / "b.jpg", patient=None, eye=None, camera=None)


@pytest.mark.parametrize("suffix", PHOTO_SUFFIXES)
def test_every_suffix_is_taken_in_any_case(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"a{suffix}", f"b{suffix.upper()}", f"c{suffix}.bak")
    assert listed(tmp_path) == [f"a{suffix}", f"b{suffix.upper()}"]
    path = tmp_path / f"b{suffix.upper()}"
    assert list_photos(path) == (ReferencePhoto(path),)


def test_hidden_files_and_folders_are_ignored(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", ".b.jpg", "._a.jpg", ".cache/c.jpg", "x/.y/d.jpg", ".jpg")
    assert listed(tmp_path) == ["a.jpg"]
    folder = tmp_path / ".cache"
    assert [photo.path.name for photo in list_photos(folder)] == ["c.jpg"]  # asked for by name


def test_links_are_followed_but_no_folder_is_entered_twice(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "real/a.jpg", "real/inner/b.jpg")
    put(tmp_path, "elsewhere/c.jpg")
    (root / "real" / "inner" / "up").symlink_to(root)
    (root / "real" / "self").symlink_to(root / "real")
    (root / "again").symlink_to(root / "real")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "linked.jpg").symlink_to(tmp_path / "elsewhere" / "c.jpg")
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (root / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert listed(root) == ["linked.jpg", "out/c.jpg", "real/a.jpg", "real/inner/b.jpg"]


def test_a_folder_that_looks_like_a_photograph_is_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "eye.jpg/a.png")
    assert listed(tmp_path) == ["eye.jpg/a.png"]


def test_nothing_found_names_the_folder_and_the_suffixes(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    assert find_photos(tmp_path) == []
    with pytest.raises(SettingError) as caught:
        list_photos(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert all(suffix in str(caught.value) for suffix in PHOTO_SUFFIXES)


def test_what_is_neither_folder_nor_photograph_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    with pytest.raises(SettingError, match=r"notes\.txt is neither"):
        list_photos(tmp_path / "notes.txt")
    with pytest.raises(SettingError, match="gone: no such file or folder"):
        list_photos(tmp_path / "gone")


def test_a_folder_that_cannot_be_opened_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SettingError, match=r"locked: cannot be listed \(Permission denied\)"):
        list_photos(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_is_read_in_its_own_order(tmp_path: Path, encoding: str, newline: str) -> None:
    lines = [
        "",
        "Path,age,EYE,patient,camera",
        "sub/b.png,61,OD,Müller,Topcon",
        "",
        " , ",
        'a.jpg,,,"x, y"',
        "",
    ]
    path = write_csv(tmp_path, newline.join(lines), encoding)
    assert list_photos(path) == (
        ReferencePhoto(tmp_path / "sub/b.png", patient="Müller", eye="right", camera="Topcon"),
        ReferencePhoto(tmp_path / "a.jpg", patient="x, y", eye=None, camera=None),
    )


def test_a_csv_may_name_paths_alone_and_absolute_ones(tmp_path: Path) -> None:
    put(tmp_path / "far", "c.jpg")
    path = write_csv(tmp_path, f"path\na.jpg\n{tmp_path / 'far' / 'c.jpg'}\n")
    assert [photo.path for photo in list_photos(path)] == [tmp_path / "a.jpg", tmp_path / "far" / "c.jpg"]


@pytest.mark.parametrize(
    ("eye", "expected"),
    [
        ("left", "left"),
        ("L", "left"),
        ("Os", "left"),
        ("RIGHT", "right"),
        ("r", "right"),
        ("od", "right"),
        ("", None),
    ],
)
def test_eyes_go_by_three_names(tmp_path: Path, eye: str, expected: str | None) -> None:
    (photo,) = list_photos(write_csv(tmp_path, f"path,eye\na.jpg, {eye} \n"))
    assert photo.eye == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,eye\na.jpg,l\n\nsub/b.png,both\n", r"photos\.csv line 4: eye 'both' is none of left, right"),
        (
            "path\na.jpg\nmissing.jpg\n",
            r"line 3: no such file: .*missing\.jpg \(relative paths count from the folder of the",
        ),
        ("path\n/missing.jpg\n", r"photos\.csv line 2: no such file: /missing\.jpg$"),
        ("path,eye\n,left\n", r"photos\.csv line 2: no path"),
        ("path,patient\na.jpg,Doe, Jane\n", r"photos\.csv line 2: 3 values for 2 columns"),
        ("file;eye\na.jpg;l\n", r"must name a column path \(found: file, eye\)"),
        ("path;patient\na.jpg;Doe; Jane\n", r"line 2: 3 values for 2 columns \(quote a value with a semicolon\)"),
        ("", r"must name a column path \(found: nothing\)"),
        ("path,eye,path\na.jpg,l,a.jpg\n", r"names the column path twice"),
        ("path,eye\n\n", r"photos\.csv has no rows, only the line that names the columns"),
        ('path\n"a.jpg\n', r"photos\.csv cannot be read"),
    ],
)
def test_an_unusable_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        list_photos(write_csv(tmp_path, text))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(SettingError, match=r'photos\.csv is not UTF-8 text \(in Excel: save it as "CSV UTF-8"\)'):
        list_photos(write_csv(tmp_path, "path,patient\na.jpg,Müller\n", encoding))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_semicolons_separate_where_the_first_line_has_no_comma(tmp_path: Path, newline: str) -> None:
    lines = ["", ";;", "path;patient;camera;", "a.jpg;Doe, Jane;;", '"sub/b.png";"Roe; Rex";Topcon;', ";;;"]
    assert list_photos(write_csv(tmp_path, newline.join(lines), "utf-8-sig")) == (
        ReferencePhoto(tmp_path / "a.jpg", patient="Doe, Jane"),
        ReferencePhoto(tmp_path / "sub/b.png", patient="Roe; Rex", camera="Topcon"),
    )


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("path,patient_id,,Age\na.jpg,p1,,\n", ["columns not used: patient_id, Age (known: path, label, "]),
        ("path;patient-id\na.jpg;p1\n", ["columns not used: patient-id (known: path, label, "]),
        ("path,Split\na.jpg,TRAIN\nsub/b.png\na.jpg,test\n", ["2 of 3 rows left out: their split is not train"]),
        ("path,Patient,eye,camera,split,label,kind,mask,marked\na.jpg,p1\n", []),
        ("path,split\na.jpg,\n", []),
        ("path,split\na.jpg,train\n", []),
    ],
)
def test_what_is_not_used_of_a_csv_is_told(tmp_path: Path, text: str, messages: list[str]) -> None:
    lines = unused_rows_and_columns(write_csv(tmp_path, text))
    assert [line[: len(start)] for line, start in zip(lines, messages, strict=True)] == messages
    assert unused_rows_and_columns(tmp_path) == ()


def test_idrid_reference_photographs_are_found(shared: Path) -> None:
    photos = list_photos(shared / "data" / "idrid-512" / "train")
    assert len(photos) == 36
    assert [photo.path.name for photo in photos] == sorted(photo.path.name for photo in photos)
