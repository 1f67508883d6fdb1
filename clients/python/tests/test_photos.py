"""A file's bytes say what it is, its name does not; a folder gives its photographs in order."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad_client import PhotoUnusable
from resad_client.photos import list_photos, media_type, unsupported_reason
from resad_client.run_files import unique_places
from samples import JPEG, picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_supported_types(kind: str) -> None:
    assert media_type(picture(kind)) == f"image/{kind.lower()}"


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"\xff\xd8", b"%PDF-1.7", picture("GIF")])
def test_unsupported_types(data: bytes) -> None:
    assert media_type(data) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7", "the file is PDF: file type not supported (supported are JPEG, PNG, TIFF, "),
        (bytes(9) + b"TRUEVISION-XFILE.\0", "the file is TGA: file type"),
        (b"no photograph", "file type not supported"),
        (b"", "the file is empty"),
    ],
)
def test_the_reason_names_the_type_if_it_is_known(data: bytes, words: str) -> None:
    assert unsupported_reason(data).startswith(words)


def test_a_folder_tree_in_order(tmp_path: Path) -> None:
    names = ["a.JPG", "b/1.png", "b/c/2.tiff", "z.webp"]
    for name in [*names, "notes.txt", ".hidden.jpg", ".cache/3.jpg", "folder.jpg/inside.bmp"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    photos = list_photos(tmp_path)
    assert [photo.label for photo in photos] == sorted([*names, "folder.jpg/inside.bmp"])
    assert all(photo.path == tmp_path / photo.label for photo in photos)


def test_one_file_is_itself_whatever_its_suffix(tmp_path: Path) -> None:
    (photo,) = list_photos(tmp_path / "scan.dat")
    assert (photo.path, photo.label) == (tmp_path / "scan.dat", "scan.dat")


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(PhotoUnusable, match=r"no photographs in it \(looked for \.jpg"):
        list_photos(tmp_path)


def test_files_of_one_name_get_numbers() -> None:
    labels = ["a.jpg", "b.png", "a.png", "A.tif", "x/a.jpg", "a-2.jpg", "v1.2.jpg"]
    assert unique_places(labels) == ["a", "b", "a-2", "A-3", "x/a", "a-2-2", "v1.2"]


@given(st.lists(st.from_regex(r"([aA]/)?[aA](-2)?\.(jpg|png)", fullmatch=True)))
def test_no_file_is_written_twice(labels: list[str]) -> None:
    places = unique_places(labels)
    assert len({place.casefold() for place in places}) == len(labels)
    for label, place in zip(labels, places, strict=True):
        assert place.startswith(label.rpartition(".")[0])
