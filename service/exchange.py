"""What surrounds every request: its id, its line in the log, its count, and an answer whatever happens."""

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import problem_response, refusal

_log: Final = logging.getLogger(__name__)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER: Final = "X-Request-ID"
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GONE: Final = 499
"""As proxies count a caller who hung up; it is never sent."""


def new_id() -> str:
    """26 characters that sort by time: 48 bits of milliseconds and 80 random ones, as a ULID has them."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_LETTERS[number >> shift & 31] for shift in range(125, -1, -5))


def request_id(request: Request) -> str:
    """The id of the request that is being answered."""
    return str(request.scope["state"]["request_id"])


class Exchange:
    """The outermost layer, an ASGI application; logs the route, and nothing that a caller sent but a sound id."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Request(scope).headers.get(_HEADER, "")
        number = given if _ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})["request_id"] = number
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[_HEADER] = number
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientDisconnect:
            status = _GONE
        except Exception as error:
            refused = refusal(error, number)
            if status:  # too late to say so
                raise
            await problem_response(refused, number)(scope, receive, send_marked)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            seconds = time.perf_counter() - began
            self._metrics.request(_known(scope["method"]), route, status, seconds)
            _log.info("%s %s %s %d %.0f ms", number, _known(scope["method"]), route, status, 1e3 * seconds)


def _known(method: str) -> str:
    """The method, unless it is one that a caller made up: a metric has few labels."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS") else "other"
