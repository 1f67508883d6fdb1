"""Requests name their index whatever callers send; indexes that fit end up on a replica for good."""

import asyncio
import importlib
import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from cluster.routing import (
    CALLBACK,
    EXPIRY_S,
    LoadedIndexes,
    eviction_idle_s,
    index_of_session,
    middlewares,
    replica_for,
    requested_index,
    session_id,
)

Pairs = list[tuple[bytes, bytes]]


def scope_behind_middleware(path: str, query: bytes, headers: Pairs, kind: str = "http") -> Scope:
    """What the application behind the middleware is given."""
    scopes: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    async def receive() -> Message:
        return {}

    async def send(_: Message) -> None:
        pass

    async def pass_on() -> None:
        (middleware,) = middlewares()
        scope = {"type": kind, "path": path, "query_string": query, "headers": headers}
        await middleware.cls(application, *middleware.args, **middleware.kwargs)(scope, receive, send)

    asyncio.run(pass_on())
    return scopes[0]


def session(scope: Scope) -> str | None:
    """As Ray Serve reads it: by any spelling of the header's name."""
    sessions = [
        value.decode() for name, value in scope["headers"] if name.lower().replace(b"_", b"-") == b"x-session-id"
    ]
    assert len(sessions) <= 1
    return sessions[0] if sessions else None


def test_which_requests_need_which_index() -> None:
    assert requested_index("/v1/score", b"fpr=0.1&index=eyes") == "eyes"
    assert requested_index("/below/v1/anomaly-map", b"") == ""
    assert requested_index("/v1/indexes/eyes/evidence/r-1/3/4", b"version=v") == "eyes"
    for path in ("/", "/metrics", "/v1/indexes", "/v1/indexes/eyes", "/v1/indexes/eyes/current"):
        assert requested_index(path, b"index=eyes") is None


@given(st.text())
def test_any_name_comes_back_and_is_a_header(name: str) -> None:
    header = session_id(name)
    assert header.isascii()
    assert header.isprintable()
    assert " " not in header
    assert index_of_session(header) == name


@pytest.mark.parametrize("header", ["", "eyes", "index:eyes", f" {session_id('eyes')}"])
def test_other_session_headers_name_no_index(header: str) -> None:
    assert index_of_session(header) is None


def test_the_session_header_names_the_index_whatever_the_caller_sends() -> None:
    forged_session = session_id("other").encode()
    for name in (b"x-session-id", b"X-Session-ID", b"x_session_id"):
        headers = [(b"accept", b"*/*"), (name, forged_session), (name, b"mine")]
        scope = scope_behind_middleware("/v1/score", b"index=eyes", headers)
        assert index_of_session(session(scope) or "") == "eyes"
        assert Headers(scope=scope)["accept"] == "*/*"
        assert len(headers) == 3
        assert index_of_session(session(scope_behind_middleware("/v1/score", b"", headers)) or "") == ""
    scope = scope_behind_middleware("/v1/score", b"index=a%0d%0ax-forwarded-for:%20b", [])
    assert session(scope) == session_id("a\r\nx-forwarded-for: b")


def test_requests_that_need_no_index_are_unchanged() -> None:
    headers: Pairs = [(b"x-session-id", b"theirs")]
    assert scope_behind_middleware("/elsewhere", b"index=eyes", headers)["headers"] is headers
    assert scope_behind_middleware("/v1/score", b"index=eyes", headers, kind="websocket")["headers"] is headers


def test_the_callback_names_the_middlewares() -> None:
    module, _, name = CALLBACK.rpartition(".")
    assert getattr(importlib.import_module(module), name) is middlewares


def loaded(has_room: bool = False, **idle_s: float) -> LoadedIndexes:
    return LoadedIndexes(idle_s, has_room)


def test_the_least_recently_used_index_is_evicted() -> None:
    loaded_indexes = {"x": loaded(a=1, b=9), "y": loaded(c=4), "z": loaded(d=2)}
    assert eviction_idle_s(loaded_indexes) == {"x": 9, "y": 4, "z": 2}
    assert replica_for("new", loaded_indexes) == "x"


def test_nothing_is_lost_with_room_or_another_copy_or_nothing_loaded() -> None:
    loaded_indexes = {"x": loaded(a=1, has_room=True), "y": loaded(b=1), "z": loaded(b=2), "w": loaded()}
    assert eviction_idle_s(loaded_indexes) == dict.fromkeys("xyzw", math.inf)
    assert {replica_for(str(number), loaded_indexes) for number in range(60)} == {*"xyzw"}


def test_a_busy_index_replaces_only_an_unused_one() -> None:
    loaded_indexes = {"x": loaded(a=0), "y": loaded(b=EXPIRY_S - 1)}
    assert replica_for("a", loaded_indexes, busy={"x"}) is None
    assert replica_for("a", loaded_indexes | {"y": loaded(b=EXPIRY_S)}, busy={"x"}) == "y"
    assert replica_for("a", {"x": loaded(a=0)}, busy={"x"}) is None


class Simulated:
    """Replicas that hold so many indexes each; every request is a second later."""

    def __init__(self, first: Mapping[str, Sequence[str]], places: int) -> None:
        self.last_uses: dict[str, dict[str, int]] = {
            replica: {name: -place for place, name in enumerate(names)} for replica, names in first.items()
        }
        self.places, self.now, self.loads = places, 0, 0

    def ask(self, index_name: str, choice: random.Random) -> None:
        self.now += 1
        loaded_indexes = {
            replica: LoadedIndexes({name: self.now - at for name, at in uses.items()}, len(uses) < self.places)
            for replica, uses in self.last_uses.items()
        }
        holders = [replica for replica, uses in self.last_uses.items() if index_name in uses]
        target = choice.choice(holders) if holders else replica_for(index_name, loaded_indexes)
        assert target is not None
        uses = self.last_uses[target]
        if index_name not in uses:
            self.loads += 1
            if len(uses) == self.places:
                del uses[min(uses, key=uses.__getitem__)]
        uses[index_name] = self.now


@given(st.data())
def test_indexes_that_fit_are_loaded_no_more_after_a_while(data: st.DataObject) -> None:
    """Whatever was there before, and also where one that nobody asks for any more holds a place."""
    places = data.draw(st.integers(1, 3), "places")
    replicas = [
        f"replica-{data.draw(st.integers(0, 999))}-{number}" for number in range(data.draw(st.integers(1, 4)))
    ]
    names = [f"index-{number}" for number in range(places * len(replicas) + 2)]
    initial_names = st.lists(st.sampled_from(names), max_size=places, unique=True)
    simulated = Simulated({replica: data.draw(initial_names) for replica in replicas}, places)
    used_names = data.draw(st.permutations(names))[: data.draw(st.integers(1, places * len(replicas)))]
    choice = random.Random(data.draw(st.integers(0, 99)))
    for _ in range(60):
        for name in used_names:
            simulated.ask(name, choice)
    load_count = simulated.loads
    for _ in range(10):
        for name in used_names:
            simulated.ask(name, choice)
    assert simulated.loads == load_count
