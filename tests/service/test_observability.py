"""What an operator sees: figures that are true, a log that tells no secrets, spans where they are asked for."""

import json
import logging
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scipy.stats import ks_2samp

from resad.calibration import p_value
from resad.errors import SettingError
from service import server, tracing
from service.metrics import WINDOW, ScoreWindow
from service.tracing import ContentHash, RequestTrace, Step
from tests.service.running import JPEG, Served

_SCORES = st.lists(st.integers(0, 40).map(lambda value: value / 8), min_size=1, max_size=60)


@given(_SCORES, _SCORES)
def test_drift_is_what_scipy_and_the_calibration_say(normals: list[float], scores: list[float]) -> None:
    normals = sorted(normals)
    window = ScoreWindow(normals)
    assert window.drift() is None
    for score in scores:
        window.add(score)
    drift = window.drift()
    assert drift is not None
    p = [p_value(score, tuple(normals)) for score in scores]
    assert drift.photos == len(scores)
    with warnings.catch_warnings(action="ignore"):  # of the p-value, which is not asked for
        expected = ks_2samp(scores, normals).statistic
    assert drift.ks == pytest.approx(expected)
    assert drift.mean_p == pytest.approx(np.mean(p))
    assert drift.abnormal == pytest.approx(np.mean([value <= 0.05 for value in p]))


def test_drift_forgets_old_scores() -> None:
    window = ScoreWindow([1.0, 2.0, 3.0])
    for score in [9.0] * 50 + [2.0] * WINDOW:
        window.add(score)
    drift = window.drift()
    assert drift is not None
    assert (drift.photos, drift.abnormal) == (WINDOW, 0)


def test_photographs_are_counted_by_stage_and_by_what_they_score(running: Served, photo: bytes) -> None:
    counts = ("decode", "judge", "queue", "detect", "score", "receive")
    names = [f'resad_stage_seconds_count{{stage="{stage}"}}' for stage in counts]
    names += ['resad_p_value_count{index="drawn"}', 'resad_image_score_ratio_count{index="drawn"}']
    before = [running.metric(name) for name in names]
    window = running.metric('resad_drift_photos{index="drawn"}')
    for _ in range(2):
        assert running.score(photo).status_code == 200
    assert running.score(b"junk").status_code == 422
    assert [running.metric(name) for name in names] == [
        *(value + 2 for value in before[:5]),
        before[5] + 3,
        *(value + 2 for value in before[6:]),
    ]
    assert running.metric('resad_drift_photos{index="drawn"}') == min(window + 2, WINDOW)
    assert 0 <= running.metric('resad_drift_ks{index="drawn"}') <= 1
    assert 0 < running.metric("resad_seconds_per_photo") < 10
    assert running.metric("resad_worker_alive") == running.metric("resad_ready") == 1
    assert running.metric("process_resident_memory_bytes") > 1e8


def test_every_line_is_an_object_with_its_request(
    running: Served, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        running.client.post("/v1/score", content=photo, headers=JPEG | {"X-Request-ID": "mine-1"})
        parts = [("photo", ("Doe^Jane.jpg", data, "image/jpeg")) for data in (photo, b"junk")]
        running.client.post("/v1/score", files=parts, headers={"X-Request-ID": "mine-2"})
        running.client.get("/v1/indexes/../../etc/passwd")
        running.client.get("/readyz")
    render = server.formatter(plain=False)
    lines = [json.loads(render.format(record)) for record in caplog.records if record.name.startswith("service")]
    photo_line = next(line for line in lines if line.get("request_id") == "mine-1")
    assert (photo_line["event"], photo_line["level"], photo_line["status"], photo_line["route"]) == (
        "POST /v1/score 200",
        "info",
        200,
        "/v1/score",
    )
    assert photo_line["ms"] >= photo_line["receive_ms"]
    batch_line = next(line for line in lines if line.get("request_id") == "mine-2")
    contents = [photo["content"] for photo in batch_line["photos"]]
    assert contents[0] == photo_line["photos"][0]["content"] != contents[1]
    assert set(batch_line["photos"][1]) == {"content"}
    text = "\n".join(json.dumps(line) for line in lines)
    assert "readyz" not in text
    assert "Doe" not in text
    assert "passwd" not in text


def test_plain_lines_are_for_people() -> None:
    record = logging.LogRecord("service.x", logging.INFO, "", 0, "index %s: loaded", ("idrid",), None)
    line = server.formatter(plain=True).format(record)
    assert "index idrid: loaded" in line
    assert not line.startswith("{")


def test_a_traceback_shows_no_values() -> None:
    photograph = bytes(range(65, 75))
    try:
        raise RuntimeError(f"a bug of {len(photograph)} bytes")
    except RuntimeError:
        record = logging.LogRecord("service.x", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    line = json.loads(server.formatter(plain=False).format(record))
    assert "a bug of 10 bytes" in line["exception"]
    assert photograph.decode() not in json.dumps(line)


def test_content_hashes_agree_only_under_the_same_secret() -> None:
    first, second, unkeyed = (
        ContentHash("a-secret-of-sixteen"),
        ContentHash("a-secret-of-sixteen"),
        ContentHash(None),
    )
    assert first.of(b"photo") == second.of(b"photo") != first.of(b"photo!")
    assert first.of(b"photo") != unkeyed.of(b"photo")


def test_spans_form_a_tree_below_the_caller_s() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace = RequestTrace("id-1", began=100.0)
    trace.received = Step("receive", 100.2, 0.1)
    photo = trace.photo()
    photo.content = "ab" * 16
    photo.steps.append(Step("decode", 100.5, 0.25))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracing.spans_to(provider.get_tracer("x"))(trace, parent, "POST", "/v1/score", 504, 1.5)
    receive, decode, request_span = exporter.get_finished_spans()
    assert (request_span.name, receive.name, decode.name) == ("POST /v1/score", "receive", "decode")
    assert f"{request_span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert request_span.parent is not None
    assert f"{request_span.parent.span_id:016x}" == "b7ad6b7169203331"
    for span in (receive, decode):
        assert span.parent is not None
        assert span.parent.span_id == request_span.context.span_id
    assert (decode.start_time, decode.end_time) == (100_250_000_000, 100_500_000_000)
    assert (request_span.start_time, request_span.end_time) == (100_000_000_000, 101_500_000_000)
    assert not request_span.status.is_ok
    assert dict(decode.attributes or {}) == {"resad.content": "ab" * 16}


def test_tracing_is_off_unless_the_environment_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    tracer_off, _ = tracing.start_tracing()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingError, match="pip install"):
        tracing.start_tracing()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.start_tracing()[0] is tracer_off
