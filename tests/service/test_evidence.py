"""Crops of evidence over HTTP: those of the index, byte for byte, and nothing else from the disk."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from resad_client import Client, NotFound

from resad.manifest import Manifest, read_manifest
from resad.pictures.evidence import crop_around, jpeg, read_square
from tests.indexes import build_small
from tests.service.running import Served, served


@pytest.fixture(scope="module")
def version(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small(drawn / "train/good", tmp_path_factory.mktemp("kept"), keep_crops=True).version


@pytest.fixture(scope="module")
def manifest(version: Path) -> Manifest:
    return read_manifest(version / "manifest.json")


@pytest.fixture(scope="module")
def crop_service(version: Path) -> Iterator[Served]:
    with served(version.parent.parent) as service:
        yield service


def test_a_results_evidence_can_be_looked_at(
    crop_service: Served, photo: bytes, version: Path, manifest: Manifest
) -> None:
    with Client(crop_service.url) as client:
        result = client.score(photo, fpr=0.9, false_regions=2, evidence=2, eye="left")
        assert result.findings[0].place is not None
        assert "photo" not in result.findings[0].place
        neighbor = result.findings[0].evidence[1]
        picture = client.evidence_crop(result.index, neighbor)
    square = read_square(version, manifest, neighbor.photo)
    assert square is not None
    assert picture == jpeg(crop_around(square, (neighbor.y, neighbor.x), manifest.counts.grid))
    record = crop_service.score(photo, fpr=0.9, false_regions=2, evidence=2, eye="left").json()["findings"][0][
        "evidence"
    ][1]
    assert record == dataclasses.asdict(neighbor)
    answer = crop_service.client.get(f"/v1/indexes/drawn/evidence/{neighbor.photo}/{neighbor.y}/{neighbor.x}")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", picture)
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        ("eyes/evidence/r-00001/0/0", 404, "unknown-index"),
        ("drawn/evidence/r-00009/0/0", 404, "no-evidence"),
        ("drawn/evidence/r-00001/16/0", 404, "no-evidence"),
        ("drawn/evidence/r-00001/0/16", 404, "no-evidence"),
        ("drawn/evidence/r-00001/0/0?version=20200101T000000Z-0000", 404, "no-evidence"),
        ("drawn/evidence/..%2Fmanifest.json/0/0", 404, "not-found"),
        ("drawn/evidence/..%5Cprobe/0/0", 404, "no-evidence"),
        ("drawn/evidence/r-00001/-1/0", 422, "invalid-request"),
        ("drawn/evidence/r-00001/one/0", 422, "invalid-request"),
    ],
)
def test_everything_else_is_a_problem(crop_service: Served, path: str, status: int, slug: str) -> None:
    answer = crop_service.client.get(f"/v1/indexes/{path}")
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:resad:problem:{slug}")


def test_an_index_without_pictures_says_so(running: Served, photo: bytes) -> None:
    with Client(running.url, retries=0) as client:
        result = client.score(photo, fpr=0.9, false_regions=2)
        with pytest.raises(NotFound, match="keeps no pictures"):
            client.evidence_crop(result.index, result.findings[0].evidence[0])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "eyes.example"},
        {"X-Forwarded-For": "192.0.2.7"},
        {"X-Forwarded-Host": "eyes.example"},
        {"Forwarded": "for=192.0.2.7"},
        {"Via": "1.1 edge"},
    ],
)
def test_without_a_key_no_crop_leaves_this_machine(version: Path, headers: dict[str, str]) -> None:
    """A page whose name resolves to this machine, and a proxy on it, get none, though the host is allowed."""
    with served(version.parent.parent, allowed_hosts="*") as service:
        path = "/v1/indexes/drawn/evidence/r-00001/0/0"
        assert service.client.get(path).status_code == 200
        answer = service.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:resad:problem:call-off")
        assert service.client.get("/v1/indexes", headers=headers).status_code == 200
