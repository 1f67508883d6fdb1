"""What Ray Serve's router is told of a request, and that callers have no say in it."""

import asyncio
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from cluster.routing import CALLBACK, index_of, middlewares, session_of, told_in

Pairs = list[tuple[bytes, bytes]]


def passed_on(path: str, query: bytes, headers: Pairs, kind: str = "http") -> Scope:
    """What the application behind the middleware is given."""
    seen: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None:
        pass

    async def pass_on() -> None:
        (one,) = middlewares()
        scope = {"type": kind, "path": path, "query_string": query, "headers": headers}
        await one.cls(application, *one.args, **one.kwargs)(scope, receive, send)

    asyncio.run(pass_on())
    return seen[0]


def session(scope: Scope) -> str | None:
    """As Ray Serve reads it: by any spelling of the header's name."""
    found = [
        value.decode() for name, value in scope["headers"] if name.lower().replace(b"_", b"-") == b"x-session-id"
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_which_requests_need_which_index() -> None:
    assert index_of("/v1/score", b"fpr=0.1&index=eyes") == "eyes"
    assert index_of("/below/v1/anomaly-map", b"") == ""
    assert index_of("/v1/indexes/eyes/evidence/r-1/3/4", b"version=v") == "eyes"
    for path in ("/", "/metrics", "/v1/indexes", "/v1/indexes/eyes", "/v1/indexes/eyes/current"):
        assert index_of(path, b"index=eyes") is None


@given(st.text())
def test_any_name_comes_back_and_is_a_header(name: str) -> None:
    told = session_of(name)
    assert told.isascii()
    assert told.isprintable()
    assert " " not in told
    assert told_in(told) == name


@pytest.mark.parametrize("told", ["", "eyes", "index:eyes", f" {session_of('eyes')}"])
def test_sessions_of_others_are_no_index(told: str) -> None:
    assert told_in(told) is None


def test_the_index_is_told_whatever_the_caller_says() -> None:
    forged = session_of("other").encode()
    for name in (b"x-session-id", b"X-Session-ID", b"x_session_id"):
        headers = [(b"accept", b"*/*"), (name, forged), (name, b"mine")]
        given_on = passed_on("/v1/score", b"index=eyes", headers)
        assert told_in(session(given_on) or "") == "eyes"
        assert Headers(scope=given_on)["accept"] == "*/*"
        assert len(headers) == 3
        assert told_in(session(passed_on("/v1/score", b"", headers)) or "") == ""
    broken = passed_on("/v1/score", b"index=a%0d%0ax-forwarded-for:%20b", [])
    assert session(broken) == session_of("a\r\nx-forwarded-for: b")


def test_what_needs_no_index_is_left_as_it_is() -> None:
    theirs: Pairs = [(b"x-session-id", b"theirs")]
    assert passed_on("/elsewhere", b"index=eyes", theirs)["headers"] is theirs
    assert passed_on("/v1/score", b"index=eyes", theirs, kind="websocket")["headers"] is theirs


def test_the_name_by_which_ray_serve_finds_it_is_right() -> None:
    module, _, name = CALLBACK.rpartition(".")
    assert getattr(importlib.import_module(module), name) is middlewares
