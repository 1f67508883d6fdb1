"""Requests to a running service, timed, each answer checked against the same photograph scored in this process."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final

import httpx
import numpy as np
from resad_client import Client, Result

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
