"""What every benchmark prints around its figures: machine, versions and Markdown tables; time and memory."""

import os
import platform
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import numpy as np
import torch
import typer
from pydantic_core import to_json

from lab.evaluate.bootstrap import Figure
from resad.memory_bank import Provenance
from resad.runtime import packages

Quick = Annotated[
    bool, typer.Option("--quick", help="A small version, to see that it runs; its figures mean little.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write everything here as JSON, too.")]

_NO_DATA: Final = "RESAD_DATA is not set (the folder that holds data/ and weights/): skipped."

_RATE_SIDE: Final = 2048
"""Of the square matrices that a rate is measured with; four times it on a GPU."""

_Result = TypeVar("_Result")


class Timed(NamedTuple, Generic[_Result]):
    """seconds: median over the repeats.  result: of the last one."""

    seconds: float
    result: _Result


def shared_data() -> Path:
    """The folder of real photographs and weights; where none is named, says so and ends the run in peace."""
    place = os.environ.get("RESAD_DATA")
    if not place:
        print(_NO_DATA)
        raise typer.Exit
    return Path(place)


def machine() -> str:
    """CPU, cores, threads, memory and GPU in one line."""
    cores = len(os.sched_getaffinity(0))
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{_cpu()}, {cores} cores ({torch.get_num_threads()} threads used), {gib:.0f} GiB memory, {gpu}"


def print_header(title: str, settings: str) -> None:
    """Title, machine, package versions and settings; no date, so that equal runs print the same."""
    versions = ", ".join(f"{package.name} {package.version}" for package in packages())
    print(f"## {title}\n\nMachine: {machine()}.\\\nVersions: {versions}.\\\nSettings: {settings}\n", flush=True)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, readable as it stands: the first column to the left, numbers to the right."""
    widths = [max(3, *(len(row[column]) for row in [headings, *rows])) for column in range(len(headings))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"**{title}**\n")
    for row in [headings, rule, *rows]:
        first, *numbers = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in numbers)]
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def interval(figure: Figure, *, signed: bool = False) -> str:
    """`0.812 (0.701 to 0.905)`; with a sign for differences."""
    sign = "+" if signed else ""
    return f"{figure.value:{sign}.3f} ({figure.low:{sign}.3f} to {figure.high:{sign}.3f})"


def median_time(
    call: Callable[[], _Result], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Timed[_Result]:
    """Run `call` `repeats` times, at least once."""
    began = clock()
    result = call()
    seconds = [clock() - began]
    for _ in range(repeats - 1):
        began = clock()
        result = call()
        seconds.append(clock() - began)
    return Timed(median(seconds), result)


def finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, kind: torch.dtype = torch.float32) -> float:
    """Operations a second in products of large matrices, on all of `device`: the best of some."""
    side = _RATE_SIDE if device.type == "cpu" else 4 * _RATE_SIDE
    a = torch.rand(side, side, device=device).to(kind)

    def seconds() -> float:
        finish(device)
        began = time.perf_counter()
        a @ a
        finish(device)
        return time.perf_counter() - began

    return 2.0 * side**3 / min(seconds() for _ in range(8))


def write_json(path: Path | None, record: object) -> None:
    """Dataclasses and arrays of them -> `path`, if one was given; machine and versions beside them."""
    if path is not None:
        whole = {"machine": machine(), "packages": packages(), "figures": record}
        path.write_bytes(to_json(whole, indent=2) + b"\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


_PROC: Final = Path("/proc")


class OwnMemory:
    """The largest own memory of a process within the `with` block, bytes: resident, without pages of mapped files.

    Args:
        process: its id; by default this process.
        interval_s: seconds between two samples.
    """

    def __init__(self, process: int | None = None, interval_s: float = 0.005) -> None:
        self.most = 0
        self._status = _PROC / ("self" if process is None else str(process)) / "status"
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.most = max(self.most, _own_bytes(self._status))
            if self._over.wait(self._interval_s):
                return


def own_bytes() -> int:
    """Of this process, now."""
    size = _own_bytes(_PROC / "self/status")
    if not size:
        raise SystemExit("/proc/self/status has no RssAnon: this benchmark needs Linux")
    return size


def _own_bytes(status: Path) -> int:
    """0 where the process has ended."""
    try:
        match = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def placeholder_provenance(count: int) -> Provenance:
    """Provenance of memories whose origin no result of the benchmark names."""
    photos = np.zeros(count, dtype=np.int32)
    return Provenance(photos, np.zeros((count, 2), dtype=np.int16), np.arange(count, dtype=np.int32))
