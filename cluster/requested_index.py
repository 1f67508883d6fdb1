"""Which index a request asks for, found out in Ray Serve's proxies and told to `routing` as the request's session.

Ray Serve tells a router nothing of a request's address, but its session, which a header names
(`RequestMetadata.session_id`).  `IndexAsSession` writes that header; proxies have it where their environment says
so (`VARIABLE`), as by `docker/ray/serve.yaml`.  Ray's model id for multiplexing would be the better word, but with
this router Ray 2.60 keeps every request that has one in the proxy's memory for good.
"""

import os
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
