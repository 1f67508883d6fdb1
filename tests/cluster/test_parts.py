"""What needs no cluster: chunks, who makes them, whose points are whose, and a machine without Ray."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.build import ClusterForecast
from cluster.routing import CALLBACK, VARIABLE
from cluster.scheduling import ChunkQueue, split
from cluster.shards import runs_of
from cluster.worker_pool import connected
from indexer.build.forecast import BuildSize, HostResources, Rates, forecast
from indexer.photos.listing import ReferencePhoto
from resad.errors import SettingError
from tests.cluster.conftest import need_ray


@given(photos=st.integers(1, 3000), workers=st.integers(1, 40), batch=st.sampled_from([1, 4]))
def test_chunks_are_the_list_in_whole_batches(photos: int, workers: int, batch: int) -> None:
    references = [ReferencePhoto(Path(f"{number}.jpg")) for number in range(photos)]
    chunks = split(references, workers, batch)
    assert [photo for chunk in chunks for photo in chunk.photos] == references
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(len(chunk.photos) % batch == 0 for chunk in chunks[:-1])
    assert max(len(chunk.photos) for chunk in chunks) <= 64


@given(chunks=st.integers(0, 60), workers=st.integers(1, 6), data=st.data())
def test_every_chunk_is_assigned_once_and_again_when_it_is_lost(
    chunks: int, workers: int, data: st.DataObject
) -> None:
    queue = ChunkQueue(range(chunks), workers)
    assignments: dict[int, list[int]] = {worker: [] for worker in range(workers)}
    newest = workers
    while True:
        worker = data.draw(st.sampled_from(sorted(assignments)))
        if assignments[worker] and newest < workers + 3 and data.draw(st.booleans()):
            queue.put_back(assignments.pop(worker), worker)
            assignments[newest] = []
            newest += 1
            continue
        chunk = queue.next(worker)
        if chunk is None:
            break
        assignments[worker].append(chunk)
    assert sorted(chunk for numbers in assignments.values() for chunk in numbers) == list(range(chunks))


def test_workers_of_one_pace_get_neighbors() -> None:
    queue = ChunkQueue(range(12), 3)
    order = [queue.next(worker) for _ in range(4) for worker in (2, 0, 1)]
    assert order == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=30),
    block=st.integers(1, 12),
    data=st.data(),
)
def test_runs_are_whole_blocks_and_together_all_points(sizes: list[int], block: int, data: st.DataObject) -> None:
    firsts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    owners = {chunk: data.draw(st.integers(0, 3)) for chunk in range(len(sizes))}
    runs = runs_of(range(len(sizes)), owners, firsts, block)
    covered_rows: list[int] = []
    for run in runs:
        assert run.first % block == 0
        assert run.stop % block == 0 or run.stop == firsts[-1]
        assert len({owners[part.chunk] for part in run.parts}) == 1
        assert sum(part.stop - part.start for part in run.tail) < block
        rows = [firsts[p.chunk] + row for p in (*run.parts, *run.tail) for row in range(p.start, p.stop)]
        assert rows == list(range(run.first, run.stop))
        covered_rows += rows
    assert sorted(covered_rows) == list(range(firsts[-1]))
    # Pieces that are lost take exactly their own blocks along.
    lost_chunks = {chunk for chunk in owners if data.draw(st.booleans())}
    lost_runs = runs_of(sorted(lost_chunks), owners, firsts, block)
    lost_rows = {row for run in lost_runs for row in range(run.first, run.stop)}
    other_rows = {
        row
        for run in runs_of(sorted(set(owners) - lost_chunks), owners, firsts, block)
        for row in range(run.first, run.stop)
    }
    assert lost_rows | other_rows == set(range(firsts[-1]))
    assert not lost_rows & other_rows


GB = 10**9
NATIONAL = BuildSize(photos=10**5, to_encode=10**5, patches=10**9, sampled=10**9, dimension=1536, projected=511,
                memories=10**5, guessed=False, weights=10**8)  # fmt: skip


@given(driver=st.integers(10**8, 10**12), workers=st.integers(1, 500))
def test_a_driver_without_the_memory_is_refused_with_the_numbers(driver: int, workers: int) -> None:
    share = replace(NATIONAL, photos=10**5 // workers, patches=10**9 // workers, sampled=10**9 // workers)
    large = HostResources(GB, GB, 10**13, "a worker's share of its machine", 10**14)
    cluster_forecast = ClusterForecast(
        forecast(share, Rates(1.0, 1e-12, 1e-12, 1e-12), large),
        HostResources(GB, GB, driver, "--max-memory", 0),
        10**9,
    )
    needed = GB + 20 * 10**9 + 3 * 10**5 * 1536 * 4  # docs/cluster.md has the arithmetic
    assert cluster_forecast.memory == needed
    assert f"forecast: driver: memory {needed / 1e9:.1f} GB of" in cluster_forecast.lines()[-1]
    if driver < needed:
        with pytest.raises(SettingError, match=rf"the driver would take {needed / 1e9:.1f} GB.*--max-memory"):
            cluster_forecast.check()
    else:
        cluster_forecast.check()


def test_without_ray_everything_else_works_and_a_cluster_names_the_extra(drawn: Path, tmp_path: Path) -> None:
    program = """
import sys
sys.modules["ray"] = None  # as if it were not installed
import indexer.cli, service.cli, service.app
sys.argv = ["resad-indexer", *sys.argv[1:]]
indexer.cli.main()
"""
    arguments = ("build", drawn / "train/good", "--root", tmp_path, "--name", "eyes", "--cluster", "auto")
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "pip install 'resad[cluster]'" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_no_command_can_work_from_is_refused() -> None:
    need_ray()
    with pytest.raises(SettingError, match="on a node of the cluster"), connected("ray://10.0.0.1:10001"):
        pass


def test_the_manifests_serve_what_the_configuration_file_serves() -> None:
    docker = Path(__file__).parents[2] / "docker"
    service = yaml.safe_load((docker / "kubernetes/ray/service.yaml").read_text())
    in_kubernetes = yaml.safe_load(service["spec"]["serveConfigV2"])
    standalone = yaml.safe_load((docker / "ray/serve.yaml").read_text())
    assert standalone["http_options"].pop("host") == "127.0.0.1"
    assert in_kubernetes["http_options"].pop("host") == "0.0.0.0"  # of a pod, which network.yaml closes
    for config in (in_kubernetes, standalone):
        (deployment,) = config["applications"][0]["deployments"]
        deployment["autoscaling_config"].pop("min_replicas")
        deployment["ray_actor_options"].pop("num_gpus", None)
    # A gateway of Kubernetes gives the service any name; on a machine of one's own only loopback has one.
    assert in_kubernetes["applications"][0]["runtime_env"]["env_vars"].pop("RESAD_ALLOWED_HOSTS") == "*"
    assert in_kubernetes == standalone
    assert standalone["controller_options"] == {"runtime_env": {"env_vars": {VARIABLE: CALLBACK}}}
    for name in ("service.yaml", "index-job.yaml"):
        spec = yaml.safe_load((docker / "kubernetes/ray" / name).read_text())["spec"]
        cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
