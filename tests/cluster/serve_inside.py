"""The service on Ray Serve, run by `test_serve`: two replicas under load, one killed, a version that changes."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from resad_client import Client

from cluster.worker_pool import Cluster
from resad import index
from resad.config import PhotoLimits
from resad.loaded_index import load_index
from resad.preparation import prepare
from resad.runtime import pick_device
from service.keys import KeyRecord, sha256_of, write_keys
from tests.indexes import build_small
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]

KEY = "a-key-of-the-ward"
BEARER = {"Authorization": f"Bearer {KEY}"}
KEYED = {"Content-Type": "image/jpeg", **BEARER}
CONFIGURATION = Path(__file__).parents[2] / "docker/ray/serve.yaml"
QUEUE = 8
"""Places of each replica; the only key may have half of them."""


@pytest.fixture(scope="module")
def root(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with two versions, the first of them live."""
    folder = tmp_path_factory.mktemp("served")
    first = build_small(drawn / "train/good", folder).version
    build_small(drawn / "train/good", folder, settings=("search.neighbors=1",))
    index.activate(folder / "drawn", first.name)
    return folder


@contextmanager
def serving(root: Path, keys: Path, **overrides: str) -> Iterator[str]:
    """The address of two replicas."""
    from ray import serve

    from cluster.serve import deployment

    write_keys(keys, [KeyRecord("ward", sha256_of(KEY), ("score", "admin"))])
    port = free_port()
    serve.start(
        http_options={"host": "127.0.0.1", "port": port},
        proxy_location="HeadOnly",
        controller_options=yaml.safe_load(CONFIGURATION.read_text())["controller_options"],
    )
    variables = {
        "RESAD_ROOT": str(root), "RESAD_DEVICE": "cpu", "RESAD_THREADS": "1", "RESAD_QUEUE_SIZE": str(QUEUE),
        "RESAD_POLL_S": "0.1", "RESAD_KEYS_FILE": str(keys), "OMP_WAIT_POLICY": "PASSIVE", **overrides,
    }  # fmt: skip
    options = {"num_cpus": 0.5, "runtime_env": {"env_vars": variables}}
    serve.run(deployment.options(num_replicas=2, ray_actor_options=options).bind(), name="resad")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


@pytest.fixture(scope="module")
def url(cluster: Cluster, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(root, tmp_path_factory.mktemp("keys") / "keys.json") as address:
        yield address


@pytest.fixture(scope="module")
def photo(drawn: Path) -> bytes:
    return next((drawn / "test/lesion").glob("*.jpg")).read_bytes()


def offline(version: Path, photo: bytes) -> float:
    loaded = load_index(version, pick_device("cpu"))
    prepared = prepare(photo, loaded.manifest.config.preparation, PhotoLimits())
    return loaded.detector.detect([prepared])[0].image_score


class Load:
    """Threads that score the same photograph again and again, and what each attempt came to.

    A refusal is waited out as it says; what is lost is sent again.
    """

    def __init__(self, url: str, photo: bytes) -> None:
        self.answers: list[dict[str, Any]] = []
        self.attempts: Counter[int] = Counter()
        self._url, self._photo = url, photo
        self._stop = threading.Event()

    @contextmanager
    def running(self, threads: int) -> Iterator[None]:
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(self._run) for _ in range(threads)]
            try:
                yield
            finally:
                self._stop.set()
            for future in futures:
                future.result(60)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                self.answers.append(self._until_answered(client))

    def _until_answered(self, client: httpx.Client) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = client.post("/v1/score", content=self._photo, headers=KEYED)
            self.attempts[answer.status_code] += 1
            if answer.status_code == 200:
                document: dict[str, Any] = answer.json()
                return document
            time.sleep(float(answer.headers.get("Retry-After", 0.2)))
        raise AssertionError(f"never answered: {self.attempts}")


@contextmanager
def patient_client(url: str, photo: bytes) -> Iterator[list[float]]:
    """Scores that `resad_client` is told meanwhile; it may fail at none of them."""
    stop, scores = threading.Event(), list[float]()

    def run() -> None:
        with Client(url, key=KEY) as client:
            while not stop.is_set():
                scores.append(client.score(photo).image_score)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        try:
            yield scores
        finally:
            stop.set()
        future.result(60)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.05)


def replicas() -> list[str]:
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    return sorted(actor["name"] for actor in actors if actor["name"].startswith("SERVE_REPLICA::resad#"))


def test_a_full_queue_refuses_as_one_process_does(url: str, photo: bytes) -> None:
    def post(_: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/score", content=photo, headers=KEYED, timeout=60)

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(post, range(40)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    assert statuses[200] >= QUEUE // 2
    for answer in answers:
        assert len(answer.headers["X-Request-ID"].split(",")) == 1
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_metrics_are_of_both_replicas(url: str, photo: bytes) -> None:
    def requests_by_replica() -> dict[str, float]:
        text = httpx.get(f"{url}/metrics", headers=BEARER, timeout=30).text
        line = r'^resad_requests_total{method="POST",replica="(\w+)",route="/v1/score",status="200"} (\S+)$'
        return {replica: float(value) for replica, value in re.findall(line, text, re.MULTILINE)}

    before = requests_by_replica()
    for _ in range(6):
        assert httpx.post(f"{url}/v1/score", content=photo, headers=KEYED, timeout=60).status_code == 200
    after = requests_by_replica()
    assert {name.split("#")[-1] for name in replicas()} == set(after)
    assert sum(after.values()) - sum(before.values()) == 6


def test_a_replica_that_is_killed_loses_its_own_requests_alone(url: str, root: Path, photo: bytes) -> None:
    import ray

    expected = offline(index.resolve(root / "drawn"), photo)
    before = replicas()
    assert len(before) == 2
    load = Load(url, photo)
    with load.running(threads=3), patient_client(url, photo) as client_scores:
        until(lambda: len(load.answers) >= 8)
        ray.kill(ray.get_actor(before[0], namespace="serve"), no_restart=True)
        answer_count = len(load.answers)
        until(lambda: len(load.answers) >= answer_count + 8)
        until(lambda: len(replicas()) == 2 and before[0] not in replicas())
        answer_count = len(load.answers)
        until(lambda: len(load.answers) >= answer_count + 8)
    lost_requests = sum(count for status, count in load.attempts.items() if status not in (200, 429))
    assert lost_requests <= 4, load.attempts  # as many as were under way
    assert load.attempts[200] == len(load.answers)
    for score in (*client_scores, *(answer["image_score"] for answer in load.answers)):
        assert score == pytest.approx(expected, rel=1e-4)
    assert len(client_scores) >= 3


def test_no_answer_mixes_two_versions(url: str, root: Path, photo: bytes) -> None:
    live = index.resolve(root / "drawn").name
    next_version = next(version for version in index.versions(root / "drawn") if version != live)
    expected = {name: offline(root / "drawn" / name, photo) for name in (live, next_version)}
    assert abs(expected[live] / expected[next_version] - 1) > 1e-2
    load = Load(url, photo)
    with load.running(threads=3):
        until(lambda: len(load.answers) >= 6)
        put_answer = httpx.put(
            f"{url}/v1/indexes/drawn/current", json={"version": next_version},
            headers=BEARER, timeout=60,
        )  # fmt: skip
        assert put_answer.status_code == 200, put_answer.text
        until(lambda: all(answer["index"]["version"] == next_version for answer in load.answers[-16:]))
    assert set(load.attempts) <= {200, 429}, load.attempts
    assert {answer["index"]["version"] for answer in load.answers} == {live, next_version}
    for answer in load.answers:
        assert answer["image_score"] == pytest.approx(expected[answer["index"]["version"]], rel=1e-4)


def test_the_configuration_file_is_one_that_ray_serve_takes() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="Ray is not installed")
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(CONFIGURATION.read_text()))
    assert config.http_options.host == "127.0.0.1"
    assert config.applications[0].import_path == "cluster.serve:app"
