"""`resad-service` as a process of its own, and what the kernel and the service itself say of it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import httpx
from resad_client import Client

from resad.errors import SettingError

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
    found: dict[tuple[str, str], float] = {
        (stage, kind): float(value) for kind, stage, value in _STAGE.findall(http.get("/metrics").text)
    }
    return {stage: Spent(found[stage, "sum"], found[stage, "count"]) for stage, _ in found}


def _wait_until_ready(url: str, process: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    with Client(url, retries=0) as client:
        while not client.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SettingError(f"resad-service did not become ready: {log.read_text().strip()}")
            time.sleep(_POLL_S)
