"""What is recorded of a request (times and hashes, never content), and its OpenTelemetry spans.

Spans are made after the answer, from times that were taken anyway, and only if the environment asks for them
(extra `tracing`).
"""

import hashlib
import hmac
import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from resad.errors import SettingError
from resad.runtime import package_version

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Stage = Literal["receive", "wait", "decode", "judge", "queue", "detect", "score", "render"]
POOLED: Final[frozenset[Stage]] = frozenset(("decode", "judge", "render"))
"""The stages that use a thread of the pool."""
_HEX_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """A finished stage.  ended: seconds since the epoch.  seconds: its duration."""

    stage: Stage
    ended: float
    seconds: float


@dataclass(slots=True, eq=False)
class PhotoTrace:
    """The steps of one photograph.

    account: that it counts for.  content: keyed hash of its bytes, None before they are decoded.  printed: lines
    that libraries printed while they decoded it.
    """

    account: str | None = None
    content: str | None = None
    printed: int = 0
    steps: list[Step] = field(default_factory=list)

    def record(self, stage: Stage, seconds: float) -> None:
        """Add a stage that has just ended."""
        self.steps.append(Step(stage, time.time(), seconds))

    @property
    def pooled_s(self) -> float:
        """Seconds on threads of the pool."""
        return sum(step.seconds for step in self.steps if step.stage in POOLED)


@dataclass(slots=True, eq=False)
class RequestTrace:
    """One request.  began: seconds since the epoch.  key: name of the caller's key.  received: the upload."""

    request_id: str
    began: float = field(default_factory=time.time)
    key: str | None = None
    received: Step | None = None
    photos: list[PhotoTrace] = field(default_factory=list)

    def photo(self) -> PhotoTrace:
        """Start the trace of another photograph."""
        self.photos.append(PhotoTrace(self.key))
        return self.photos[-1]


class ContentHash:
    """HMAC-SHA-256 of a photograph's bytes, cut to 128 bits.

    Equal photographs have equal hashes in one log; without the secret nobody can search a log for a photograph.

    Args:
        secret: the same on all replicas if their logs are to be compared; a random one if None.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def of(self, data: bytes) -> str:
        """Hexadecimal."""
        return hmac.new(self._secret, data, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


WriteSpans = Callable[[RequestTrace, str | None, str, str, int, float], None]
"""Called with a request's trace, `traceparent` header, method, route, status, and seconds."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PACKAGES: Final = (
    "opentelemetry",
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
_SERVICE_NAME: Final = "resad-service"


def tracing_requested() -> bool:
    """Whether the environment asks for spans: an endpoint is set and `OTEL_SDK_DISABLED` is not `true`.

    Raises `SettingError` if it does and the extra `tracing` is not installed.
    """
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in _ENDPOINTS):
        return False
    try:
        installed = all(importlib.util.find_spec(name) is not None for name in _PACKAGES)
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise SettingError(
            "OTEL_* variables ask for tracing, which is not installed: pip install 'resad[tracing]'"
        )
    return True


def start_tracing() -> tuple[WriteSpans, Callable[[], None]]:
    """A function that writes a request's spans, and one that flushes them at the end.

    Both do nothing unless the environment asks for spans; raises as `tracing_requested`.
    """
    if not tracing_requested():
        return _write_nothing, lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE_NAME)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return spans_to(provider.get_tracer("resad", package_version())), provider.shutdown


def spans_to(tracer: "Tracer") -> WriteSpans:
    """A function that writes a request's span below the caller's span, and a span for each stage below that."""
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    extract = TraceContextTextMapPropagator().extract

    def write(
        trace: RequestTrace, traceparent: str | None, method: str, route: str, status: int, seconds: float
    ) -> None:
        began = _ns(trace.began)
        parent = extract({"traceparent": traceparent}) if traceparent else None
        request_span = tracer.start_span(
            f"{method} {route}",
            parent,
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "resad.request_id": trace.request_id,
            },
            start_time=began,
        )
        if status >= 500:
            request_span.set_status(Status(StatusCode.ERROR))
        context = set_span_in_context(request_span)
        for content, step in _steps(trace):
            attributes = {"resad.content": content} if content else None
            start = _ns(step.ended - step.seconds)
            span = tracer.start_span(step.stage, context, attributes=attributes, start_time=start)
            span.end(_ns(step.ended))
        request_span.end(began + round(1e9 * seconds))

    return write


def _steps(trace: RequestTrace) -> Iterator[tuple[str | None, Step]]:
    if trace.received:
        yield None, trace.received
    for photo in trace.photos:
        yield from ((photo.content, step) for step in photo.steps)


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)


def _write_nothing(
    trace: RequestTrace, traceparent: str | None, method: str, route: str, status: int, seconds: float
) -> None:
    """Without tracing."""
