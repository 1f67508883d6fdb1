"""Which index a request asks for, and which replica of Ray Serve is to load it.  No Ray in this file."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE: Final = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Ray's, in the environment of the proxies."""
CALLBACK: Final = "cluster.requested_index.middlewares"
"""What it has to be."""
_SESSION: Final = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id").lower()
_MARK: Final = "resad-index:"
"""Begins what is written here, so that a session of somebody else's is not taken for an index."""


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around its proxies."""
    return [Middleware(IndexAsSession)]


class IndexAsSession:
    """Makes the index that a request asks for its session, whatever a caller says.

    Requests that need no index keep theirs: another application of the cluster may go by them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any ASGI application."""
        name = index_of(scope["path"], scope["query_string"]) if scope["type"] == "http" else None
        if name is not None:
            others = [pair for pair in scope["headers"] if not _names_session(pair[0])]
            scope = {**scope, "headers": [*others, (_SESSION.encode(), session_of(name).encode())]}
        await self._app(scope, receive, send)


def _names_session(header: bytes) -> bool:
    """As Ray Serve compares names, to which hyphens are underscores."""
    return header.lower().replace(b"-", b"_") == _SESSION.replace("-", "_").encode()


def index_of(path: str, query: bytes) -> str | None:
    """The index of a request by its address; empty for the default one, None where none is needed."""
    parts = path.rstrip("/").split("/")
    if parts[-2:] in (["v1", "score"], ["v1", "anomaly-map"]):
        return parse_qs(query.decode("latin-1")).get("index", [""])[-1]
    if len(parts) > 5 and parts[-4] == "evidence":
        return parts[-5]
    return None


def session_of(name: str) -> str:
    """What a router is told: ASCII without spaces, whatever a caller writes for a name."""
    return _MARK + quote(name, safe="")


def told_in(session: str) -> str | None:
    """The name that `session_of` was given; None for a session of another kind."""
    return unquote(session.removeprefix(_MARK)) if session.startswith(_MARK) else None


UNMISSED_S: Final = 60.0
"""Seconds after which nobody is expected to ask for an index again, so that a busy one may take its place."""


@dataclass(frozen=True)
class Holding:
    """What a replica has in memory.

    unasked_s: for how many seconds nobody has asked it for each of its indexes.
    room: whether another index displaces none of them.
    """

    unasked_s: Mapping[str, float]
    room: bool


def home_of(wanted: str, held: Mapping[str, Holding], holders: Collection[str] = ()) -> str | None:
    """The replica that is to load an index; the same one whoever asks.

    Args:
        held: by the name of each replica.
        holders: those that have the index, or were told to load it, and are busy.  Another one then joins them
            only where what leaves is not missed: two indexes that are asked for more than one replica can answer
            would else drive each other out in turn.

    Returns:
        One that is not among the holders; None where there is none.
    """
    unmissed = unmissed_s(held)
    others = [name for name in held if name not in holders and not (holders and unmissed[name] < UNMISSED_S)]
    return max(others, key=lambda name: (unmissed[name], _lot(name, wanted)), default=None)


def unmissed_s(held: Mapping[str, Holding]) -> dict[str, float]:
    """For how many seconds nobody has asked for what would leave each replica; infinite where nothing is lost.

    That one leaves which was asked for longest ago, as in `shelf`.
    """
    copies = Counter(name for one in held.values() for name in one.unasked_s)
    found = {}
    for replica, one in held.items():
        leaving = max(one.unasked_s, key=one.unasked_s.__getitem__, default=None)
        lost = leaving is not None and not one.room and copies[leaving] == 1
        found[replica] = one.unasked_s[leaving] if leaving is not None and lost else math.inf
    return found


def _lot(replica: str, wanted: str) -> bytes:
    """Spreads indexes over replicas among which nothing else decides."""
    return hashlib.sha256(f"{wanted}@{replica}".encode()).digest()
