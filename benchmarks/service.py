"""The service: start, memory, single requests, many clients, overload, new versions under load, and SIGTERM.

Run as `python -m benchmarks.service`; needs RESAD_DATA.  Each service is a process of its own with its own
settings; its clients, and the offline scoring that every answer is checked against, share the machine with it.
"""

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import typer

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import DEFAULT, build_index, data_set
from benchmarks._service import (
    LOST,
    NEVER_ACCEPTED,
    Answer,
    Level,
    Lone,
    Memory,
    Overload,
    Photos,
    Resident,
    Running,
    Stop,
    Swaps,
    batch_rate,
    closed_loop,
    lone_requests,
    memory_of,
    open_loop,
    percentile,
    running_service,
    score_offline,
    watch_memory,
)
from lab.datasets.layouts import read_mvtec
from resad import index, runtime
from resad.loaded_index import LoadedIndex

_BOUND: Final = 1e-4
"""How far an answer may lie from the offline one."""


@dataclass(frozen=True, slots=True)
class LonePlan:
    """Extent of the measurements with one request at a time."""

    sizes: tuple[int, ...]
    starts: int
    lone: int


_LONE: Final = LonePlan((512, 784), 3, 16)
_LONE_QUICK: Final = LonePlan((128,), 1, 2)


@dataclass(frozen=True, slots=True)
class Startup:
    """Medians over the starts; memory of the last process when ready and after the requests."""

    size: int
    memories: int
    listening_seconds: float
    ready_seconds: float
    started: Memory
    after_lone: Memory


@dataclass(frozen=True, slots=True)
class SizeResult:
    """Everything measured with one index."""

    startup: Startup
    lone: tuple[Lone, ...]


def _measure_lone(quick: bool, shared: Path) -> list[SizeResult]:
    """Print start-up and single requests; fail where an answer is not the offline one."""
    plan = _LONE_QUICK if quick else _LONE
    kinds = _photos(shared)
    print_header(
        "The service",
        f"the defaults, size {' and '.join(map(str, plan.sizes))}; resad-service with its own settings. "
        f"Posted in turn: {len(kinds[0].paths)} JPEGs of 512 x 512 px; {len(kinds[1].paths)} of 4288 x 2848 px "
        f"(camera). OMP_WAIT_POLICY: {os.environ.get('OMP_WAIT_POLICY', 'unset')}.",
    )
    results = [_measure_size(size, plan, kinds, shared) for size in plan.sizes]
    lone = [requests for result in results for requests in result.lone]
    _print_startup([result.startup for result in results], plan)
    _print_lone(lone, plan)
    largest = max(requests.deviation for requests in lone)
    if not largest <= _BOUND:
        print(f"an answer is {largest:.1e} from the offline one, the bound is {_BOUND:g}", file=sys.stderr)
        raise typer.Exit(1)
    return results


def _photos(shared: Path) -> tuple[Photos, Photos]:
    test = data_set(shared) / "test"
    small = (*sorted(test.glob("good/*.jpg"))[:4], *sorted(test.glob("lesion/*.jpg"))[:4])
    large = sorted((shared / "data" / "idrid-fullres").glob("*.jpg"))
    return Photos("512 px", small), Photos("camera", tuple(large))


def _measure_size(size: int, plan: LonePlan, kinds: Sequence[Photos], shared: Path) -> SizeResult:
    with tempfile.TemporaryDirectory() as folder:
        root, log, out = Path(folder) / "root", Path(folder) / "log", Path(folder) / "out"
        loaded = build_index(DEFAULT, size, shared, root)
        starts = []
        for _ in range(plan.starts - 1):
            with running_service(root, log) as running:
                starts.append(running)
        with running_service(root, log) as running:
            starts.append(running)
            memory = [memory_of(running.pid)]
            lone = [
                requests for kind in kinds for requests in lone_requests(running.url, loaded, kind, plan.lone, out)
            ]
            memory.append(memory_of(running.pid))
    startup = Startup(
        size,
        loaded.manifest.counts.memories,
        median(start.listening_seconds for start in starts),
        median(start.ready_seconds for start in starts),
        *memory,
    )
    return SizeResult(startup, tuple(lone))


def _print_startup(startups: Sequence[Startup], plan: LonePlan) -> None:
    print_table(
        f"Seconds from the process's start (medians of {plan.starts}); its resident memory, now and at most, MB",
        ("size", "memories", "it listens", "it is ready", "when ready", "after lone requests"),
        [
            (
                str(startup.size),
                f"{startup.memories:,}",
                f"{startup.listening_seconds:.2f}",
                f"{startup.ready_seconds:.2f}",
                *(f"{at.now_mb:,.0f}, {at.peak_mb:,.0f}" for at in (startup.started, startup.after_lone)),
            )
            for startup in startups
        ],
    )


def _print_lone(lone: Sequence[Lone], plan: LonePlan) -> None:
    print_table(
        f"A lone request, {plan.lone} of each, and offline the same work turn by turn with it, ms",
        ("size: request", "median", "p95", "offline, median", "resad-indexer score, median", "largest deviation"),
        [
            (
                f"{requests.size}: {requests.request}",
                *map(_ms, (requests.median, requests.p95, requests.offline, requests.command)),
                f"{requests.deviation:.0e}",
            )
            for requests in lone
        ],
    )
    print_table(
        "Where the time of a lone request goes, means, ms",
        ("size: request", "decode", "score", "render", "all else, the client's part included"),
        [
            (
                f"{requests.size}: {requests.request}",
                *map(_ms, (requests.decode, requests.score, requests.render)),
                f"{1e3 * requests.rest:.1f}",
            )
            for requests in lone
        ],
    )


_OVER: Final = 4
"""Times its capacity that an overloaded service is offered."""
_STOPPED_CLIENTS: Final = 16


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Extent of the load tests.  levels: numbers of clients, and of all their requests together."""

    size: int
    levels: tuple[tuple[int, int], ...]
    overload_s: float
    swaps: int
    stop_after_s: float


_LOAD: Final = LoadPlan(512, ((1, 30), (4, 80), (16, 160), (64, 320)), 120.0, 20, 3.0)
_LOAD_QUICK: Final = LoadPlan(128, ((1, 4), (4, 12)), 3.0, 2, 0.5)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Everything.

    offline: photographs a second that `resad-indexer score` scores one after the other, before the service starts.
    wrong: answers that were not the offline score of their own version.
    """

    offline: float
    levels: tuple[Level, ...]
    overload: Overload
    swaps: Swaps
    stop: Stop
    wrong: int


def main(quick: Quick = False, json: Json = None) -> None:
    """Measure single requests, then load, with the default settings, on IDRiD."""
    shared = shared_data()
    runtime.configure("exact")
    lone = _measure_lone(quick, shared)
    load = _measure_load(quick, shared)
    write_json(json, {"lone": lone, "load": load})
    if load.wrong:
        raise typer.Exit(1)


def _measure_load(quick: bool, shared: Path) -> LoadResult:
    plan = _LOAD_QUICK if quick else _LOAD
    photos = [photo.path.read_bytes() for photo in read_mvtec(data_set(shared)).test[:8]]
    print_header(
        "The service under load",
        f"the defaults, size {plan.size}; resad-service with its own settings "
        f"(64 places, deadline 30 s). Posted in turn: {len(photos)} JPEGs of 512 x 512 px.",
    )
    result = _run_load(plan, photos, shared)
    _print_levels(result.levels, result.offline)
    _print_overload(result.overload)
    _print_swaps(result.swaps)
    _print_stop(result.stop)
    print(f"Answers that are not the offline score of the version they name: {result.wrong}.\n")
    return result


def _run_load(plan: LoadPlan, photos: Sequence[bytes], shared: Path) -> LoadResult:
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder) / "root", Path(folder) / "log"
        # Two versions that score differently, so that an answer tells which of them it came from.
        variants = [replace(DEFAULT, settings=(f"search.neighbors={count}",)) for count in (1, 3)]
        versions = [build_index(variant, plan.size, shared, root) for variant in variants]
        offline = batch_rate(versions[-1], photos, Path(folder), plan.levels[-1][1])
        with running_service(root, log) as running:
            levels = tuple(_level(running, photos, *level) for level in plan.levels)
            overload = asyncio.run(_overload(running, photos, _capacity(levels), plan.overload_s))
        with ExitStack() as stack:
            replicas = [stack.enter_context(running_service(root, log)) for _ in range(2)]
            swaps = asyncio.run(_swaps(replicas, root / "idrid", photos, plan.swaps))
        with running_service(root, log) as running:
            stop = asyncio.run(_stop(running, photos, log, plan.stop_after_s))
        all_answers = (
            *(answer for level in levels for answer in level.answers),
            *overload.answers,
            *swaps.answers,
            *stop.answers,
        )
        return LoadResult(offline, levels, overload, swaps, stop, sum(_wrong(all_answers, versions, photos)))


def _level(running: Running, photos: Sequence[bytes], clients: int, requests: int) -> Level:
    began = time.perf_counter()
    answers = asyncio.run(closed_loop([running.url], photos, clients, requests))
    return Level(clients, time.perf_counter() - began, tuple(answers))


def _capacity(levels: Sequence[Level]) -> float:
    """Answers a second, at best."""
    return max(
        sum(answer.status == httpx.codes.OK for answer in level.answers) / level.seconds for level in levels
    )


async def _overload(running: Running, photos: Sequence[bytes], capacity: float, seconds: float) -> Overload:
    rate = _OVER * capacity
    watch = asyncio.create_task(watch_memory(running.pid, min(1.0, seconds / 10)))
    answers = await open_loop(running.url, photos, rate, seconds)
    await asyncio.sleep(min(2.0, seconds))
    watch.cancel()
    return Overload(rate, tuple(answers), tuple(await watch))


async def _swaps(replicas: Sequence[Running], folder: Path, photos: Sequence[bytes], count: int) -> Swaps:
    versions, stop, followed = index.versions(folder), asyncio.Event(), []
    urls = [replica.url for replica in replicas]
    load = asyncio.create_task(closed_loop(urls, photos, 2 * len(urls), 10**6, stop))
    async with httpx.AsyncClient(timeout=120) as http:
        for number in range(count):
            version = versions[number % len(versions)]
            index.activate(folder, version)
            began = time.perf_counter()
            while any([await _live(http, url) != version for url in urls]):
                await asyncio.sleep(0.05)
            followed.append(time.perf_counter() - began)
    stop.set()
    return Swaps(tuple(followed), tuple(await load))


async def _live(http: httpx.AsyncClient, url: str) -> str | None:
    version: str | None = (await http.get(f"{url}/v1/indexes/idrid")).json()["version"]
    return version


async def _stop(running: Running, photos: Sequence[bytes], log: Path, after_s: float) -> Stop:
    load = asyncio.create_task(closed_loop([running.url], photos, _STOPPED_CLIENTS, 10**6))
    await asyncio.sleep(after_s)
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        metrics = (await http.get("/metrics")).text
        os.kill(running.pid, signal.SIGTERM)
        began = time.perf_counter()
    match = re.search(r"^resad_queue_photos (\S+)$", metrics, re.MULTILINE)
    assert match
    answers = await load
    code = await asyncio.to_thread(running.process.wait)
    seconds = time.perf_counter() - began
    logged = log.read_text().count('"POST /v1/score ')
    return Stop(int(float(match[1])), tuple(answers), logged, seconds, code)


def _wrong(answers: Sequence[Answer], versions: Sequence[LoadedIndex], photos: Sequence[bytes]) -> Iterator[bool]:
    expected = {
        (loaded.manifest.version, number): score_offline(loaded, photo).image_score
        for loaded in versions
        for number, photo in enumerate(photos)
    }
    for answer in answers:
        if answer.version is not None and answer.score is not None:
            true = expected[answer.version, answer.photo]
            yield abs(answer.score - true) > 1e-4 * true


_OK: Final = 200
_BUSY: Final = 429
_PARTS: Final = 12
"""Stretches of the overload that are looked at one by one."""


def _print_levels(levels: Sequence[Level], offline: float) -> None:
    """Clients at once, beside the offline batch."""
    rows = [
        (
            str(level.clients),
            str(len(level.answers)),
            f"{len(_answered(level.answers)) / level.seconds:.2f}",
            f"{len(_answered(level.answers)) / level.seconds / offline:.0%}",
            *(_ms(percentile(_answered(level.answers), at)) for at in (50, 95, 99)),
            str(sum(answer.status == _BUSY for answer in level.answers)),
            _other_statuses(level.answers),
        )
        for level in levels
    ]
    headings = ("clients", "requests", "answers/s", "of offline", "p50, ms", "p95, ms", "p99, ms", "429", "others")
    print_table(
        f"Clients at once, each sending its next request after an answer; scores with map=none; "
        f"offline {offline:.2f} a second",
        headings,
        rows,
    )


def _print_overload(overload: Overload) -> None:
    """The whole, then stretch by stretch."""
    answers, resident = overload.answers, [sample.mb for sample in overload.resident]
    seconds = max(answer.began for answer in answers)
    answered, refused = _answered(answers), [answer for answer in answers if answer.status == _BUSY]
    span = max((answer.began + answer.seconds for answer in answers if answer.status == _OK), default=seconds)
    waits = [answer.retry_after for answer in refused if answer.retry_after is not None]
    print_table(
        f"{overload.rate:.0f} requests a second for {seconds:.0f} s, four times what it can do",
        ("requests", "scored", "scored/s", "429", "others", "p50, ms", "p95, ms", "longest, ms", "429: p95, ms",
         "Retry-After, s"),
        [
            (
                f"{len(answers):,}", f"{len(answered):,}", f"{len(answered) / span:.2f}", f"{len(refused):,}",
                _other_statuses(answers), *(_ms(percentile(answered, at)) for at in (50, 95, 100)),
                _ms(percentile([answer.seconds for answer in refused], 95)),
                f"{min(waits)} to {max(waits)}" if waits else "-",
            )
        ],
    )  # fmt: skip
    print_table(
        "The same by time: of the requests that were scored, and the process's resident memory",
        ("from, s", "scored", "p50, ms", "p95, ms", "longest, ms", "memory, MB"),
        [
            (
                f"{start:.0f}",
                str(len(_answered(part))),
                *(_ms(percentile(_answered(part), at)) for at in (50, 95, 100)),
                f"{max((sample.mb for sample in _resident_between(overload, start, end)), default=0):,.0f}",
            )
            for start, end, part in _parts(overload)
        ],
    )
    print(f"Resident memory before, at most, and at the end: "
          f"{resident[0]:,.0f}, {max(resident):,.0f} and {resident[-1]:,.0f} MB.\n")  # fmt: skip


def _print_swaps(swaps: Swaps) -> None:
    """Twenty versions."""
    versions = Counter(answer.version for answer in swaps.answers if answer.version)
    print_table(
        "Versions activated in turn while two clients ask each of two replicas on one root",
        ("swaps", "both follow after, s (median)", "at most", "answers", "of each version", "others"),
        [
            (
                str(len(swaps.followed)),
                f"{median(swaps.followed):.2f}",
                f"{max(swaps.followed):.2f}",
                str(len(swaps.answers)),
                " and ".join(map(str, sorted(versions.values()))),
                _other_statuses(swaps.answers),
            )
        ],
    )


def _print_stop(stop: Stop) -> None:
    """SIGTERM."""
    received = sum(answer.status > 0 for answer in stop.answers)
    print_table(
        "SIGTERM while 16 clients ask without a pause",
        ("accepted at the signal", "done with, by the service's log", "answers received", "lost", "others",
         "exit code", "seconds to the end"),
        [
            (
                str(stop.in_flight), str(stop.logged), str(received), str(stop.logged - received),
                _other_statuses(stop.answers), str(stop.code), f"{stop.seconds:.1f}",
            )
        ],
    )  # fmt: skip


def _parts(overload: Overload) -> list[tuple[float, float, list[Answer]]]:
    length = max(answer.began for answer in overload.answers) / _PARTS + 1e-9
    return [
        (
            number * length,
            (number + 1) * length,
            [answer for answer in overload.answers if number <= answer.began / length < number + 1],
        )
        for number in range(_PARTS)
    ]


def _resident_between(overload: Overload, start: float, end: float) -> list[Resident]:
    return [sample for sample in overload.resident if start <= sample.began < end]


def _answered(answers: Sequence[Answer]) -> list[float]:
    return [answer.seconds for answer in answers if answer.status == _OK]


def _other_statuses(answers: Sequence[Answer]) -> str:
    """Statuses beside 200 and 429, with their counts."""
    names = {LOST: "no answer", NEVER_ACCEPTED: "not accepted"}
    count = Counter(answer.status for answer in answers if answer.status not in (_OK, _BUSY))
    return (
        ", ".join(f"{names.get(status, str(status))}: {times}" for status, times in sorted(count.items())) or "0"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}"


if __name__ == "__main__":
    typer.run(main)
