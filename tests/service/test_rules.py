"""What a caller may ask of the verdict: a threshold, a camera, binding quality."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from indexer.build.progress import Stages
from indexer.calibration.calibrate import recalibrate
from lab.drawing import write_dataset
from resad import index
from resad.calibration import rate_at
from resad.config import PhotoLimits
from resad.loaded_index import LoadedIndex, load_index
from tests.service.conftest import encoded
from tests.service.running import Served, served
from tests.service.test_problems import check


@pytest.fixture(scope="module")
def calibrated(small_index: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedIndex:
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
def running(calibrated: LoadedIndex, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = next(tmp_path_factory.getbasetemp().glob("calibrated*/root"))
    with served(root) as service:
        yield service


def test_a_camera_is_compared_with_its_own_normals(running: Served, calibrated: LoadedIndex, photo: bytes) -> None:
    answer = running.score(photo, fpr=0.1, camera="topcon").json()
    own = next(one.normals for one in calibrated.manifest.calibration.cameras if one.camera == "Topcon")
    assert answer["normals"]["camera"] == "Topcon"
    assert answer["normals"]["photos"] == 10
    assert answer["threshold"] == own.thresholds[2].value
    assert answer["p_value"] == own.p_value(answer["image_score"])
    assert answer["normals"]["rate"]["low"] <= 0.1 <= answer["normals"]["rate"]["high"]


@pytest.mark.parametrize(("camera", "why"), [("Canon", "there are 5"), ("Kowa", "of this camera; compared")])
def test_a_camera_without_enough_normals_gets_all_and_the_reason(
    running: Served, calibrated: LoadedIndex, photo: bytes, camera: str, why: str
) -> None:
    answer = running.score(photo, fpr=0.1, camera=camera).json()
    assert answer["normals"]["camera"] is None
    assert answer["normals"]["photos"] == 15
    assert why in answer["normals"]["reason"]
    assert answer["p_value"] == calibrated.manifest.calibration.p_value(answer["image_score"])


def test_a_threshold_decides_in_place_of_a_rate(running: Served, calibrated: LoadedIndex, photo: bytes) -> None:
    score = running.score(photo, fpr=0.1).json()["image_score"]
    above, below = (running.score(photo, threshold=score * factor).json() for factor in (0.99, 1.01))
    assert (above["abnormal"], below["abnormal"]) == (True, False)
    assert above["threshold"] == score * 0.99
    assert above["fpr"] == rate_at(calibrated.manifest.calibration.scores, score * 0.99).fpr


def test_rate_and_threshold_at_once_are_a_problem(running: Served, photo: bytes) -> None:
    for call in ("/v1/score", "/v1/anomaly-map"):
        answer = running.client.post(
            call, content=photo, headers={"Content-Type": "image/jpeg", "Accept": "*/*"},
            params={"fpr": 0.1, "threshold": 2},
        )  # fmt: skip
        assert "exclude each other" in check(answer, 422, "invalid-request")
    check(running.score(photo, threshold=0), 422, "invalid-request")
    check(running.score(photo, threshold="inf"), 422, "invalid-request")


def test_poor_quality_is_told_and_where_it_binds_refused(running: Served, photo: bytes) -> None:
    blank = encoded((200, 160))
    told = running.score(blank)
    assert told.status_code == 200
    reasons = told.json()["quality"]["reasons"]
    assert "no-field-of-view" in reasons
    detail = check(running.score(blank, quality="require"), 422, "photo-quality")
    assert all(reason in detail for reason in reasons)
    good = running.score(photo, quality="require").json()
    assert good["quality"]["acceptable"]
    parts = [("photo", ("a", blank, "image/png")), ("photo", ("b", photo, "image/jpeg"))]
    both = running.client.post("/v1/score", files=parts, params={"quality": "require"}).json()["results"]
    assert both[0]["type"] == "urn:resad:problem:photo-quality"
    assert "image_score" in both[1]
