"""Which index a request asks for, and which replica of Ray Serve is to load it.  No Ray in this file.

Ray Serve tells a router nothing of a request's address, only its session id, which comes from a header
(`RequestMetadata.session_id`).  The middleware `IndexAsSession` writes that header in Ray Serve's proxies, where
their environment names it (`VARIABLE`), as in `docker/ray/serve.yaml`.  Ray's model id for multiplexing would fit
better, but with this router Ray 2.60 keeps every request that has one in the proxy's memory for good.
"""

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
"""Ray's environment variable that names middlewares of the proxies."""
CALLBACK: Final = "cluster.routing.middlewares"
"""The value of `VARIABLE`."""
_SESSION_HEADER: Final = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id").lower()
_PREFIX: Final = "resad-index:"
"""Marks a session id as an index, since callers may send session ids of their own."""
EXPIRY_S: Final = 60.0
"""Seconds without a request after which an index counts as unused, so that a busy one may replace it."""


def middlewares() -> list[Middleware]:
    """Middlewares for Ray Serve's proxies."""
    return [Middleware(IndexAsSession)]


class IndexAsSession:
    """Sets a request's session id to the index it asks for, whatever the caller sent.

    Requests that need no index keep their session id: another application of the cluster may use it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any ASGI application."""
        name = requested_index(scope["path"], scope["query_string"]) if scope["type"] == "http" else None
        if name is not None:
            headers = [header for header in scope["headers"] if not _is_session_header(header[0])]
            scope = {**scope, "headers": [*headers, (_SESSION_HEADER.encode(), session_id(name).encode())]}
        await self._app(scope, receive, send)


def _is_session_header(header: bytes) -> bool:
    """As Ray Serve compares names: hyphens equal underscores."""
    return header.lower().replace(b"-", b"_") == _SESSION_HEADER.replace("-", "_").encode()


def requested_index(path: str, query: bytes) -> str | None:
    """The index that a request's address names; empty for the default index, None where it needs no index."""
    parts = path.rstrip("/").split("/")
    if parts[-2:] in (["v1", "score"], ["v1", "anomaly-map"]):
        return parse_qs(query.decode("latin-1")).get("index", [""])[-1]
    if len(parts) > 5 and parts[-4] == "evidence":
        return parts[-5]
    return None


def session_id(index: str) -> str:
    """The session id for an index: printable ASCII without spaces, for any name."""
    return _PREFIX + quote(index, safe="")


def index_of_session(session: str) -> str | None:
    """The index of a `session_id`; None for any other session id."""
    return unquote(session.removeprefix(_PREFIX)) if session.startswith(_PREFIX) else None


@dataclass(frozen=True)
class LoadedIndexes:
    """The indexes that a replica has in memory.

    idle_s: seconds since the last request for each.  has_room: whether one more fits without evicting another.
    """

    idle_s: Mapping[str, float]
    has_room: bool


def replica_for(index: str, replicas: Mapping[str, LoadedIndexes], busy: Collection[str] = ()) -> str | None:
    """The replica that is to load an index; the same one in every proxy.

    Args:
        replicas: by name.
        busy: replicas that have or load the index and have many requests.  Another replica then loads it only if
            it evicts an unused index: otherwise two busy indexes would evict each other in turn.

    Returns:
        A replica that is not in `busy`; None where there is none.
    """
    expiry = eviction_idle_s(replicas)
    candidates = [name for name in replicas if name not in busy and not (busy and expiry[name] < EXPIRY_S)]
    return max(candidates, key=lambda name: (expiry[name], _hash(name, index)), default=None)


def eviction_idle_s(replicas: Mapping[str, LoadedIndexes]) -> dict[str, float]:
    """Seconds without a request of the index that each replica would evict; infinite where none is lost.

    A replica evicts the least recently used index, as `service.index_cache` does.
    """
    copies = Counter(index for loaded in replicas.values() for index in loaded.idle_s)
    seconds = {}
    for name, loaded in replicas.items():
        evicted = max(loaded.idle_s, key=loaded.idle_s.__getitem__, default=None)
        is_lost = evicted is not None and not loaded.has_room and copies[evicted] == 1
        seconds[name] = loaded.idle_s[evicted] if evicted is not None and is_lost else math.inf
    return seconds


def _hash(replica: str, index: str) -> bytes:
    """Spreads indexes over replicas that are equal otherwise (rendezvous hashing)."""
    return hashlib.sha256(f"{index}@{replica}".encode()).digest()
