"""Fewer places in memory than indexes: each answers as if it were alone, and never are more there than may be."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import torch

from resad import index
from resad.loaded_index import LoadedIndex, load_index
from resad.manifest import Manifest
from service.index_cache import IndexCache
from service.problems import Refusal
from service.registry import IndexEntry, Registry
from tests.indexes import build_small
from tests.service.conftest import score_offline
from tests.service.running import Served as Running
from tests.service.running import key_for, served, until

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def three_indexes(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT of three indexes that score differently; not to be changed."""
    root = tmp_path_factory.mktemp("three")
    for neighbors, name in enumerate(NAMES, 1):
        build_small(drawn / "train/good", root, name=name, settings=(f"search.neighbors={neighbors}",))
    return root


@pytest.fixture(scope="module")
def expected(three_indexes: Path, photo: bytes) -> dict[str, float]:
    device = torch.device("cpu")
    return {
        name: score_offline(load_index(three_indexes / name, device), photo).result.image_score for name in NAMES
    }


def states(service: Running) -> dict[str, str]:
    return {summary["name"]: summary["state"] for summary in service.client.get("/v1/indexes").json()["indexes"]}


def in_memory(service: Running) -> set[str]:
    return {name for name, entry in service.state.registry.entries.items() if entry.live is not None}


def alive_before_loads(service: Running) -> list[int]:
    """How many versions are in memory when one begins to be loaded, whoever holds them; grows with every load."""
    reloader = service.state.reloader
    load, counts = reloader._load, list[int]()
    lives = (entry.live for entry in service.state.registry.entries.values())
    detectors = [weakref.ref(live.detector) for live in lives if live is not None]

    def counting(version: Path) -> LoadedIndex:
        counts.append(sum(detector() is not None for detector in detectors))
        loaded = load(version)
        detectors.append(weakref.ref(loaded.detector))
        return loaded

    reloader._load = counting
    return counts


def replace_file(file: Path, text: str) -> None:
    """As `activate` writes it."""
    temporary = file.with_name("new")
    temporary.write_text(text)
    temporary.replace(file)


@pytest.fixture
def one_place_service(three_indexes: Path) -> Iterator[Running]:
    with served(three_indexes, hold=1) as service:
        yield service


def test_all_are_listed_and_each_answers_right(
    one_place_service: Running, three_indexes: Path, photo: bytes, expected: dict[str, float]
) -> None:
    assert states(one_place_service) == {"a": "serving", "b": "resting", "c": "resting"}
    for name in (*NAMES, "a", "c", "b"):
        answer = one_place_service.score(photo, index=name)
        assert answer.json()["image_score"] == pytest.approx(expected[name], rel=1e-4)
        assert in_memory(one_place_service) == {name}
    detail = one_place_service.client.get("/v1/indexes/a").json()
    assert (detail["state"], detail["version"]) == ("resting", index.resolve(three_indexes / "a").name)
    assert detail["manifest"]["name"] == "a"
    assert one_place_service.client.get("/readyz").status_code == 200


def test_the_default_index_is_there_first(three_indexes: Path, photo: bytes) -> None:
    with served(three_indexes, hold=1, index="c") as service:
        assert in_memory(service) == {"c"}
        assert service.score(photo).json()["index"]["name"] == "c"


def test_an_evicted_index_frees_its_memory(one_place_service: Running, photo: bytes) -> None:
    live = one_place_service.state.registry.entries["a"].live
    assert live is not None
    detector = weakref.ref(live.detector)
    del live
    assert one_place_service.score(photo, index="a").status_code == 200
    assert one_place_service.score(photo, index="b").status_code == 200
    gc.collect()
    assert detector() is None


def test_the_least_recently_used_of_two_indexes_is_evicted(three_indexes: Path, photo: bytes) -> None:
    with served(three_indexes, hold=2) as service:
        assert in_memory(service) == {"a", "b"}
        for name, names in (("b", "ab"), ("a", "ab"), ("c", "ac"), ("a", "ac"), ("b", "ab")):
            assert service.score(photo, index=name).status_code == 200
            assert in_memory(service) == set(names)


@pytest.mark.long
def test_under_load_every_answer_is_right_and_no_more_are_ever_in_memory(
    three_indexes: Path, photo: bytes, expected: dict[str, float]
) -> None:
    """Photographs that are refused among them: an error remembers every frame that it passed."""
    with served(three_indexes, hold=1, deadline_s=55) as service:
        alive_counts = alive_before_loads(service)

        def ask(number: int) -> httpx.Response:
            name = NAMES[number % 3]
            if number % 5 == 4:
                return service.score(photo[:1000], index=name)
            return service.score(photo, index=name, map="overlay-jpeg" if number % 2 else "none")

        with ThreadPoolExecutor(9) as pool:
            answers = list(pool.map(ask, range(30)))
        assert service.state.admission.queued == 0
    assert len(alive_counts) >= 3
    assert max(alive_counts) == 0
    assert Counter(answer.status_code for answer in answers) == {200: 24, 422: 6}
    for number, answer in enumerate(answers):
        if number % 5 != 4:
            assert answer.json()["image_score"] == pytest.approx(expected[NAMES[number % 3]], rel=1e-4)


def test_a_photograph_that_was_given_up_in_the_queue_keeps_no_index(three_indexes: Path, photo: bytes) -> None:
    with served(three_indexes, hold=1, deadline_s=0.6) as service:
        alive_counts = alive_before_loads(service)
        with service.busy():
            assert service.score(photo, index="a").status_code == 504
            assert service.score(photo, index="b").status_code == 503
            until(lambda: len(alive_counts) == 1)
        assert alive_counts == [0]


def test_a_caller_that_waits_too_long_is_told_to_retry_and_the_load_goes_on(
    three_indexes: Path, photo: bytes
) -> None:
    with served(three_indexes, hold=1, deadline_s=0.4) as service:
        with service.state.reloader._lock:
            answer = service.score(photo, index="b")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:resad:problem:not-ready")
        assert int(answer.headers["Retry-After"]) >= 1
        until(lambda: in_memory(service) == {"b"})
        assert service.state.admission.queued == 0


def test_an_index_that_cannot_be_loaded_says_why_and_blocks_no_other(
    three_indexes: Path, tmp_path: Path, photo: bytes
) -> None:
    root = tmp_path / "root"
    shutil.copytree(three_indexes, root)
    bank = index.resolve(root / "b") / "memory_bank.faiss"
    bank.write_bytes(bank.read_bytes()[:-1] + b"x")
    with served(root, hold=1) as service:
        for _ in range(2):  # the second time it is known
            answer = service.score(photo, index="b")
            assert (answer.status_code, "memory_bank.faiss was changed" in answer.json()["detail"]) == (503, True)
        assert states(service) == {"a": "resting", "b": "failed", "c": "resting"}
        assert service.score(photo, index="c").status_code == 200
        assert service.client.get("/readyz").status_code == 200
        assert service.metric('resad_index_loads_total{index="b",outcome="failed"}') == 1


@pytest.mark.parametrize("index_name", ["a", "b"])
def test_a_broken_current_leaves_the_version_answering_in_memory_or_not(
    three_indexes: Path, tmp_path: Path, photo: bytes, index_name: str, expected: dict[str, float]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(three_indexes, root)
    with served(root, hold=1) as service:
        current = root / index_name / index.CURRENT
        before = current.read_text()
        replace_file(current, "no-such-version\n")
        until(lambda: "no-such-version" in (service.state.registry.get(index_name).fault or ""))
        for name in ("c", index_name, "c"):  # from memory, or from rest, or from rest again
            answer = service.score(photo, index=name)
            assert answer.status_code == 200
            assert answer.json()["image_score"] == pytest.approx(expected[name], rel=1e-4)
        detail = service.client.get(f"/v1/indexes/{index_name}").json()
        assert (detail["state"], detail["version"]) == ("resting", before.strip())
        assert "no-such-version" in detail["fault"]
        assert service.client.get("/readyz").status_code == 200
        replace_file(current, before)
        until(lambda: service.state.registry.get(index_name).fault is None)
        assert service.score(photo, index=index_name).status_code == 200


def test_a_version_is_activated_whether_its_index_is_in_memory_or_not(
    three_indexes: Path, drawn: Path, tmp_path: Path, photo: bytes
) -> None:
    root = tmp_path / "root"
    shutil.copytree(three_indexes, root)
    before = {name: index.resolve(root / name).name for name in NAMES}
    new_versions = {name: build_small(drawn / "train/good", root, name=name).version.name for name in "ab"}
    for name in new_versions:
        index.activate(root / name, before[name])
    admin = key_for(tmp_path / "keys", "score", "admin")
    with served(root, hold=1, keys_file=tmp_path / "keys", headers=admin) as service:
        assert in_memory(service) == {"a"}
        for name, version in new_versions.items():
            answer = service.client.put(f"/v1/indexes/{name}/current", json={"version": version})
            assert (answer.status_code, answer.json()["version"]) == (200, version)
            assert in_memory(service) == {"a"}
        index.activate(root / "b", before["b"])  # and by others, while it rests
        until(lambda: service.client.get("/v1/indexes/b").json()["version"] == before["b"])
        for name, version in (("a", new_versions["a"]), ("b", before["b"])):
            assert service.score(photo, index=name).json()["index"]["version"] == version


class SlowCache:
    """A cache whose indexes need no disk: a load ends when it is allowed to."""

    def __init__(self, *names: str, places: int, patience_s: float = 5.0) -> None:
        self.registry = Registry(Path("root"), default=None)
        for name in names:
            self.registry.put(IndexEntry(name, resting=cast(Manifest, SimpleNamespace(name=name))))
        self.permits = threading.Semaphore(0)
        self.loads: list[tuple[str, str | None]] = []
        self.places = places
        self.cache = IndexCache(self.registry, self._load, places, patience_s)

    def _load(self, name: str, victim: str | None) -> bool:
        assert self.permits.acquire(timeout=5)
        manifest = cast(Manifest, SimpleNamespace(name=name))
        if victim is not None:
            self.registry.put(IndexEntry(victim, resting=manifest))
        assert sum(entry.live is not None for entry in self.registry.entries.values()) < self.places
        self.registry.put(IndexEntry(name, cast(LoadedIndex, SimpleNamespace(name=name))))
        self.loads.append((name, victim))
        return True

    async def use(self, name: str, until: asyncio.Event | None = None) -> str:
        async with self.cache.lease(name) as loaded:
            if until:
                await until.wait()
            return cast(Any, loaded).name  # type: ignore[no-any-return]


def test_an_index_in_use_stays_and_waiters_are_served_in_order() -> None:
    async def play() -> None:
        cache, release = SlowCache("a", "b", places=1), asyncio.Event()
        cache.permits.release(3)
        first_user = asyncio.create_task(cache.use("a", release))
        while not cache.loads:
            await asyncio.sleep(0.001)
        second_user = asyncio.create_task(cache.use("b"))
        await asyncio.sleep(0.05)
        third_user = asyncio.create_task(cache.use("a"))  # behind b, or b would wait for ever
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in (second_user, third_user))
        release.set()
        assert [*await asyncio.gather(first_user, second_user, third_user)] == ["a", "b", "a"]
        assert cache.loads == [("a", None), ("b", "a"), ("a", "b")]

    asyncio.run(play())


def test_a_caller_that_leaves_during_a_load_leaves_no_trace() -> None:
    async def play() -> None:
        cache = SlowCache("a", "b", places=1, patience_s=0.05)
        task = asyncio.create_task(cache.use("a"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(Refusal, match="a: loading"):
            await cache.use("a")
        cache.permits.release(2)
        while not cache.loads:
            await asyncio.sleep(0.001)
        assert await cache.use("b") == "b"

    asyncio.run(play())
