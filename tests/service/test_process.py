"""Many callers, overload, and the orderly end of `resad-service` as a process of its own."""

import itertools
import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import resad_client

from resad.loaded_index import LoadedIndex
from tests.service.conftest import score_offline
from tests.service.running import JPEG, process, served, until

PHOTOS = 40


def ask(client: httpx.Client, photo: bytes) -> httpx.Response:
    return client.post("/v1/score?fpr=0.9", content=photo, headers=JPEG)


@pytest.mark.long
def test_photographs_from_sixteen_callers(root: Path, photos: tuple[bytes, ...], loaded: LoadedIndex) -> None:
    expected = [score_offline(loaded, photo).result for photo in photos]
    photo_numbers = list(itertools.islice(itertools.cycle(range(len(photos))), PHOTOS))
    with served(root) as service, ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda number: ask(service.client, photos[number]), photo_numbers))
    assert {answer.status_code for answer in answers} == {200}
    for number, answer in zip(photo_numbers, answers, strict=True):
        document = answer.json()
        assert document["image_score"] == pytest.approx(expected[number].image_score, rel=1e-4)
        assert f"{document['image_score']:.4g}" == f"{expected[number].image_score:.4g}"
        assert document["p_value"] == expected[number].p_value
        peaks = [finding["peak"] for finding in document["findings"]]
        assert peaks == pytest.approx([finding.peak for finding in expected[number].findings], rel=1e-4)
    assert len({answer.json()["request_id"] for answer in answers}) == PHOTOS


@pytest.mark.long
def test_a_queue_of_four_refuses_and_its_client_brings_all_through(
    root: Path, photos: tuple[bytes, ...], loaded: LoadedIndex
) -> None:
    expected = [score_offline(loaded, photo).result.image_score for photo in photos]
    with served(root, queue_size=4, batch_size=2) as service, ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: ask(service.client, photos[0]), range(24)))
        photo_numbers = list(itertools.islice(itertools.cycle(range(len(photos))), 16))
        with resad_client.Client(str(service.client.base_url), retries=20, max_wait_s=300) as client:
            results = list(callers.map(lambda number: client.score(photos[number]), photo_numbers))
    assert {answer.status_code for answer in answers} == {200, 429}
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refusals)
    for number, result in zip(photo_numbers, results, strict=True):
        assert result.image_score == pytest.approx(expected[number], rel=1e-4)


def test_a_stop_loses_nothing_that_was_accepted_and_tells_no_names(
    command: Path, root: Path, photo: bytes
) -> None:
    with process(command, root, "--batch-size", 1) as service, ThreadPoolExecutor(24) as callers:
        client = service.client
        parts = [("photo", ("Doe^Jane_1961.jpg", data, "image/jpeg")) for data in (photo, photo[:500], b"junk")]
        assert client.post("/v1/score?eye=left", files=parts).status_code == 200
        client.get("/photos/Doe^Jane_1961.jpg")
        futures = [callers.submit(ask, client, photo) for _ in range(24)]
        until(lambda: service.metric("resad_queue_photos") + sum(future.done() for future in futures) == 24)
        unanswered = sum(not future.done() for future in futures)
        service.popen.send_signal(signal.SIGTERM)
        answers = [future.result(30) for future in futures]
        assert service.popen.wait(30) == 0
        log = service.log
    assert unanswered > 1
    assert {answer.status_code for answer in answers} == {200}
    assert "POST /v1/score 200" in log
    assert "Doe" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    request_lines = [line for line in lines if line.get("route") == "/v1/score"]
    assert len(request_lines) == 25
    assert all(line["event"] == "POST /v1/score 200" and line["request_id"] for line in request_lines)
    for line in request_lines[1:]:
        (photo_entry,) = line["photos"]
        assert re.fullmatch("[0-9a-f]{32}", photo_entry["content"])
        assert photo_entry["decode_ms"] > 0
        assert photo_entry["queue_ms"] + photo_entry["detect_ms"] <= line["ms"]
    assert len({line["photos"][0]["content"] for line in request_lines}) == 1  # the same photograph is known again
