"""Photographs behind addresses are those of a folder, and whatever goes wrong there is said in a line."""

import csv
import pickle
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from indexer.build.state import file_sha256
from indexer.photos.listing import list_photos, list_references
from indexer.photos.remote import RemotePath, as_path, check_parts, refuse_secrets
from resad.config import PhotoLimits
from resad.errors import PhotoTooLarge, PhotoUnreachable, PhotoUnreadable, SettingError
from resad.photo import read_bytes
from tests.conftest import Run
from tests.cutting_server import serving


class Troubled(MemoryFileSystem):  # type: ignore[misc]
    """An object store whose connection breaks in a way of its own."""

    protocol = "troubled"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path.endswith("denied.jpg"):
            raise PermissionError(f"403 for key-of-somebody at {path}")
        raise ConnectionAbortedByStore(f"signature key-of-somebody at {path}")


class Breaking(MemoryFileSystem):  # type: ignore[misc]
    """Of which some files break off in the midst of reading, and that counts what it is asked."""

    protocol = "breaking"
    requests = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return cast("str", super()._strip_protocol(path.replace("breaking://", "memory://")))

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        Breaking.requests += 1
        return cast("dict[str, Any]", super().info(path, **more))

    def open(self, path: str, mode: str = "rb", **_: Any) -> BytesIO:
        return Cut(self.cat_file(path)) if "cut" in path else BytesIO(self.cat_file(path))


class Cut(BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == 0:
            return super().read(100)
        raise ConnectionAbortedByStore("AccessDenied\nkey-of-somebody")


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
    paths = [photo.path for photo in list_photos(Path(bucket))]
    relative = [path.relative_to(as_path(Path(bucket))).as_posix() for path in paths]
    expected = [f"b/{name}" if number % 2 else name for number, name in enumerate(names)]
    assert relative == sorted([*expected, "letter.png"])
    for path in paths[:-1]:
        assert read_bytes(path, PhotoLimits()) == (drawn / "train/good" / path.name).read_bytes()
    for path in paths:  # as it goes to another process
        restored = pickle.loads(pickle.dumps(path))  # noqa: S301
        assert (restored, str(restored), type(restored)) == (path, str(path), RemotePath)
    (tmp_path / "s3:").mkdir()  # what is on this machine goes first
    monkeypatch.chdir(tmp_path)
    assert not isinstance(as_path(Path("s3:")), RemotePath)


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
    photos = list_references(Path(f"{bucket}/list.csv"))
    assert [read_bytes(photo.path, PhotoLimits()) for photo in photos] == [path.read_bytes() for path in local[:2]]


def test_limits_on_bytes_hold_and_nothing_there_is_said(bucket: str, drawn: Path) -> None:
    name = sorted((drawn / "train/good").iterdir())[0].name
    with pytest.raises(PhotoTooLarge):
        read_bytes(as_path(Path(f"{bucket}/{name}")), PhotoLimits(max_bytes=100))
    with pytest.raises(PhotoUnreadable, match=r"^No such file or directory$"):
        read_bytes(as_path(Path(f"{bucket}/gone.jpg")), PhotoLimits())
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


def test_what_breaks_off_in_the_midst_of_a_file_is_that_photographs_fault(tmp_path: Path) -> None:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    fsspec.filesystem("memory").pipe("/bucket/cut.jpg", b"x" * 1000)
    fsspec.filesystem("memory").pipe("/bucket/cut.csv", b"path\n" + b"a.jpg\n" * 1000)
    with pytest.raises(PhotoUnreachable, match=r"^Input/output error \(ConnectionAbortedByStore\)$"):
        read_bytes(RemotePath("breaking://bucket/cut.jpg"), PhotoLimits())
    assert file_sha256(RemotePath("breaking://bucket/cut.jpg")) is None
    with pytest.raises(SettingError, match=r"cut\.csv cannot be read: .*Input/output error"):
        list_photos(Path("breaking://bucket/cut.csv"))
    with pytest.raises(OSError, match="Read-only"):
        RemotePath("breaking://bucket/cut.jpg").open("wb")


def test_what_a_listing_told_is_not_asked_for_again() -> None:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    store = fsspec.filesystem("memory")
    for number in range(5):
        store.pipe(f"/listed/{number}.jpg", b"x" * number)
    photos = [photo.path for photo in list_photos(Path("breaking://listed"))]
    before = Breaking.requests
    assert [path.stat().st_size for path in photos] == [0, 1, 2, 3, 4]
    assert Breaking.requests == before
    assert [path.stat().st_mtime_ns for path in photos] == [
        RemotePath(str(path)).stat().st_mtime_ns for path in photos
    ]
    store.pipe("/listed/3.jpg", b"longer")
    elsewhere = pickle.loads(pickle.dumps(photos[3]))  # noqa: S301
    assert elsewhere.stat().st_size == 6


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        ({"updated": "2026-01-02T03:04:05.5Z"}, datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC).timestamp()),
        ({"created": "2026-01-02T03:04:05+02:00"}, datetime(2026, 1, 2, 1, 4, 5, 0, UTC).timestamp()),
        ({"LastModified": datetime(2026, 1, 2, 3, 4, 5)}, datetime(2026, 1, 2, 3, 4, 5, 0, UTC).timestamp()),
        ({"mtime": 12.5}, 12.5),
        ({"mtime": "12.5"}, 12.5),
        ({"mtime": None, "created": "yesterday"}, 0),
        ({"mtime": float("nan")}, 0),
        ({}, 0),
    ],
)
def test_times_are_read_however_a_store_tells_them(
    info: dict[str, Any], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_: {"size": 3, "type": "file", **info})
    status = RemotePath("memory://a/1.jpg").stat()
    assert (status.st_size, status.st_mtime_ns) == (3, round(seconds * 1e9))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/a//b.jpg", "empty part"),
        ("memory://a/./b.jpg", "empty part"),
        ("https://me:hunter2@host/1.jpg", r"https://\.\.\.@host: .*password"),
        ("ftp://me:hunter2@host/1.jpg", "password"),
        ("https://hunter2@host/1.jpg", "password"),
        ("https://host/1.jpg?X-Amz-Signature=hunter2", r"https://host/1\.jpg\?\.\.\.: .*a query"),
    ],
)
def test_addresses_that_would_be_others_or_tell_secrets_are_refused(
    address: str, message: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "list.csv").write_text(f"path\n{address}\n")
    with pytest.raises(SettingError, match=f"list.csv line 2: .*{message}") as caught:
        list_photos(tmp_path / "list.csv")
    outcome = run("score", tmp_path, address, "--csv", tmp_path / "scores.csv")
    assert outcome.code == 2
    assert "hunter2" not in str(caught.value) + outcome.err
    if "//b" in address or "/./" in address:
        assert "empty part" in outcome.err


def test_a_listed_key_that_a_path_would_change_is_refused_by_name(bucket: str) -> None:
    with fsspec.open(f"{bucket}/c//notes.txt", "wb") as file:
        file.write(b"x")
    assert list_photos(Path(bucket))  # what is no photograph may be called as it likes
    with fsspec.open(f"{bucket}/c//1.jpg", "wb") as file:
        file.write(b"x")
    with pytest.raises(SettingError, match=r"/c//1\.jpg: keys with an empty part"):
        list_photos(Path(bucket))


@pytest.mark.parametrize(
    "address", ["abfs://container@account.dfs.core.windows.net/a/1.jpg", "s3://b/what?.jpg", "file:///a//1.jpg"]
)
def test_others_are_taken(address: str) -> None:
    check_parts(address)
    refuse_secrets(address)


def test_bodies_that_are_cut_cost_their_photograph_alone(
    drawn: Path, small_index: Path, tmp_path: Path, run: Run
) -> None:
    good = sorted((drawn / "train/good").iterdir())[0].read_bytes()
    files = {f"{name}.jpg": good + name.encode() for name in ("whole", "cut", "once")}
    with serving(files, {"cut.jpg": 1000, "once.jpg": 1}) as (server, requests):
        names = [*files, "denied.jpg"]
        (tmp_path / "list.csv").write_text("\n".join(["path", *(f"{server}/{name}" for name in names), ""]))
        outcome = run(
            "score", small_index, tmp_path / "list.csv", "--csv", tmp_path / "out.csv", "--device", "cpu"
        )
    assert outcome.code == 2
    assert "2 of 4 photographs could not be scored" in " ".join(outcome.err.split())
    with (tmp_path / "out.csv").open(newline="") as file:
        faults = {Path(row["photo"]).name: row["error"].partition(" (")[0] for row in csv.DictReader(file)}
    assert faults == {
        "whole.jpg": "", "once.jpg": "", "cut.jpg": "Input/output error",
        "denied.jpg": "Permission denied",
    }  # fmt: skip
    assert (requests["once.jpg"], requests["cut.jpg"]) == (2, 3)
    with pytest.raises(PhotoUnreachable, match=r"^Input/output error \(Client"):
        read_bytes(as_path(Path(f"{server}/whole.jpg")), PhotoLimits())


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
    def build_index(photos: Path | str, name: str) -> Path:
        outcome = run(
            "build", photos, "--root", tmp_path, "--name", name, "--backbone", "bundled", "--size", 128,
            "--device", "cpu",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return Path(tmp_path / name / (tmp_path / name / "CURRENT").read_text().strip())

    twin = tmp_path / "twin"
    for photo in list_photos(Path(bucket))[:-1]:
        file = twin / photo.path.relative_to(as_path(Path(bucket)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo.path.read_bytes())
    remote, local = build_index(bucket, "there"), build_index(twin, "here")
    for file_name in ("memory_bank.faiss", "photos.jsonl"):
        assert (remote / file_name).read_bytes() == (local / file_name).read_bytes()
    outcome = run("score", remote, f"{bucket}/b", "--csv", tmp_path / "scores.csv", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + len(list((twin / "b").iterdir()))


SECRET_ADDRESSES = [
    "HTTP://user:hunter2@host/a.jpg",
    "Https://host/a.jpg?sig=hunter2",
    "HTTP:/user:hunter2@host/a.jpg",
    "simplecache::http://user:hunter2@host/a.jpg",
    "zip://a.jpg::FILECACHE::s3://key:hunter2@bucket/a.zip",
]


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_no_spelling_of_an_address_gets_a_secret_printed(run: Run, address: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{address}\n")
    for arguments in (
        ("score", tmp_path, address, "--csv", tmp_path / "scores.csv"),
        ("build", address, "--root", tmp_path / "root", "--name", "eyes"),
        ("build", listed, "--root", tmp_path / "root", "--name", "eyes"),
        ("build", tmp_path, "--root", tmp_path / "root", "--name", "eyes", f"--weights={address}"),
        ("evaluate", tmp_path, "--painted", address),
    ):
        outcome = run(*arguments)
        assert outcome.code == 2
        assert "hunter2" not in outcome.out + outcome.err
    with pytest.raises(SettingError, match=r"is not accepted") as error:
        list_photos(Path(address))
    assert "hunter2" not in str(error.value)


def test_the_case_of_a_scheme_does_not_matter_and_chains_are_refused(bucket: str) -> None:
    shouted = bucket.replace("memory", "MEMORY")
    assert [photo.path for photo in list_photos(Path(shouted))] == [
        photo.path for photo in list_photos(Path(bucket))
    ]
    with pytest.raises(SettingError, match="leads through another"):
        list_photos(Path(f"simplecache::{bucket}"))
