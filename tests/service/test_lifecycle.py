"""What would wear a service down: callers who dawdle, full memory, versions that do not fit; and its end."""

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from resad import index
from resad.engine import Engine
from resad.loaded_index import LoadedIndex, load_index, score_probe
from tests.service.conftest import encoded
from tests.service.running import JPEG, Served, key_for, served, until
from tests.service.test_problems import check

HEAD = b"POST /v1/score HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\n"


@contextmanager
def line_to(service: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), 10) as line:
        yield line


def until_closed(line: socket.socket) -> float:
    """Seconds."""
    start = time.monotonic()
    try:
        while line.recv(1000):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - start


def test_a_connection_that_sends_no_whole_head_is_closed(root: Path, photo: bytes) -> None:
    with served(root, head_s=0.5) as service:
        for head_part in (b"", b"POST /v1/score HT", HEAD):
            with line_to(service) as line:
                line.sendall(head_part)
                assert 0.3 < until_closed(line) < 5
        assert service.score(photo).status_code == 200


def test_the_rest_of_a_refused_body_is_not_waited_for(root: Path) -> None:
    with served(root, head_s=0.5) as service, line_to(service) as line:
        line.sendall(HEAD.replace(b"png", b"gif") + b"Content-Length: 99999\r\n\r\nabc")
        assert line.recv(12) == b"HTTP/1.1 415"
        line.sendall(b"d")
        assert until_closed(line) < 5


def test_a_long_answer_is_not_cut_by_the_limit_for_heads(root: Path, photo: bytes) -> None:
    with served(root, head_s=0.3) as service, line_to(service) as line:
        with service.busy():
            line.sendall(HEAD.replace(b"png", b"jpeg") + b"Content-Length: %d\r\n\r\n" % len(photo) + photo)
            until(lambda: service.state.worker.waiting == 1)
            time.sleep(0.6)
        assert line.recv(12) == b"HTTP/1.1 200"


def test_an_answer_that_nobody_reads_is_given_up(root: Path) -> None:
    large = encoded((1600, 1600))  # whose map has 10 MB
    head = HEAD.replace(b"score", b"anomaly-map") + b"Accept: application/x-npy\r\n"
    with served(root, unread_s=0.5) as service:
        with line_to(service) as line:
            line.sendall(head + b"Content-Length: %d\r\n\r\n" % len(large) + large)
            until(lambda: service.state.admission.queued == 1)
            until(lambda: service.state.admission.queued == 0)
            until(lambda: service.state.admission.held_bytes == 0)
            assert _read(line) < 10_000_000
        with line_to(service) as line:  # one that reads slowly gets all of it
            line.sendall(head + b"Content-Length: %d\r\n\r\n" % len(large) + large)
            assert _read(line, pause=0.002) > 10_000_000


def _read(line: socket.socket, *, pause: float = 0, most: int = 10_000_001) -> int:
    """Bytes, until there come no more, or there are more than `most`."""
    line.settimeout(60)
    count = 0
    try:
        while count < most and (data := line.recv(30_000)):
            count += len(data)
            time.sleep(pause)
    except (ConnectionError, TimeoutError):
        pass
    return count


def test_a_body_that_only_trickles_is_given_up(root: Path) -> None:
    with served(root, min_upload_rate=1000) as service, line_to(service) as line:
        service.state.body_reader.grace_s = 0.3
        line.sendall(HEAD + b"Content-Length: 20000\r\n\r\n")
        start = time.monotonic()
        for _ in range(4):  # 400 bytes: 0.3 s and 0.4 s more
            line.sendall(b"x" * 100)
            time.sleep(0.05)
        answer = b""
        while not answer.endswith(b"}"):
            answer += line.recv(2000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"less than 1000 bytes a second" in answer
        assert 0.5 < time.monotonic() - start < 5
        assert service.state.admission.held_bytes == 0
        assert service.metric('resad_timed_out_requests_total{limit="upload"}') == 1


def test_uploads_together_hold_no_more_than_they_may(root: Path, photo: bytes) -> None:
    limits: dict[str, Any] = {"max_bytes": 60_000, "max_request_bytes": 60_000, "max_held_bytes": 60_000}
    with served(root, **limits) as service, line_to(service) as line:
        line.sendall(HEAD + b"Content-Length: 59000\r\n\r\nabc")
        until(lambda: service.metric("resad_held_bytes") == 59_000)  # as announced, before it is here
        answer = service.score(photo)
        assert "the limit is 0.06 MB" in check(answer, 429, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        assert service.metric('resad_shed_requests_total{reason="bytes"}') == 1
        line.close()
        until(lambda: service.state.admission.held_bytes == 0)
        assert service.score(photo).status_code == 200


def test_a_request_that_cannot_meet_the_deadline_is_refused_at_once(root: Path, photo: bytes) -> None:
    with served(root, deadline_s=20) as service, line_to(service) as line:
        for _ in range(50):
            service.state.pipeline.throughput.scored(1, 10.0)
        line.sendall(HEAD + b"Content-Length: 9\r\n\r\nabc")
        until(lambda: service.state.admission.queued == 1)
        answer = service.score(photo)
        assert "would not be answered within 20 s" in check(answer, 429, "busy")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert service.metric('resad_shed_requests_total{reason="deadline"}') == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("Error in faiss: std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
@pytest.mark.parametrize("method", ["prepare", "assemble", "detect"])
def test_full_memory_is_reported_and_survived(
    running: Served, photo: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception, method: str
) -> None:
    def raise_error(*arguments: Any, **options: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        live = running.state.registry.find("drawn")
        if method == "detect":
            patch.setattr(live.detector, "detect", raise_error)
        else:
            patch.setattr(
                running.state.pipeline.scorer, "engine", type("FullEngine", (Engine,), {method: raise_error})
            )
        answer = running.score(photo)
        check(answer, 503, "out-of-memory")
        assert answer.headers["retry-after"] == "5"
    assert running.score(photo).status_code == 200


def test_memory_is_looked_at_before_a_version_is_loaded(
    root: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = index.versions(root / "drawn")
    admin = key_for(tmp_path / "keys", "score", "admin")
    with served(root, keys_file=tmp_path / "keys", headers=admin) as service:
        with monkeypatch.context() as patch:
            patch.setattr(service.state.loader, "available_bytes", lambda: 150_000_000)
            patch.setattr(service.state.loader, "load_index", lambda *_: pytest.fail("it was loaded"))
            answer = service.client.put("/v1/indexes/drawn/current", json={"version": version})
            assert "MB are missing" in check(answer, 507, "index-too-large")
        assert service.score(photo).status_code == 200
        assert service.metric('resad_index_loads_total{index="drawn",outcome="failed"}') == 1


def test_loading_goes_through_the_thread_that_may(root: Path, loaded: LoadedIndex) -> None:
    """As on a GPU, where the worker's thread does these steps, and photographs between them."""
    steps: list[object] = []

    def run(work: Callable[[], Any]) -> Any:
        steps.append(work())
        return steps[-1]

    index_by_steps = load_index(root / "drawn", torch.device("cpu"), run=run)
    assert steps == [index_by_steps.detector.bank, index_by_steps.detector]
    folder = index.resolve(root / "drawn")
    assert score_probe(index_by_steps.detector, folder) == score_probe(loaded.detector, folder)


def test_overlays_are_bounded_and_maps_are_not(root: Path, photo: bytes) -> None:
    width, height = Image.open(io.BytesIO(photo)).size
    with served(root, max_overlay_side=64) as service:

        def fetch(query: str) -> bytes:
            return service.client.post(f"/v1/anomaly-map?{query}", content=photo, headers=JPEG).content

        assert fetch("style=overlay") == fetch("style=overlay&size=64") == fetch("style=overlay&size=4000")
        assert fetch("style=overlay&size=32") != fetch("style=overlay")
        assert Image.open(io.BytesIO(fetch("style=map"))).size == (width, height)


def test_a_service_that_is_stopping_is_not_ready_and_still_answers(root: Path, photo: bytes) -> None:
    with served(root) as service:
        service.state.draining.begin()
        assert "stopping" in check(service.client.get("/readyz"), 503, "not-ready")
        assert service.client.get("/livez").status_code == 200
        assert service.score(photo).status_code == 200
        assert 0 < service.state.draining.left_s <= 30
