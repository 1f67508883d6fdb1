"""A server that plays the service, and the command run against it in this process."""

import base64
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from resad_client import cli
from samples import EXAMPLE, JPEG, PNG, picture, problem

BAD = picture("JPEG", shade=1)
"""A photograph that the service below refuses."""
DARK = picture("JPEG", shade=2)
"""One that it calls abnormal, though its quality is too low."""


class Service(ThreadingHTTPServer):
    """Plays the service; the first score of all is refused as busy."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.requests: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.busy = 1
        self.lock = threading.Lock()
        self.seconds = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the contract says."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        idrid = {
            "name": "idrid[1]",
            "version": "v2",
            "state": "serving",
            "backbone": "resnet18",
            "memories": 16384,
        }
        indexes = [idrid, {"name": "other", "state": "failed", "fault": "manifest.json is missing"}]
        self._answer(200, json.dumps({"indexes": indexes}).encode())

    def do_POST(self) -> None:
        service = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        with service.lock:
            service.requests.append((url.path, query, dict(self.headers)))
            busy, service.busy = service.busy, 0
        time.sleep(service.seconds)
        if busy:
            self._answer(429, problem(429).content, retry_after="0")
        elif self.headers.get("Authorization") == "Bearer wrong":
            self._answer(401, problem(401, "key-needed").content)
        elif query.get("index") == ["two"]:
            detail = "several are served: add index=NAME, one of idrid, other"
            self._answer(422, problem(422, "index-not-named", detail=detail).content)
        elif body == BAD:
            self._answer(422, problem(422, "photo-unreadable").content)
        else:
            answer = json.loads(EXAMPLE)
            if query.get("map") == ["overlay-jpeg"]:
                answer["map"] = "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
            if query.get("map") == ["overlay"]:
                answer["map"] = "data:image/png;base64," + base64.b64encode(PNG).decode()
            if body == PNG:
                reason = "a rate of 0.05 needs 19 normal photographs"
                answer |= {"p_value": None, "threshold": None, "abnormal": None, "reason": reason}
                answer["quality"] |= {"acceptable": False, "reasons": ["no-field-of-view"]}
            if "camera" in query:
                answer["normals"]["reason"] = "no normal photographs of this camera"
            if body == DARK:
                answer["quality"] |= {"acceptable": False, "reasons": ["too-dark", "blurred"]}
            self._answer(200, json.dumps(answer).encode())

    def _answer(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RESAD_KEY", raising=False)
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["resad-client", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code if isinstance(caught.value.code, int) else 0


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│┃").split("│")] for line in table.splitlines() if "│" in line]
