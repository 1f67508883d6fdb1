"""The service as a Ray Serve deployment (extra `cluster`): `serve run docker/ray/serve.yaml`.

Each replica is the service of one process: its own queue, its own indexes in memory, its own watch on CURRENT.
Ray Serve adds a proxy on each node and decides on the number and places of replicas; `cluster.ray_router` says
which replica gets a request.  Only replicas answer 429, so that `Retry-After` rests on their measurements; for
that Ray Serve must pass on more requests than the queue has places (`max_ongoing_requests`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import disable_created_metrics
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import RayServeException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.ray_router import STATS_S, IndexRouter
from cluster.replica_metrics import merge_metrics
from resad import runtime
from resad.errors import ResadError
from service.app import create_app
from service.settings import read_settings
from service.state import AppState

_log: Final = logging.getLogger(__name__)
_LOAD_S: Final = 600.0
"""Seconds for the indexes of a new replica to load."""
_POLL_S: Final = 0.1
_METRICS_S: Final = 5.0
"""Seconds for the other replicas to send their metrics; half of Prometheus's timeout."""
MAX_REQUESTS: Final = 256
"""Requests passed to a replica at a time; more than the places of its queue, 64 by default."""


def build_app() -> FastAPI:
    """The application of a replica, with the settings of its `RESAD_*` variables.

    It answers once every index has loaded; Ray Serve restarts a replica that cannot load them.
    """
    settings = read_settings()
    runtime.configure("exact")
    runtime.use_threads(settings.threads)
    # They would add a series to each counter for the start of the process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    app = create_app(settings, _metrics_of_all_replicas)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            await asyncio.wait_for(_wait_until_loaded(app.state.app_state), _LOAD_S)
            yield

    app.router.lifespan_context = lifespan
    app.add_middleware(DropRequestId)
    return app


class DropRequestId:
    """Removes the response's request id, because Ray Serve adds the same one again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any ASGI application."""

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, send_without_id)


async def _wait_until_loaded(state: AppState) -> None:
    while state.registry.not_ready() is not None:
        await asyncio.sleep(_POLL_S)


async def _metrics_of_all_replicas(local: bytes) -> bytes:
    """Metrics of this replica and of every other one that answers in time."""
    replica = serve.get_replica_context()
    texts = {replica.replica_tag: local.decode()}
    call = serve.get_deployment_handle(replica.deployment, replica.app_name).broadcast("metrics")
    try:
        answers = await call.results_async(timeout_s=_METRICS_S, return_exceptions=True)
    except (TimeoutError, RayServeException) as error:
        _log.warning("metrics of this replica alone: %s", error)
        answers = []
    texts |= dict(answer for answer in answers if not isinstance(answer, BaseException))
    return await asyncio.to_thread(merge_metrics, texts)


class Replica:
    """Methods that Ray Serve calls besides requests."""

    app: Any

    def check_health(self) -> None:
        """Raise if the scoring thread has ended: Ray Serve then replaces this replica."""
        state: AppState = self.app.state.app_state
        if not state.worker.alive:
            raise ResadError("the scoring thread has ended")

    def record_routing_stats(self) -> dict[str, Any]:
        """The report for `cluster.ray_router`."""
        state: AppState = self.app.state.app_state
        cache = state.index_cache
        return {"idle_s": cache.idle_s, "has_room": cache.has_room, "default": state.registry.default}

    def metrics(self) -> tuple[str, str]:
        """This replica's name and its metrics."""
        state: AppState = self.app.state.app_state
        return serve.get_replica_context().replica_tag, state.metrics.text().decode()


deployment = serve.deployment(
    serve.ingress(build_app)(Replica),
    name="resad",
    max_ongoing_requests=MAX_REQUESTS,
    health_check_period_s=5,
    request_router_config=RequestRouterConfig(
        request_router_class=IndexRouter, request_routing_stats_period_s=STATS_S
    ),
    graceful_shutdown_timeout_s=40,
)
app = deployment.bind()
