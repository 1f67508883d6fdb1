"""Stand-ins for the node's peers: a ReSAD service and a PACS in this process, and a node in one of its own."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_samples import result_objects
from resad_dicom.multipart import write_parts
from resad_dicom.node import Node
from resad_dicom.settings import Settings
from resad_dicom.storage_scp import close_socket


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition, long enough for a slow machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.02)


class StandInService(ThreadingHTTPServer):
    """Answers /v1/score with small result objects.  faults: statuses that come before, problem types by status."""

    daemon_threads = True

    def __init__(self, port: int = 0, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), _ServiceHandler)
        self.seconds = seconds
        self.requests: list[dict[str, str]] = []
        self.faults: list[tuple[int, str]] = []
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _ServiceHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInService

    def do_GET(self) -> None:
        self._answer(200, "text/plain", b"ready")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.requests.append({"path": self.path, **dict(self.headers)})
            self.server.bodies.append(body)
            attempt = len(self.server.bodies)
            fault = self.server.faults.pop(0) if self.server.faults else None
        time.sleep(self.server.seconds)
        if fault is not None:
            status, kind = fault
            problem = {"type": f"urn:resad:problem:{kind}", "title": kind, "status": status, "detail": "SECRET"}
            self._answer(status, "application/problem+json", json.dumps(problem).encode())
        else:
            self._answer(200, *write_parts(result_objects(body, attempt)))

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def stand_in_service() -> Iterator[StandInService]:
    with StandInService() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(eq=False)
class StandInPacs:
    """A Storage SCP.  stored: SOP Instance UID -> times it came.  statuses: answers that come before success."""

    port: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    datasets: dict[str, Any] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"dicom://PACS@127.0.0.1:{self.port}"


@contextmanager
def stand_in_pacs(*, without: tuple[str, ...] = (), title: str = "PACS") -> Iterator[StandInPacs]:
    """without: SOP classes that it does not take."""
    pacs = StandInPacs()

    def store(event: evt.Event) -> int:
        if pacs.statuses:
            return pacs.statuses.pop(0)
        dataset = event.dataset
        pacs.stored[str(dataset.SOPInstanceUID)] += 1
        pacs.datasets.setdefault(str(dataset.SOPInstanceUID), dataset)
        return 0x0000

    entity = AE(title)
    entity.require_called_aet = True
    entity.supported_contexts = [
        context for context in AllStoragePresentationContexts if context.abstract_syntax not in without
    ]
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers: Any = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_C_ECHO, lambda event: 0x0000),
        (evt.EVT_CONN_CLOSE, close_socket),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        entity.shutdown()


@dataclass(frozen=True, slots=True, eq=False)
class NodeProcess:
    """`resad-dicom serve` as a user starts it."""

    popen: subprocess.Popen[str]
    port: int
    web: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()


def start_node(folder: Path, destination: str, service: str, *arguments: object, **variables: str) -> NodeProcess:
    """A node whose queue and log are in `folder`, once it listens."""
    words = [
        str(Path(sys.executable).with_name("resad-dicom")), "serve", "--queue", folder / "queue", "--destination",
        destination, "--service", service, "--port", 0, "--web-port", 0, *arguments,
    ]  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "node.log"
    with log_file.open("a") as log:
        popen = subprocess.Popen(
            list(map(str, words)), env=inherited | variables, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert popen.stdout is not None
    line = popen.stdout.readline()
    match = re.search(r" on [^ ]+:(\d+)(?: with TLS)?, (https?://[^;]+);", line)
    assert match, f"{line}\n{log_file.read_text()}"
    return NodeProcess(popen, int(match[1]), match[2], log_file)


@contextmanager
def node_process(
    folder: Path, destination: str, service: str, *arguments: object, **variables: str
) -> Iterator[NodeProcess]:
    node = start_node(folder, destination, service, *arguments, **variables)
    try:
        yield node
    finally:
        kill(node)


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node in this process."""

    port: int
    web: str


@contextmanager
def running_node(folder: Path, destination: str, service: str, **settings: Any) -> Iterator[RunningNode]:
    values = {"queue": folder / "queue", "port": 0, "web_port": 0, "min_free_bytes": 0, **settings}
    node = Node(Settings(destination=destination, service=service, **values))
    started = threading.Event()
    thread = threading.Thread(target=node.run, args=(started.set,))
    thread.start()
    try:
        assert started.wait(60)
        yield RunningNode(node.port, f"{'https' if 'tls_key' in settings else 'http'}://127.0.0.1:{node.web_port}")
    finally:
        node.stop()
        thread.join(60)
        assert not thread.is_alive()


def kill(node: NodeProcess) -> None:
    node.popen.kill()
    node.popen.wait()
    assert node.popen.stdout is not None
    node.popen.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":  # for the test that kills a service: PORT SECONDS, of each photograph
    StandInService(int(sys.argv[1]), float(sys.argv[2])).serve_forever()
