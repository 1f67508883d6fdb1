"""Whatever is sent: a problem document or the true result, in time, and nothing is left behind."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resad.errors import PhotoError
from resad.loaded_index import LoadedIndex
from service.problems import MEDIA_TYPE
from tests.service.conftest import score_offline
from tests.service.hostile import Upload, corpus
from tests.service.running import Process, process

IN_TIME_S = 10.0
"""A third of the deadline, on a machine that others use too."""
GROWTH_LIMIT_MB = 4.0
"""Of all uploads together: 34 kB of each would be seen."""
PASSES = 8
"""Arenas of the allocator fill for four or five, by 50 MB in all; what leaks goes on."""


@pytest.fixture(scope="module")
def service_process(command: Path, root: Path) -> Iterator[Process]:
    """A process of its own, whose memory is only its own."""
    with process(command, root) as service:
        yield service


def resident_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1e3


def answer_status(client: httpx.Client, loaded: LoadedIndex, upload: Upload) -> int:
    """The status, of an answer that is what it has to be."""
    answer = client.post(
        "/v1/score?fpr=0.9&map=overlay", content=upload.body, headers={"Content-Type": upload.media_type}
    )
    assert answer.elapsed.total_seconds() < IN_TIME_S, upload.name
    if answer.status_code == 200:
        expected = score_offline(loaded, upload.body).result
        assert answer.json()["image_score"] == pytest.approx(expected.image_score, rel=1e-4), upload.name
    else:
        assert answer.status_code in (400, 413, 415, 422), (upload.name, answer.text)
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        with pytest.raises(PhotoError):
            score_offline(loaded, upload.body)
    return answer.status_code


def least_growth(service: Process, uploads: Sequence[Upload]) -> float:
    """MB by which memory grew in the first pass over all uploads that left little, or in the least of all."""
    least = math.inf
    for _ in range(PASSES):
        before = resident_mb(service.popen.pid)
        for upload in uploads:
            service.client.post("/v1/score", content=upload.body, headers={"Content-Type": upload.media_type})
        least = min(least, resident_mb(service.popen.pid) - before)
        if least < GROWTH_LIMIT_MB:
            break
    return least


@pytest.mark.long
def test_every_hostile_upload_is_answered_and_leaves_nothing_behind(
    service_process: Process, loaded: LoadedIndex, photo: bytes
) -> None:
    client = service_process.client
    uploads = corpus(photo)
    assert len({upload.name for upload in uploads}) == len(uploads) >= 60
    expected = score_offline(loaded, photo).result.image_score
    statuses = []
    for upload in uploads:
        statuses.append(answer_status(client, loaded, upload))
        if len(statuses) % 8:
            continue
        control = client.post("/v1/score?fpr=0.9", content=photo, headers={"Content-Type": "image/jpeg"})
        assert control.json()["image_score"] == pytest.approx(expected, rel=1e-4), upload.name
    assert set(statuses) == {200, 413, 415, 422}
    assert least_growth(service_process, uploads) < GROWTH_LIMIT_MB
    assert service_process.metric("resad_queue_photos") == service_process.metric("resad_held_bytes") == 0


def test_a_photograph_with_bytes_turned_is_answered(
    service_process: Process, loaded: LoadedIndex, photo: bytes
) -> None:
    places = st.lists(st.tuples(st.integers(0, len(photo) - 1), st.integers(0, 255)), min_size=1, max_size=12)

    @settings(
        max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
    )
    @given(places)
    @example([(2, 0)])
    def probe(changes: list[tuple[int, int]]) -> None:
        body = bytearray(photo)
        for place, value in changes:
            body[place] = value
        answer_status(service_process.client, loaded, Upload(json.dumps(changes), bytes(body)))

    probe()
