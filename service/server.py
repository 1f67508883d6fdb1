"""The server process: log format, and uvicorn with limits for callers that neither send nor read."""

import asyncio
import logging
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.settings import Settings

_SHARED: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(*, plain: bool) -> None:
    """Send every record to stderr; `plain` for people, else JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(plain=plain))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It repeats bytes of the uploads that it cannot parse.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    # It says at every start and stop what the service itself says, and of a broken request only that it is one.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def formatter(*, plain: bool) -> ProcessorFormatter:
    """Renders a record of `logging` with what was given as `extra`."""
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=False)]
        if plain
        # Without local variables: they may hold a photograph.
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return ProcessorFormatter(
        foreign_pre_chain=_SHARED, processors=[ProcessorFormatter.remove_processors_meta, _one_event, *last]
    )


def _one_event(logger: logging.Logger, name: str, event: EventDict) -> EventDict:
    """uvicorn's records carry their message again with colors."""
    event.pop("color_message", None)
    return event


_KEEP_ALIVE_S: Final = 75
"""Longer than proxies keep a connection that is idle: who closes first must not be the one that is being asked."""


def connection_type(head_s: float, unread_s: float) -> type[H11Protocol]:
    """Connections that are given up.

    Args:
        head_s: for a request's headers, or for what nobody wants of a refused body.
        unread_s: for the caller to take anything of an answer.
    """

    class Connection(H11Protocol):
        """One connection.

        `_patience` runs while it sends what no request's work waits for, `_unread` while it does not read.
        """

        _patience: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._patience = _cancelled(self._patience)
            elif self._patience is None:
                self._wait()

        def on_response_complete(self) -> None:
            self._patience = _cancelled(self._patience)
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._look_again(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            self._unread = _cancelled(self._unread)
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._patience, self._unread = _cancelled(self._patience), _cancelled(self._unread)
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._patience = self.loop.call_later(head_s, self.transport.abort)

        def _look_again(self, before: int) -> None:
            self._unread = self.loop.call_later(unread_s, self._look, before)

        def _look(self, before: int) -> None:
            """Give up unless something was read since there were `before` bytes left."""
            left = self.transport.get_write_buffer_size()
            if left < before:
                self._look_again(left)
            else:
                self.transport.abort()

    return Connection


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """What is left of a timer: nothing."""
    if timer is not None:
        timer.cancel()
    return None


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
        http=connection_type(settings.head_s, settings.unread_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return Server(config, told)
