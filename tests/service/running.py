"""The service on a real socket, in this process so that its inside can be looked at, or in one of its own."""

import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from service.app import create_app
from service.keys import KeyRecord, Scope, new_key, sha256_of, write_keys
from service.server import create_server
from service.settings import Settings
from service.state import AppState

JPEG = {"Content-Type": "image/jpeg"}


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    url: str
    client: httpx.Client
    state: AppState

    def score(self, photo: bytes, **query: Any) -> httpx.Response:
        return self.client.post("/v1/score", content=photo, headers=JPEG, params=query)

    def metric(self, line: str) -> float:
        match = re.search(rf"^{re.escape(line)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(match.group(1)) if match else 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Nothing is scored in here."""
        release, started = threading.Event(), threading.Event()

        def wait() -> None:
            started.set()
            release.wait(30)

        future = self.state.worker.run(wait)
        assert started.wait(5)
        try:
            yield
        finally:
            release.set()
            future.result(5)


@contextmanager
def served(
    root: Path, *, ready: bool = True, headers: dict[str, str] | None = None, **settings: Any
) -> Iterator[Served]:
    service_settings = Settings(root=root, **{"device": "cpu", "poll_s": 0.05, **settings})
    app = create_app(service_settings)
    server = create_server(app, service_settings, lambda: None)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            # Without certificates, which take as long to read as all else here and are not asked for.
            with httpx.Client(base_url=url, timeout=30, headers=headers, verify=False) as client:
                until(lambda: server.started)
                if ready:
                    until(lambda: client.get("/readyz").status_code == 200)
                yield Served(url, client, app.state.app_state)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def key_for(file: Path, *scopes: Scope, name: str = "ward") -> dict[str, str]:
    """The header of a fresh key, which is the only one in `file`."""
    key = new_key()
    write_keys(file, [KeyRecord(name, sha256_of(key), scopes)])
    return bearer(key)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """`resad-service` as a user starts it."""

    popen: subprocess.Popen[str]
    client: httpx.Client
    stderr: IO[str]

    @property
    def log(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read()

    def metric(self, name: str) -> float:
        match = re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)
        return float(match.group(1)) if match else 0.0


@contextmanager
def process(command: Path, root: Path, *arguments: object, **variables: str) -> Iterator[Process]:
    """A service in a process of its own, once it is ready."""
    words = [str(command), "--port", "0", "--device", "cpu", *map(str, arguments)]
    inherited_variables = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
    environment = inherited_variables | {"OMP_NUM_THREADS": "1", "RESAD_ROOT": str(root)} | variables
    with (
        tempfile.TemporaryFile("w+") as stderr,  # a pipe that nobody reads would stop it
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as service,
    ):
        try:
            assert service.stdout is not None
            match = re.search(r"http://127\.0\.0\.1:\d+", service.stdout.readline())
            assert match
            limits = httpx.Limits(max_connections=64)
            with httpx.Client(base_url=match.group(), timeout=60, limits=limits) as client:
                until(lambda: client.get("/readyz").status_code == 200, 300)
                yield Process(service, client, stderr)
        finally:
            service.kill()
