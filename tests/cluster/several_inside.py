"""Three indexes on Ray Serve, two replicas that hold one each, run by `test_serve`."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cluster.worker_pool import Cluster
from resad import index
from tests.cluster.serve_inside import BEARER, KEYED, offline, serving
from tests.indexes import build_small

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")]

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def root(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three indexes that score differently."""
    folder = tmp_path_factory.mktemp("three")
    for neighbors, name in enumerate(NAMES, 1):
        build_small(drawn / "train/good", folder, name=name, settings=(f"search.neighbors={neighbors}",))
    return folder


@pytest.fixture(scope="module")
def photo(drawn: Path) -> bytes:
    return next((drawn / "test/lesion").glob("*.jpg")).read_bytes()


@pytest.fixture(scope="module")
def expected(root: Path, photo: bytes) -> dict[str, float]:
    return {name: offline(index.resolve(root / name), photo) for name in NAMES}


@pytest.fixture(scope="module")
def client(cluster: Cluster, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    with (
        serving(root, keys, RESAD_HOLD="1") as url,
        httpx.Client(base_url=url, timeout=60, headers=BEARER) as client,
    ):
        yield client


def score_with_retries(client: httpx.Client, name: str, photo: bytes) -> tuple[float, Counter[int]]:
    """The score, and what every attempt came to; a refusal is waited out as it says."""
    attempts: Counter[int] = Counter()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        answer = client.post("/v1/score", params={"index": name}, content=photo, headers=KEYED)
        attempts[answer.status_code] += 1
        if answer.status_code == 200:
            assert answer.json()["index"]["name"] == name
            return answer.json()["image_score"], attempts
        time.sleep(float(answer.headers["Retry-After"]))
    raise AssertionError(f"never answered: {attempts}")


def sums_by_replica(client: httpx.Client, metric: str) -> dict[str, int]:
    """How many series each replica has, or their sum for a counter."""
    text = client.get("/metrics").text
    sums: Counter[str] = Counter()
    for labels, value in re.findall(rf"^{metric}{{(.*)}} (\S+)$", text, re.MULTILINE):
        (replica,) = re.findall(r'replica="(\w+)"', labels)
        sums[replica] += int(float(value))
    return sums


def test_all_are_listed_and_every_answer_is_right(
    client: httpx.Client, photo: bytes, expected: dict[str, float]
) -> None:
    for name in (*NAMES, *reversed(NAMES)):
        assert score_with_retries(client, name, photo)[0] == pytest.approx(expected[name], rel=1e-4)
        summaries = client.get("/v1/indexes").json()["indexes"]
        assert [summary["name"] for summary in summaries] == list(NAMES)
        assert sorted(summary["state"] for summary in summaries) == ["resting", "resting", "serving"]
        assert all(summary["version"] for summary in summaries)


def test_two_indexes_settle_on_one_replica_each(client: httpx.Client, photo: bytes) -> None:
    for name in "ab" * 2:
        score_with_retries(client, name, photo)
        time.sleep(2)  # until replicas have said what they hold
    before = sums_by_replica(client, "resad_index_loads_total")
    for name in "ab" * 10:
        score_with_retries(client, name, photo)
    assert sums_by_replica(client, "resad_index_loads_total") == before
    assert list(sums_by_replica(client, "resad_index_info").values()) == [1, 1]


def test_under_load_no_replica_ever_holds_more_than_it_may(
    client: httpx.Client, photo: bytes, expected: dict[str, float]
) -> None:
    observations: list[dict[str, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            observations.append(sums_by_replica(client, "resad_index_info"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            answers = list(
                pool.map(lambda number: score_with_retries(client, NAMES[number % 3], photo), range(24))
            )
    finally:
        stop.set()
        watcher.join()
    assert sum((attempts for _, attempts in answers), Counter[int]()).keys() <= {200, 429, 503}
    for number, (score, _) in enumerate(answers):
        assert score == pytest.approx(expected[NAMES[number % 3]], rel=1e-4)
    assert len(observations) >= 5
    assert max(max(counts.values(), default=0) for counts in observations) == 1
