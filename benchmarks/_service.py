"""A service as a process of its own, the same work in this process, and clients that ask it."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Final, NamedTuple

import httpx
import numpy as np
from resad_client import Client, Result
from resad_client.records import Timings

from indexer.scoring import RunOptions, ScoreJob, score_photos
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.engine import Engine, ScoreOptions, assemble
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex
from resad.pictures.map_files import map_png16, read_map_png16
from resad.preparation import prepare

_SECONDS_TO_START: Final = 120.0
_POLL_S: Final = 0.01
_STAGE: Final = re.compile(r'^resad_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready.  Seconds from the start of its process: until it said that it listens, until
    `/readyz` answered 200.
    """

    url: str
    process: "subprocess.Popen[str]"
    listening_seconds: float
    ready_seconds: float

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process, MB (10^6 bytes): now (VmRSS) and at most so far (VmHWM)."""

    now_mb: float
    peak_mb: float


class Spent(NamedTuple):
    """What `/metrics` counts of one stage."""

    seconds: float
    times: float


@contextmanager
def running_service(root: Path, log: Path) -> Iterator[Running]:
    """Start the installed command on a free port with its own settings, wait until it is ready, stop it after.

    Its log goes to the file `log`.  Raises `SettingError` where it does not start.
    """
    command = Path(sys.executable).with_name("resad-service")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
    with log.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            [command, "--root", root, "--port", "0"],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = re.search(r"http://\S+", process.stdout.readline())
            listening = time.perf_counter() - began
            if said is None:
                raise SettingError(f"resad-service did not start: {log.read_text().strip()}")
            _wait_until_ready(said.group(), process, log)
            yield Running(said.group(), process, listening, time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()


def memory_of(pid: int) -> Memory:
    """As `/proc` has it."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return Memory(int(kib["VmRSS"]) * 1024 / 1e6, int(kib["VmHWM"]) * 1024 / 1e6)


def stages(http: httpx.Client) -> dict[str, Spent]:
    """Every stage's seconds and count so far."""
    samples: dict[tuple[str, str], float] = {
        (stage, kind): float(value) for kind, stage, value in _STAGE.findall(http.get("/metrics").text)
    }
    return {stage: Spent(samples[stage, "sum"], samples[stage, "count"]) for stage, _ in samples}


def _wait_until_ready(url: str, process: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    with Client(url, retries=0) as client:
        while not client.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SettingError(f"resad-service did not become ready: {log.read_text().strip()}")
            time.sleep(_POLL_S)


_RULE: Final = DecisionRule(fpr=0.05)
_EVIDENCE: Final = 3
_LIMITS: Final = PhotoLimits()


@dataclass(frozen=True, slots=True)
class Photos:
    """Photographs of one kind, posted in turn."""

    name: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Offline:
    """One photograph scored in this process, in seconds, with what the service must answer."""

    decode: float
    score: float
    render: float
    image_score: float
    png: bytes


def score_offline(loaded: LoadedIndex, data: bytes) -> Offline:
    """What the service does for a photograph, step by step, without it."""
    manifest = loaded.manifest
    began = time.perf_counter()
    photo = prepare(data, manifest.config.preparation, _LIMITS)
    decoded = time.perf_counter()
    detection = loaded.detector.detect([photo])[0]
    result = assemble(photo, detection, loaded, ScoreOptions(_RULE, evidence=_EVIDENCE), timings=Timings(0.0, 0.0))
    scored = time.perf_counter()
    in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    png = map_png16(in_photo, manifest.calibration.full_scale, manifest.fingerprint)
    rendered = time.perf_counter()
    return Offline(decoded - began, scored - decoded, rendered - scored, result.image_score, png)


def batch_rate(loaded: LoadedIndex, photos: Sequence[bytes], folder: Path, count: int) -> float:
    """Photographs a second that `resad-indexer score` scores, with a CSV's rows and no other files."""
    paths = [folder / f"photo_{number}.jpg" for number in range(len(photos))]
    for path, data in zip(paths, photos, strict=True):
        path.write_bytes(data)
    jobs = [ScoreJob(paths[number % len(paths)], str(number), str(number)) for number in range(count)]
    began = time.perf_counter()
    rows = list(score_photos(Engine(loaded, _LIMITS), jobs, RunOptions(ScoreOptions(_RULE))))
    return len(rows) / (time.perf_counter() - began)


def command_seconds(loaded: LoadedIndex, photos: Photos, out: Path) -> float:
    """Mean per photograph of all that `resad-indexer score` does once its index is loaded."""
    jobs = [
        ScoreJob(path, path.name, path.stem, json=out / f"{number}.json", map=out / f"{number}_map.png",
            overlay=out / f"{number}_overlay.png")
        for number, path in enumerate(photos.paths)
    ]  # fmt: skip
    began = time.perf_counter()
    for _ in score_photos(Engine(loaded, _LIMITS), jobs, RunOptions(ScoreOptions(_RULE, _EVIDENCE))):
        pass
    return (time.perf_counter() - began) / len(jobs)


_TIMEOUT_S: Final = 120.0
_MAP_HEADERS: Final = {"Content-Type": "image/jpeg", "Accept": "image/png"}


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
            return http.post("/v1/anomaly-map", content=data, headers=_MAP_HEADERS).raise_for_status().content

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
    zero = Spent(0.0, 0)
    spent = {}
    for stage in ("decode", "score", "render"):
        old, new = before.get(stage, zero), after.get(stage, zero)
        times = new.times - old.times  # a map is drawn in parts, as the caller takes them
        assert stage == "render" or times in (0, requests), f"somebody else is using the service: {stage}"
        spent[stage] = (new.seconds - old.seconds) / requests
    return spent


def _deviation(answer: Result | bytes, offline: Offline) -> float:
    """Of an image score, relative to the offline one; of a map, the largest, relative to the full scale."""
    if isinstance(answer, Result):
        return abs(answer.image_score / offline.image_score - 1)
    values, _ = read_map_png16(answer)
    expected, full_scale = read_map_png16(offline.png)
    return float(np.abs(values - expected).max()) / full_scale


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 95))


def _size(loaded: LoadedIndex) -> int:
    return loaded.manifest.config.preparation.size


_MOST_AT_ONCE: Final = 1000
"""Requests that wait for an answer; beyond it none is sent."""
_HEADERS: Final = {"Content-Type": "image/jpeg"}
LOST: Final = 0
"""Stands for the status where the connection ended without an answer."""
NEVER_ACCEPTED: Final = -1
"""Where there was no connection."""


@dataclass(frozen=True, slots=True)
class Answer:
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
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Overload:
    """rate: requests a second that were offered."""

    rate: float
    answers: tuple[Answer, ...]
    resident: tuple[Resident, ...]


@dataclass(frozen=True, slots=True)
class Swaps:
    """followed: seconds from each activation until both replicas served it."""

    followed: tuple[float, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """in_flight: accepted when the signal came.  logged: requests that the service wrote down as done with."""

    in_flight: int
    answers: tuple[Answer, ...]
    logged: int
    seconds: float
    code: int


async def closed_loop(
    urls: Sequence[str], photos: Sequence[bytes], clients: int, requests: int, stop: asyncio.Event | None = None
) -> list[Answer]:
    """So many clients, shared out among `urls`, each asking again once it is answered; `requests` altogether.

    It ends early once `stop` is set, or for a client once it has lost its connection.
    """
    numbers, start = itertools.count(), time.perf_counter()

    async def client(url: str) -> list[Answer]:
        answers: list[Answer] = []
        async with _client(url) as http:
            while (number := next(numbers)) < requests and not (stop and stop.is_set()):
                answers.append(await _request(http, photos, number % len(photos), start))
                if answers[-1].status in (LOST, NEVER_ACCEPTED):
                    break
        return answers

    per_client = await asyncio.gather(*(client(urls[number % len(urls)]) for number in range(clients)))
    return [answer for answers in per_client for answer in answers]


async def open_loop(url: str, photos: Sequence[bytes], rate: float, seconds: float) -> list[Answer]:
    """`rate` requests a second for so long, whether or not those before were answered."""
    start = time.perf_counter()
    waiting: set[asyncio.Task[Answer]] = set()
    answers_so_far: list[Answer] = []

    def take(task: asyncio.Task[Answer]) -> None:
        waiting.discard(task)
        answers_so_far.append(task.result())

    async with _client(url) as http:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            if len(waiting) < _MOST_AT_ONCE:
                task = asyncio.create_task(_request(http, photos, number % len(photos), start))
                waiting.add(task)
                task.add_done_callback(take)
        while waiting:
            await asyncio.wait(set(waiting))
            await asyncio.sleep(0)
    return answers_so_far


async def watch_memory(pid: int, interval_s: float) -> list[Resident]:
    """Until it is cancelled."""
    samples, start = [], time.perf_counter()
    try:
        while True:
            samples.append(Resident(time.perf_counter() - start, memory_of(pid).now_mb))
            await asyncio.sleep(interval_s)
    except asyncio.CancelledError:
        return samples


def percentile(seconds: Sequence[float], at: float) -> float:
    """NaN of nothing."""
    return float(np.percentile(seconds, at)) if seconds else float("nan")


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    return httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits)


async def _request(http: httpx.AsyncClient, photos: Sequence[bytes], photo: int, start: float) -> Answer:
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
    return Answer(began - start, time.perf_counter() - began, status, photo, version, score, retry_after)
