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


def order(photos: Path, root: Path, config: MethodConfig = CONFIG) -> BuildOptions:
    return BuildOptions(photos, root, "eyes", config, "bundled", CPU)


def quiet() -> Stages:
    return Stages(Console(quiet=True))


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    """Of one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projected_features, "BLOCK_ROWS", BLOCK)
        report = build(order(many, tmp_path_factory.mktemp("whole")), quiet())
    torch.set_num_threads(threads)
    return report


def same(ours: BuildReport, theirs: BuildReport) -> None:
    for name in ("memory_bank.faiss", "provenance.npz", "photos.jsonl"):
        assert (ours.version / name).read_bytes() == (theirs.version / name).read_bytes(), name
    assert ours.manifest.calibration == theirs.manifest.calibration
    assert ours.manifest.fingerprint == theirs.manifest.fingerprint
    assert ours.manifest.quality.covering_radius == theirs.manifest.quality.covering_radius
    assert ours.manifest.quality.projected_radius == theirs.manifest.quality.projected_radius
    for name in ("skipped", "duplicates", "near_duplicates"):
        asides = repr(getattr(ours, name)).replace("RemotePath('file://", "PosixPath('")
        assert asides == repr(getattr(theirs, name)), name


def workers(cluster: Cluster, scratch: Path) -> PoolOptions:
    return PoolOptions(cluster, WorkerSize(cpus=1, gpus=0), scratch=scratch)


class During(Stages):
    """Something happens once, in one of the stages, after so many units."""

    def __init__(self, happens: dict[str, tuple[int, Callable[[], None]]]) -> None:
        super().__init__(Console(quiet=True))
        self._happens = happens
        self.told: dict[str, list[int]] = {}

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        with super().stage(name, total, unit) as advance:
            told = self.told.setdefault(name, [])

            def tell(steps: int, note: str = "") -> None:
                told.append(steps)
                advance(steps, note)
                after, happen = self._happens.get(name, (0, None))
                if happen is not None and sum(told) >= after:
                    del self._happens[name]
                    happen()

            yield tell


def kill_a_machine(features: ClusterFeatures) -> None:
    """The process of a worker, and what it has written."""
    worker = next(iter(features.owners.values()))
    theirs = [number for number, owner in features.owners.items() if owner is worker]
    assert theirs
    assert worker.info.folder is not None
    os.kill(worker.info.process, signal.SIGKILL)
    for number in theirs:
        shutil.rmtree(worker.info.folder / f"chunk-{number:06d}")


def test_a_local_cluster_listens_on_this_machine_alone(cluster: Cluster) -> None:
    parents = {int(path.name): int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
               for path in Path("/proc").glob("[0-9]*") if path.joinpath("stat").is_file()}  # fmt: skip
    mine, before = {os.getpid()}, 0
    while len(mine) > before:
        before = len(mine)
        mine |= {process for process, parent in parents.items() if parent in mine}
    links = [link for one in mine for link in Path(f"/proc/{one}/fd").glob("*") if link.is_symlink()]
    sockets = {str(link.readlink()) for link in links}
    addresses = []
    tables = "".join(Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6"))
    for line in tables.splitlines():
        cells = line.split()
        if cells[3] == "0A" and f"socket:[{cells[9]}]" in sockets:  # it listens
            addresses.append(cells[1].partition(":")[0])
    assert len(addresses) > 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as IPv6 too


def test_workers_that_are_killed_cost_time_alone(
    cluster: Cluster, many: Path, whole: BuildReport, tmp_path: Path
) -> None:
    features: list[ClusterFeatures] = []
    shards: list[RemoteShards] = []
    happens = {
        "encode": (7, lambda: kill_a_machine(features[0])),
        "coreset": (150, lambda: kill_a_machine(features[0])),
    }
    stages = During(happens)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = build(
        order(many, tmp_path),
        stages,
        workers=ClusterWorkers(workers(cluster, scratch), features.append, shards.append),
    )
    assert not happens
    assert features[0].pool.losses == 2
    assert shards[0].rounds > 10
    same(report, whole)
    assert min(stages.told["encode"]) < 0  # what was lost is told
    assert sum(stages.told["encode"]) == 26
    assert sum(stages.told["calibrate"]) == 24
    assert list(scratch.iterdir()) == []
    assert {path.name for path in (tmp_path / "eyes").iterdir()} == {".lock", "CURRENT", report.version.name}


def test_an_interrupted_build_goes_on_with_features_and_picks_where_they_are(
    cluster: Cluster, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a sample of the patches, with the points on the workers' disks."""
    config = updated(CONFIG, "coreset.sample", "0.5")
    theirs = build(order(many, tmp_path / "one", config), quiet())
    monkeypatch.setattr("indexer.coreset.k_center._SECONDS", 0.0)

    def stop() -> None:
        raise KeyboardInterrupt

    asked, scratch = order(Path(f"file://{many}"), tmp_path, config), tmp_path / "scratch"  # an address, as of s3
    scratch.mkdir()
    over = ClusterWorkers(workers(cluster, scratch), points_on_disk=True)
    forecasts: list[AnyForecast] = []
    with pytest.raises(KeyboardInterrupt):
        build(asked, During({"coreset": (150, stop)}), forecasts.append, over)
    (forecast,) = forecasts
    assert isinstance(forecast, ClusterForecast)
    assert forecast.share.task.photos == 13  # a worker's half of 26
    assert forecast.share.task.memories == memory_count(config.coreset, forecast.patches)  # of all
    assert index.versions(tmp_path / "eyes") == []
    with np.load(tmp_path / "eyes" / index.WORK / "coreset.npz") as kept:
        picks = len(kept["rows"])
        assert "squared" not in kept
    assert picks > 100
    features = {path: path.stat().st_mtime_ns for path in scratch.glob("*/*/features/*")}
    assert len(features) >= 2 * 24
    again: dict[Path, int] = {}

    def look(shards: RemoteShards) -> None:
        again.update({path: path.stat().st_mtime_ns for path in features})

    stages = During({})
    report = build(replace(asked, resume=True), stages, workers=replace(over, on_shards=look))
    same(report, theirs)
    assert again == features  # none was made anew
    assert stages.told["coreset"][0] == picks
    assert list(scratch.iterdir()) == []


def test_the_command_tells_what_each_worker_would_take_and_leaves_nothing(
    cluster: Cluster, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    @contextmanager
    def here(address: str) -> Iterator[Cluster]:
        yield cluster

    monkeypatch.setattr("cluster.commands.connected", here)
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    scratch.mkdir()
    asked = ("build", many, "--root", root, "--name", "eyes", "--backbone", "bundled", "--size", 64)
    ended = run(
        *asked, "--cluster", "auto", "--worker-cpus", 1, "--workers", 1, "--scratch", scratch, "--forecast-only"
    )
    assert ended.code == 0, ended.err
    assert "1 workers of 1 CPU cores" in ended.err
    assert "forecast: 26 photographs" in ended.out
    assert "forecast: driver: memory" in ended.out
    assert not root.exists()
    assert list(scratch.iterdir()) == []
    ended = run(*asked, "--cluster", "auto", "--worker-cpus", 99)
    assert ended.code == 2
    assert "no node of the cluster has room for a worker of 99 CPU cores" in " ".join(ended.err.split())
