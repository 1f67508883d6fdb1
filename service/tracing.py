"""What is recorded of a request while it is answered (times and hashes, never content), and its OpenTelemetry spans.

Spans are made after the answer, from times that were taken anyway, and only if the environment asks for them
(extra `tracing`).
"""

import hashlib
import hmac
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
"""What takes a thread of the pool."""
_HEX_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class Step:
    """A stage that is over.  ended: seconds since the epoch.  seconds: it took."""

    stage: Stage
    ended: float
    seconds: float


@dataclass(slots=True, eq=False)
class PhotoAccount:
    """One photograph's way.  content: keyed hash of its bytes, once they were looked at."""

    content: str | None = None
    steps: list[Step] = field(default_factory=list)

    def over(self, stage: Stage, seconds: float) -> None:
        """A stage has just ended."""
        self.steps.append(Step(stage, time.time(), seconds))

    @property
    def pooled(self) -> float:
        """Seconds on threads of the pool."""
        return sum(step.seconds for step in self.steps if step.stage in POOLED)


@dataclass(slots=True, eq=False)
class Account:
    """One request.  key: the name of the key it came with.  began: seconds since the epoch."""

    request_id: str
    began: float = field(default_factory=time.time)
    key: str | None = None
    received: Step | None = None
    photos: list[PhotoAccount] = field(default_factory=list)

    def photo(self) -> PhotoAccount:
        """The account of one photograph more."""
        self.photos.append(PhotoAccount())
        return self.photos[-1]


class ContentHash:
    """HMAC-SHA-256 of a photograph's bytes, 128 bits of it: equal photographs are known for equal in one log, and
    nobody without the secret can look for one.

    Args:
        secret: the same on every replica to compare their logs; a random one unless given.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def of(self, data: bytes) -> str:
        """Hexadecimal."""
        return hmac.new(self._secret, data, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


Trace = Callable[[Account, str | None, str, str, int, float], None]
"""Of a request: account, `traceparent` header, method, route, status, seconds."""
_ASKED_BY: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE_NAME: Final = "resad-service"


def tracing() -> tuple[Trace, Callable[[], None]]:
    """What takes a request down, and what sends the last of it away in the end.

    Nothing, unless one of `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set and
    `OTEL_SDK_DISABLED` is not `true`.  Raises `SettingError` where the extra is not installed.
    """
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in _ASKED_BY):
        return _nothing, lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingError(
            "OTEL_* variables ask for tracing, which is not installed: pip install 'resad[tracing]'"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE_NAME)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracer_of(provider.get_tracer("resad", package_version())), provider.shutdown


def tracer_of(tracer: "Tracer") -> Trace:
    """Writes each request to `tracer`: a span of its own below the caller's, and one for each stage below that."""
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    extract = TraceContextTextMapPropagator().extract

    def trace(own: Account, parent: str | None, method: str, route: str, status: int, seconds: float) -> None:
        began = _ns(own.began)
        above = extract({"traceparent": parent}) if parent else None
        whole = tracer.start_span(
            f"{method} {route}",
            above,
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "resad.request_id": own.request_id,
            },
            start_time=began,
        )
        if status >= 500:
            whole.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(whole)
        for content, step in _steps(own):
            about = {"resad.content": content} if content else None
            span = tracer.start_span(
                step.stage, below, attributes=about, start_time=_ns(step.ended - step.seconds)
            )
            span.end(_ns(step.ended))
        whole.end(began + round(1e9 * seconds))

    return trace


def _steps(own: Account) -> Iterator[tuple[str | None, Step]]:
    if own.received:
        yield None, own.received
    for photo in own.photos:
        yield from ((photo.content, step) for step in photo.steps)


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)


def _nothing(own: Account, parent: str | None, method: str, route: str, status: int, seconds: float) -> None:
    """Without tracing."""
