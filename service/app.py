"""`create_app(settings)`: the FastAPI application, its routes and middleware, and the answers to errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from resad_client.records import INTENDED_USE
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from resad.errors import PhotoError
from resad.runtime import package_version
from service import problems, routes
from service.hosts import HostMiddleware
from service.middleware import ReadLimits, RequestMiddleware, trace_of
from service.problems import Refusal, problem_response, refusal
from service.schemas import with_examples
from service.settings import Settings
from service.state import AppState, CombinedMetrics, create_state
from service.tracing import start_tracing


def create_app(settings: Settings, combined_metrics: CombinedMetrics | None = None) -> FastAPI:
    """The application; it starts to load indexes when it is started itself.

    Args:
        combined_metrics: see `create_state`.
    Raises:
        SettingError: the device, the keys file or the tracing packages cannot be used.
    """
    state = create_state(settings, combined_metrics)
    write_spans, flush_spans = start_tracing()
    # FastAPI's own /docs loads scripts from the internet, which a hospital's network may not reach.
    app_type = FastAPIOffline if settings.docs else partial(FastAPI, docs_url=None, openapi_url=None)
    app = app_type(
        title="ReSAD",
        summary="Anomaly maps for fundus photographs, from healthy photographs alone.",
        description=INTENDED_USE,
        version=package_version(),
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name whatever host the caller sent
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.app_state = state
    app.state.flush_spans = flush_spans
    app.state.page = routes.page_text(docs=settings.docs)
    app.include_router(routes.router)
    app.mount("/web", routes.files)
    for error in (Refusal, PhotoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _problem)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT"),
            allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After", "Resad-Index", "Resad-Full-Scale"),
        )
    app.add_middleware(HostMiddleware, settings=settings)
    limits = ReadLimits(settings.unread_s, settings.min_read_rate)
    app.add_middleware(RequestMiddleware, metrics=state.metrics, write_spans=write_spans, limits=limits)
    app.openapi_schema = with_examples(app.openapi())
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: AppState = app.state.app_state
    state.open()
    try:
        yield
    finally:
        state.draining.begin()
        await run_in_threadpool(state.close)
        await run_in_threadpool(app.state.flush_spans)


async def _problem(request: Request, error: Exception) -> Response:
    request_id = trace_of(request).request_id
    if isinstance(error, HTTPException):
        error = _framework_refusal(error)
    elif isinstance(error, RequestValidationError):
        error = Refusal(problems.INVALID_REQUEST, problems.faults(error.errors()))
    return problem_response(refusal(error, request_id), request_id)


def _framework_refusal(error: HTTPException) -> Refusal:
    """The refusal for an error that FastAPI raises, such as 404 and 405."""
    headers = error.headers or {}
    if error.status_code == problems.WRONG_METHOD.status:
        return Refusal(problems.WRONG_METHOD, f"allowed here: {headers.get('Allow', 'another one')}", headers)
    if error.status_code == problems.NOT_FOUND.status:
        return Refusal(problems.NOT_FOUND, problems.NOT_FOUND.example, headers)
    kind = problems.Kind("refused", "Refused", error.status_code, "")
    return Refusal(kind, "the request cannot be answered", headers)


def _operation_id(route: APIRoute) -> str:
    return route.name
