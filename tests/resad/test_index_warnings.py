"""What makes the verdicts of an index doubtful: said in every result, of every program that gives one."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from resad_client import Client
from resad_client.records import from_value

from resad.calibration import Calibration, TrainedOn, calibrate
from resad.engine import Engine
from resad.index import MANIFEST, live_version
from resad.index_warnings import index_warnings
from resad.loaded_index import load_index
from resad.manifest import Manifest, read_manifest, write_manifest
from tests.conftest import Run
from tests.service.running import served


@pytest.fixture(scope="module")
def manifest(small_index: Path) -> Manifest:
    return replace(read_manifest(small_index / str(live_version(small_index)) / MANIFEST), calibrated="measured")


def calibration(*scores: float, trained_on: TrainedOn | None = None) -> Calibration:
    ids = [f"n-{number}" for number in range(len(scores))]
    distances = np.array(scores, dtype=np.float32)
    return calibrate(scores, scores, distances, ids=ids, trained_on=trained_on)


HEALTHY = [1.0 + 0.01 * number for number in range(22)]


def codes(manifest: Manifest) -> list[str]:
    return [warning.code for warning in index_warnings(manifest)]


def test_a_sound_index_has_no_warnings(manifest: Manifest) -> None:
    for trained_on in (None, TrainedOn(0, "none"), TrainedOn(9, "others")):
        assert codes(replace(manifest, calibration=calibration(*HEALTHY, trained_on=trained_on))) == []
    assert codes(replace(manifest, calibration=calibration(*HEALTHY), calibrated="bound")) == []


def test_two_photographs_that_are_not_normal_are_named_with_both_thresholds(manifest: Manifest) -> None:
    (warning,) = index_warnings(replace(manifest, calibration=calibration(*HEALTHY, 1.7, 1.9)))
    assert warning.code == "outliers"
    assert "2 of the 24 normals move the 5% threshold" in warning.text
    assert "from 1.210 to 1.900" in warning.text
    # One of them alone is enough, and photographs that are a little higher are not.
    assert codes(replace(manifest, calibration=calibration(*HEALTHY, 1.9))) == ["outliers"]
    assert codes(replace(manifest, calibration=calibration(*HEALTHY, 1.3, 1.4))) == []


def test_all_warnings_are_given_the_most_serious_first(manifest: Manifest) -> None:
    corrected = calibration(*HEALTHY, 1.9, trained_on=TrainedOn(8, "corrected", 1.3))
    warnings = index_warnings(replace(manifest, calibration=corrected, calibrated="stale"))
    assert [warning.code for warning in warnings] == ["stale", "outliers", "corrected"]
    assert "a factor of 1.3" in warnings[2].text
    uncorrected = calibration(*HEALTHY, trained_on=TrainedOn(8, "corrected", 1.0))
    assert codes(replace(manifest, calibration=uncorrected)) == ["uncorrected"]


def test_normals_of_a_camera_are_looked_at_by_themselves(manifest: Manifest) -> None:
    """Two photographs that do not matter among 120 normals do among the 22 of their camera."""
    scores = [1.0 + 0.001 * number for number in range(98)] + HEALTHY[:20] + [1.7, 1.9]
    cameras = ["Big"] * 98 + ["Small"] * 22
    ids = [f"n-{number}" for number in range(len(scores))]
    mixed = calibrate(scores, scores, np.array(scores, dtype=np.float32), cameras=cameras, ids=ids)
    index = replace(manifest, calibration=mixed)
    assert index_warnings(index) == index_warnings(index, "Big") == ()
    (warning,) = index_warnings(index, "Small")
    assert warning.text.startswith("2 of the 22 normals of this camera move the 5% threshold")


@pytest.fixture(scope="module")
def stale_root(small_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the small index as it is after photographs have left."""
    root = tmp_path_factory.mktemp("stale")
    shutil.copytree(small_index, root / small_index.name, symlinks=True)
    path = root / small_index.name / str(live_version(small_index)) / MANIFEST
    write_manifest(replace(read_manifest(path), calibrated="stale"), path)
    return root


def test_every_program_says_so_beside_its_results(
    stale_root: Path, small_index: Path, drawn: Path, tmp_path: Path, run: Run
) -> None:
    index, photo = stale_root / small_index.name, min(drawn.glob("test/lesion/*.jpg"))
    loaded = load_index(index, torch.device("cpu"))
    warnings = Engine(loaded).score(photo).result.index.warnings
    assert "stale" in [warning.code for warning in warnings]
    assert Engine(loaded).score(photo).result.normals.source == "left-out"
    scored = run("score", index, photo, "--out", tmp_path, "--csv", tmp_path / "all.csv", "--device", "cpu")
    assert scored.code == 0
    assert f"! index {small_index.name}: {warnings[0].text}\n" in scored.out
    (answer,) = tmp_path.glob("*.json")
    assert json.loads(answer.read_text())["index"]["warnings"][0]["code"] == "stale"
    with (tmp_path / "all.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["index_warnings"].split(";")[0] == "stale"
    with served(stale_root) as service, Client(service.url) as client:
        assert client.score(photo).index.warnings == warnings
        assert client.indexes()[0].warnings == warnings
        detail = service.client.get(f"/v1/indexes/{small_index.name}").json()
    assert [from_value(type(warnings[0]), item) for item in detail["warnings"]] == list(warnings)
