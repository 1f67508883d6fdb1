"""Which index answers: CURRENT is followed, a broken version changes nothing, and admins can move it."""

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from resad import index
from tests.indexes import build_small
from tests.service.running import Served, key_for, served, until
from tests.service.test_problems import check

UNREADABLE = "x" * 300
"""A link to a name this long is what not even root can follow."""


@pytest.fixture(scope="module")
def two_versions(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT of an index with two versions, the second live; not to be changed."""
    root = tmp_path_factory.mktemp("two")
    for neighbors in (1, 2):
        build_small(drawn / "train/good", root, settings=(f"search.neighbors={neighbors}",))
    return root


@pytest.fixture
def root_copy(two_versions: Path, tmp_path: Path) -> Path:
    """A copy whose first version is live."""
    shutil.copytree(two_versions, tmp_path / "root")
    index.activate(tmp_path / "root/drawn", index.versions(tmp_path / "root/drawn")[0])
    return tmp_path / "root"


@contextmanager
def served_to_admin(root: Path) -> Iterator[Served]:
    admin = key_for(root.parent / "keys", "score", "admin")
    with served(root, keys_file=root.parent / "keys", headers=admin) as service:
        yield service


@pytest.fixture
def service(root_copy: Path) -> Iterator[Served]:
    """One for a single test, which may damage its root."""
    with served_to_admin(root_copy) as service:
        yield service


@pytest.fixture(scope="module")
def kept_root(two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for the tests that change CURRENT alone."""
    return shutil.copytree(two_versions, tmp_path_factory.mktemp("kept") / "root")


@pytest.fixture(scope="module")
def one_for_all(kept_root: Path) -> Iterator[Served]:
    with served_to_admin(kept_root) as service:
        yield service


@pytest.fixture
def kept_service(one_for_all: Served, kept_root: Path) -> Served:
    """A service that other tests have too; the first version is live again."""
    first = index.versions(kept_root / "drawn")[0]
    index.activate(kept_root / "drawn", first)
    until(lambda: (entry(one_for_all)["version"], entry(one_for_all)["fault"]) == (first, None))
    return one_for_all


def entry(service: Served) -> dict[str, str | None]:
    document: dict[str, str | None] = service.client.get("/v1/indexes/drawn").json()
    return document


def assert_keeps_serving(service: Served, photo: bytes) -> None:
    """For several looks at CURRENT."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        answer = service.score(photo)
        assert (answer.status_code, entry(service)["fault"]) == (200, None)


def damage(version: Path) -> None:
    bank = version / "memory_bank.faiss"
    bank.write_bytes(bank.read_bytes()[:-1] + b"x")


def test_the_served_version_is_reported(kept_service: Served, kept_root: Path) -> None:
    first, second = index.versions(kept_root / "drawn")
    (summary,) = kept_service.client.get("/v1/indexes").json()["indexes"]
    assert (summary["name"], summary["default"], summary["state"]) == ("drawn", True, "serving")
    detail = kept_service.client.get("/v1/indexes/drawn").json()
    assert (detail["version"], detail["versions"], detail["fault"]) == (first, [first, second], None)
    assert detail["manifest"]["version"] == first
    assert len(detail["manifest"]["calibration"]["scores"]) == detail["photos"] == 8
    assert f'version="{first}"' in kept_service.client.get("/metrics").text


def test_a_new_current_is_followed_under_load_and_no_answer_is_mixed(
    kept_service: Served, kept_root: Path, photo: bytes
) -> None:
    first, second = index.versions(kept_root / "drawn")
    answers: set[tuple[str, str, float]] = set()
    statuses: set[int] = set()
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answer = kept_service.score(photo)
            statuses.add(answer.status_code)
            document = answer.json()
            reference = document["index"]
            answers.add((reference["version"], reference["fingerprint"], round(document["image_score"], 4)))

    callers = [threading.Thread(target=keep_asking) for _ in range(3)]
    for caller in callers:
        caller.start()
    for version in (second, first, second):
        index.activate(kept_root / "drawn", version)
        until(lambda version=version: entry(kept_service)["version"] == version)  # type: ignore[misc]
    stop.set()
    for caller in callers:
        caller.join(10)
    assert statuses == {200}
    assert {version for version, _, _ in answers} == {first, second}
    assert len(answers) == 2


def test_a_broken_version_leaves_the_old_one_serving(service: Served, root_copy: Path, photo: bytes) -> None:
    first, second = index.versions(root_copy / "drawn")
    damage(root_copy / "drawn" / second)
    index.activate(root_copy / "drawn", second)
    until(lambda: entry(service)["fault"] is not None)
    record = entry(service)
    assert (record["version"], record["state"]) == (first, "serving")
    assert record["fault"] is not None
    assert "memory_bank.faiss was changed" in record["fault"]
    assert str(root_copy) not in record["fault"]
    assert service.score(photo).json()["index"]["version"] == first
    assert service.client.get("/readyz").status_code == 200
    assert service.metric('resad_index_fault{index="drawn"}') == 1
    index.activate(root_copy / "drawn", first)
    until(lambda: entry(service)["fault"] is None)


@pytest.mark.parametrize("content", ["../../etc", "", "20260101T000000Z-0000", "\0\xff"])
def test_a_senseless_current_changes_nothing(
    kept_service: Served, kept_root: Path, photo: bytes, content: str
) -> None:
    (kept_root / "drawn/CURRENT").write_text(content)
    until(lambda: entry(kept_service)["fault"] is not None)
    assert kept_service.score(photo).status_code == 200


def test_a_version_whose_probe_scores_otherwise_is_broken(service: Served, root_copy: Path) -> None:
    """Every hash fits, but this machine measures something else."""
    first, second = index.versions(root_copy / "drawn")
    manifest = root_copy / "drawn" / second / "manifest.json"
    text = manifest.read_text()
    start = text.index('"probe_score": ') + len('"probe_score": ')
    manifest.write_text(text[:start] + "9" + text[start:])
    index.activate(root_copy / "drawn", second)
    until(lambda: "probe" in (entry(service)["fault"] or ""))
    assert entry(service)["version"] == first


def test_a_broken_index_at_the_start_is_not_ready_and_the_others_answer(root_copy: Path, photo: bytes) -> None:
    shutil.copytree(root_copy / "drawn", root_copy / "other")
    damage(index.resolve(root_copy / "other"))
    with served(root_copy, ready=False) as service:
        until(lambda: service.client.get("/v1/indexes").json()["indexes"][-1:] != [])
        until(lambda: "other: " in service.client.get("/readyz").json()["detail"])
        assert "changed" in check(service.client.get("/readyz"), 503, "not-ready")
        check(service.score(photo, index="other"), 503, "not-ready")
        assert service.score(photo, index="drawn").status_code == 200
        assert "drawn, other" in check(service.score(photo), 422, "index-not-named")
        states = {
            summary["name"]: summary["state"] for summary in service.client.get("/v1/indexes").json()["indexes"]
        }
        assert states == {"drawn": "serving", "other": "failed"}


def test_a_default_answers_where_there_are_several(root_copy: Path, photo: bytes) -> None:
    shutil.copytree(root_copy / "drawn", root_copy / "other")
    with served(root_copy, index="other") as service:
        assert service.score(photo).status_code == 200
        defaults = {
            summary["name"]: summary["default"] for summary in service.client.get("/v1/indexes").json()["indexes"]
        }
        assert defaults == {"drawn": False, "other": True}


def test_an_index_that_comes_later_is_found(root_copy: Path, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty", ready=False) as service:
        until(lambda: "no index" in service.client.get("/readyz").json()["detail"])
        check(service.score(photo), 503, "not-ready")
        shutil.copytree(root_copy / "drawn", tmp_path / "empty/drawn", ignore=shutil.ignore_patterns("CURRENT"))
        index.activate(tmp_path / "empty/drawn", index.versions(root_copy / "drawn")[0])
        until(lambda: service.client.get("/readyz").status_code == 200)
        assert service.score(photo).status_code == 200


def test_a_folder_that_cannot_be_read_is_passed_over_and_told_once(
    root_copy: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As `lost+found` cannot.  It sorts before the index."""
    (root_copy / "0-lost+found").mkdir()
    (root_copy / "0-lost+found/CURRENT").symlink_to(UNREADABLE)
    with served(root_copy) as service:
        assert service.score(photo).status_code == 200
        second = index.versions(root_copy / "drawn")[1]
        index.activate(root_copy / "drawn", second)
        until(lambda: entry(service)["version"] == second)
        assert service.client.get("/readyz").status_code == 200
        assert [summary["name"] for summary in service.client.get("/v1/indexes").json()["indexes"]] == ["drawn"]
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [line for line in errors if "lost+found" in line] == errors
    assert len(errors) == 1


def test_an_index_whose_current_cannot_be_read_for_a_while_goes_on(
    kept_service: Served, kept_root: Path, photo: bytes
) -> None:
    pointer = kept_root / "drawn/CURRENT"
    (kept_root / "drawn/kept").hardlink_to(pointer)
    (kept_root / "drawn/link").symlink_to(UNREADABLE)
    (kept_root / "drawn/link").rename(pointer)
    assert_keeps_serving(kept_service, photo)
    (kept_root / "drawn/kept").rename(pointer)
    assert_keeps_serving(kept_service, photo)


def test_an_index_that_is_taken_away_is_served_no_more(root_copy: Path, photo: bytes) -> None:
    shutil.copytree(root_copy / "drawn", root_copy / "bad")
    (root_copy / "bad/CURRENT").write_text("../../etc")
    with served(root_copy, ready=False) as service:
        until(lambda: "bad: " in service.client.get("/readyz").json()["detail"])
        (root_copy / "bad/CURRENT").unlink()
        until(lambda: service.client.get("/readyz").status_code == 200)
        check(service.client.get("/v1/indexes/bad"), 404, "unknown-index")
        assert 'index="bad"' not in service.client.get("/metrics").text
        with ThreadPoolExecutor(1) as caller, service.busy():
            waiting = caller.submit(service.score, photo)
            until(lambda: service.state.worker.waiting == 1)
            (root_copy / "drawn").rename(root_copy.parent / "aside")
            until(lambda: service.client.get("/v1/indexes").json()["indexes"] == [])
            assert "no index" in check(service.client.get("/readyz"), 503, "not-ready")
            check(service.score(photo, index="drawn"), 404, "unknown-index")
        assert waiting.result().status_code == 200
        (root_copy.parent / "aside").rename(root_copy / "drawn")
        until(lambda: service.client.get("/readyz").status_code == 200)
        assert service.score(photo).status_code == 200


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
@pytest.mark.parametrize("function", ["load_index", "check_probe"])
def test_a_version_that_memory_has_no_room_for_leaves_the_old_one_serving(
    kept_service: Served,
    kept_root: Path,
    photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    function: str,
) -> None:
    def raise_error(*arguments: object) -> None:
        raise error

    first, second = index.versions(kept_root / "drawn")
    monkeypatch.setattr(kept_service.state.loader, function, raise_error)
    answer = kept_service.client.put("/v1/indexes/drawn/current", json={"version": second})
    assert "memory" in check(answer, 507, "index-too-large")
    assert index.live_version(kept_root / "drawn") == first
    assert (entry(kept_service)["version"], entry(kept_service)["fault"]) == (first, None)
    assert kept_service.score(photo).json()["index"]["version"] == first
    index.activate(
        kept_root / "drawn", second
    )  # as `resad-indexer activate` does it, which has another machine's memory
    until(lambda: "memory" in (entry(kept_service)["fault"] or ""))
    assert kept_service.score(photo).json()["index"]["version"] == first


def test_an_admin_moves_an_index_and_back(kept_service: Served, kept_root: Path, photo: bytes) -> None:
    for version in reversed(index.versions(kept_root / "drawn")):
        answer = kept_service.client.put("/v1/indexes/drawn/current", json={"version": version})
        assert answer.status_code == 200
        assert answer.json()["version"] == version
        assert index.live_version(kept_root / "drawn") == version
        assert kept_service.score(photo).json()["index"]["version"] == version


def test_what_an_admin_cannot_do(service: Served, root_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = index.versions(root_copy / "drawn")
    put, address = service.client.put, "/v1/indexes/drawn/current"
    check(put("/v1/indexes/eyes/current", json={"version": second}), 404, "unknown-index")
    check(put(address, json={"version": "20260101T000000Z-0000"}), 404, "unknown-version")
    for body in (b"", b"{", b"[]", b'{"version": 3}', b'{"version": "../../etc"}', b'{"version": "."}'):
        check(put(address, content=body), 422, "invalid-request")
    check(put(address, content=b" " * 5000), 413, "upload-too-large")

    def read_only(*arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(service.state.reloader, "write_current", read_only)
        check(put(address, json={"version": second}), 409, "read-only")
    index.add_tombstones(root_copy / "drawn", index.content_hashes(root_copy / "drawn" / second))
    assert "purged" in check(put(address, json={"version": second}), 409, "index-invalid")
    damage(root_copy / "drawn" / second)
    assert "changed" in check(put(address, json={"version": second}), 409, "index-invalid")
    assert index.live_version(root_copy / "drawn") == first
    assert entry(service)["version"] == first
