"""A build over a local Ray cluster: traffic and time of a greedy round, and photographs a second, by workers.

Run as `python -m benchmarks.cluster`; needs the extra `cluster`, no data.  The workers share this machine's cores.

    unshare --net --mount python -m benchmarks.cluster --unplug

builds over a head and two nodes in network namespaces on a bridge, takes one node off the network while it
extracts, and compares the index with that of a single process, byte by byte.  It needs root and Debian's
iproute2; this machine's own network is neither used nor changed.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import torch
import typer
from rich.console import Console

from benchmarks._bench import Json, Quick, print_header, print_table, write_json
from cluster.build import ClusterWorkers
from cluster.shards import RemoteShards
from cluster.worker_pool import Cluster, PoolOptions, WorkerSize, connected
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Advance, Stages
from indexer.coreset import projected_features
from indexer.settings import method_config
from lab.drawing import write_dataset
from resad import index

_WORKERS: Final = (1, 2, 4)
_PHOTOS: Final = 48
_BLOCK: Final = 512
"""Points: with blocks of 8,192 so few photographs would make two."""
_SHARE: Final = "0.1"


_NODES = ("head", "first", "second")
_PREFIX = "10.77.0."
_BUILD = ("--backbone", "bundled", "--size", "64", "--coreset", "0.1", "--device", "cpu")


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


def main(
    quick: Quick = False,
    json: Json = None,
    unplug: Annotated[bool, typer.Option("--unplug", help="Build over three network namespaces instead.")] = False,
) -> None:
    """Build with one process, then with more and more workers."""
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed (extra cluster): skipped.")
        raise typer.Exit
    if unplug:
        _unplug_a_node()
        return
    photos, side, workers = (16, 64, (2,)) if quick else (_PHOTOS, 128, _WORKERS)
    print_header(
        "A build over a cluster",
        f"{photos} drawn photographs at {side} px, trunk bundled, share {_SHARE}, blocks of {_BLOCK} points; Ray "
        "on this machine alone, one thread a worker; T is at least 128.",
    )
    projected_features.BLOCK_ROWS = _BLOCK  # type: ignore[misc]
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name, connected("local", cpus=max(workers)) as cluster:
        folder = Path(name)
        write_dataset(folder, 0, train=photos, good=1, diseased=1, height=160)
        builds = list(_measure(cluster, folder, side, workers))
    _print(builds)
    write_json(json, builds)


def _measure(cluster: Cluster, folder: Path, side: int, workers: tuple[int, ...]) -> Iterator[Measured]:
    config = method_config("resad", backbone="bundled", size=side, coreset=_SHARE)
    photos, cpu = folder / "train/good", torch.device("cpu")
    clock = _Clock()
    single = build(BuildOptions(photos, folder / "one", "eyes", config, "bundled", cpu), clock).version
    yield clock.measured(0, same=True)
    for count in workers:
        clock = _Clock()
        order = BuildOptions(photos, folder / f"of-{count}", "eyes", config, "bundled", cpu)
        group = PoolOptions(cluster, WorkerSize(1, 0), limit=count, scratch=folder)
        version = build(order, clock, workers=ClusterWorkers(group, on_shards=clock.watch)).version
        bank = "memory_bank.faiss"
        yield clock.measured(count, same=(version / bank).read_bytes() == (single / bank).read_bytes())


class _Clock(Stages):
    """Records when units were finished, and how many bytes the shards had exchanged by then."""

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
        encoded = [note for note in self._notes["encode"] if note[1] > 0]
        seconds = encoded[-1][0] - encoded[0][0]
        return Measured(
            workers=workers,
            runs=self._runs,
            rounds=len(rounds),
            milliseconds=1e3 * median(after[0] - before[0] for before, after in rounds),
            received=median(after[2] - before[2] for before, after in rounds),
            sent=median(after[3] - before[3] for before, after in rounds),
            rate=sum(note[1] for note in encoded[1:]) / seconds,
            same=same,
        )


def _print(builds: list[Measured]) -> None:
    print_table(
        "By workers",
        ("workers", "runs of chunks", "rounds", "ms a round", "kB received", "kB sent", "photographs/s", "bank"),
        [
            (
                str(build.workers) if build.workers else "one process",
                str(build.runs),
                str(build.rounds),
                f"{build.milliseconds:.1f}",
                f"{build.received / 1e3:.1f}",
                f"{build.sent / 1e3:.1f}",
                f"{build.rate:.1f}",
                "the same" if build.same else "ANOTHER",
            )
            for build in builds
        ],
    )


def _unplug_a_node() -> None:
    """Build in one process and over three nodes, one of them unplugged half way, and compare the files."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        sys.exit("run it without a network: unshare --net --mount python -m benchmarks.cluster --unplug")
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
        "RAY_health_check_period_ms": "1000",
                   "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder, 0, train=60, good=1, diseased=1, height=160)
        photos = folder / "train/good"
        _indexer("build", str(photos), "--root", str(folder / "one"), "--name", "eyes", *_BUILD)
        with _Network() as network:
            network.start_ray()
            began = time.perf_counter()
            scratch = folder / "scratch"
            process = network.indexer(
                "build", str(photos), "--root", str(folder / "three"), "--name", "eyes", *_BUILD,
                "--cluster", "auto", "--worker-cpus", "1", "--scratch", str(scratch),
            )  # fmt: skip
            _wait_for(lambda: _encoded_count(scratch) >= 10, 120)
            print(f"{_encoded_count(scratch)} of 60 photographs are made; the cable of {_NODES[2]} is pulled")
            network.pull(_NODES[2])
            code = process.wait(300)
            print(f"ended with {code} after {time.perf_counter() - began:.0f} s")
        distributed, single = (index.resolve(folder / root / "eyes") for root in ("three", "one"))
        for file in ("memory_bank.faiss", "provenance.npz", "photos.jsonl"):
            equal = (distributed / file).read_bytes() == (single / file).read_bytes()
            print(f"{file}: {'equal' if equal else 'DIFFERENT'}")
            if not equal or code:
                sys.exit(1)


class _Network:
    """Three network namespaces on a bridge in this one."""

    def __enter__(self) -> "_Network":
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        for number, node in enumerate(_NODES, start=1):
            _run("ip", "netns", "add", node)
            _run("ip", "link", "add", f"to-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
            _run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
            _run("ip", "-n", node, "addr", "add", f"{_PREFIX}{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", node, "link", "set", device, "up")
        self._nodes: list[subprocess.Popen[bytes]] = []
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._nodes):
            process.terminate()
        for process in self._nodes:
            process.wait(30)
        for node in _NODES:
            _run("ip", "netns", "delete", node)

    def start_ray(self) -> None:
        """A head without cores and two nodes with one each, held in the foreground."""
        self._ray("head", "--head", "--num-cpus=0", "--include-dashboard=false", f"--node-ip-address={_PREFIX}1")
        time.sleep(12)
        for number, node in enumerate(_NODES[1:], start=2):
            self._ray(node, f"--address={_PREFIX}1:6379", "--num-cpus=1", f"--node-ip-address={_PREFIX}{number}")
        time.sleep(12)

    def indexer(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """`resad-indexer` on the head."""
        command = _indexer_command(*arguments)
        return subprocess.Popen(_in("head", command), env=os.environ | {"RAY_ADDRESS": f"{_PREFIX}1:6379"})

    def pull(self, node: str) -> None:
        """Its cable."""
        _run("ip", "link", "set", f"to-{node}", "down")

    def _ray(self, node: str, *options: str) -> None:
        start = (str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
                 f"--object-store-memory={80 * 2**20}", *options)  # fmt: skip
        self._nodes.append(
            subprocess.Popen(_in(node, start), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )


def _in(node: str, command: Sequence[str]) -> list[str]:
    return ["ip", "netns", "exec", node, *command]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _indexer_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from indexer.cli import main; main()", *arguments]


def _indexer(*arguments: str) -> None:
    subprocess.run(_indexer_command(*arguments), check=True)


def _encoded_count(scratch: Path) -> int:
    return len(list(scratch.glob("*/*/features/*.features")))


def _wait_for(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            sys.exit("nothing happened in time")
        time.sleep(0.05)


if __name__ == "__main__":
    typer.run(main)
