"""The outermost layer of every request: request id, log line, metrics, security headers, last-resort answers."""

import asyncio
import logging
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from service.hosts import route_path
from service.metrics import Metrics
from service.problems import NOT_READY, Refusal, problem_response, refusal
from service.tracing import RequestTrace, Step, WriteSpans

_log: Final = logging.getLogger(__name__)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID_HEADER: Final = "X-Request-ID"
_PIECE_BYTES: Final = 65_536
_CLIENT_CLOSED_REQUEST: Final = 499
"""The status that proxies log when the caller disconnects; it is never sent."""
_PROBES: Final = ("/livez", "/readyz", "/metrics")
"""Called every few seconds: their 200s are logged at DEBUG only."""
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY: Final = _PAGE_POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'").replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)
"""Swagger UI starts from an inline script, which never holds anything that a caller sent."""
_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


def new_id() -> str:
    """A request id: a ULID, 26 characters that sort by time."""
    return str(ULID())


def trace_of(request: Request) -> RequestTrace:
    """The trace of a request that is being answered."""
    trace: RequestTrace = request.scope["state"]["trace"]
    return trace


def held_until_sent(request: Request) -> ExitStack:
    """What a request holds until its answer is sent, or until nobody waits for it any more."""
    resources: ExitStack = request.scope["state"]["resources"]
    return resources


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How slowly a caller may read: `bytes_per_s`, after `grace_s` seconds in which an answer waited for it."""

    grace_s: float
    bytes_per_s: float


class Reading:
    """How fast a caller reads one answer."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self._waited_s = 0.0

    def add(self, count: int, waited_s: float) -> None:
        """Record bytes that the connection took, and how long they waited for the caller."""
        self._bytes += count
        self._waited_s += waited_s

    @property
    def too_slow(self) -> bool:
        """Whether the caller has read less than it must."""
        return self._bytes < self._limits.bytes_per_s * (self._waited_s - self._limits.grace_s)


class RequestMiddleware:
    """ASGI middleware around everything; logs the route and, of what the caller sent, only a well-formed id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, write_spans: WriteSpans, limits: ReadLimits) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._write_spans = write_spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Request(scope).headers
        requested_id = headers.get(_REQUEST_ID_HEADER, "")
        trace = RequestTrace(requested_id if _REQUEST_ID.fullmatch(requested_id) else new_id())
        resources = ExitStack()
        scope.setdefault("state", {}).update(trace=trace, resources=resources)
        status = 0
        reading = Reading(self._limits)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                response_headers[_REQUEST_ID_HEADER] = trace.request_id
                _add_security_headers(response_headers, route_path(scope))
            if message["type"] != "http.response.body":
                await send(message)
                return
            # In pieces, each of which waits until most of the one before was read: so the answer is sent once this
            # returns, and does not wait in a buffer that nothing counts.
            body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
            for start in range(0, max(len(body), 1), _PIECE_BYTES):
                piece = bytes(body[start : start + _PIECE_BYTES])
                last = start + _PIECE_BYTES >= len(body)
                began_piece = time.monotonic()
                await send({"type": "http.response.body", "body": piece, "more_body": more or not last})
                reading.add(len(piece), time.monotonic() - began_piece)
                if reading.too_slow:
                    scope["state"].get("abort", lambda: None)()
                    await asyncio.sleep(0)  # the server notices that the connection is gone
                    raise ClientDisconnect

        with resources, structlog.contextvars.bound_contextvars(request_id=trace.request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                status = _CLIENT_CLOSED_REQUEST
            except asyncio.CancelledError:
                # The draining time is over: the server cancels the remaining requests, then the process ends.
                if not status:
                    stopping = Refusal(NOT_READY, "the service is stopping", {"Retry-After": "5"})
                    await problem_response(stopping, trace.request_id)(scope, receive, send_with_headers)
            except Exception as error:
                refused = refusal(error, trace.request_id)
                if status:  # the answer has begun, no other can be sent
                    raise
                await problem_response(refused, trace.request_id)(scope, receive, send_with_headers)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else "other"  # metrics need few labels
                route = getattr(scope.get("route"), "path", None) or "other"
                seconds = time.perf_counter() - began
                self._metrics.request(method, route, status, seconds)
                level = logging.DEBUG if status == 200 and route in _PROBES else logging.INFO
                fields = _log_fields(trace, method, route, status, seconds)
                _log.log(level, "%s %s %d", method, route, status, extra=fields)
                self._write_spans(trace, headers.get("traceparent"), method, route, status, seconds)


def _add_security_headers(headers: MutableHeaders, path: str) -> None:
    """Nothing from other origins, no frames, and no caching unless the route allows it."""
    for name, value in _SECURITY_HEADERS.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _DOCS_POLICY if path == "/docs" else _PAGE_POLICY
    headers.setdefault("Cache-Control", "no-store")


def _log_fields(trace: RequestTrace, method: str, route: str, status: int, seconds: float) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": trace.request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": _ms(seconds),
    }
    if trace.key:
        fields["key"] = trace.key
    if trace.received:
        fields["receive_ms"] = _ms(trace.received.seconds)
    if trace.photos:
        fields["photos"] = [
            {
                "content": photo.content,
                **({"library_lines": photo.printed} if photo.printed else {}),
                **{f"{step.stage}_ms": _ms(step.seconds) for step in _steps(photo.steps)},
            }
            for photo in trace.photos
        ]
    return fields


def _steps(steps: list[Step]) -> list[Step]:
    """The steps without the waits for a thread, of which a photograph has several."""
    return [step for step in steps if step.stage != "wait"]


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)
