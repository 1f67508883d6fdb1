"""The service under load: many clients, four times what it can do, versions that change meanwhile, and its end.

Run as `python -m benchmarks.load`; takes RESAD_DATA.  Each service is a process of its own on this machine's
loopback, its clients share the cores with it, and every score is held against the offline one.
"""

import asyncio
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from benchmarks._bench import Json, Quick, print_header, shared_data, write_json
from benchmarks._idrid import Variant, build_index, data_set
from benchmarks._load import (
    Asked,
    Level,
    Overload,
    Stop,
    Swaps,
    closed_loop,
    open_loop,
    watch_memory,
)
from benchmarks._load_tables import chart_of, print_levels, print_overload, print_stop, print_swaps
from benchmarks._service_offline import score_offline
from benchmarks._service_process import Running, running_service
from indexer.datasets.mvtec import read_mvtec
from resad import index, runtime
from resad.loaded_index import LoadedIndex

_OVER: Final = 4
"""Times its capacity that an overloaded service is offered."""
_STOPPED_CLIENTS: Final = 16
Plot = Annotated[Path | None, typer.Option("--plot", help="Write the figure here, as SVG.")]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.  levels: numbers of clients, and of their requests altogether."""

    size: int
    levels: tuple[tuple[int, int], ...]
    overload_s: float
    swaps: int
    stop_after_s: float


_FULL: Final = Plan(256, ((1, 30), (4, 80), (16, 160), (64, 320)), 120.0, 20, 3.0)
_QUICK: Final = Plan(128, ((1, 4), (4, 12)), 3.0, 2, 0.5)


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything.  wrong: answers that were not the offline score of their own version."""

    levels: tuple[Level, ...]
    overload: Overload
    swaps: Swaps
    stop: Stop
    wrong: int


def main(quick: Quick = False, json: Json = None, plot: Plot = None) -> None:
    """Measure the service with the bundled trunk on IDRiD."""
    shared = shared_data()
    runtime.configure("exact")
    plan = _QUICK if quick else _FULL
    photos = [photo.path.read_bytes() for photo in read_mvtec(data_set(shared)).test[:8]]
    print_header(
        "The service under load",
        f"preset resad, bundled trunk, size {plan.size}, coreset 0.02, exact; resad-service with its own settings "
        f"(64 places, deadline 30 s). Posted in turn: {len(photos)} JPEGs of 512 x 512 px.",
    )
    measured = _measure(plan, photos, shared)
    print_levels(measured.levels)
    print_overload(measured.overload)
    print_swaps(measured.swaps)
    print_stop(measured.stop)
    print(f"Answers that are not the offline score of the version they name: {measured.wrong}.\n")
    write_json(json, measured)
    if plot is not None:
        plot.write_text(chart_of(measured.levels, measured.overload))
    if measured.wrong:
        raise typer.Exit(1)


def _measure(plan: Plan, photos: Sequence[bytes], shared: Path) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder) / "root", Path(folder) / "log"
        # Two versions that score differently, so that an answer tells which of them it came from.
        variants = [Variant("resad", (), (f"search.neighbors={count}",), "bundled", "bundled") for count in (1, 3)]
        both = [build_index(variant, plan.size, shared, root) for variant in variants]
        with running_service(root, log) as running:
            levels = tuple(_level(running, photos, *each) for each in plan.levels)
            overload = asyncio.run(_overload(running, photos, _capacity(levels), plan.overload_s))
        with ExitStack() as stack:
            replicas = [stack.enter_context(running_service(root, log)) for _ in range(2)]
            swaps = asyncio.run(_swaps(replicas, root / "idrid", photos, plan.swaps))
        with running_service(root, log) as running:
            stop = asyncio.run(_stop(running, photos, log, plan.stop_after_s))
        every = (*(one for level in levels for one in level.asked), *overload.asked, *swaps.asked, *stop.asked)
        return Measured(levels, overload, swaps, stop, sum(_wrong(every, both, photos)))


def _level(running: Running, photos: Sequence[bytes], clients: int, requests: int) -> Level:
    began = time.perf_counter()
    asked = asyncio.run(closed_loop([running.url], photos, clients, requests))
    return Level(clients, time.perf_counter() - began, tuple(asked))


def _capacity(levels: Sequence[Level]) -> float:
    """Answers a second, at best."""
    return max(sum(one.status == httpx.codes.OK for one in level.asked) / level.seconds for level in levels)


async def _overload(running: Running, photos: Sequence[bytes], capacity: float, seconds: float) -> Overload:
    rate = _OVER * capacity
    watch = asyncio.create_task(watch_memory(running.pid, min(1.0, seconds / 10)))
    asked = await open_loop(running.url, photos, rate, seconds)
    await asyncio.sleep(min(2.0, seconds))
    watch.cancel()
    return Overload(rate, tuple(asked), tuple(await watch))


async def _swaps(replicas: Sequence[Running], folder: Path, photos: Sequence[bytes], count: int) -> Swaps:
    versions, stop, followed = index.versions(folder), asyncio.Event(), []
    urls = [one.url for one in replicas]
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
    taken = re.search(r"^resad_queue_photos (\S+)$", metrics, re.MULTILINE)
    assert taken
    asked = await load
    code = await asyncio.to_thread(running.process.wait)
    seconds = time.perf_counter() - began
    logged = log.read_text().count('"POST /v1/score ')
    return Stop(int(float(taken[1])), tuple(asked), logged, seconds, code)


def _wrong(asked: Sequence[Asked], both: Sequence[LoadedIndex], photos: Sequence[bytes]) -> Iterator[bool]:
    expected = {
        (loaded.manifest.version, number): score_offline(loaded, photo).image_score
        for loaded in both
        for number, photo in enumerate(photos)
    }
    for one in asked:
        if one.version is not None and one.score is not None:
            true = expected[one.version, one.photo]
            yield abs(one.score - true) > 1e-4 * true


if __name__ == "__main__":
    typer.run(main)
