"""uvicorn with what it lacks: a limit for headers that do not come, and a stop that the service knows of."""

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.settings import Settings

_KEEP_ALIVE_S: Final = 75
"""Longer than proxies keep a connection that is idle: who closes first must not be the one that is being asked."""


def connection_type(head_s: float) -> type[H11Protocol]:
    """Connections that end where a request's headers, or what nobody reads of a refused body, take longer."""

    class Connection(H11Protocol):
        """One connection; `_patience` runs while it sends what no request's work waits for."""

        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._rest()
            elif self._patience is None:
                self._wait()

        def on_response_complete(self) -> None:
            self._rest()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._patience = self.loop.call_later(head_s, self.transport.abort)

        def _rest(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Connection


class Server(uvicorn.Server):
    """Says when it was told to stop, before it begins to.

    Args:
        told: called once or more, from a signal.
    """

    def __init__(self, config: uvicorn.Config, told: Callable[[], None]) -> None:
        super().__init__(config)
        self._told = told

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._told()
        super().handle_exit(sig, frame)


def server_of(app: Any, settings: Settings, told: Callable[[], None]) -> Server:
    """A server for `app`, to be run on a socket that listens."""
    config = uvicorn.Config(
        app,
        http=connection_type(settings.head_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return Server(config, told)
