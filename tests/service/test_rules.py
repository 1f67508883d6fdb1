"""What a caller may ask of the verdict and the findings: a threshold, a camera, a rate of findings, quality."""

import asyncio
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from resad_client import AsyncClient, Client, PhotoRefused
from resad_client.records import Result
from rich.console import Console

from indexer.build.progress import Stages
from indexer.calibration.calibrate import recalibrate
from lab.drawing import write_dataset
from resad import index
from resad.calibration import DecisionRule, rate_at
from resad.config import PhotoLimits
from resad.engine import Engine, ScoreOptions
from resad.loaded_index import LoadedIndex, load_index
from tests.service.conftest import encoded
from tests.service.running import Served, served, until
from tests.service.test_problems import check


@pytest.fixture(scope="module")
def calibrated_index(small_index: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedIndex:
    """The small index calibrated on 15 other normals, ten of one camera."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copytree(small_index, folder / "root/drawn")
    write_dataset(folder / "others", 9, train=15, good=0, diseased=0, height=128)
    with (folder / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "camera"])
        for number, path in enumerate(sorted((folder / "others/train/good").iterdir())):
            rows.writerow([path.relative_to(folder), "Topcon" if number < 10 else "Canon"])
    place = index.resolve(folder / "root/drawn")
    loaded = load_index(place, torch.device("cpu"))
    stages = Stages(Console(quiet=True))
    report = recalibrate(place, loaded, folder / "photos.csv", PhotoLimits(), stages, live=True, strict=True)
    return load_index(report.version, torch.device("cpu"))


@pytest.fixture(scope="module")
def running(calibrated_index: LoadedIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = next(tmp_path_factory.getbasetemp().glob("calibrated*/root"))
    with served(root) as service:
        yield service


def test_a_camera_is_compared_with_its_own_normals(
    running: Served, calibrated_index: LoadedIndex, photo: bytes
) -> None:
    answer = running.score(photo, fpr=0.1, camera="topcon").json()
    normals = next(
        entry.normals for entry in calibrated_index.manifest.calibration.cameras if entry.camera == "Topcon"
    )
    assert answer["normals"]["camera"] == "Topcon"
    assert answer["normals"]["photos"] == 10
    assert answer["threshold"] == normals.thresholds[2].value
    assert answer["p_value"] == normals.p_value(answer["image_score"])
    assert answer["normals"]["rate"]["low"] <= 0.1 <= answer["normals"]["rate"]["high"]


@pytest.mark.parametrize(("camera", "why"), [("Canon", "there are 5"), ("Kowa", "of this camera; compared")])
def test_a_camera_without_enough_normals_gets_all_and_the_reason(
    running: Served, calibrated_index: LoadedIndex, photo: bytes, camera: str, why: str
) -> None:
    answer = running.score(photo, fpr=0.1, camera=camera).json()
    assert answer["normals"]["camera"] is None
    assert answer["normals"]["photos"] == 15
    assert why in answer["normals"]["reason"]
    assert answer["p_value"] == calibrated_index.manifest.calibration.p_value(answer["image_score"])


def test_a_threshold_decides_in_place_of_a_rate(
    running: Served, calibrated_index: LoadedIndex, photo: bytes
) -> None:
    score = running.score(photo, fpr=0.1).json()["image_score"]
    above, below = (running.score(photo, threshold=score * factor).json() for factor in (0.99, 1.01))
    assert (above["abnormal"], below["abnormal"]) == (True, False)
    assert above["threshold"] == score * 0.99
    assert above["fpr"] == rate_at(calibrated_index.manifest.calibration.scores, score * 0.99).fpr


def test_rate_and_threshold_at_once_are_a_problem(running: Served, photo: bytes) -> None:
    for call in ("/v1/score", "/v1/anomaly-map"):
        answer = running.client.post(
            call, content=photo, headers={"Content-Type": "image/jpeg", "Accept": "*/*"},
            params={"fpr": 0.1, "threshold": 2},
        )  # fmt: skip
        assert "exclude each other" in check(answer, 422, "invalid-request")
    check(running.score(photo, threshold=0), 422, "invalid-request")
    check(running.score(photo, threshold="inf"), 422, "invalid-request")


def test_a_rate_of_findings_chooses_their_level_in_answers_and_overlays(
    running: Served, calibrated_index: LoadedIndex, photo: bytes
) -> None:
    detail = running.client.get("/v1/indexes/drawn").json()
    levels = {entry["rate"]: entry["value"] for entry in detail["manifest"]["calibration"]["finding_levels"]}
    assert levels == {entry.rate: entry.value for entry in calibrated_index.manifest.calibration.finding_levels}
    answers = {rate: running.score(photo, false_regions=rate).json() for rate in levels}
    for rate, answer in answers.items():
        assert answer["normals"]["false_regions"] == rate
        assert answer["normals"]["finding_level"] == levels[rate]
        offline_result = score_with(calibrated_index, photo, rate)
        assert [finding["box"] for finding in answer["findings"]] == [
            list(finding.box) for finding in offline_result.findings
        ]
    highest = max(rate for rate, level in levels.items() if level is not None)
    assert len(answers[highest]["findings"]) > len(answers[0.25]["findings"])
    assert running.score(photo).json()["normals"]["false_regions"] == 0.25

    def overlay(**query: float) -> bytes:
        headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
        params: dict[str, str | float] = {"style": "overlay", **query}
        return running.client.post("/v1/anomaly-map", content=photo, headers=headers, params=params).content

    assert overlay(false_regions=highest) != overlay(false_regions=0.25) == overlay()
    camera = running.score(photo, fpr=0.1, camera="topcon", false_regions=1).json()["normals"]
    normals = next(
        entry.normals for entry in calibrated_index.manifest.calibration.cameras if entry.camera == "Topcon"
    )
    assert camera["finding_level"] == {entry.rate: entry.value for entry in normals.finding_levels}[1]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_the_clients_choose_the_rate_of_findings(
    running: Served, photo: bytes, client: type[Client] | type[AsyncClient]
) -> None:
    async def ask() -> tuple[Result, bytes]:
        async with AsyncClient(running.url) as service:
            return await service.score(photo, false_regions=1), await service.overlay(photo, false_regions=1)

    if client is AsyncClient:
        result, picture = asyncio.run(ask())
    else:
        with Client(running.url) as service:
            result, picture = service.score(photo, false_regions=1), service.overlay(photo, false_regions=1)
            assert picture != service.overlay(photo, false_regions=0.25)
            with pytest.raises(PhotoRefused, match=r"stated for 0\.25, 0\.5, 1, 2, 4, 8"):
                service.score(photo, false_regions=3)
    answer = running.score(photo, false_regions=1).json()
    assert result.normals.false_regions == answer["normals"]["false_regions"] == 1
    assert len(result.findings) == len(answer["findings"])
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["score", "watch"])
def test_the_command_chooses_the_rate_of_findings(
    running: Served, photo: bytes, tmp_path: Path, command: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/eye.jpg").write_bytes(photo)
    program = Path(sys.executable).with_name("resad-client")
    words: list[str | Path] = [program, command, tmp_path / "in", "--url", running.url, "--false-regions", "1"]
    if command == "score":
        process = subprocess.run([*words, "--json", tmp_path / "out"], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        refusal = subprocess.run(
            [*words[:-1], "3", "--json", tmp_path / "3"], capture_output=True, text=True, check=False
        )
        assert refusal.returncode == 2
        assert "levels are stated for 0.25, 0.5, 1, 2, 4, 8" in refusal.stderr
    else:
        watcher = subprocess.Popen([*words, "--out", tmp_path / "out", "--every", "0.1", "--settle", "0"])
        until(lambda: (tmp_path / "out/eye.json").exists(), 60)
        watcher.terminate()
        assert watcher.wait(30) == 0
    normals = json.loads((tmp_path / "out/eye.json").read_text())["normals"]
    assert normals == running.score(photo, false_regions=1).json()["normals"]


@pytest.mark.parametrize("rate", ["3", "0", "nan", "inf", "many"])
def test_a_rate_of_findings_that_is_not_stated_is_a_problem(running: Served, photo: bytes, rate: str) -> None:
    for call in ("/v1/score", "/v1/anomaly-map"):
        answer = running.client.post(
            call, content=photo, headers={"Content-Type": "image/jpeg", "Accept": "*/*"},
            params={"false_regions": rate},
        )  # fmt: skip
        detail = check(answer, 422, "invalid-request")
        assert "false_regions" in detail
        assert rate == "many" or "0.25, 0.5, 1, 2, 4, 8" in detail


def test_an_index_without_levels_by_rate_answers_and_refuses_a_rate(older_index: Path, photo: bytes) -> None:
    with served(older_index.parent) as service:
        assert service.score(photo).json()["normals"]["false_regions"] is None
        parts = [("photo", ("a", photo, "image/jpeg"))]
        refusals = (
            service.score(photo, false_regions=1),
            service.client.post("/v1/score", files=parts, params={"false_regions": 1}),
            service.client.post(
                "/v1/anomaly-map", content=photo, headers={"Content-Type": "image/jpeg"},
                params={"style": "overlay", "false_regions": 1},
            ),
        )  # fmt: skip
        for answer in refusals:
            assert "states levels for no rate: build it again" in check(answer, 422, "invalid-request")


def score_with(loaded: LoadedIndex, data: bytes, rate: float) -> Result:
    """As `resad-indexer score` does it."""
    return Engine(loaded).score(data, ScoreOptions(DecisionRule(false_regions=rate))).result


def test_poor_quality_is_told_and_where_it_binds_refused(running: Served, photo: bytes) -> None:
    blank = encoded((200, 160))
    answer = running.score(blank)
    assert answer.status_code == 200
    reasons = answer.json()["quality"]["reasons"]
    assert "no-field-of-view" in reasons
    detail = check(running.score(blank, quality="require"), 422, "photo-quality")
    assert all(reason in detail for reason in reasons)
    sharp_answer = running.score(photo, quality="require").json()
    assert sharp_answer["quality"]["acceptable"]
    parts = [("photo", ("a", blank, "image/png")), ("photo", ("b", photo, "image/jpeg"))]
    results = running.client.post("/v1/score", files=parts, params={"quality": "require"}).json()["results"]
    assert results[0]["type"] == "urn:resad:problem:photo-quality"
    assert "image_score" in results[1]
