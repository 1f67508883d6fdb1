"""The outermost layer of every request: request id, log line, metrics, security headers, last-resort answers."""

import asyncio
import logging
import re
import secrets
import time
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.problems import NOT_READY, Refusal, problem_response, refusal
from service.tracing import Account, Step, Trace

_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_DOCS: Final = _PAGE.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'").replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)
"""Swagger UI starts from a script inside its page, which nothing of a caller's ever enters."""
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def protect(headers: MutableHeaders, path: str) -> None:
    """Add them to the answer of a call of `path`, which may be kept only where its route says so."""
    for name, value in _ALWAYS.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _DOCS if path == "/docs" else _PAGE
    headers.setdefault("Cache-Control", "no-store")


_log: Final = logging.getLogger(__name__)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER: Final = "X-Request-ID"
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_GONE: Final = 499
"""As proxies count a caller who hung up; it is never sent."""
_PROBES: Final = ("/livez", "/readyz", "/metrics")
"""Asked every few seconds for as long as the service lives: their good answers are not worth a line each."""


def new_id() -> str:
    """26 characters that sort by time: 48 bits of milliseconds and 80 random ones, as a ULID has them."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_LETTERS[number >> shift & 31] for shift in range(125, -1, -5))


def account_of(request: Request) -> Account:
    """Of the request that is being answered."""
    account: Account = request.scope["state"]["account"]
    return account


class Exchange:
    """The outermost layer, an ASGI application; logs the route, and nothing that a caller sent but a sound id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, trace: Trace) -> None:
        self._app = app
        self._metrics = metrics
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Request(scope).headers
        given = headers.get(_HEADER, "")
        own = Account(given if _ID.fullmatch(given) else new_id())
        scope.setdefault("state", {})["account"] = own
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer[_HEADER] = own.request_id
                protect(answer, scope["path"])
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=own.request_id):
            try:
                await self._app(scope, receive, send_marked)
            except ClientDisconnect:
                status = _GONE
            except asyncio.CancelledError:
                # The time for the end is over: the server cancels what is left, and then the process goes.
                if not status:
                    stopping = Refusal(NOT_READY, "the service is stopping", {"Retry-After": "5"})
                    await problem_response(stopping, own.request_id)(scope, receive, send_marked)
            except Exception as error:
                refused = refusal(error, own.request_id)
                if status:  # too late to say so
                    raise
                await problem_response(refused, own.request_id)(scope, receive, send_marked)
            finally:
                method = _known(scope["method"])
                route = getattr(scope.get("route"), "path", None) or "other"
                seconds = time.perf_counter() - began
                self._metrics.request(method, route, status, seconds)
                level = logging.DEBUG if status == 200 and route in _PROBES else logging.INFO
                line = _line(own, method, route, status, seconds)
                _log.log(level, "%s %s %d", method, route, status, extra=line)
                self._trace(own, headers.get("traceparent"), method, route, status, seconds)


def _line(own: Account, method: str, route: str, status: int, seconds: float) -> dict[str, Any]:
    """What the log's line has beside its text."""
    line: dict[str, Any] = {
        "request_id": own.request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": _ms(seconds),
    }
    if own.key:
        line["key"] = own.key
    if own.received:
        line["receive_ms"] = _ms(own.received.seconds)
    if own.photos:
        line["photos"] = [
            {"content": photo.content, **{f"{step.stage}_ms": _ms(step.seconds) for step in _busy(photo.steps)}}
            for photo in own.photos
        ]
    return line


def _busy(steps: list[Step]) -> list[Step]:
    """Without the waits for a thread, of which a photograph has several."""
    return [step for step in steps if step.stage != "wait"]


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def _known(method: str) -> str:
    """The method, unless it is one that a caller made up: a metric has few labels."""
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS") else "other"
