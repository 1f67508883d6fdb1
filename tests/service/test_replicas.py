"""Two services on one root: versions change under load, both follow, and no answer fails or is mixed."""

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from resad import index
from tests.indexes import build_small
from tests.service.running import JPEG, process, served, until

SWAPS = 4
"""`benchmarks.service` makes 20, for longer."""


@pytest.fixture(scope="module")
def two_version_root(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT of an index with two versions, which score differently."""
    root = tmp_path_factory.mktemp("changing")
    for neighbors in (1, 2):
        build_small(drawn / "train/good", root, settings=(f"search.neighbors={neighbors}",))
    return root


@pytest.mark.long
def test_swaps_under_load_over_two_replicas(command: Path, two_version_root: Path, photo: bytes) -> None:
    versions = index.versions(two_version_root / "drawn")
    index.activate(two_version_root / "drawn", versions[0])
    answers: Counter[tuple[int, str, float]] = Counter()
    faults: list[str] = []
    stop = threading.Event()

    def keep_asking(url: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/v1/score", content=photo, headers=JPEG)
                if answer.status_code != 200:
                    faults.append(answer.text)
                    continue
                document = answer.json()
                answers[answer.status_code, document["index"]["version"], round(document["image_score"], 4)] += 1

    with ExitStack() as stack:
        replicas = (
            stack.enter_context(served(two_version_root)),
            stack.enter_context(process(command, two_version_root, RESAD_POLL_S="0.05")),
        )
        callers = [
            threading.Thread(target=keep_asking, args=(str(replica.client.base_url),))
            for replica in replicas
            for _ in "ab"
        ]
        for caller in callers:
            caller.start()
        try:
            for number in range(1, SWAPS + 1):
                version = versions[number % 2]
                index.activate(two_version_root / "drawn", version)
                for replica in replicas:
                    until(lambda replica=replica, version=version: _live(replica.client) == version, 60)  # type: ignore[misc]
        finally:
            stop.set()
            for caller in callers:
                caller.join(60)
        loads = [replica.metric('resad_index_loads_total{index="drawn",outcome="served"}') for replica in replicas]
    assert faults == []
    assert loads == [SWAPS + 1] * 2
    # Each version answered, and always with its own score.
    assert {version for _, version, _ in answers} == set(versions)
    assert len(answers) == 2


def _live(client: httpx.Client) -> str | None:
    version: str | None = client.get("/v1/indexes/drawn").json()["version"]
    return version
