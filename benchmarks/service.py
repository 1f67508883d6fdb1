"""The service beside the same work offline: start, memory, and a lone request; `load` has many at once.

Run as `python -m benchmarks.service`; takes RESAD_DATA.  The service is a process of its own with its own
settings; its clients, and the offline scoring that every answer is checked against, share the machine with it.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import typer

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import CORESET, Variant, build_index, data_set
from benchmarks._service_offline import Photos
from benchmarks._service_process import Memory, memory_of, running_service
from benchmarks._service_requests import Lone, lone_requests
from resad import runtime

_BOUND: Final = 1e-4
"""How far an answer may lie from the offline one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done."""

    sizes: tuple[int, ...]
    starts: int
    lone: int


_FULL: Final = Plan((512, 784), 3, 30)
_QUICK: Final = Plan((128,), 1, 2)


@dataclass(frozen=True, slots=True)
class Process:
    """Medians of the starts, and one process's memory as time went by."""

    size: int
    memories: int
    listening_seconds: float
    ready_seconds: float
    started: Memory
    after_lone: Memory


@dataclass(frozen=True, slots=True)
class Served:
    """Everything measured with one index."""

    process: Process
    lone: tuple[Lone, ...]


def main(quick: Quick = False, json: Json = None) -> None:
    """Measure the service with ResNet-18 on IDRiD."""
    shared = shared_data()
    runtime.configure("exact")
    plan = _QUICK if quick else _FULL
    kinds = _photos(shared)
    print_header(
        "The service",
        f"preset resad, ResNet-18 (ImageNet), size {' and '.join(map(str, plan.sizes))}, coreset {CORESET}, "
        f"exact; resad-service with its own settings. Posted in turn: {len(kinds[0].paths)} JPEGs of 512 x "
        f"512 px; {len(kinds[1].paths)} of 4288 x 2848 px (camera). "
        f"OMP_WAIT_POLICY: {os.environ.get('OMP_WAIT_POLICY', 'unset')}.",
    )
    served = [_measure(size, plan, kinds, shared) for size in plan.sizes]
    lone = [one for each in served for one in each.lone]
    _print_processes([each.process for each in served], plan)
    _print_lone(lone, plan)
    write_json(json, served)
    largest = max(one.deviation for one in lone)
    if not largest <= _BOUND:
        print(f"an answer is {largest:.1e} from the offline one, the bound is {_BOUND:g}", file=sys.stderr)
        raise typer.Exit(1)


def _photos(shared: Path) -> tuple[Photos, Photos]:
    test = data_set(shared) / "test"
    small = (*sorted(test.glob("good/*.jpg"))[:4], *sorted(test.glob("lesion/*.jpg"))[:4])
    large = sorted((shared / "data" / "idrid-fullres").glob("*.jpg"))
    return Photos("512 px", small), Photos("camera", tuple(large))


def _measure(size: int, plan: Plan, kinds: Sequence[Photos], shared: Path) -> Served:
    with tempfile.TemporaryDirectory() as folder:
        root, log, out = Path(folder) / "root", Path(folder) / "log", Path(folder) / "out"
        loaded = build_index(Variant("resad"), size, shared, root)
        starts = []
        for _ in range(plan.starts - 1):
            with running_service(root, log) as running:
                starts.append(running)
        with running_service(root, log) as running:
            starts.append(running)
            memory = [memory_of(running.pid)]
            lone = [one for kind in kinds for one in lone_requests(running.url, loaded, kind, plan.lone, out)]
            memory.append(memory_of(running.pid))
    process = Process(
        size,
        loaded.manifest.counts.memories,
        median(one.listening_seconds for one in starts),
        median(one.ready_seconds for one in starts),
        *memory,
    )
    return Served(process, tuple(lone))


def _print_processes(processes: Sequence[Process], plan: Plan) -> None:
    print_table(
        f"Seconds from the process's start (medians of {plan.starts}); its resident memory, now and at most, MB",
        ("size", "memories", "it listens", "it is ready", "when ready", "after lone requests"),
        [
            (
                str(one.size),
                f"{one.memories:,}",
                f"{one.listening_seconds:.2f}",
                f"{one.ready_seconds:.2f}",
                *(f"{at.now_mb:,.0f}, {at.peak_mb:,.0f}" for at in (one.started, one.after_lone)),
            )
            for one in processes
        ],
    )


def _print_lone(lone: Sequence[Lone], plan: Plan) -> None:
    print_table(
        f"A lone request, {plan.lone} of each, and offline the same work turn by turn with it, ms",
        ("size: request", "median", "p95", "offline, median", "resad-indexer score, median", "largest deviation"),
        [
            (
                f"{one.size}: {one.request}",
                *map(_ms, (one.median, one.p95, one.offline, one.command)),
                f"{one.deviation:.0e}",
            )
            for one in lone
        ],
    )
    print_table(
        "Where the time of a lone request goes, means, ms",
        ("size: request", "decode", "score", "render", "all else, the client's part included"),
        [
            (f"{one.size}: {one.request}", *map(_ms, (one.decode, one.score, one.render)), f"{1e3 * one.rest:.1f}")
            for one in lone
        ],
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}"


if __name__ == "__main__":
    typer.run(main)
