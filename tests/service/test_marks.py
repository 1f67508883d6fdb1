"""Readers' marks over HTTP: who may mark, what is kept, and that nothing is lost."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from resad_client import Client, NewMark, NotFound

from indexer.lifecycle.teach import TeachOptions, teach
from resad.marks import MARKS, read_entries
from tests.service.running import Served, key_for, served, until

SQUARE = [[60, 60], [100, 60], [100, 100], [60, 100]]


@pytest.fixture
def own_root(small_index: Path, tmp_path: Path) -> Path:
    """A root that a test may change."""
    shutil.copytree(small_index, tmp_path / "root/drawn")
    return tmp_path / "root"


@pytest.fixture
def service(own_root: Path) -> Iterator[Served]:
    with served(own_root) as service:
        yield service


def parts(photo: bytes, marks: Any) -> dict[str, tuple[str, bytes, str]]:
    text = json.dumps(marks).encode()
    return {"photo": ("a", photo, "image/jpeg"), "marks": ("b", text, "application/json")}


def post(service: Served, photo: bytes, marks: Any) -> Any:
    return service.client.post("/v1/marks", files=parts(photo, marks))


def test_marks_are_kept_listed_and_taken_back(service: Served, own_root: Path, photo: bytes) -> None:
    answer = post(service, photo, {"marks": [{"label": "drusen", "contour": SQUARE}], "reader": "Ada"})
    assert answer.status_code == 201, answer.text
    marked = answer.json()
    assert marked["reader"] == "without a key, Ada"
    assert marked["marks"][0]["patches"] > 0
    listing = service.client.get("/v1/marks").json()
    assert listing["photos"] == [marked]
    assert listing["labels"][:2] == ["normal-variant", "artifact"]
    name = marked["marks"][0]["id"]
    assert service.client.delete(f"/v1/marks/{name}").status_code == 204
    assert service.client.get("/v1/marks").json()["photos"] == []
    assert service.client.delete(f"/v1/marks/{name}").status_code == 404
    # Nothing of the photograph but what the marks need: the index keeps no pictures.
    kept = {path.name for path in (own_root / "drawn" / MARKS).rglob("*") if path.is_file()}
    assert kept == {"marks.json", "features.npz"}
    until(lambda: service.state.admission.held_bytes == 0 and service.state.admission.queued == 0)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"marks": []}, "at least 1"),
        ({"marks": [{"label": "Hard Exudate", "contour": SQUARE}]}, "label"),
        ({"marks": [{"label": "drusen", "contour": SQUARE[:2]}]}, "at least 3"),
        ({"marks": [{"label": "drusen", "contour": [[9000, 1], [9001, 1], [9001, 2]]}]}, "lies outside"),
        ({"marks": [{"label": "drusen", "contour": SQUARE}], "reader": "a\nb"}, "reader"),
        ("nonsense", "marks"),
    ],
)
def test_what_cannot_be_marked_is_refused(
    service: Served, own_root: Path, photo: bytes, marks: Any, words: str
) -> None:
    answer = post(service, photo, marks)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert not read_entries(own_root / "drawn")


def test_parts_that_are_missing_or_foreign_are_refused(service: Served, photo: bytes) -> None:
    post_parts = service.client.post
    assert post_parts("/v1/marks", files={"photo": ("a", photo, "image/jpeg")}).status_code == 400
    both = list(parts(photo, {"marks": [{"label": "drusen", "contour": SQUARE}]}).items())
    marks = both[1][1]
    assert post_parts("/v1/marks", files={"marks": marks}).status_code == 400
    assert post_parts("/v1/marks", content=photo, headers={"Content-Type": "image/jpeg"}).status_code == 415
    assert post_parts("/v1/marks", files=[*both, ("marks", marks)]).status_code == 400
    # A score takes no marks.
    assert post_parts("/v1/score", files=both).status_code == 422


def test_a_key_needs_the_scope(own_root: Path, photo: bytes, tmp_path: Path) -> None:
    scoring = key_for(tmp_path / "keys", "score", "evidence")
    with served(own_root, headers=scoring, keys_file=tmp_path / "keys") as service:
        assert post(service, photo, {"marks": [{"label": "drusen", "contour": SQUARE}]}).status_code == 403
        assert service.client.get("/v1/marks").status_code == 403
    teaching = key_for(tmp_path / "keys", "teach", name="ward-7")
    with served(own_root, ready=False, headers=teaching, keys_file=tmp_path / "keys") as service:
        until(lambda: service.client.get("/readyz").status_code == 200)
        marked = post(service, photo, {"marks": [{"label": "drusen", "contour": SQUARE}]}).json()
        assert marked["reader"] == "ward-7"


def test_many_readers_at_once_lose_nothing_and_the_taught_version_is_followed(
    service: Served, own_root: Path, photo: bytes
) -> None:
    """While photographs are scored."""
    with ThreadPoolExecutor(8) as threads, Client(service.url) as client:
        scores = [threads.submit(client.score, photo, fpr=0.9, false_regions=2.0) for _ in range(4)]
        contours = [[(60 + n, 60), (100 + n, 60), (100 + n, 100)] for n in range(12)]
        marks = [
            threads.submit(client.mark, photo, [NewMark("drusen", contour)], reader=f"reader {n}")
            for n, contour in enumerate(contours)
        ]
        names = {entry.result(60).marks[0].id for entry in marks}
        results = [entry.result(60) for entry in scores]
        assert len(names) == 12
        assert {mark.id for entry in client.marks().photos for mark in entry.marks} == names
        assert all(finding.resembles is None for result in results for finding in result.findings)
        client.withdraw_mark(min(names))
        with pytest.raises(NotFound):
            client.withdraw_mark(min(names))
        report = teach(TeachOptions(own_root / "drawn", torch.device("cpu")))
        version = report.derived.after.version
        until(lambda: client.indexes()[0].version == version)
        taught = client.score(photo, fpr=0.9, false_regions=2.0)
        assert taught.image_score == results[0].image_score
        assert {finding.resembles.kind for finding in taught.findings if finding.resembles} == {"drusen"}
        assert len(taught.findings) == len(results[0].findings) > 0
