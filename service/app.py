"""`create_app(settings)`: the parts, the calls, and what becomes of errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from resad.errors import PhotoError
from resad.result import INTENDED_USE
from resad.runtime import package_version
from service import problems, routes
from service.middleware import Exchange, account_of
from service.problems import Refusal, problem_response, refusal
from service.schemas import with_examples
from service.settings import Settings
from service.state import House, MetricsOfAll, build_house
from service.tracing import tracing


def create_app(settings: Settings, metrics_of_all: MetricsOfAll | None = None) -> FastAPI:
    """The application; it begins to load indexes when it is started.

    Args:
        metrics_of_all: what `/metrics` tells where this is one of several processes behind one address.
    Raises `SettingError` for a device, a keys file or a tracer that is not there.
    """
    house = build_house(settings, metrics_of_all)
    trace, flush = tracing()
    # FastAPI's own /docs loads its scripts from elsewhere; a hospital's network has no elsewhere.
    kind = FastAPIOffline if settings.docs else partial(FastAPI, docs_url=None, openapi_url=None)
    app = kind(
        title="ReSAD",
        summary="Anomaly maps for fundus photographs, from healthy photographs alone.",
        description=INTENDED_USE,
        version=package_version(),
        redoc_url=None,
        lifespan=_lifespan,
        generate_unique_id_function=_operation,
    )
    app.state.house = house
    app.state.flush = flush
    app.state.page = routes.page_text(docs=settings.docs)
    app.include_router(routes.router)
    app.mount("/web", routes.files)
    for error in (Refusal, PhotoError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _answered)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "PUT"),
            allow_headers=("Authorization", "Content-Type", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After", "Resad-Index", "Resad-Full-Scale"),
        )
    app.add_middleware(Exchange, metrics=house.metrics, trace=trace)
    app.openapi_schema = with_examples(app.openapi())
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    house: House = app.state.house
    house.open()
    try:
        yield
    finally:
        house.draining.begin()
        await run_in_threadpool(house.close)
        await run_in_threadpool(app.state.flush)


async def _answered(request: Request, error: Exception) -> Response:
    number = account_of(request).request_id
    if isinstance(error, HTTPException):
        error = _of_the_framework(error)
    elif isinstance(error, RequestValidationError):
        error = Refusal(problems.INVALID_REQUEST, problems.faults(error.errors()))
    return problem_response(refusal(error, number), number)


def _of_the_framework(error: HTTPException) -> Refusal:
    headers = error.headers or {}
    if error.status_code == problems.WRONG_METHOD.status:
        return Refusal(problems.WRONG_METHOD, f"allowed here: {headers.get('Allow', 'another one')}", headers)
    if error.status_code == problems.NOT_FOUND.status:
        return Refusal(problems.NOT_FOUND, problems.NOT_FOUND.example, headers)
    kind = problems.Kind("refused", "Refused", error.status_code, "")
    return Refusal(kind, "the request cannot be answered", headers)


def _operation(route: APIRoute) -> str:
    return route.name
