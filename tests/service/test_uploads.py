"""Bodies: what is taken is taken whole, limits hold while it arrives, and nothing touches the disk."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from service.admission import Admission, Limits, Throughput
from service.problems import Refusal
from service.settings import Settings
from service.uploads import MULTIPART, BodyReader, Upload

SMALL = Settings(root=Path("indexes"), max_bytes=1000, max_request_bytes=5000, max_photos=3)


def upload(
    chunks: Sequence[bytes], headers: dict[str, str], settings: Settings = SMALL, *, several: bool = True
) -> tuple[Upload | Refusal, int]:
    """What comes of a body that arrives in these chunks, and how many of them were asked for."""
    chunks_to_come: Iterator[bytes] = iter(chunks)
    chunk_count = 0

    async def receive() -> Message:
        nonlocal chunk_count
        chunk = next(chunks_to_come, None)
        chunk_count += chunk is not None
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    bounds = Limits(settings.queue_size, settings.max_held_bytes, settings.deadline_s)
    admission = Admission(bounds, Throughput(1), lambda reason: None)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    try:
        with admission.reserve_bytes() as reservation:
            outcome = asyncio.run(BodyReader(settings).read_upload(request, reservation, several=several))
            assert admission.held_bytes >= sum(len(photo) for photo in outcome.photos if isinstance(photo, bytes))
            return outcome, chunk_count
    except Refusal as refusal:
        return refusal, chunk_count
    finally:
        assert admission.held_bytes == 0


def upload_refusal(*arguments: Any, **options: Any) -> tuple[Refusal, int]:
    outcome, chunk_count = upload(*arguments, **options)
    assert isinstance(outcome, Refusal)
    return outcome, chunk_count


def multipart(*parts: tuple[str, bytes, str]) -> tuple[bytes, dict[str, str]]:
    """As httpx writes it: a twin of the parser."""
    files = [(name, ("x", data, media_type)) for name, data, media_type in parts]
    request = httpx.Request("POST", "http://x", files=files)
    return request.read(), {"Content-Type": request.headers["content-type"]}


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places})
    return [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.lists(st.integers(0, 10_000), max_size=12))
def test_parts_arrive_whole_however_they_are_cut(photos: list[bytes], places: list[int]) -> None:
    body, headers = multipart(*(("photo", photo, "image/png") for photo in photos))
    outcome, _ = upload(cut(body, places), headers)
    assert isinstance(outcome, Upload)
    assert (outcome.photos, outcome.several) == (tuple(photos), True)


@given(st.binary(min_size=1, max_size=1000), st.lists(st.integers(0, 1000), max_size=5))
def test_a_raw_body_arrives_whole(photo: bytes, places: list[int]) -> None:
    outcome, _ = upload(cut(photo, places), {"Content-Type": "image/jpeg; foo=bar"})
    assert isinstance(outcome, Upload)
    assert (outcome.photos, outcome.several) == ((photo,), False)


@given(st.binary(max_size=400), st.sampled_from(["x", "----a", "x" * 300, "ü"]))
def test_a_body_that_is_no_multipart_is_refused(body: bytes, boundary: str) -> None:
    outcome, _ = upload_refusal([body], {"Content-Type": f"{MULTIPART}; boundary={boundary}"})
    assert outcome.kind.status in (400, 422)


@pytest.mark.parametrize("end", [1, 30, 60, -30, -4])
def test_a_multipart_that_is_cut_short_is_refused(end: int) -> None:
    body, headers = multipart(("photo", b"a" * 50, "image/png"))
    assert upload_refusal([body[:end]], headers)[0].kind.slug == "malformed-upload"


@pytest.mark.parametrize("media_type", ["image/jpeg", f"{MULTIPART}; boundary=x"])
def test_a_stated_length_is_refused_before_anything_is_read(media_type: str) -> None:
    outcome, chunk_count = upload_refusal([b"x"] * 9, {"Content-Type": media_type, "Content-Length": "31200000"})
    assert (outcome.kind.status, chunk_count) == (413, 0)
    assert "31200.0 kB" in outcome.detail
    assert "the limit is" in outcome.detail


def test_a_body_without_length_is_read_no_further_than_the_limit() -> None:
    outcome, chunk_count = upload_refusal([b"x" * 400] * 100, {"Content-Type": "image/jpeg"})
    assert outcome.kind.slug == "photo-too-large"
    assert chunk_count == 3


def test_a_multipart_without_length_is_read_no_further_than_its_limit() -> None:
    body, headers = multipart(("photo", b"x" * 40_000, "image/png"))
    outcome, chunk_count = upload_refusal(cut(body, range(0, len(body), 500)), headers)
    assert outcome.kind.slug == "upload-too-large"
    assert chunk_count <= 12


def test_one_part_that_is_too_large_leaves_the_others() -> None:
    body, headers = multipart(
        ("photo", b"a", "image/png"), ("photo", b"b" * 1001, "image/png"), ("photo", b"c", "text/html")
    )
    outcome, _ = upload([body], headers)
    assert isinstance(outcome, Upload)
    first, second, third = outcome.photos
    assert first == b"a"
    assert isinstance(second, Refusal)
    assert isinstance(third, Refusal)
    assert (second.kind.status, third.kind.status) == (413, 415)


def test_more_parts_than_allowed() -> None:
    body, headers = multipart(*[("photo", b"a", "image/png")] * 4)
    assert upload_refusal([body], headers)[0].kind.status == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "image/gif"}, 415),
        ({"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": MULTIPART}, 400),
    ],
)
def test_types_that_are_not_taken(headers: dict[str, str], status: int) -> None:
    assert upload_refusal([b"GIF89a"], headers)[0].kind.status == status


def test_a_map_takes_no_multipart() -> None:
    body, headers = multipart(("photo", b"a", "image/png"))
    assert upload_refusal([body], headers, several=False)[0].kind.status == 415


def test_a_part_of_another_name_and_no_part_at_all() -> None:
    body, headers = multipart(("image", b"a", "image/png"))
    assert upload_refusal([body], headers)[0].kind.status == 422
    assert upload_refusal([], {"Content-Type": "image/png"})[0].kind.status == 400


def test_nothing_is_spooled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        pytest.fail("a temporary file was made")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, fail)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", fail)
    large = SMALL.model_copy(update={"max_bytes": 3_000_000, "max_request_bytes": 4_000_000})
    body, headers = multipart(("photo", b"a" * 2_500_000, "image/png"))
    outcome, _ = upload(cut(body, range(0, len(body), 65_536)), headers, large)
    assert isinstance(outcome, Upload)
    assert outcome.photos == (b"a" * 2_500_000,)
