"""Whatever goes wrong, the caller gets a problem document with the documented status, and nothing else."""

import socket
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from resad_client.records import Result

from resad.engine import Engine
from resad.preparation import PreparedPhoto
from service.problems import MEDIA_TYPE
from tests.service.conftest import encoded
from tests.service.running import JPEG, Served, served, until


def check(answer: httpx.Response, status: int, slug: str) -> str:
    """A sound problem document; its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document = answer.json()
    assert list(document) == ["type", "title", "status", "detail", "request_id"]
    assert document["type"] == f"urn:resad:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return str(document["detail"])


@pytest.fixture(scope="module")
def limited_service(root: Path) -> Iterator[Served]:
    with served(root, max_bytes=50_000, max_request_bytes=80_000, max_pixels=100_000, upload_s=0.8) as service:
        yield service


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG that claims to be larger than it is."""
    png = encoded((64, 64))
    claim = png[:16] + width.to_bytes(4) + height.to_bytes(4) + png[24:29]
    return claim + zlib.crc32(claim[12:29]).to_bytes(4) + png[33:]


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "malformed-upload"),
        (b"\0" * 300, 422, "photo-unreadable"),
        (b"not an image", 422, "photo-unreadable"),
        (b"GIF89a" + b"\0" * 99, 415, "photo-unsupported"),
        (b"%PDF-1.7", 415, "photo-unsupported"),
        (encoded((20, 20)), 422, "photo-unreadable"),
        (png_of_claimed_size(30_000, 30_000), 413, "photo-too-large"),
        (png_of_claimed_size(64, 1000)[:-30], 422, "photo-unreadable"),
    ],
)
def test_photographs_that_cannot_be_used(limited_service: Served, body: bytes, status: int, slug: str) -> None:
    check(limited_service.score(body), status, slug)
    answer = limited_service.client.post("/v1/anomaly-map", content=body, headers=JPEG)
    check(answer, status, slug)


def test_a_photograph_cut_short_anywhere(limited_service: Served, photo: bytes) -> None:
    for share in (0.05, 0.3, 0.6, 0.9):
        check(limited_service.score(photo[: int(share * len(photo))]), 422, "photo-unreadable")
    assert limited_service.score(photo).status_code == 200


def test_too_many_bytes_with_and_without_a_length(limited_service: Served) -> None:
    detail = check(limited_service.score(b"x" * 200_000), 413, "photo-too-large")
    assert "200.0 kB" in detail
    assert "50 kB" in detail
    chunks = (b"x" * 20_000 for _ in range(200))
    answer = limited_service.client.post("/v1/score", content=chunks, headers=JPEG)
    assert "50 kB" in check(answer, 413, "photo-too-large")


def test_a_multipart_too_large_with_and_without_a_length(limited_service: Served) -> None:
    answer = limited_service.client.post("/v1/score", files={"photo": ("x.png", b"x" * 100_000, "image/png")})
    assert "80 kB" in check(answer, 413, "upload-too-large")
    request = httpx.Request("POST", "http://x", files={"photo": ("x.png", b"x" * 400_000, "image/png")})
    body, kind = request.read(), request.headers["content-type"]
    chunks = (body[start : start + 9999] for start in range(0, len(body), 9999))
    check(
        limited_service.client.post("/v1/score", content=chunks, headers={"Content-Type": kind}),
        413,
        "upload-too-large",
    )


def test_an_upload_that_does_not_arrive(limited_service: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(limited_service.url.rpartition(":")[2]))) as line:
        line.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nabc"
        )
        line.settimeout(10)
        assert line.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("fpr=0", "fpr"),
        ("fpr=1", "fpr"),
        ("fpr=nan", "fpr"),
        ("fpr=much", "fpr"),
        ("evidence=51", "evidence"),
        ("evidence=-1", "evidence"),
        ("map=gif", "map"),
        ("eye=third", "eye"),
        ("size=1", "size"),
        ("frp=0.1", "frp"),
    ],
)
def test_queries_that_make_no_sense(running: Served, photo: bytes, query: str, place: str) -> None:
    answer = running.client.post(f"/v1/score?{query}", content=photo, headers=JPEG)
    assert place in check(answer, 422, "invalid-request")


def test_addresses_methods_and_names(running: Served, photo: bytes) -> None:
    check(running.client.get("/v1/nothing"), 404, "not-found")
    check(running.client.get("/static-offline-docs/../../etc/passwd"), 404, "not-found")
    answer = running.client.delete("/v1/score")
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert "drawn" in check(running.score(photo, index="eyes"), 404, "unknown-index")
    check(running.client.get("/v1/indexes/eyes"), 404, "unknown-index")
    check(running.client.get("/v1/indexes/..%2f..%2fetc"), 404, "not-found")
    check(running.client.put("/v1/indexes/drawn/current", json={"version": "x"}), 403, "call-off")


def test_a_bug_tells_nothing_but_its_id(root: Path, photo: bytes, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Engine):
        def assemble(self, *arguments: object, **options: object) -> Result:
            raise RuntimeError("secret of the house")

    with served(root) as service:
        scorer = service.state.pipeline.scorer
        scorer.engine = Broken
        answer = service.score(photo)
        assert "secret" not in check(answer, 500, "internal") + answer.text
        parts = [("photo", ("x.jpg", photo, "image/jpeg"))]
        slot = service.client.post("/v1/score", files=parts).json()["results"][0]
        assert (slot["status"], slot["type"]) == (500, "urn:resad:problem:internal")
        records = [record for record in caplog.records if answer.headers["x-request-id"] in record.getMessage()]
        assert any(record.exc_info and "secret" in str(record.exc_info[1]) for record in records)
        scorer.engine = Engine
        assert service.score(photo).status_code == 200


def test_a_full_queue_says_when_to_come_back(root: Path, photo: bytes) -> None:
    with served(root, queue_size=2) as service, ThreadPoolExecutor(2) as callers:
        with service.busy():
            futures = [callers.submit(service.score, photo) for _ in range(2)]
            until(lambda: service.state.admission.queued == 2)
            assert service.metric("resad_queue_photos") == 2
            answer = service.score(photo)
            assert "the limit is 2" in check(answer, 429, "busy")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            parts = [("photo", ("x.jpg", photo, "image/jpeg"))] * 2
            check(service.client.post("/v1/score", files=parts), 429, "busy")
        assert {future.result().status_code for future in futures} == {200}
        assert service.state.admission.queued == 0
        check(service.client.post("/v1/score", files=[*parts, *parts]), 413, "upload-too-large")


def test_an_upload_has_its_place_before_it_arrives(root: Path, photo: bytes) -> None:
    """Or any number of bodies would be in memory, each waiting for its end."""
    with served(root, queue_size=1, upload_s=5) as service:
        request_start = (
            b"POST /v1/score HTTP/1.1\r\nHost: [::1]\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nabc"
        )
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as line:
            line.sendall(request_start)
            until(lambda: service.state.admission.queued == 1)
            check(service.score(photo), 429, "busy")
            check(service.client.post("/v1/anomaly-map", content=photo, headers=JPEG), 429, "busy")
        until(lambda: service.state.admission.queued == 0)
        for body, status in ((b"", 400), (b"junk", 422), (photo, 200)):
            assert service.score(body).status_code == status
            assert service.state.admission.queued == 0


def test_past_the_deadline_the_work_is_dropped(root: Path, photo: bytes) -> None:
    with served(root, deadline_s=0.7) as service:
        before = service.metric("resad_batch_photos_count")
        with service.busy():
            assert "0.7 s" in check(service.score(photo), 504, "deadline")
            until(lambda: service.state.admission.queued == 0)
        until(lambda: service.metric("resad_dropped_photos_total") == 1)
        assert service.metric("resad_batch_photos_count") == before
        assert service.score(photo).status_code == 200


def test_the_work_of_a_caller_who_hung_up_is_dropped(root: Path, photo: bytes) -> None:
    with served(root) as service:
        with service.busy():
            caller = threading.Thread(target=_hang_up, args=(service, photo))
            caller.start()
            until(lambda: service.state.worker.waiting == 1)
            caller.join(5)
            until(lambda: service.state.admission.queued == 0)
        until(lambda: service.metric("resad_dropped_photos_total") == 1)
        assert service.metric('resad_requests_total{method="POST",route="/v1/score",status="499"}') == 1


def test_a_decode_that_nobody_waits_for_keeps_its_place_until_it_ends(root: Path, photo: bytes) -> None:
    """Or every upload that takes long to decode would make room for the next, and none would be decoded."""
    release = threading.Event()

    class Slow(Engine):
        def prepare(self, source: bytes | Path) -> PreparedPhoto:
            release.wait(30)
            return Engine.prepare(self, source)

    with (
        served(root, deadline_s=1.2, queue_size=3, decode_workers=2) as service,
        ThreadPoolExecutor(3) as callers,
    ):
        service.state.pipeline.scorer.engine = Slow
        for _ in range(50):  # as on a quiet machine, so that the deadline refuses nobody
            service.state.pipeline.throughput.scored(1, 0.01)
        try:
            for answer in callers.map(service.score, [photo] * 3):
                check(answer, 504, "deadline")
            # The third was never begun.
            until(lambda: service.state.admission.queued == 2)
            check(service.score(photo), 504, "deadline")
            until(lambda: service.state.admission.queued == 2)
            parts = [("photo", ("x.jpg", photo, "image/jpeg"))] * 2
            check(service.client.post("/v1/score", files=parts), 429, "busy")
            assert service.state.admission.queued == 2
        finally:
            release.set()
        until(lambda: service.state.admission.queued == 0)
        service.state.pipeline.scorer.engine = Engine
        until(lambda: service.score(photo).status_code == 200)


def _hang_up(service: Served, photo: bytes) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/v1/score", content=photo, headers=JPEG, timeout=1.0)


def test_a_dead_worker_is_not_live(root: Path, photo: bytes) -> None:
    def die() -> None:
        raise SystemExit

    with served(root) as service:
        assert service.client.get("/livez").json() == {"status": "live"}
        service.state.worker.run(die)
        until(lambda: not service.state.worker.alive)
        check(service.client.get("/livez"), 503, "not-live")
        check(service.score(photo), 503, "not-live")
