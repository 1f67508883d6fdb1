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
    assert requested_index("/v1/score", b"fpr=0.1&index=eyes") == "eyes"
    assert requested_index("/below/v1/anomaly-map", b"") == ""
    assert requested_index("/v1/indexes/eyes/evidence/r-1/3/4", b"version=v") == "eyes"
    for path in ("/", "/metrics", "/v1/indexes", "/v1/indexes/eyes", "/v1/indexes/eyes/current"):
        assert requested_index(path, b"index=eyes") is None


@given(st.text())
def test_any_name_comes_back_and_is_a_header(name: str) -> None:
    told = session_id(name)
    assert told.isascii()
    assert told.isprintable()
    assert " " not in told
    assert index_of_session(told) == name


@pytest.mark.parametrize("told", ["", "eyes", "index:eyes", f" {session_id('eyes')}"])
def test_sessions_of_others_are_no_index(told: str) -> None:
    assert index_of_session(told) is None


def test_the_index_is_told_whatever_the_caller_says() -> None:
    forged = session_id("other").encode()
    for name in (b"x-session-id", b"X-Session-ID", b"x_session_id"):
        headers = [(b"accept", b"*/*"), (name, forged), (name, b"mine")]
        given_on = passed_on("/v1/score", b"index=eyes", headers)
        assert index_of_session(session(given_on) or "") == "eyes"
        assert Headers(scope=given_on)["accept"] == "*/*"
        assert len(headers) == 3
        assert index_of_session(session(passed_on("/v1/score", b"", headers)) or "") == ""
    broken = passed_on("/v1/score", b"index=a%0d%0ax-forwarded-for:%20b", [])
    assert session(broken) == session_id("a\r\nx-forwarded-for: b")


def test_what_needs_no_index_is_left_as_it_is() -> None:
    theirs: Pairs = [(b"x-session-id", b"theirs")]
    assert passed_on("/elsewhere", b"index=eyes", theirs)["headers"] is theirs
    assert passed_on("/v1/score", b"index=eyes", theirs, kind="websocket")["headers"] is theirs


def test_the_name_by_which_ray_serve_finds_it_is_right() -> None:
    module, _, name = CALLBACK.rpartition(".")
    assert getattr(importlib.import_module(module), name) is middlewares


def loaded(has_room: bool = False, **idle_s: float) -> LoadedIndexes:
    return LoadedIndexes(idle_s, has_room)


def test_the_least_recently_used_index_is_evicted() -> None:
    held = {"x": loaded(a=1, b=9), "y": loaded(c=4), "z": loaded(d=2)}
    assert eviction_idle_s(held) == {"x": 9, "y": 4, "z": 2}
    assert replica_for("new", held) == "x"


def test_nothing_is_lost_with_room_or_another_copy_or_nothing_loaded() -> None:
    held = {"x": loaded(a=1, has_room=True), "y": loaded(b=1), "z": loaded(b=2), "w": loaded()}
    assert eviction_idle_s(held) == dict.fromkeys("xyzw", math.inf)
    assert {replica_for(str(number), held) for number in range(60)} == {*"xyzw"}


def test_a_busy_index_replaces_only_an_unused_one() -> None:
    held = {"x": loaded(a=0), "y": loaded(b=EXPIRY_S - 1)}
    assert replica_for("a", held, busy={"x"}) is None
    assert replica_for("a", held | {"y": loaded(b=EXPIRY_S)}, busy={"x"}) == "y"
    assert replica_for("a", {"x": loaded(a=0)}, busy={"x"}) is None


class Simulated:
    """Replicas that hold so many indexes each; every request is a second later."""

    def __init__(self, first: Mapping[str, Sequence[str]], places: int) -> None:
        self.asked: dict[str, dict[str, int]] = {
            replica: {name: -place for place, name in enumerate(names)} for replica, names in first.items()
        }
        self.places, self.now, self.loads = places, 0, 0

    def ask(self, wanted: str, choice: random.Random) -> None:
        self.now += 1
        held = {
            replica: LoadedIndexes({name: self.now - at for name, at in asked.items()}, len(asked) < self.places)
            for replica, asked in self.asked.items()
        }
        holders = [replica for replica, asked in self.asked.items() if wanted in asked]
        taken = choice.choice(holders) if holders else replica_for(wanted, held)
        assert taken is not None
        asked = self.asked[taken]
        if wanted not in asked:
            self.loads += 1
            if len(asked) == self.places:
                del asked[min(asked, key=asked.__getitem__)]
        asked[wanted] = self.now


@given(st.data())
def test_indexes_that_fit_are_loaded_no_more_after_a_while(data: st.DataObject) -> None:
    """Whatever was there before, and also where one that nobody asks for any more holds a place."""
    places = data.draw(st.integers(1, 3), "places")
    replicas = [
        f"replica-{data.draw(st.integers(0, 999))}-{number}" for number in range(data.draw(st.integers(1, 4)))
    ]
    names = [f"index-{number}" for number in range(places * len(replicas) + 2)]
    stored = st.lists(st.sampled_from(names), max_size=places, unique=True)
    simulated = Simulated({replica: data.draw(stored) for replica in replicas}, places)
    wanted = data.draw(st.permutations(names))[: data.draw(st.integers(1, places * len(replicas)))]
    choice = random.Random(data.draw(st.integers(0, 99)))
    for _ in range(60):
        for name in wanted:
            simulated.ask(name, choice)
    settled = simulated.loads
    for _ in range(10):
        for name in wanted:
            simulated.ask(name, choice)
    assert simulated.loads == settled
