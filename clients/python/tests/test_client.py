"""Requests as the contract has them, answers and errors as they were sent, the same blocking and awaited."""

import asyncio
import json
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import resad_client
from resad_client import (
    AsyncClient,
    Busy,
    Client,
    ConnectionFailed,
    DeadlinePassed,
    Evidence,
    IndexInfo,
    NotAllowed,
    NotFound,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    Result,
    ServerFault,
    ServerProblem,
    SettingError,
    TimedOut,
    from_json,
)
from samples import EXAMPLE, JPEG, PNG, Script, npy, parts, picture, problem, score_response

RESULT = from_json(Result, EXAMPLE)
Call = Callable[[Any], Any]
Answer = httpx.Response | Exception


def blocking(script: Script, call: Call, **options: Any) -> tuple[Any, list[float]]:
    """What `call` gives on a `Client` against `script`, and the waits."""
    waits: list[float] = []
    transport = httpx.MockTransport(script)
    with Client(transport=transport, sleep=waits.append, rng=random.Random(3), **options) as client:
        return call(client), waits


def awaited(script: Script, call: Call, **options: Any) -> tuple[Any, list[float]]:
    """The same on an `AsyncClient`."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async def run() -> Any:
        transport = httpx.MockTransport(script)
        async with AsyncClient(transport=transport, sleep=wait, rng=random.Random(3), **options) as client:
            return await call(client)

    return asyncio.run(run()), waits


each_client = pytest.mark.parametrize("run", [blocking, awaited])
Run = Callable[..., tuple[Any, list[float]]]


def without_boundary(request: httpx.Request) -> tuple[object, ...]:
    """All of a request but multipart's random boundary."""
    headers = dict(request.headers)
    body: object = request.content
    if headers.get("content-type", "").startswith("multipart/"):
        kind = headers.pop("content-type")
        body = [(part.items(), data) for part, data in parts(kind, request.content)]
    return request.method, str(request.url), headers, body


@each_client
def test_score_sends_the_photo_as_the_raw_body(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "Jane Doe 1950-01-01.png"  # a name and an ending that both say too much
    path.write_bytes(JPEG)
    script = Script([score_response()])
    result, _ = run(
        script, lambda c: c.score(path, index="idrid", fpr=0.01, evidence=0, map="none"), key="secret-key"
    )
    assert result == RESULT
    (request,) = script.requests
    assert (request.method, request.url.path) == ("POST", "/v1/score")
    assert dict(request.url.params) == {"index": "idrid", "fpr": "0.01", "evidence": "0", "map": "none"}
    assert request.content == JPEG
    assert request.headers["Content-Type"] == "image/jpeg"
    assert request.headers["Authorization"] == "Bearer secret-key"
    assert request.headers["User-Agent"] == "resad-client/0.1.0"
    assert "Jane" not in repr(without_boundary(request))


@each_client
def test_every_option_is_sent_by_the_services_name(run: Run) -> None:
    options: dict[str, Any] = {
        "index": "idrid", "threshold": 1.5, "camera": "Kowa VX-10", "quality": "require", "evidence": 0,
        "map": "overlay", "size": 512, "layout": "side", "eye": "left",
    }  # fmt: skip
    query = {name: str(value) for name, value in options.items()}
    single, overlay = Script([score_response()]), Script([httpx.Response(200, content=PNG)])
    batch = Script([httpx.Response(200, json={"results": [json.loads(EXAMPLE)]})])
    run(single, lambda c: c.score(JPEG, **options))
    run(batch, lambda c: c.score_many([JPEG], **options))
    assert dict(single.requests[0].url.params) == dict(batch.requests[0].url.params) == query
    run(overlay, lambda c: c.overlay(JPEG, threshold=1.5, camera="Kowa", size=512))
    overlay_query = {"threshold": "1.5", "camera": "Kowa", "size": "512", "style": "overlay"}
    assert dict(overlay.requests[0].url.params) == overlay_query


@each_client
def test_a_rate_and_a_threshold_are_refused_before_anything_is_sent(run: Run) -> None:
    script = Script([score_response()])
    calls: list[Callable[[Any], Any]] = [
        lambda c: c.score(JPEG, fpr=0.1, threshold=1.5),
        lambda c: c.score_many([JPEG], fpr=0.1, threshold=1.5),
        lambda c: c.overlay(JPEG, fpr=0.1, threshold=1.5),
    ]
    for call in calls:
        with pytest.raises(SettingError, match="fpr and threshold exclude each other"):
            run(script, call)
    assert not script.requests


@each_client
def test_absent_options_are_not_sent(run: Run) -> None:
    script = Script([score_response()])
    run(script, lambda c: c.score(PNG), base_url="https://eyes.example/resad/")
    (request,) = script.requests
    assert str(request.url) == "https://eyes.example/resad/v1/score"
    assert "Authorization" not in request.headers


@each_client
def test_score_many_sends_neutral_names_and_reads_in_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "Jane Doe.tif"
    path.write_bytes(picture("TIFF"))
    refusal = json.loads(problem(422).content)
    script = Script([httpx.Response(200, json={"results": [json.loads(EXAMPLE), refusal, json.loads(EXAMPLE)]})])
    answers, _ = run(script, lambda c: c.score_many([JPEG, path, PNG], fpr=0.1))
    assert answers[0] == answers[2] == RESULT
    assert isinstance(answers[1], PhotoRefused)
    assert answers[1].detail == "31.2 MB, the limit is 25 MB"
    (request,) = script.requests
    assert dict(request.url.params) == {"fpr": "0.1"}
    sent_parts = parts(request.headers["Content-Type"], request.content)
    assert [data for _, data in sent_parts] == [JPEG, picture("TIFF"), PNG]
    assert [part.get_content_type() for part, _ in sent_parts] == ["image/jpeg", "image/tiff", "image/png"]
    assert [part.get_filename() for part, _ in sent_parts] == ["photo-1", "photo-2", "photo-3"]
    assert {part.get_param("name", header="Content-Disposition") for part, _ in sent_parts} == {"photo"}
    assert b"Jane" not in request.content


@each_client
def test_no_photographs_are_no_request(run: Run) -> None:
    script = Script([score_response()])
    assert run(script, lambda c: c.score_many([]))[0] == []
    assert not script.requests


@each_client
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"results": [json.loads(EXAMPLE)]}, "1 result for 2 photographs"),
        ({"answers": []}, "no array results"),
        ({"results": [json.loads(EXAMPLE), {}]}, r"no results\[1\]\.request_id"),
        ({"results": [json.loads(EXAMPLE), {"status": 422}]}, r"no results\[1\]\.title"),
    ],
)
def test_an_incomplete_answer_is_a_protocol_error(run: Run, body: object, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        run(Script([httpx.Response(200, json=body)]), lambda c: c.score_many([JPEG, PNG]))


@each_client
def test_anomaly_map(run: Run) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    script = Script([httpx.Response(200, content=npy(values), headers={"Content-Type": "application/x-npy"})])
    anomaly_map, _ = run(script, lambda c: c.anomaly_map(JPEG, index="idrid", size=4))
    np.testing.assert_array_equal(anomaly_map.values, values, strict=True)
    (request,) = script.requests
    assert (request.url.path, request.headers["Accept"]) == ("/v1/anomaly-map", "application/x-npy")
    assert dict(request.url.params) == {"index": "idrid", "size": "4"}


@each_client
def test_overlay(run: Run) -> None:
    script = Script([httpx.Response(200, content=PNG)])
    assert run(script, lambda c: c.overlay(JPEG))[0] == PNG
    (request,) = script.requests
    assert (request.url.path, request.headers["Accept"]) == ("/v1/anomaly-map", "image/png")
    assert dict(request.url.params) == {"style": "overlay"}
    with pytest.raises(ProtocolError, match="no PNG"):
        run(Script([httpx.Response(200, content=b"<html>")]), lambda c: c.overlay(JPEG))


@each_client
@pytest.mark.parametrize("in_object", [True, False])
def test_indexes_are_read_loosely(run: Run, in_object: bool) -> None:
    listing = [
        {"name": "idrid", "version": "v2", "default": True, "photos": 40, "manifest": {"counts": {"photos": 3}}},
        {"name": "other", "version": None, "state": "loading"},
    ]
    script = Script([httpx.Response(200, json={"indexes": listing} if in_object else listing)])
    indexes, _ = run(script, lambda c: c.indexes())
    assert indexes == (
        IndexInfo("idrid", "v2", default=True, photos=40),
        IndexInfo("other", None, state="loading"),
    )
    for body, message in (
        ({}, "no array indexes"),
        ([{"version": "v2"}], r"no indexes\[0\]\.name"),
        ([3], "integer"),
    ):
        with pytest.raises(ProtocolError, match=message):
            run(Script([httpx.Response(200, json=body)]), lambda c: c.indexes())


@each_client
def test_ready_is_not_retried(run: Run) -> None:
    assert run(Script([httpx.Response(200, text="ready")]), lambda c: c.ready()) == (True, [])
    assert run(Script([problem(503, Retry_After="1")]), lambda c: c.ready()) == (False, [])
    script = Script([httpx.ConnectError("refused")])
    with pytest.raises(ConnectionFailed, match=r"^no answer from http://127\.0\.0\.1:8000: refused$"):
        run(script, lambda c: c.ready())
    assert len(script.requests) == 1


@each_client
def test_photographs_that_cannot_be_sent_are_not(run: Run, tmp_path: Path) -> None:
    script = Script([score_response()])
    (tmp_path / "a.jpg").write_bytes(b"GIF89a")
    with pytest.raises(
        PhotoUnusable, match=r"a\.jpg: the file is GIF: file type not supported \(supported are JPEG, "
    ):
        run(script, lambda c: c.score(tmp_path / "a.jpg"))
    with pytest.raises(PhotoUnusable, match=r"b\.jpg: cannot be read \(No such file or directory\)"):
        run(script, lambda c: c.score(tmp_path / "b.jpg"))
    with pytest.raises(PhotoUnusable, match=r"photo 2 \(6 bytes\): the file is GIF: file type"):
        run(script, lambda c: c.score_many([JPEG, b"GIF89a"]))
    assert not script.requests


STATUSES = [
    (400, PhotoRefused), (401, NotAllowed), (403, NotAllowed), (404, NotFound), (406, ServerProblem),
    (409, ServerProblem), (413, PhotoRefused), (415, PhotoRefused), (422, PhotoRefused), (429, Busy),
    (500, ServerFault), (502, ServerFault), (503, NotReady), (504, DeadlinePassed), (507, ServerFault),
]  # fmt: skip


@each_client
@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_problem_is_the_error_of_its_status(run: Run, status: int, kind: type[ServerProblem]) -> None:
    script = Script([problem(status)])
    with pytest.raises(ServerProblem) as caught:
        run(script, lambda c: c.score(JPEG), retries=2)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.type, error.title) == (status, "urn:resad:problem:trouble", "Some trouble")
    assert (error.detail, error.request_id) == ("31.2 MB, the limit is 25 MB", "01J7")
    assert str(error) == f"{status} Some trouble: 31.2 MB, the limit is 25 MB (request 01J7)"
    assert len(script.requests) == (3 if status in (429, 503) else 1)
    unpickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - as a pool of processes would pass it on
    assert (type(unpickled), str(unpickled), unpickled.problem) == (kind, str(error), error.problem)


@each_client
@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'{"detail": "Not Found"}', b'{"title": 3}'])
def test_a_proxys_own_answer_is_named_by_its_status(run: Run, body: bytes) -> None:
    with pytest.raises(ServerFault, match=r"^502 Bad Gateway$") as caught:
        run(Script([httpx.Response(502, content=body)]), lambda c: c.score(JPEG), retries=0)
    assert caught.value.type == "about:blank"


@each_client
@pytest.mark.parametrize("status", [500, 502])
def test_a_proxys_error_is_retried_as_a_lost_connection(run: Run, status: int) -> None:
    proxy_answers = [
        httpx.Response(status, text="Internal Server Error"),
        httpx.Response(status, json={"error": "gone"}),
    ]
    script = Script([*proxy_answers, score_response()])
    result, waits = run(script, lambda c: c.score(JPEG))
    assert (result, len(waits)) == (RESULT, 2)
    script = Script(proxy_answers)
    with pytest.raises(ServerProblem) as caught:
        run(script, lambda c: c.score(JPEG), retries=50, max_wait_s=1000)
    assert (caught.value.status, caught.value.stands_in, len(script.requests)) == (status, True, 6)
    script = Script([problem(status)])  # the service's own fault would be the same again
    with pytest.raises(ServerProblem) as caught:
        run(script, lambda c: c.score(JPEG))
    assert (caught.value.stands_in, len(script.requests)) == (False, 1)


@each_client
def test_other_error_statuses_are_not_retried(run: Run) -> None:
    for status in (501, 504, 505, 507, 404):  # 504: who waited in vain; the service may still be at it
        script = Script([httpx.Response(status, text="no")])
        with pytest.raises(ServerProblem):
            run(script, lambda c: c.score(JPEG))
        assert len(script.requests) == 1


@each_client
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(307, headers={"Location": "http://elsewhere/"}), "status 307 from http://127.0.0.1:8000"),
        (httpx.DecodingError("bad gzip"), "cannot be decoded: bad gzip"),
    ],
)
def test_answers_of_other_servers_are_protocol_errors(run: Run, answer: Answer, message: str) -> None:
    if isinstance(answer, httpx.RequestError):
        answer.request = httpx.Request("POST", "http://127.0.0.1:8000/v1/score")
    with pytest.raises(ProtocolError, match=message):
        run(Script([answer]), lambda c: c.score(JPEG))


@each_client
def test_a_busy_service_is_retried_after_its_retry_after(run: Run) -> None:
    answers = [
        problem(429, **{"Retry-After": "7"}),
        problem(503, **{"Retry-After": "2"}),
        problem(503),
        score_response(),
    ]
    script = Script(answers)
    result, waits = run(script, lambda c: c.score(JPEG))
    assert result == RESULT
    assert [without_boundary(request) for request in script.requests] == [without_boundary(script.requests[0])] * 4
    assert 7 <= waits[0] <= 14
    assert 2 <= waits[1] <= 6
    assert 0.5 <= waits[2] <= 1.0


@each_client
def test_a_batch_is_retried_as_a_whole(run: Run) -> None:
    script = Script([problem(429), httpx.Response(200, json={"results": [json.loads(EXAMPLE)] * 2})])
    answers, _ = run(script, lambda c: c.score_many([JPEG, PNG]))
    assert answers == [RESULT, RESULT]
    first, second = map(without_boundary, script.requests)
    assert first == second


@each_client
def test_the_last_refusal_is_raised(run: Run) -> None:
    cases = [
        ("1", 3, 4, 60.0),
        ("50", 5, 2, 60.0),
        ("61", 5, 1, 60.0),
        ("0", 0, 1, 60.0),
        ("1", 5, 1, 0.0),
    ]
    for retry_after, retries, attempts, max_wait_s in cases:
        script = Script([problem(429, **{"Retry-After": retry_after})])
        with pytest.raises(Busy) as caught:
            run(script, lambda c: c.score(JPEG), retries=retries, max_wait_s=max_wait_s)
        assert caught.value.retry_after == float(retry_after)
        assert len(script.requests) == attempts


@each_client
@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError(""),
        httpx.RemoteProtocolError("cut"),
        httpx.ConnectTimeout(""),
    ],
)
def test_lost_connections_are_tried_again(run: Run, failure: httpx.TransportError) -> None:
    script = Script([failure, failure, score_response()])
    result, waits = run(script, lambda c: c.score(JPEG))
    assert result == RESULT
    assert len(waits) == 2
    with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:8000\b") as caught:
        run(Script([failure]), lambda c: c.score(JPEG), retries=1)
    assert not str(caught.value).endswith(": ")


@each_client
def test_connection_failures_end_the_retries_early(run: Run) -> None:
    script = Script([problem(503), problem(429), httpx.ConnectError("refused")])
    with pytest.raises(ConnectionFailed):
        run(script, lambda c: c.score(JPEG), retries=50, max_wait_s=1000)
    assert len(script.requests) == 2 + 6


@each_client
def test_a_slow_answer_is_not_retried(run: Run) -> None:
    script = Script([httpx.ReadTimeout("")])
    with pytest.raises(TimedOut, match="in time"):
        run(script, lambda c: c.score(JPEG))
    assert len(script.requests) == 1


@each_client
@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "http://", "", "http://host:eighty", "/v1"])
def test_impossible_addresses_are_refused(run: Run, address: str) -> None:
    with pytest.raises(SettingError, match="no address"):
        run(Script([score_response()]), lambda c: c.ready(), base_url=address)


@each_client
@pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "s\u00e9same"])
def test_impossible_keys_are_refused_and_not_printed(run: Run, key: str) -> None:
    with pytest.raises(SettingError, match="visible ASCII") as caught:
        run(Script([score_response()]), lambda c: c.ready(), key=key)
    assert not key or key not in str(caught.value)


@each_client
def test_no_error_holds_a_secret(run: Run) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        run(
            Script([httpx.ConnectError("refused")]),
            lambda c: c.score(JPEG),
            base_url="http://user:pass-word@host:1/",
            key="secret-key",
            retries=0,
        )
    assert str(caught.value) == "no answer from http://host:1: refused"


_photos = st.sampled_from([JPEG, PNG, picture("BMP"), picture("WEBP")])
_names = st.none() | st.text(max_size=5)
_rates = st.none() | st.floats(1e-9, 1)
_score = {
    "index": _names,
    "fpr": _rates,
    "false_regions": _rates,
    "evidence": st.none() | st.integers(0, 50),
    "map": st.sampled_from([None, "none", "png", "overlay", "overlay-jpeg"]),
    "layout": st.sampled_from([None, "blend", "side"]),
    "eye": st.sampled_from([None, "left", "right"]),
}
_map = {"index": _names, "size": st.none() | st.integers(1, 9999)}
_overlay = _map | {
    "fpr": _rates,
    "false_regions": _rates,
    "layout": st.sampled_from([None, "blend", "side"]),
    "kind": st.sampled_from(["png", "jpeg"]),
}
_calls: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("score"), st.tuples(_photos), st.fixed_dictionaries(_score)),
    st.tuples(st.just("score_many"), st.tuples(st.lists(_photos, max_size=3)), st.fixed_dictionaries(_score)),
    st.tuples(st.just("anomaly_map"), st.tuples(_photos), st.fixed_dictionaries(_map)),
    st.tuples(st.just("overlay"), st.tuples(_photos), st.fixed_dictionaries(_overlay)),
    st.tuples(st.sampled_from(["indexes", "ready"]), st.just(()), st.just({})),
    st.tuples(st.just("evidence_crop"), st.just((RESULT.index, Evidence("r-00041", 0.5, 3, 4))), st.just({})),
)
_answers = st.lists(
    st.sampled_from(
        [
            problem(429, **{"Retry-After": "3"}),
            problem(503),
            problem(413),
            score_response(),
            httpx.Response(200, content=PNG),
            httpx.Response(200, json={"results": [json.loads(EXAMPLE)]}),
            httpx.ReadError("cut"),
        ]
    ),
    min_size=1,
    max_size=4,
)


def outcome(
    run: Run, call: tuple[str, Sequence[object], dict[str, object]], answers: list[Answer], key: str | None
) -> tuple[object, ...]:
    name, arguments, options = call
    script = Script(answers)
    try:
        result: object = run(script, lambda c: getattr(c, name)(*arguments, **options), key=key, retries=3)
    except resad_client.ResadClientError as error:
        result = (type(error), str(error))
    return result, [without_boundary(request) for request in script.requests]


@settings(deadline=None)
@given(_calls, _answers, st.none() | st.just("secret-key"))
def test_blocking_and_awaited_say_and_give_the_same(
    call: tuple[str, Sequence[object], dict[str, object]], answers: list[Answer], key: str | None
) -> None:
    assert outcome(blocking, call, answers, key) == outcome(awaited, call, answers, key)


def test_a_blocking_client_works_inside_an_event_loop() -> None:
    async def run() -> Result:
        with Client(transport=httpx.MockTransport(Script([score_response()]))) as client:
            return client.score(JPEG)

    assert asyncio.run(run()) == RESULT


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {"close", "aclose"}

    assert calls(Client) == calls(AsyncClient)
