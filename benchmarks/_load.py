"""Requests from many clients at once, in one event loop: each at its own pace, or all together at a given rate."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import numpy as np

from benchmarks._service_process import memory_of

_TIMEOUT_S: Final = 120.0
_MOST_AT_ONCE: Final = 1000
"""Requests that wait for an answer; beyond it none is sent."""
_HEADERS: Final = {"Content-Type": "image/jpeg"}
LOST: Final = 0
"""Stands for the status where the connection ended without an answer."""
NEVER_ACCEPTED: Final = -1
"""Where there was no connection."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.  began: seconds since the run began.  seconds: until the answer.  photo: which was sent.

    version, score, retry_after: as the answer says, None where it says nothing.
    """

    began: float
    seconds: float
    status: int
    photo: int
    version: str | None
    score: float | None
    retry_after: int | None


@dataclass(frozen=True, slots=True)
class Resident:
    """began: seconds since the run began.  mb: memory of the process then."""

    began: float
    mb: float


@dataclass(frozen=True, slots=True)
class Level:
    """So many clients at once, and how long all of it took."""

    clients: int
    seconds: float
    asked: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Overload:
    """rate: requests a second that were offered."""

    rate: float
    asked: tuple[Asked, ...]
    resident: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class Swaps:
    """followed: seconds from each activation until both replicas served it."""

    followed: tuple[float, ...]
    asked: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """in_flight: accepted when the signal came.  logged: requests that the service wrote down as done with."""

    in_flight: int
    asked: tuple[Asked, ...]
    logged: int
    seconds: float
    code: int


async def closed_loop(
    urls: Sequence[str], photos: Sequence[bytes], clients: int, requests: int, stop: asyncio.Event | None = None
) -> list[Asked]:
    """So many clients, shared out among `urls`, each asking again once it is answered; `requests` altogether.

    It ends early once `stop` is set, or for a client once it has lost its connection.
    """
    numbers, start = itertools.count(), time.perf_counter()

    async def client(url: str) -> list[Asked]:
        asked: list[Asked] = []
        async with _client(url) as http:
            while (number := next(numbers)) < requests and not (stop and stop.is_set()):
                asked.append(await _ask(http, photos, number % len(photos), start))
                if asked[-1].status in (LOST, NEVER_ACCEPTED):
                    break
        return asked

    every = await asyncio.gather(*(client(urls[number % len(urls)]) for number in range(clients)))
    return [one for each in every for one in each]


async def open_loop(url: str, photos: Sequence[bytes], rate: float, seconds: float) -> list[Asked]:
    """`rate` requests a second for so long, whether or not those before were answered."""
    start = time.perf_counter()
    waiting: set[asyncio.Task[Asked]] = set()
    done: list[Asked] = []

    def take(task: asyncio.Task[Asked]) -> None:
        waiting.discard(task)
        done.append(task.result())

    async with _client(url) as http:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            if len(waiting) < _MOST_AT_ONCE:
                task = asyncio.create_task(_ask(http, photos, number % len(photos), start))
                waiting.add(task)
                task.add_done_callback(take)
        while waiting:
            await asyncio.wait(set(waiting))
            await asyncio.sleep(0)
    return done


async def watch_memory(pid: int, every: float) -> list[Resident]:
    """Until it is cancelled."""
    seen, start = [], time.perf_counter()
    try:
        while True:
            seen.append(Resident(time.perf_counter() - start, memory_of(pid).now_mb))
            await asyncio.sleep(every)
    except asyncio.CancelledError:
        return seen


def percentile(seconds: Sequence[float], at: float) -> float:
    """NaN of nothing."""
    return float(np.percentile(seconds, at)) if seconds else float("nan")


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits)


async def _ask(http: httpx.AsyncClient, photos: Sequence[bytes], photo: int, start: float) -> Asked:
    began = time.perf_counter()
    version, score, retry_after = None, None, None
    try:
        answer = await http.post("/v1/score", content=photos[photo], headers=_HEADERS)
        status = answer.status_code
        if status == httpx.codes.OK:
            document = answer.json()
            version, score = document["index"]["version"], document["image_score"]
        if "retry-after" in answer.headers:
            retry_after = int(answer.headers["retry-after"])
    except (httpx.ConnectError, httpx.ConnectTimeout):
        status = NEVER_ACCEPTED
    except httpx.TransportError:
        status = LOST
    return Asked(began - start, time.perf_counter() - began, status, photo, version, score, retry_after)
