"""Photographs behind addresses are those of a folder, and whatever goes wrong there is said in a line."""

import pickle
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from indexer.photos import list_photos, list_references
from indexer.remote import RemotePath, placed
from resad.config import PhotoLimits
from resad.errors import PhotoTooLarge, PhotoUnreadable, SettingError
from resad.photo import read_bytes
from tests.conftest import Run


class Troubled(MemoryFileSystem):  # type: ignore[misc]
    """An object store whose connection breaks in a way of its own."""

    protocol = "troubled"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path.endswith("denied.jpg"):
            raise PermissionError(f"403 for key-of-somebody at {path}")
        raise ConnectionAbortedByStore(f"signature key-of-somebody at {path}")


class ConnectionAbortedByStore(Exception):
    """As the libraries of object stores have them: no `OSError`."""


@pytest.fixture
def bucket(drawn: Path) -> Iterator[str]:
    """An address below which the healthy photographs lie, with what else may lie in a bucket."""
    folder = f"/{uuid.uuid4().hex}"
    store = fsspec.filesystem("memory")
    for number, path in enumerate(sorted((drawn / "train/good").iterdir())):
        store.pipe(f"{folder}/{'b/' if number % 2 else ''}{path.name}", path.read_bytes())
    store.pipe(f"{folder}/notes.txt", b"call the clinic")
    store.pipe(f"{folder}/.trash/old.jpg", b"x")
    store.pipe(f"{folder}/letter.png", b"no photograph")
    yield f"memory:/{folder}"
    store.rm(folder, recursive=True)


def test_a_tree_is_listed_as_a_folder_is(
    bucket: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.name for path in (drawn / "train/good").iterdir())
    found = [photo.path for photo in list_photos(Path(bucket))]
    below = [path.relative_to(placed(Path(bucket))).as_posix() for path in found]
    expected = [f"b/{name}" if number % 2 else name for number, name in enumerate(names)]
    assert below == sorted([*expected, "letter.png"])
    for path in found[:-1]:
        assert read_bytes(path, PhotoLimits()) == (drawn / "train/good" / path.name).read_bytes()
    for path in found:  # as it goes to another process
        again = pickle.loads(pickle.dumps(path))  # noqa: S301
        assert (again, str(again), type(again)) == (path, str(path), RemotePath)
    (tmp_path / "s3:").mkdir()  # what is on this machine goes first
    monkeypatch.chdir(tmp_path)
    assert not isinstance(placed(Path("s3:")), RemotePath)


@pytest.mark.parametrize("text", ["s3://bucket/a b/1.jpg", "file:///tmp/a.jpg", "gs://x/y.z/", "memory://a"])
def test_an_address_is_told_as_it_was_given(text: str) -> None:
    assert str(RemotePath(Path(text))) == text.rstrip("/")
    assert (RemotePath(Path(text)) / "c").parent == RemotePath(Path(text))


def test_a_csv_names_addresses_and_may_lie_at_one(bucket: str, drawn: Path, tmp_path: Path) -> None:
    local = sorted((drawn / "train/good").iterdir())
    table = f"path,patient\n{local[0]},p1\n{bucket}/{local[0].name},p2\n"
    (tmp_path / "list.csv").write_text(table)
    first, second = list_references(tmp_path / "list.csv")
    assert (first.path, first.patient, str(second.path), second.patient) == (
        local[0], "p1", f"{bucket}/{local[0].name}", "p2",
    )  # fmt: skip
    with fsspec.open(f"{bucket}/list.csv", "wb") as file:
        file.write(f"path\n{local[0].name}\nb/{local[1].name}\n".encode("utf-8-sig"))
    found = list_references(Path(f"{bucket}/list.csv"))
    assert [read_bytes(one.path, PhotoLimits()) for one in found] == [one.read_bytes() for one in local[:2]]


def test_limits_on_bytes_hold_and_nothing_there_is_said(bucket: str, drawn: Path) -> None:
    name = sorted((drawn / "train/good").iterdir())[0].name
    with pytest.raises(PhotoTooLarge):
        read_bytes(placed(Path(f"{bucket}/{name}")), PhotoLimits(max_bytes=100))
    with pytest.raises(PhotoUnreadable, match=r"^No such file or directory$"):
        read_bytes(placed(Path(f"{bucket}/gone.jpg")), PhotoLimits())
    with pytest.raises(SettingError, match="gone: no such file or folder"):
        list_photos(Path(f"{bucket}/gone"))


def test_what_a_store_raises_is_a_file_that_cannot_be_read() -> None:
    fsspec.register_implementation("troubled", Troubled, clobber=True)
    for name, reason in (
        ("a.jpg", r"Input/output error \(ConnectionAbortedByStore\)"),
        ("denied.jpg", "Permission"),
    ):
        with pytest.raises(PhotoUnreadable, match=f"^{reason}") as caught:
            read_bytes(RemotePath(f"troubled://bucket/{name}"), PhotoLimits())
        assert "key-of-somebody" not in str(caught.value)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(SettingError, match=r"^s3://bucket/photos cannot be read here: .*s3fs"):
        list_photos(Path("s3://bucket/photos"))
    with pytest.raises(SettingError, match=r"^clinic://photos cannot be read here: .*clinic"):
        list_photos(Path("clinic://photos"))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(SettingError, match="pip install fsspec"):
        list_photos(Path("memory://photos"))


@pytest.mark.slow
def test_an_index_is_built_and_photographs_are_scored_from_addresses(
    bucket: str, drawn: Path, tmp_path: Path, run: Run
) -> None:
    def built(photos: Path | str, name: str) -> Path:
        ended = run(
            "build", photos, "--root", tmp_path, "--name", name, "--backbone", "bundled", "--size", 128,
            "--device", "cpu",
        )  # fmt: skip
        assert ended.code == 0, ended.err
        return Path(tmp_path / name / (tmp_path / name / "CURRENT").read_text().strip())

    twin = tmp_path / "twin"
    for one in list_photos(Path(bucket))[:-1]:
        file = twin / one.path.relative_to(placed(Path(bucket)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(one.path.read_bytes())
    there, here = built(bucket, "there"), built(twin, "here")
    for file_name in ("memory_bank.faiss", "photos.jsonl"):
        assert (there / file_name).read_bytes() == (here / file_name).read_bytes()
    ended = run("score", there, f"{bucket}/b", "--csv", tmp_path / "scores.csv", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + len(list((twin / "b").iterdir()))
