"""Requests to a running service, timed, each answer checked against the same photograph scored in this process."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final

import httpx
import numpy as np
from resad_client import Client, DeadlinePassed, Result

from benchmarks._service_offline import Offline, Photos, command_seconds, score_offline
from benchmarks._service_process import Spent, stages
from resad.loaded_index import LoadedIndex
from resad.map_files import read_map_png16

_TIMEOUT_S: Final = 120.0
_HEADERS: Final = {"Content-Type": "image/jpeg", "Accept": "image/png"}


@dataclass(frozen=True, slots=True)
class Lone:
    """Requests one after another, each next to the same work offline.

    Seconds.  median, p95, offline, command: over the requests; command is `resad-indexer score` per photograph.
    decode, score, render: the service's own stages, means; rest: what they leave of the mean latency.
    deviation: the largest, as `_deviation` has it.
    """

    size: int
    request: str
    median: float
    p95: float
    offline: float
    command: float
    decode: float
    score: float
    render: float
    rest: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of so many clients at once.

    seconds: from the first request to the last answer.  median, p95, deviation: of those that were scored; late:
    refused because the service's deadline had passed.
    """

    size: int
    photos: str
    clients: int
    requests: int
    late: int
    seconds: float
    median: float
    p95: float
    deviation: float


def lone_requests(url: str, loaded: LoadedIndex, photos: Photos, requests: int, out: Path) -> Iterator[Lone]:
    """Scores without a map, then maps as PNG; the offline command's files go into the folder `out`."""
    command = command_seconds(loaded, photos, out)
    with Client(url, retries=0) as client, httpx.Client(base_url=url, timeout=_TIMEOUT_S) as http:

        def anomaly_map(data: bytes) -> bytes:
            return http.post("/v1/anomaly-map", content=data, headers=_HEADERS).raise_for_status().content

        calls: tuple[tuple[str, Callable[[bytes], Result | bytes]], ...] = (
            ("score, map=none", client.score),
            ("anomaly-map, PNG", anomaly_map),
        )
        for name, ask in calls:
            seconds, deviations, offline = [], [], []
            before = stages(http)
            for path in itertools.islice(itertools.cycle(photos.paths), requests):
                data = path.read_bytes()
                alone = score_offline(loaded, data)
                began = time.perf_counter()
                answer = ask(data)
                seconds.append(time.perf_counter() - began)
                deviations.append(_deviation(answer, alone))
                offline.append(alone.decode + alone.score + (alone.render if ask is anomaly_map else 0.0))
            spent = _per_request(before, stages(http), requests)
            yield Lone(
                size=_size(loaded),
                request=f"{photos.name}, {name}",
                median=median(seconds),
                p95=_p95(seconds),
                offline=median(offline),
                command=command,
                decode=spent["decode"],
                score=spent["score"],
                render=spent["render"],
                rest=fmean(seconds) - sum(spent.values()),
                deviation=max(deviations),
            )


def load_of(url: str, loaded: LoadedIndex, photos: Photos, clients: int, requests: int) -> Load:
    """`requests` shared out among so many clients that start together, each with a connection of its own.

    Anything but an answer or a passed deadline ends the benchmark.
    """
    data = [path.read_bytes() for path in photos.paths]
    expected = [score_offline(loaded, one) for one in data]
    together = threading.Barrier(clients + 1)

    def ask(client: Client, number: int) -> list[tuple[float, float]]:
        together.wait()
        asked = []
        for request in range(number, requests, clients):
            which = request % len(data)
            began = time.perf_counter()
            with suppress(DeadlinePassed):
                result = client.score(data[which])
                asked.append((time.perf_counter() - began, _deviation(result, expected[which])))
        return asked

    with ExitStack() as stack:
        # Retries would hide that somebody was sent away.
        opened = [stack.enter_context(Client(url, retries=0)) for _ in range(clients)]
        threads = stack.enter_context(ThreadPoolExecutor(clients))
        running = [threads.submit(ask, client, number) for number, client in enumerate(opened)]
        together.wait()
        began = time.perf_counter()
        asked = [one for each in running for one in each.result()]
        seconds = time.perf_counter() - began
    latencies, deviations = zip(*asked, strict=True)
    return Load(
        size=_size(loaded),
        photos=photos.name,
        clients=clients,
        requests=requests,
        late=requests - len(asked),
        seconds=seconds,
        median=median(latencies),
        p95=_p95(latencies),
        deviation=max(deviations),
    )


def _per_request(before: dict[str, Spent], after: dict[str, Spent], requests: int) -> dict[str, float]:
    """Mean seconds of each of a request's stages; 0 for one that was not taken."""
    nothing = Spent(0.0, 0)
    spent = {}
    for stage in ("decode", "score", "render"):
        old, new = before.get(stage, nothing), after.get(stage, nothing)
        assert new.times - old.times in (0, requests), f"somebody else is using the service: {stage}"
        spent[stage] = (new.seconds - old.seconds) / requests
    return spent


def _deviation(answer: Result | bytes, offline: Offline) -> float:
    """Of an image score, relative to the offline one; of a map, the largest, relative to the full scale."""
    if isinstance(answer, Result):
        return abs(answer.image_score / offline.image_score - 1)
    found, _ = read_map_png16(answer)
    expected, full_scale = read_map_png16(offline.png)
    return float(np.abs(found - expected).max()) / full_scale


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 95))


def _size(loaded: LoadedIndex) -> int:
    return loaded.manifest.config.preparation.size
