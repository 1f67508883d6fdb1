"""Which index answers: CURRENT is followed, a broken version changes nothing, and admins can move it."""

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
def own(two_versions: Path, tmp_path: Path) -> Path:
    """A copy whose first version is live."""
    shutil.copytree(two_versions, tmp_path / "root")
    index.activate(tmp_path / "root/drawn", index.versions(tmp_path / "root/drawn")[0])
    return tmp_path / "root"


@pytest.fixture
def service(own: Path) -> Iterator[Served]:
    admin = key_for(own.parent / "keys", "score", "admin")
    with served(own, keys_file=own.parent / "keys", headers=admin) as service:
        yield service


def entry(service: Served) -> dict[str, str | None]:
    document: dict[str, str | None] = service.client.get("/v1/indexes/drawn").json()
    return document


def served_for_a_while(service: Served, photo: bytes) -> None:
    """For several looks at CURRENT."""
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        answer = service.score(photo)
        assert (answer.status_code, entry(service)["fault"]) == (200, None)


def damage(version: Path) -> None:
    bank = version / "memory_bank.faiss"
    bank.write_bytes(bank.read_bytes()[:-1] + b"x")


def test_what_is_served_is_said(service: Served, own: Path) -> None:
    first, second = index.versions(own / "drawn")
    (summary,) = service.client.get("/v1/indexes").json()["indexes"]
    assert (summary["name"], summary["default"], summary["state"]) == ("drawn", True, "serving")
    detail = service.client.get("/v1/indexes/drawn").json()
    assert (detail["version"], detail["versions"], detail["fault"]) == (first, [first, second], None)
    assert detail["manifest"]["version"] == first
    assert len(detail["manifest"]["calibration"]["scores"]) == detail["photos"] == 8
    assert f'version="{first}"' in service.client.get("/metrics").text


def test_a_new_current_is_followed_under_load_and_no_answer_is_mixed(
    service: Served, own: Path, photo: bytes
) -> None:
    first, second = index.versions(own / "drawn")
    answers: set[tuple[str, str, float]] = set()
    statuses: set[int] = set()
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answer = service.score(photo)
            statuses.add(answer.status_code)
            document = answer.json()
            reference = document["index"]
            answers.add((reference["version"], reference["fingerprint"], round(document["image_score"], 4)))

    callers = [threading.Thread(target=keep_asking) for _ in range(3)]
    for caller in callers:
        caller.start()
    for version in (second, first, second):
        index.activate(own / "drawn", version)
        until(lambda version=version: entry(service)["version"] == version)  # type: ignore[misc]
    stop.set()
    for caller in callers:
        caller.join(10)
    assert statuses == {200}
    assert {version for version, _, _ in answers} == {first, second}
    assert len(answers) == 2


def test_a_broken_version_leaves_the_old_one_serving(service: Served, own: Path, photo: bytes) -> None:
    first, second = index.versions(own / "drawn")
    damage(own / "drawn" / second)
    index.activate(own / "drawn", second)
    until(lambda: entry(service)["fault"] is not None)
    found = entry(service)
    assert (found["version"], found["state"]) == (first, "serving")
    assert found["fault"] is not None
    assert "memory_bank.faiss was changed" in found["fault"]
    assert str(own) not in found["fault"]
    assert service.score(photo).json()["index"]["version"] == first
    assert service.client.get("/readyz").status_code == 200
    assert service.metric('resad_index_fault{index="drawn"}') == 1
    index.activate(own / "drawn", first)
    until(lambda: entry(service)["fault"] is None)


@pytest.mark.parametrize("content", ["../../etc", "", "20260101T000000Z-0000", "\0\xff"])
def test_a_senseless_current_changes_nothing(service: Served, own: Path, photo: bytes, content: str) -> None:
    (own / "drawn/CURRENT").write_text(content)
    until(lambda: entry(service)["fault"] is not None)
    assert service.score(photo).status_code == 200


def test_a_version_whose_probe_scores_otherwise_is_broken(service: Served, own: Path) -> None:
    """Every hash fits, but this machine measures something else."""
    first, second = index.versions(own / "drawn")
    manifest = own / "drawn" / second / "manifest.json"
    text = manifest.read_text()
    start = text.index('"probe_score": ') + len('"probe_score": ')
    manifest.write_text(text[:start] + "9" + text[start:])
    index.activate(own / "drawn", second)
    until(lambda: "probe" in (entry(service)["fault"] or ""))
    assert entry(service)["version"] == first


def test_a_broken_index_at_the_start_is_not_ready_and_the_others_answer(own: Path, photo: bytes) -> None:
    shutil.copytree(own / "drawn", own / "other")
    damage(index.resolve(own / "other"))
    with served(own, ready=False) as service:
        until(lambda: service.client.get("/v1/indexes").json()["indexes"][-1:] != [])
        until(lambda: "other: " in service.client.get("/readyz").json()["detail"])
        assert "changed" in check(service.client.get("/readyz"), 503, "not-ready")
        check(service.score(photo, index="other"), 503, "not-ready")
        assert service.score(photo, index="drawn").status_code == 200
        assert "drawn, other" in check(service.score(photo), 422, "index-not-named")
        states = {one["name"]: one["state"] for one in service.client.get("/v1/indexes").json()["indexes"]}
        assert states == {"drawn": "serving", "other": "failed"}


def test_a_default_answers_where_there_are_several(own: Path, photo: bytes) -> None:
    shutil.copytree(own / "drawn", own / "other")
    with served(own, index="other") as service:
        assert service.score(photo).status_code == 200
        defaults = {one["name"]: one["default"] for one in service.client.get("/v1/indexes").json()["indexes"]}
        assert defaults == {"drawn": False, "other": True}


def test_an_index_that_comes_later_is_found(own: Path, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty", ready=False) as service:
        until(lambda: "no index" in service.client.get("/readyz").json()["detail"])
        check(service.score(photo), 503, "not-ready")
        shutil.copytree(own / "drawn", tmp_path / "empty/drawn", ignore=shutil.ignore_patterns("CURRENT"))
        index.activate(tmp_path / "empty/drawn", index.versions(own / "drawn")[0])
        until(lambda: service.client.get("/readyz").status_code == 200)
        assert service.score(photo).status_code == 200


def test_a_folder_that_cannot_be_read_is_passed_over_and_told_once(
    own: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """As `lost+found` cannot.  It sorts before the index."""
    (own / "0-lost+found").mkdir()
    (own / "0-lost+found/CURRENT").symlink_to(UNREADABLE)
    with served(own) as service:
        assert service.score(photo).status_code == 200
        second = index.versions(own / "drawn")[1]
        index.activate(own / "drawn", second)
        until(lambda: entry(service)["version"] == second)
        assert service.client.get("/readyz").status_code == 200
        assert [one["name"] for one in service.client.get("/v1/indexes").json()["indexes"]] == ["drawn"]
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    assert [line for line in told if "lost+found" in line] == told
    assert len(told) == 1


def test_an_index_whose_current_cannot_be_read_for_a_while_goes_on(
    service: Served, own: Path, photo: bytes
) -> None:
    pointer = own / "drawn/CURRENT"
    (own / "drawn/kept").hardlink_to(pointer)
    (own / "drawn/link").symlink_to(UNREADABLE)
    (own / "drawn/link").rename(pointer)
    served_for_a_while(service, photo)
    (own / "drawn/kept").rename(pointer)
    served_for_a_while(service, photo)


def test_an_index_that_is_taken_away_is_served_no_more(own: Path, photo: bytes) -> None:
    shutil.copytree(own / "drawn", own / "bad")
    (own / "bad/CURRENT").write_text("../../etc")
    with served(own, ready=False) as service:
        until(lambda: "bad: " in service.client.get("/readyz").json()["detail"])
        (own / "bad/CURRENT").unlink()
        until(lambda: service.client.get("/readyz").status_code == 200)
        check(service.client.get("/v1/indexes/bad"), 404, "unknown-index")
        assert 'index="bad"' not in service.client.get("/metrics").text
        with ThreadPoolExecutor(1) as caller, service.busy():
            waiting = caller.submit(service.score, photo)
            until(lambda: service.state.worker.waiting == 1)
            (own / "drawn").rename(own.parent / "aside")
            until(lambda: service.client.get("/v1/indexes").json()["indexes"] == [])
            assert "no index" in check(service.client.get("/readyz"), 503, "not-ready")
            check(service.score(photo, index="drawn"), 404, "unknown-index")
        assert waiting.result().status_code == 200
        (own.parent / "aside").rename(own / "drawn")
        until(lambda: service.client.get("/readyz").status_code == 200)
        assert service.score(photo).status_code == 200


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
@pytest.mark.parametrize("place", ["load_index", "check_probe"])
def test_a_version_that_memory_has_no_room_for_leaves_the_old_one_serving(
    service: Served, own: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def full(*arguments: object) -> None:
        raise error

    first, second = index.versions(own / "drawn")
    monkeypatch.setattr(service.state.loader, place, full)
    answer = service.client.put("/v1/indexes/drawn/current", json={"version": second})
    assert "memory" in check(answer, 507, "index-too-large")
    assert index.live_version(own / "drawn") == first
    assert (entry(service)["version"], entry(service)["fault"]) == (first, None)
    assert service.score(photo).json()["index"]["version"] == first
    index.activate(
        own / "drawn", second
    )  # as `resad-indexer activate` does it, which has another machine's memory
    until(lambda: "memory" in (entry(service)["fault"] or ""))
    assert service.score(photo).json()["index"]["version"] == first


def test_an_admin_moves_an_index_and_back(service: Served, own: Path, photo: bytes) -> None:
    for version in reversed(index.versions(own / "drawn")):
        answer = service.client.put("/v1/indexes/drawn/current", json={"version": version})
        assert answer.status_code == 200
        assert answer.json()["version"] == version
        assert index.live_version(own / "drawn") == version
        assert service.score(photo).json()["index"]["version"] == version


def test_what_an_admin_cannot_do(service: Served, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = index.versions(own / "drawn")
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
    index.add_tombstones(own / "drawn", index.content_hashes(own / "drawn" / second))
    assert "purged" in check(put(address, json={"version": second}), 409, "index-invalid")
    damage(own / "drawn" / second)
    assert "changed" in check(put(address, json={"version": second}), 409, "index-invalid")
    assert index.live_version(own / "drawn") == first
    assert entry(service)["version"] == first
