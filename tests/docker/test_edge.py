"""The edge as callers meet it: this machine's nginx, the real configuration, services that do as they are told."""

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server, inet_aton, socket
from socketserver import BaseRequestHandler, ThreadingUDPServer
from typing import TypeVar

import pytest

from service.problems import DEADLINE
from tests.docker.edge import Edge, edge, fixed_services, services_by_name
from tests.service.running import until


class Service(ThreadingHTTPServer):
    """Answers a POST with its name and the body's length.

    lost: closes the connection once it has the body instead, as a container does that is killed.  busy: answers
    503, as one that is loading.  slow: answers once `release` is set.
    """

    daemon_threads = True

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), _Handler)
        self.name = name
        self.lost = self.busy = self.slow = False
        self.release = threading.Event()
        self.request_count = 0
        self.ids: list[str] = []
        self.paths: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        service = self.server
        assert isinstance(service, Service)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service.request_count += 1
        service.ids.append(self.headers["X-Request-ID"])
        service.paths.append(self.path)
        if service.lost:
            self.close_connection = True
            return
        if service.slow:
            service.release.wait(20)
        self._answer(503 if service.busy else 200, f"{service.name} {len(body)}".encode())

    def do_GET(self) -> None:
        self._answer(200, b"metrics")

    def _answer(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


class NameServer(ThreadingUDPServer):
    """Knows the addresses of one name, whichever is asked for, and nothing that is not an address."""

    daemon_threads = True

    def __init__(self, addresses: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Question)
        self.addresses = addresses


class _Question(BaseRequestHandler):
    def handle(self) -> None:
        """RFC 1035: the header, the question as it came, and an A record for each address, good for a second."""
        server = self.server
        assert isinstance(server, NameServer)
        request, socket = self.request
        question = request[12 : request.index(0, 12) + 5]
        records = b"".join(
            struct.pack("!HHHIH4s", 0xC00C, 1, 1, 1, 4, inet_aton(address)) for address in server.addresses
        )
        head = request[:2] + struct.pack("!5H", 0x8180, 1, len(server.addresses), 0, 0)
        socket.sendto(head + question + records, self.client_address)


Server = TypeVar("Server", Service, NameServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port on which a connection is neither taken nor refused: its queue is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            caller = stack.enter_context(socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.fixture
def edge_and_services(tmp_path: Path) -> Iterator[tuple[Edge, Service, Service]]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(running(Service(name))) for name in ("first", "second"))
        services = fixed_services((first.server_port, second.server_port))
        yield stack.enter_context(edge(tmp_path, services)), first, second


def test_calls_are_spread_over_tls_with_an_id(edge_and_services: tuple[Edge, Service, Service]) -> None:
    tls, first, second = edge_and_services
    with tls.client() as client:
        assert {client.post("/v1/score", content=b"abc").text for _ in range(4)} == {"first 3", "second 3"}
        client.post("/v1/score", content=b"", headers={"X-Request-ID": "mine"})
        client.post("/v1/score", content=b"", headers={"X-Request-ID": "no sound; one"})
    ids = [*first.ids, *second.ids]
    assert "mine" in ids
    assert "no sound; one" not in ids
    assert len(set(ids)) == 6


@pytest.mark.parametrize("fault", ["lost", "busy"])
def test_a_request_that_one_service_loses_is_answered_by_the_other(
    edge_and_services: tuple[Edge, Service, Service], fault: str
) -> None:
    """Whole, though the body is larger than what is kept in memory."""
    tls, first, second = edge_and_services
    setattr(first, fault, True)
    with tls.client() as client:
        answers = [client.post("/v1/score", content=b"x" * 5_000_000) for _ in range(4)]
    assert [answer.text for answer in answers] == ["second 5000000"] * 4
    assert first.request_count >= 1
    assert second.request_count == 4


def test_a_slow_service_keeps_its_request_and_its_caller_is_not_told_to_retry(tmp_path: Path) -> None:
    with ExitStack() as stack:
        backends = [stack.enter_context(running(Service(name))) for name in ("first", "second")]
        services = fixed_services([backend.server_port for backend in backends])
        client = stack.enter_context(stack.enter_context(edge(tmp_path, services, faster=40)).client())
        for backend in backends:
            backend.slow = True
            stack.callback(backend.release.set)
        answer = client.post("/v1/score", content=b"abc", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["status"], answer.json()["request_id"]) == (504, 504, "mine")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:resad:problem:{DEADLINE.slug}"
    assert "Retry-After" not in answer.headers
    assert sum(backend.request_count for backend in backends) == 1


def test_a_service_that_takes_no_connection_is_passed_over(tmp_path: Path) -> None:
    """As a machine that was switched off: nothing comes back, not even a refusal."""
    with ExitStack() as stack:
        silent_ports = [stack.enter_context(silent_port()) for _ in range(2)]
        first = stack.enter_context(running(Service("first")))
        (tmp_path / "some").mkdir()
        (tmp_path / "none").mkdir()
        edge_with_service = edge(tmp_path / "some", fixed_services([*silent_ports, first.server_port]), faster=10)
        edge_without_service = edge(tmp_path / "none", fixed_services(silent_ports), faster=10)
        for proxy, status in ((edge_with_service, 200), (edge_without_service, 503)):
            client = stack.enter_context(stack.enter_context(proxy).client())
            answer = client.post("/v1/score", content=b"abc")
            assert (answer.status_code, "Retry-After" in answer.headers) == (status, status == 503)
    assert first.request_count == 1


def test_the_name_server_is_asked_again_for_containers_that_came_or_went(tmp_path: Path) -> None:
    """With services.conf as it is deployed; an address that nobody listens on is passed over meanwhile."""
    with ExitStack() as stack:
        first = stack.enter_context(running(Service("first")))
        names = stack.enter_context(running(NameServer(("127.0.0.1", "127.0.0.3"))))
        services = services_by_name(int(names.server_address[1]), first.server_port)
        client = stack.enter_context(stack.enter_context(edge(tmp_path, services)).client())
        assert {client.post("/v1/score?index=a", content=b"abc").text for _ in range(6)} == {"first 3"}
        second = stack.enter_context(running(Service("second", "127.0.0.2", first.server_port)))
        names.addresses = ("127.0.0.1", "127.0.0.2")
        until(lambda: client.post("/v1/score", content=b"abc").text == "second 3", 30)
        names.addresses = ("127.0.0.2",)
        until(lambda: {client.post("/v1/score", content=b"abc").text for _ in range(9)} == {"second 3"}, 30)
        assert second.paths[-1] == "/v1/score"
        assert first.paths[0] == "/v1/score?index=a"


def test_refusals_of_the_edge_are_problem_documents(edge_and_services: tuple[Edge, Service, Service]) -> None:
    tls, first, second = edge_and_services
    first.lost = second.lost = True
    with tls.client() as client:
        unreachable = client.post("/v1/score", content=b"abc", headers={"X-Request-ID": "mine"})
        too_large = client.post("/v1/score", content=b"x" * 104_857_601, headers={"X-Request-ID": "mine"})
    assert unreachable.status_code == 503
    assert unreachable.headers["Retry-After"] == "5"
    assert too_large.status_code == 413
    for answer in (too_large, unreachable):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["type"].startswith("urn:resad:problem:")
        assert answer.json()["request_id"] == "mine"


def test_metrics_stay_inside(edge_and_services: tuple[Edge, Service, Service]) -> None:
    with edge_and_services[0].client() as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/readyz").status_code == 200


def test_the_edge_logs_no_query_and_no_address(
    edge_and_services: tuple[Edge, Service, Service], tmp_path: Path
) -> None:
    with edge_and_services[0].client() as client:
        client.post("/v1/score?index=of-somebody", content=b"abc")
    log = tmp_path / "calls.log"
    until(lambda: "POST 200" in log.read_text())
    assert "of-somebody" not in log.read_text()
