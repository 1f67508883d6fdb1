"""POST a photograph: the answer is the offline one, field by field, alone and among others."""

import base64
import json
import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from resad_client.records import INTENDED_USE, Result

from resad.engine import ScoredPhoto
from resad.loaded_index import LoadedIndex
from resad.pictures.map_files import read_map_png16
from tests.service.conftest import score_offline
from tests.service.running import JPEG, Served

RESULT = TypeAdapter(Result)
PER_REQUEST = ("request_id", "timings_ms", "map")


def without_request_fields(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in PER_REQUEST}


def close(actual: Any, expected: Any) -> bool:
    """Equal, numbers to 1e-4 relative."""
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(close(actual[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(close, actual, expected))
    if isinstance(expected, float):
        return bool(actual == pytest.approx(expected, rel=1e-4))
    return bool(actual == expected)


def test_the_answer_is_the_offline_result(running: Served, photo: bytes, offline: ScoredPhoto) -> None:
    answer = running.score(photo, fpr=0.9, false_regions=2)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    expected = RESULT.dump_python(offline.result, mode="json")
    assert offline.result.findings
    assert list(answer.json()) == list(expected)
    assert close(without_request_fields(answer.json()), without_request_fields(expected))
    assert RESULT.validate_json(answer.content).intended_use == INTENDED_USE


def test_timings_are_milliseconds_of_this_request(running: Served, photo: bytes) -> None:
    answer = running.score(photo)
    timings = answer.json()["timings_ms"]
    assert 0 < timings["decode"] < timings["total"] <= 1e3 * answer.elapsed.total_seconds()


def test_several_are_answered_in_order_each_as_if_alone(
    running: Served, photos: tuple[bytes, ...], loaded: LoadedIndex
) -> None:
    parts = [("photo", (f"patient-{number}.jpg", data, "image/jpeg")) for number, data in enumerate(photos)]
    parts.insert(1, ("photo", ("secret-name.jpg", b"no image", "image/jpeg")))
    answer = running.client.post("/v1/score", files=parts, params={"fpr": 0.9, "false_regions": 2})
    assert answer.status_code == 200
    results = answer.json()["results"]
    problem = results.pop(1)
    assert (problem["status"], problem["type"]) == (422, "urn:resad:problem:photo-unreadable")
    assert "secret-name" not in answer.text
    for result, data in zip(results, photos, strict=True):
        expected = RESULT.dump_python(score_offline(loaded, data, false_regions=2.0).result, mode="json")
        assert close(without_request_fields(result), without_request_fields(expected))


def test_one_part_still_gets_a_list(running: Served, photo: bytes) -> None:
    answer = running.client.post("/v1/score", files={"photo": ("x.tif", photo, "application/octet-stream")})
    assert len(answer.json()["results"]) == 1
    assert "image_score" in answer.json()["results"][0]


def test_a_map_travels_in_the_answer(running: Served, photo: bytes, offline: ScoredPhoto) -> None:
    assert running.score(photo).json()["map"] is None
    url = running.score(photo, map="png").json()["map"]
    values, full_scale = read_map_png16(base64.b64decode(url.removeprefix("data:image/png;base64,")))
    expected = offline.photo.frame.map_to_photo(offline.detection.anomaly_map)
    np.testing.assert_allclose(values, np.minimum(expected, full_scale), atol=full_scale / 65535)
    picture = running.score(photo, map="overlay", size=100).json()["map"]
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_evidence_is_as_long_as_asked(running: Served, photo: bytes) -> None:
    for count in (0, 1, 5):
        findings = running.score(photo, fpr=0.9, false_regions=2, evidence=count).json()["findings"]
        assert findings
        assert {len(finding["evidence"]) for finding in findings} == {count}


def test_ids_go_in_and_out(running: Served, photo: bytes) -> None:
    answer = running.client.post("/v1/score", content=photo, headers=JPEG | {"X-Request-ID": "ward-7.42"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "ward-7.42"
    for invalid_id in ("two words", "x" * 65, "<script>"):
        answer = running.client.get("/livez", headers={"X-Request-ID": invalid_id})
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", answer.headers["x-request-id"])


def test_what_is_not_a_number_never_appears(running: Served, photo: bytes) -> None:
    json.loads(running.score(photo).text, parse_constant=lambda name: pytest.fail(name))


def test_a_result_holds_plain_values(offline: ScoredPhoto) -> None:
    """Records are not validated when they are made, and NumPy's numbers are no JSON."""
    pending: list[object] = [asdict(offline.result)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, tuple):
            pending += value
        else:
            assert type(value) in (str, int, float, bool, type(None))
