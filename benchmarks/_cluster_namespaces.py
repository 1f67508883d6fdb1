"""A build over three machines that share nothing but a disk: network namespaces on a bridge, one unplugged.

    unshare --net --mount python -m benchmarks._cluster_namespaces

Needs root, Debian's iproute2 and the extra `cluster`.  Everything is made inside a network namespace of its own
(`unshare`), so that this machine's network is neither used nor changed.  A head without cores and two nodes with
one each build an index of drawn photographs; the second node's cable is pulled while they extract.  The bank is
compared with the one of a single process, byte by byte.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.synthetic import write_dataset
from resad import index

_NODES = ("head", "first", "second")
_PREFIX = "10.77.0."
_BUILD = ("--backbone", "bundled", "--size", "64", "--coreset", "0.1", "--device", "cpu")


def main() -> None:
    """Build twice, compare, and tell."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        sys.exit("run it without a network: unshare --net --mount python -m benchmarks._cluster_namespaces")
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
            _wait_for(lambda: _made(scratch) >= 10, 120)
            print(f"{_made(scratch)} of 60 photographs are made; the cable of {_NODES[2]} is pulled")
            network.pull(_NODES[2])
            code = process.wait(300)
            print(f"ended with {code} after {time.perf_counter() - began:.0f} s")
        ours, theirs = (index.resolve(folder / root / "eyes") for root in ("three", "one"))
        for file in ("memory_bank.faiss", "provenance.npz", "photos.jsonl"):
            equal = (ours / file).read_bytes() == (theirs / file).read_bytes()
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
    return [sys.executable, "-c", "from indexer.entry import main; main()", *arguments]


def _indexer(*arguments: str) -> None:
    subprocess.run(_indexer_command(*arguments), check=True)


def _made(scratch: Path) -> int:
    return len(list(scratch.glob("*/*/features/*.features")))


def _wait_for(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            sys.exit("nothing happened in time")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
