"""A build over a local Ray cluster: what a round of the greedy exchanges and takes, and extraction, by workers.

Run as `python -m benchmarks.cluster`; needs the extra `cluster`, no data.  The workers share this machine's cores.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import torch
import typer
from rich.console import Console

from benchmarks._bench import Json, Quick, print_header, print_table, write_json
from indexer import points
from indexer.build import build
from indexer.build_order import BuildOrder
from indexer.cluster.build import build_on
from indexer.cluster.connection import Cluster, WorkerSize, connected
from indexer.cluster.orders import Workers
from indexer.cluster.shards import RemoteShards
from indexer.options import method
from indexer.progress import Advance, Stages
from indexer.synthetic import write_dataset

_WORKERS: Final = (1, 2, 4)
_PHOTOS: Final = 48
_BLOCK: Final = 512
"""Points: with blocks of 8,192 so few photographs would make two."""
_SHARE: Final = "0.1"


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one build.  workers: 0 for a single process.  received, sent: bytes by the driver, of a median round.

    rate: photographs a second, once the first ones are made.  same: the bank is the single process's.
    """

    workers: int
    runs: int
    rounds: int
    milliseconds: float
    received: float
    sent: float
    rate: float
    same: bool


def main(quick: Quick = False, json: Json = None) -> None:
    """Build with one process, then with ever more workers."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed (extra cluster): skipped.")
        raise typer.Exit
    photos, side, workers = (16, 64, (2,)) if quick else (_PHOTOS, 128, _WORKERS)
    print_header(
        "A build over a cluster",
        f"{photos} drawn photographs at {side} px, trunk bundled, share {_SHARE}, blocks of {_BLOCK} points; Ray "
        "on this machine alone, one thread a worker; T is at least 128.",
    )
    points.BLOCK_ROWS = _BLOCK  # type: ignore[misc]
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name, connected("local", cpus=max(workers)) as cluster:
        folder = Path(name)
        write_dataset(folder, 0, train=photos, good=1, diseased=1, height=160)
        found = list(_measure(cluster, folder, side, workers))
    _print(found)
    write_json(json, found)


def _measure(cluster: Cluster, folder: Path, side: int, workers: tuple[int, ...]) -> Iterator[Measured]:
    config = method("resad", backbone="bundled", size=side, coreset=_SHARE)
    photos, cpu = folder / "train/good", torch.device("cpu")
    clock = _Clock()
    single = build(BuildOrder(photos, folder / "one", "eyes", config, "bundled", cpu), clock).version
    yield clock.measured(0, same=True)
    for count in workers:
        clock = _Clock()
        order = BuildOrder(photos, folder / f"of-{count}", "eyes", config, "bundled", cpu)
        group = Workers(cluster, WorkerSize(1, 0), most=count, scratch=folder)
        version = build_on(group, order, clock, on_shards=clock.watch).version
        bank = "memory_bank.faiss"
        yield clock.measured(count, same=(version / bank).read_bytes() == (single / bank).read_bytes())


class _Clock(Stages):
    """Notes when units were done, and what the shards had exchanged by then."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self._notes: dict[str, list[tuple[float, int, int, int]]] = {}
        self._shards: RemoteShards | None = None
        self._runs = 1

    def watch(self, shards: RemoteShards) -> None:
        """The greedy's shards."""
        self._shards, self._runs = shards, shards.runs

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        with super().stage(name, total, unit) as advance:
            notes = self._notes.setdefault(name, [])

            def tell(steps: int, note: str = "") -> None:
                traffic = (self._shards.traffic.received, self._shards.traffic.sent) if self._shards else (0, 0)
                notes.append((time.perf_counter(), steps, *traffic))
                advance(steps, note)

            yield tell

    def measured(self, workers: int, *, same: bool) -> Measured:
        """The medians."""
        rounds = list(zip(self._notes["coreset"], self._notes["coreset"][1:], strict=False))
        made = [note for note in self._notes["encode"] if note[1] > 0]
        seconds = made[-1][0] - made[0][0]
        return Measured(
            workers=workers,
            runs=self._runs,
            rounds=len(rounds),
            milliseconds=1e3 * median(after[0] - before[0] for before, after in rounds),
            received=median(after[2] - before[2] for before, after in rounds),
            sent=median(after[3] - before[3] for before, after in rounds),
            rate=sum(note[1] for note in made[1:]) / seconds,
            same=same,
        )


def _print(found: list[Measured]) -> None:
    print_table(
        "By workers",
        ("workers", "runs of pieces", "rounds", "ms a round", "kB received", "kB sent", "photographs/s", "bank"),
        [
            (
                str(one.workers) if one.workers else "one process",
                str(one.runs),
                str(one.rounds),
                f"{one.milliseconds:.1f}",
                f"{one.received / 1e3:.1f}",
                f"{one.sent / 1e3:.1f}",
                f"{one.rate:.1f}",
                "the same" if one.same else "ANOTHER",
            )
            for one in found
        ],
    )


if __name__ == "__main__":
    typer.run(main)
