"""The service as a Ray Serve deployment (extra `cluster`): `serve run docker/ray/serve.yaml`.

Each replica is the service as one process runs it: its own queue, its own indexes in memory, CURRENT watched.
Ray Serve adds the door in front (a proxy on each node), the number of replicas, and their places; `routing` says
which of them gets a request.  What is refused with 429 is refused by a replica, so that `Retry-After` is as
measured there; for that Ray Serve must hand on more requests than the queue has places (`max_ongoing_requests`).
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

from cluster.ray_router import STATS_S, ByIndex
from cluster.replica_metrics import of_all
from resad import runtime
from resad.errors import ResadError
from service.app import create_app
from service.settings import read_settings
from service.state import AppState

_log: Final = logging.getLogger(__name__)
_LOADED_S: Final = 600.0
"""Seconds for the indexes of a new replica to load."""
_LOOK_S: Final = 0.1
_TOLD_S: Final = 5.0
"""Seconds that the other replicas have to tell their metrics; half of what Prometheus waits."""
ONGOING: Final = 256
"""Requests that are handed to a replica at a time; above the places of its queue, which are 64 unless set."""


def build_app() -> FastAPI:
    """The application of a replica, with the settings of its `RESAD_*` variables.

    It begins to answer once every index has loaded; a replica that cannot load them is begun again.
    """
    settings = read_settings()
    runtime.configure("exact")
    runtime.use_threads(settings.threads)
    # They would add a series to each counter, which says when the process began.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    app = create_app(settings, _metrics_of_all)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            await asyncio.wait_for(_loaded(app.state.app_state), _LOADED_S)
            yield

    app.router.lifespan_context = lifespan
    app.add_middleware(OneRequestId)
    return app


class OneRequestId:
    """Leaves the answer's request id to Ray Serve, which adds the same one again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As any ASGI application."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"]
            await send(message)

        await self._app(scope, receive, told)


async def _loaded(state: AppState) -> None:
    while state.registry.not_ready() is not None:
        await asyncio.sleep(_LOOK_S)


async def _metrics_of_all(own: bytes) -> bytes:
    """Of every replica of the deployment that answers in time; in any case of this one."""
    here = serve.get_replica_context()
    told = {here.replica_tag: own.decode()}
    others = serve.get_deployment_handle(here.deployment, here.app_name).broadcast("metrics")
    try:
        answers = await others.results_async(timeout_s=_TOLD_S, return_exceptions=True)
    except (TimeoutError, RayServeException) as error:
        _log.warning("metrics of this replica alone: %s", error)
        answers = []
    told |= dict(one for one in answers if not isinstance(one, BaseException))
    return await asyncio.to_thread(of_all, told)


class Replica:
    """What Ray Serve asks beside requests."""

    app: Any

    def check_health(self) -> None:
        """Raises where the thread that scores is gone: Ray Serve then begins another replica."""
        state: AppState = self.app.state.app_state
        if not state.worker.alive:
            raise ResadError("the scoring thread has ended")

    def record_routing_stats(self) -> dict[str, Any]:
        """What `routing` goes by."""
        state: AppState = self.app.state.app_state
        return {
            "unasked_s": state.index_cache.idle_s,
            "room": state.index_cache.has_room,
            "default": state.registry.default,
        }

    def metrics(self) -> tuple[str, str]:
        """This replica's name, and what it alone would tell Prometheus."""
        state: AppState = self.app.state.app_state
        return serve.get_replica_context().replica_tag, state.metrics.text().decode()


deployment = serve.deployment(
    serve.ingress(build_app)(Replica),
    name="resad",
    max_ongoing_requests=ONGOING,
    health_check_period_s=5,
    request_router_config=RequestRouterConfig(
        request_router_class=ByIndex, request_routing_stats_period_s=STATS_S
    ),
    graceful_shutdown_timeout_s=40,
)
app = deployment.bind()
