"""The node's HTTP side: STOW-RS, probes and metrics.

POST /studies, /studies/UID    store photographs (PS3.18, 10.5)
GET  /livez, /readyz           alive; able to take photographs
GET  /metrics                  for Prometheus
"""

import asyncio
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from resad_dicom import metrics
from resad_dicom.intake import Intake
from resad_dicom.metrics import Metrics
from resad_dicom.multipart import DicomParts, MultipartError
from resad_dicom.objects import OUT_OF_RESOURCES, Header, ObjectRefused, is_uid, read_header

_JSON: Final = "application/dicom+json"
_PROBLEM: Final = "application/problem+json"
_RETRY_S: Final = "30"
_BODIES: Final = 2
"""Requests whose bodies are read at a time; others wait, so that memory does not fill."""
_REQUEST_OBJECTS: Final = 4
"""A request holds at most this many times the bytes of the largest object."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """What became of a part.  header: None where it could not be read.  status: 0 where it was kept."""

    header: Header | None
    status: int


def create_app(
    intake: Intake, counters: Metrics, *, key: str | None, max_object_bytes: int, alive: Callable[[], bool]
) -> Starlette:
    """The application.

    Args:
        key: that callers of everything but the probes must send; None lets everybody call.
        alive: whether the node's threads run.
    """
    bodies = asyncio.Semaphore(_BODIES)

    async def store(request: Request) -> Response:
        if not _allowed(request, key):
            return _unauthorized()
        study = request.path_params.get("study")
        if study is not None and not is_uid(study):
            return _problem(400, "the address holds no study UID")
        if await run_in_threadpool(intake.full) is not None:
            return _problem(503, "the queue is full; retry later", {"Retry-After": _RETRY_S})
        try:
            async with bodies:
                files = await _files(request, max_object_bytes)
                outcomes = [await run_in_threadpool(_store, intake, data, study) for data in files]
        except _TooLarge as error:
            return _problem(413, str(error))
        except MultipartError as error:
            media_type = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
            return _problem(400 if media_type == "multipart/related" else 415, str(error))
        if outcomes and all(outcome.status == OUT_OF_RESOURCES for outcome in outcomes):
            return _problem(503, "the queue is full; retry later", {"Retry-After": _RETRY_S})
        return _answer(outcomes)

    async def live(request: Request) -> Response:
        return PlainTextResponse("alive" if alive() else "a thread has died", 200 if alive() else 503)

    async def ready(request: Request) -> Response:
        limit = await run_in_threadpool(intake.full)
        text = "ready" if limit is None else f"the queue is full ({limit})"
        return PlainTextResponse(text, 200 if limit is None else 503)

    async def show_metrics(request: Request) -> Response:
        if not _allowed(request, key):
            return _unauthorized()
        return Response(await run_in_threadpool(counters.text), media_type=metrics.MEDIA_TYPE)

    return Starlette(
        routes=[
            Route("/studies", store, methods=["POST"]),
            Route("/studies/{study}", store, methods=["POST"]),
            Route("/livez", live),
            Route("/readyz", ready),
            Route("/metrics", show_metrics),
        ]
    )


class _TooLarge(Exception):
    """A body beyond the limit."""


async def _files(request: Request, max_object_bytes: int) -> list[bytes]:
    """The files of the request's body; raises `_TooLarge` or `MultipartError`."""
    limit = _REQUEST_OBJECTS * max_object_bytes
    parts = DicomParts(request.headers.get("Content-Type", ""))
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise _TooLarge(f"the body has more than {limit} bytes")
            parts.feed(piece)
    except ClientDisconnect:
        raise MultipartError("the body ends early") from None
    return parts.finish()


def _store(intake: Intake, data: bytes, study: str | None) -> _Stored:
    try:
        return _Stored(intake.take(data, "stow-rs", study=study), 0)
    except ObjectRefused as refusal:
        try:
            return _Stored(read_header(data), refusal.status)
        except ObjectRefused:
            return _Stored(None, refusal.status)


def _answer(outcomes: list[_Stored]) -> Response:
    """Which objects were kept (PS3.18, I.2): 200 all, 202 some, 409 none."""
    if not outcomes:
        return _problem(400, "the body holds no object")
    document: dict[str, Any] = {"00081190": {"vr": "UR"}}
    stored = [_reference(outcome.header) for outcome in outcomes if outcome.header and not outcome.status]
    failed = [
        _reference(outcome.header) | {"00081197": {"vr": "US", "Value": [outcome.status]}}
        for outcome in outcomes
        if outcome.status and outcome.header
    ]
    unreadable = [
        {"00081197": {"vr": "US", "Value": [outcome.status]}}
        for outcome in outcomes
        if outcome.status and not outcome.header
    ]
    for tag, entries in (("00081199", stored), ("00081198", failed), ("0008119A", unreadable)):
        if entries:
            document[tag] = {"vr": "SQ", "Value": entries}
    status = 200 if len(stored) == len(outcomes) else 202 if stored else 409
    return Response(json.dumps(document), status, media_type=_JSON)


def _reference(header: Header) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [header.sop_class]},
        "00081155": {"vr": "UI", "Value": [header.sop_instance]},
    }


def _allowed(request: Request, key: str | None) -> bool:
    if key is None:
        return True
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(secret.strip().encode(), key.encode())


def _unauthorized() -> Response:
    return _problem(401, "this call takes Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    document = {"type": "about:blank", "title": detail, "status": status}
    return JSONResponse(document, status, headers, _PROBLEM)
