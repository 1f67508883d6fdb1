"""A build over a cluster is the build of one machine, row for row, whatever becomes of its workers."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cluster.build import ClusterForecast, ClusterWorkers
from cluster.features import ClusterFeatures
from cluster.shards import RemoteShards
from cluster.worker_pool import Cluster, PoolOptions, WorkerSize
from indexer.build.build import BuildOptions, BuildReport, build
from indexer.build.forecast import AnyForecast
from indexer.build.progress import Advance, Stages
from indexer.coreset import projected_features
from indexer.coreset.selection import memory_count
from indexer.settings import method_config
from resad import index
from resad.config import MethodConfig, updated
from tests.conftest import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
CONFIG = method_config("resad", backbone="bundled", size=128, coreset="0.1")
BLOCK = 256
"""Points: so few that photographs lie across the borders of blocks, chunks and workers."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projected_features, "BLOCK_ROWS", BLOCK)


def build_options(photos: Path, root: Path, config: MethodConfig = CONFIG) -> BuildOptions:
    return BuildOptions(photos, root, "eyes", config, "bundled", CPU)


def quiet() -> Stages:
    return Stages(Console(quiet=True))


@pytest.fixture(scope="module")
def local_report(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    """Of one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projected_features, "BLOCK_ROWS", BLOCK)
        report = build(build_options(photo_folder, tmp_path_factory.mktemp("whole")), quiet())
    torch.set_num_threads(threads)
    return report


def assert_same_index(actual: BuildReport, expected: BuildReport) -> None:
    for name in ("memory_bank.faiss", "provenance.npz", "photos.jsonl"):
        assert (actual.version / name).read_bytes() == (expected.version / name).read_bytes(), name
    assert actual.manifest.calibration == expected.manifest.calibration
    assert actual.manifest.fingerprint == expected.manifest.fingerprint
    assert actual.manifest.quality.covering_radius == expected.manifest.quality.covering_radius
    assert actual.manifest.quality.projected_radius == expected.manifest.quality.projected_radius
    for name in ("skipped", "duplicates", "near_duplicates"):
        exclusions = repr(getattr(actual, name)).replace("RemotePath('file://", "PosixPath('")
        assert exclusions == repr(getattr(expected, name)), name


def workers(cluster: Cluster, scratch: Path) -> PoolOptions:
    return PoolOptions(cluster, WorkerSize(cpus=1, gpus=0), scratch=scratch)


class StagesWithEvents(Stages):
    """Something happens once, in one of the stages, after so many units."""

    def __init__(self, events: dict[str, tuple[int, Callable[[], None]]]) -> None:
        super().__init__(Console(quiet=True))
        self._events = events
        self.advances: dict[str, list[int]] = {}

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        with super().stage(name, total, unit) as advance:
            advances = self.advances.setdefault(name, [])

            def count(steps: int, note: str = "") -> None:
                advances.append(steps)
                advance(steps, note)
                threshold, event = self._events.get(name, (0, None))
                if event is not None and sum(advances) >= threshold:
                    del self._events[name]
                    event()

            yield count


def kill_a_machine(features: ClusterFeatures) -> None:
    """The process of a worker, and what it has written."""
    worker = next(iter(features.owners.values()))
    chunk_numbers = [number for number, owner in features.owners.items() if owner is worker]
    assert chunk_numbers
    assert worker.info.folder is not None
    os.kill(worker.info.process, signal.SIGKILL)
    for number in chunk_numbers:
        shutil.rmtree(worker.info.folder / f"chunk-{number:06d}")


def test_a_local_cluster_listens_on_this_machine_alone(cluster: Cluster) -> None:
    parents = {int(path.name): int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
               for path in Path("/proc").glob("[0-9]*") if path.joinpath("stat").is_file()}  # fmt: skip
    process_ids, count = {os.getpid()}, 0
    while len(process_ids) > count:
        count = len(process_ids)
        process_ids |= {process for process, parent in parents.items() if parent in process_ids}
    # Without this process, in which earlier tests may have left a socket of their own.
    links = [
        link
        for process_id in process_ids - {os.getpid()}
        for link in Path(f"/proc/{process_id}/fd").glob("*")
        if link.is_symlink()
    ]
    sockets = {str(link.readlink()) for link in links}
    addresses = []
    tables = "".join(Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6"))
    for line in tables.splitlines():
        cells = line.split()
        if cells[3] == "0A" and f"socket:[{cells[9]}]" in sockets:  # it listens
            addresses.append(cells[1].partition(":")[0])
    assert len(addresses) > 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as IPv6 too


def test_killed_workers_cost_only_time(
    cluster: Cluster, photo_folder: Path, local_report: BuildReport, tmp_path: Path
) -> None:
    features: list[ClusterFeatures] = []
    shards: list[RemoteShards] = []
    events = {
        "encode": (7, lambda: kill_a_machine(features[0])),
        "coreset": (150, lambda: kill_a_machine(features[0])),
    }
    stages = StagesWithEvents(events)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = build(
        build_options(photo_folder, tmp_path),
        stages,
        workers=ClusterWorkers(workers(cluster, scratch), features.append, shards.append),
    )
    assert not events
    assert features[0].pool.losses == 2
    assert shards[0].rounds > 10
    assert_same_index(report, local_report)
    assert min(stages.advances["encode"]) < 0  # what was lost is told
    assert sum(stages.advances["encode"]) == 26
    assert sum(stages.advances["calibrate"]) == 24
    assert list(scratch.iterdir()) == []
    assert {path.name for path in (tmp_path / "eyes").iterdir()} == {".lock", "CURRENT", report.version.name}


def test_an_interrupted_build_goes_on_with_features_and_picks_where_they_are(
    cluster: Cluster, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a sample of the patches, with the points on the workers' disks."""
    config = updated(CONFIG, "coreset.sample", "0.5")
    expected = build(build_options(photo_folder, tmp_path / "one", config), quiet())
    monkeypatch.setattr("indexer.coreset.k_center._SECONDS", 0.0)

    def stop() -> None:
        raise KeyboardInterrupt

    options, scratch = (
        build_options(Path(f"file://{photo_folder}"), tmp_path, config),  # an address, as of s3
        tmp_path / "scratch",
    )
    scratch.mkdir()
    cluster_workers = ClusterWorkers(workers(cluster, scratch), points_on_disk=True)
    forecasts: list[AnyForecast] = []
    with pytest.raises(KeyboardInterrupt):
        build(options, StagesWithEvents({"coreset": (150, stop)}), forecasts.append, cluster_workers)
    (forecast,) = forecasts
    assert isinstance(forecast, ClusterForecast)
    assert forecast.share.task.photos == 13  # a worker's half of 26
    assert forecast.share.task.memories == memory_count(config.coreset, forecast.patches)  # of all
    assert index.versions(tmp_path / "eyes") == []
    with np.load(tmp_path / "eyes" / index.WORK / "coreset.npz") as checkpoint:
        picks = len(checkpoint["rows"])
        assert "squared" not in checkpoint
    assert picks > 100
    mtimes = {path: path.stat().st_mtime_ns for path in scratch.glob("*/*/features/*")}
    assert len(mtimes) >= 2 * 24
    mtimes_after: dict[Path, int] = {}

    def record_mtimes(shards: RemoteShards) -> None:
        mtimes_after.update({path: path.stat().st_mtime_ns for path in mtimes})

    stages = StagesWithEvents({})
    report = build(
        replace(options, resume=True), stages, workers=replace(cluster_workers, on_shards=record_mtimes)
    )
    assert_same_index(report, expected)
    assert mtimes_after == mtimes  # none was made anew
    assert stages.advances["coreset"][0] == picks
    assert list(scratch.iterdir()) == []


def test_the_command_tells_what_each_worker_would_take_and_leaves_nothing(
    cluster: Cluster, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    @contextmanager
    def connect(address: str) -> Iterator[Cluster]:
        yield cluster

    monkeypatch.setattr("cluster.commands.connected", connect)
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    scratch.mkdir()
    words = ("build", photo_folder, "--root", root, "--name", "eyes", "--backbone", "bundled", "--size", 64)
    outcome = run(
        *words, "--cluster", "auto", "--worker-cpus", 1, "--workers", 1, "--scratch", scratch, "--forecast-only"
    )
    assert outcome.code == 0, outcome.err
    assert "1 worker of 1 CPU core" in outcome.err
    assert "forecast: 26 photographs" in outcome.out
    assert "forecast: driver: memory" in outcome.out
    assert not root.exists()
    assert list(scratch.iterdir()) == []
    outcome = run(*words, "--cluster", "auto", "--worker-cpus", 99)
    assert outcome.code == 2
    assert "no node of the cluster has room for a worker of 99 CPU cores" in " ".join(outcome.err.split())
