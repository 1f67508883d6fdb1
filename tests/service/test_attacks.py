"""The attacks of docs/threats.md on the real service: others are served meanwhile, and nothing stays behind."""

import io
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from benchmarks._costly_files import bmp_of_runs, jpeg_of_scans, png, tiff_with_warnings
from service.keys import KeyRecord, new_key, sha256_of, write_keys
from tests.service.running import JPEG, Process, Served, bearer, process, served, until

COSTLY = bmp_of_runs(8900)
"""Allowed by its header, and many seconds of work."""
BMP = {"Content-Type": "image/bmp"}
NPY = {"Content-Type": "image/png", "Accept": "application/x-npy"}


def two_keys(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The headers of an attacker and of a ward."""
    keys = new_key(), new_key()
    records = [KeyRecord(name, sha256_of(key), ("score",)) for name, key in zip(("a", "b"), keys, strict=True)]
    write_keys(file, records)
    return bearer(keys[0]), bearer(keys[1])


def resident_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1e3


def decoders_of(pid: int) -> list[int]:
    """Decoder processes of a process."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for file in children for child in file.read_text().split()]
    return [child for child in pids if b"decoder_process" in Path(f"/proc/{child}/cmdline").read_bytes()]


@dataclass(frozen=True, slots=True)
class Attacked:
    """A service with the keys of an attacker and of a ward."""

    service: Served
    attacker: dict[str, str]
    ward: dict[str, str]


@pytest.fixture(scope="module")
def attacked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    attacker, ward = two_keys(file)
    with served(root, keys_file=file, deadline_s=300.0) as service:
        yield Attacked(service, attacker, ward)


def test_a_jpeg_of_empty_scans_is_refused_at_once(attacked: Attacked) -> None:
    headers = JPEG | attacked.attacker
    answer = attacked.service.client.post("/v1/score", content=jpeg_of_scans(6000), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:resad:problem:photo-too-large")
    assert "more than 500 scans" in answer.json()["detail"]


def test_a_costly_file_is_ended_and_the_next_one_decoded(root: Path, photo: bytes) -> None:
    with served(root, decode_workers=1, decode_s=0.5) as service:
        answer = service.client.post("/v1/score", content=COSTLY, headers=BMP)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:resad:problem:photo-too-large")
        assert "more than 0.5 s of processor time" in answer.json()["detail"]
        assert service.score(photo).status_code == 200


def test_readiness_tells_when_no_decoder_is_free(root: Path, photo: bytes) -> None:
    before = set(decoders_of(os.getpid()))
    with served(root, deadline_s=300.0) as service, ThreadPoolExecutor(2) as callers:
        until(lambda: service.state.decoders.free == 2, 100)
        decoders = set(decoders_of(os.getpid())) - before
        for pid in decoders:
            os.kill(pid, signal.SIGSTOP)  # as good as a library that does not return

        def ask() -> int:
            return service.client.post("/v1/score", content=photo, headers=JPEG, timeout=300).status_code

        stuck = [callers.submit(ask) for _ in range(2)]
        try:
            until(lambda: service.client.get("/readyz").status_code == 503, 100)
            assert "no decoder has been free for" in service.client.get("/readyz").json()["detail"]
            assert service.client.get("/livez").status_code == 200
        finally:
            for pid in decoders:
                os.kill(pid, signal.SIGCONT)
        assert [future.result() for future in stuck] == [200, 200]
        assert service.client.get("/readyz").status_code == 200


def test_a_deadline_ends_the_decoding(root: Path) -> None:
    with served(root, decode_workers=1, decode_s=100.0, deadline_s=1.0) as service:
        answer = service.client.post("/v1/score", content=COSTLY, headers=BMP)
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:resad:problem:deadline")
        until(lambda: service.metric("resad_decoders_free") == 1)
        assert service.metric("resad_dropped_photos_total") == 1
        assert service.client.get("/readyz").status_code == 200


def test_a_caller_that_leaves_while_its_photograph_is_decoded_is_counted(root: Path) -> None:
    with served(root, decode_s=100.0) as service:
        with line_to(service.url) as line:
            line.sendall(head("score", COSTLY, BMP) + COSTLY)
            until(lambda: service.state.decoders.free == 1)
        until(lambda: service.metric("resad_dropped_photos_total") == 1)
        until(lambda: service.state.decoders.free == 2)
        assert service.state.admission.queued == 0


@pytest.fixture(scope="module")
def own_process(command: Path, root: Path) -> Iterator[Process]:
    """A process of its own, whose memory is only its own; the last test that has it ends it."""
    variables = {"RESAD_UNREAD_S": "4", "RESAD_DECODE_S": "100", "RESAD_DEADLINE_S": "100", "RESAD_DRAIN_S": "1"}
    with process(command, root, **variables) as service:
        yield service


def test_answers_that_nobody_reads_count_until_they_are_sent_and_take_little(own_process: Process) -> None:
    """Five maps of 64 MB each: 320 MB, if they waited whole."""
    service, large = own_process, png(4000, 4000)
    with ExitStack() as lines:
        url = str(service.client.base_url)
        service.client.post("/v1/anomaly-map?size=64", content=large, headers=NPY)  # warm
        before = resident_mb(service.popen.pid)
        for _ in range(5):
            line = lines.enter_context(line_to(url))
            line.sendall(head("anomaly-map", large, NPY) + large)
        until(lambda: service.metric("resad_held_bytes") > 10e6)
        until(lambda: service.metric("resad_queue_photos") == 0, 100)
        assert resident_mb(service.popen.pid) - before < 160
        # None of them reads: all are cut, and what they held is free.
        until(lambda: service.metric("resad_held_bytes") == 0, 200)
        assert resident_mb(service.popen.pid) - before < 160


def test_the_end_is_obeyed_while_decoders_are_busy_and_an_upload_never_ends(own_process: Process) -> None:
    """The limit of the end is one for all of it."""
    service = own_process
    with ThreadPoolExecutor(2) as callers, line_to(str(service.client.base_url)) as line:
        futures = [callers.submit(service.client.post, "/v1/score", content=COSTLY, headers=BMP) for _ in range(2)]
        until(lambda: service.metric("resad_decoders_free") == 0)
        decoders = decoders_of(service.popen.pid)
        assert len(decoders) == 2
        line.sendall(head("score", bytes(9), BMP))
        until(lambda: service.metric("resad_queue_photos") == 3)
        start = time.monotonic()
        service.popen.send_signal(signal.SIGTERM)
        assert service.popen.wait(100) == 0
        assert 0.8 < time.monotonic() - start < 10
        assert line.recv(12) == b"HTTP/1.1 503"
        assert {future.result(100).status_code for future in futures} == {503}
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in decoders))
    assert "Traceback" not in service.log


def test_a_large_map_arrives_whole(running: Served) -> None:
    answer = running.client.post("/v1/anomaly-map", content=png(3000, 2000), headers=NPY)
    assert answer.status_code == 200
    assert "content-length" not in answer.headers  # it was made while it was sent
    assert len(answer.content) == 128 + 4 * 3000 * 2000
    small = running.client.post("/v1/anomaly-map", content=png(300, 200), headers=NPY)
    assert len(small.content) == int(small.headers["content-length"]) == 128 + 4 * 300 * 200


def test_who_reads_at_less_than_the_least_rate_is_cut(root: Path) -> None:
    """Some bytes every moment are not enough."""
    large = png(2000, 2000)  # whose map has 16 MB
    with served(root, unread_s=0.5, min_read_rate=10_000_000.0) as service, line_to(service.url) as line:
        line.sendall(head("anomaly-map", large, NPY) + large)
        count, began = 0, time.monotonic()
        try:
            while data := line.recv(4096):
                count += len(data)
                if service.state.admission.held_bytes:  # afterwards only what is on its way is to be read
                    time.sleep(0.01)
                assert time.monotonic() - began < 60
        except ConnectionError:
            pass
        assert count < 16_000_000
        until(lambda: service.state.admission.held_bytes == 0)


def test_slow_uploads_of_one_key_leave_places_for_others(attacked: Attacked, photo: bytes) -> None:
    """64 uploads that last a minute, each a little faster than the least rate."""
    client = attacked.service.client
    with slow_uploads(str(client.base_url), 64, attacked.attacker) as statuses:
        until(lambda: len(statuses()) == 32, 100)
        for _ in range(4):
            answer = client.post("/v1/score?fpr=0.9", content=photo, headers=JPEG | attacked.ward)
            assert answer.status_code == 200
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
            statuses()
        assert set(statuses()[:32]) == {429}


@contextmanager
def slow_uploads(url: str, count: int, headers: dict[str, str]) -> Iterator[Callable[[], list[int]]]:
    """Uploads of 700 kB, at 12 kB a second; what is yielded sends the next bytes and gives the answers so far."""
    with ExitStack() as stack:
        lines = [stack.enter_context(line_to(url)) for _ in range(count)]
        began = time.monotonic()
        for line in lines:
            line.sendall(head("score", b"x" * 700_000, JPEG | headers))
            line.setblocking(False)
        sent = dict.fromkeys(range(count), 0)
        statuses: list[int] = []

        def advance() -> list[int]:
            due = int(12_000 * (time.monotonic() - began))
            for number in list(sent):
                with suppress(BlockingIOError):
                    sent[number] += lines[number].send(b"x" * (due - sent[number]))
                    statuses.append(int(lines[number].recv(12).split()[1]))
                    del sent[number]
            return statuses

        yield advance


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200), ("localhost", 200), ("LOCALHOST:{port}", 200), ("[::1]:{port}", 200),
        ("evil.example", 421), ("evil.example:{port}", 421), ("127.0.0.1.evil.example", 421), ("192.0.2.7", 421),
        ("localhost.evil.example", 421), ("evil.example:80@127.0.0.1", 421), ("", 421),
    ],
)  # fmt: skip
def test_other_hosts_get_nothing(running: Served, host: str, status: int) -> None:
    host = host.format(port=running.url.rpartition(":")[2])
    with httpx.Client(base_url=running.url, headers={"Host": host}, verify=False) as client:
        for path in ("/", "/v1/indexes", "/docs", "/web/app/main.js", "/v1/indexes/drawn/evidence/r-00001/0/0"):
            answer = client.get(path)
            assert (answer.status_code == 421) == (status == 421), path
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_hosts_that_are_named_are_answered_and_nothing_follows_the_host(root: Path) -> None:
    with served(root, allowed_hosts="eyes.example,*.clinic.example") as service:
        for host, status in (
            ("eyes.example", 200), ("a.clinic.example:8000", 200), ("clinic.example", 421), ("x.example", 421),
        ):  # fmt: skip
            answer = service.client.get("/v1/indexes", headers={"Host": host})
            assert answer.status_code == status, host
            if status == 421:
                assert answer.json()["type"] == "urn:resad:problem:wrong-host"
                assert "--allowed-hosts" in answer.json()["detail"]
        for path in ("/v1/indexes/", "/web", "/docs/"):
            answer = service.client.get(path, headers={"Host": "eyes.example"})
            assert answer.status_code == 404
            assert "location" not in answer.headers


def test_where_an_address_is_public_addresses_are_answered_and_names_are_not(root: Path, tmp_path: Path) -> None:
    _, ward = two_keys(tmp_path / "keys.json")
    with served(root, host="0.0.0.0", keys_file=tmp_path / "keys.json", headers=ward) as service:
        for host, status in (("192.0.2.7:8000", 200), ("[2001:db8::1]", 200), ("evil.example", 421)):
            assert service.client.get("/v1/indexes", headers={"Host": host}).status_code == status


def head(call: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST /v1/{call} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def line_to(url: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])), timeout=60) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        yield line


def test_a_part_with_endless_headers_is_refused(running: Served) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="photo"\r\nX-Long: ' + b"a" * 5_000_000
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = running.client.post("/v1/score", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:resad:problem:malformed-upload")


def test_pictures_in_an_answer_count_with_its_upload(root: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((600, 600), 90).convert("RGB").save(file, "PNG")
    noise = file.getvalue()
    bounds: dict[str, Any] = {
        "max_held_bytes": len(noise) + 1000,
        "max_bytes": len(noise),
        "max_request_bytes": len(noise),
    }
    with served(root, **bounds) as service:
        answer = service.client.post("/v1/score?map=png", content=noise, headers={"Content-Type": "image/png"})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:resad:problem:answer-too-large")
        until(lambda: service.state.admission.held_bytes == 0)


def test_lines_of_libraries_are_counted_in_the_log(running: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        headers = {"Content-Type": "image/tiff"}
        running.client.post("/v1/anomaly-map", content=tiff_with_warnings(), headers=headers)
        until(lambda: any("photos" in vars(record) for record in caplog.records))
    (entry,) = next(vars(record)["photos"] for record in caplog.records if "photos" in vars(record))
    assert entry["library_lines"] > 2
    assert not any("Warning" in record.getMessage() for record in caplog.records)
