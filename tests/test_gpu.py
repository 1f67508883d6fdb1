"""The whole path on a GPU beside the CPU's; every test runs on the CPU, too, so that it is known to be able to.

What single parts do on a GPU is tested where they are tested otherwise.
"""

from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.build.forecast import host_resources
from indexer.coreset.k_center import LocalShards, Shard, greedy_k_center
from indexer.coreset.projected_features import MemoryPoints
from resad import runtime
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.loaded_index import LoadedIndex, check_probe, load_index
from resad.preparation import prepare
from resad.search.plan import SearchPlan
from tests.indexes import SETTINGS, build_small
from tests.service.running import served

CPU = torch.device("cpu")
DEVICES = ("cpu", pytest.param("cuda:0", marks=pytest.mark.gpu))
BOUNDS = {"exact": 1e-3, "half": 2e-2}
"""Between device kinds, relative: what the README says, and `verify` asks for."""


@pytest.fixture(autouse=True)
def tf32_off() -> None:
    runtime.configure("exact")


def detections(loaded: LoadedIndex, drawn: Path) -> list[Detection]:
    config = loaded.manifest.config.preparation
    photos = [prepare(path, config, PhotoLimits()) for path in sorted(drawn.glob("test/*/*.jpg"))]
    return loaded.detector.detect(photos)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["exact", "half"])
def test_an_index_built_on_the_cpu_scores_alike_on_a_device(
    drawn: Path, tmp_path: Path, device: str, precision: str
) -> None:
    build_small(drawn / "train/good", tmp_path, settings=(*SETTINGS, f"precision={precision}"))
    bound = BOUNDS[precision]
    on_device, on_cpu = (load_index(tmp_path / "drawn", target) for target in (torch.device(device), CPU))
    assert check_probe(on_device, tmp_path / "drawn") <= bound
    for detection, expected in zip(detections(on_device, drawn), detections(on_cpu, drawn), strict=True):
        assert detection.image_score == pytest.approx(expected.image_score, rel=bound)
        np.testing.assert_allclose(detection.anomaly_map, expected.anomaly_map, atol=2 * bound * expected.peak)


@pytest.mark.parametrize("device", DEVICES)
def test_an_index_built_on_a_device_is_as_good_and_loads_on_the_cpu(
    drawn: Path, small_index: Path, tmp_path: Path, device: str
) -> None:
    """Near-ties may fall the other way in the greedy; the cover may not be worse for it."""
    manifest = build_small(drawn / "train/good", tmp_path, device=device).manifest
    cpu_manifest = load_index(small_index, CPU).manifest
    assert manifest.quality.covering_radius == pytest.approx(cpu_manifest.quality.covering_radius, rel=0.02)
    np.testing.assert_allclose(manifest.calibration.scores, cpu_manifest.calibration.scores, rtol=0.02)
    assert check_probe(load_index(tmp_path / "drawn", CPU), tmp_path / "drawn") <= BOUNDS["exact"]


@pytest.mark.parametrize("device", DEVICES)
def test_the_service_on_a_device_scores_as_the_loaded_index(small_index: Path, drawn: Path, device: str) -> None:
    """Alone and in batches of what waits."""
    loaded = load_index(small_index, torch.device(device))
    expected = [detection.image_score for detection in detections(loaded, drawn)]
    photos = [path.read_bytes() for path in sorted(drawn.glob("test/*/*.jpg"))]
    with served(small_index.parent, device=device) as service:
        single_scores = [service.score(photo).json()["image_score"] for photo in photos]
        parts = [("photo", (f"{number}.jpg", photo, "image/jpeg")) for number, photo in enumerate(photos)]
        batch_results = service.client.post("/v1/score", files=parts).json()["results"]
        if device != "cpu":
            assert service.metric("resad_gpu_memory_bytes") > 0
    for scores in (single_scores, [result["image_score"] for result in batch_results]):
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_gpu_memory_is_measured_where_there_is_a_gpu(tmp_path: Path, device: str) -> None:
    resources = host_resources(tmp_path, torch.device(device), None)
    assert (resources.gpu > 0) == (device != "cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_several_devices_pick_what_one_device_picks(device: str) -> None:
    """Every GPU that is there, or the CPU twice."""
    count = torch.cuda.device_count() if device != "cpu" else 2
    devices = [torch.device("cuda", number) if device != "cpu" else CPU for number in range(count)]
    points = torch.randn(6 * 8192, 16, generator=torch.Generator().manual_seed(5))

    def picks(targets: list[torch.device]) -> list[int]:
        parts = [
            points[start : start + 8192].to(targets[start // 8192 % len(targets)])
            for start in range(0, 49152, 8192)
        ]
        shards = LocalShards([Shard(MemoryPoints(part), 8192 * number) for number, part in enumerate(parts)])
        rows: list[int] = greedy_k_center(shards, 3, count=500).rows.tolist()
        return rows

    assert picks(devices) == picks(devices[:1])


@pytest.mark.parametrize("device", DEVICES)
def test_the_proved_search_scores_as_the_flat_one_on_a_device(small_index: Path, drawn: Path, device: str) -> None:
    loaded = load_index(small_index, torch.device(device))
    detector = copy(loaded.detector)
    detector.bank = detector.bank.with_plan(SearchPlan("proved", width=64))
    proved_index = replace(loaded, detector=detector)
    for detection, expected in zip(detections(proved_index, drawn), detections(loaded, drawn), strict=True):
        assert detection.image_score == pytest.approx(expected.image_score, rel=1e-5)
        np.testing.assert_allclose(detection.anomaly_map, expected.anomaly_map, atol=1e-5 * expected.peak)
