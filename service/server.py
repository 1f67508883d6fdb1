"""The server process: log format, and uvicorn with limits for callers that neither send nor read.

`resad-service` imports this module, and with it torch and FAISS, only after every refusal.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NoReturn

import structlog
import uvicorn
from prometheus_client import disable_created_metrics
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict
from uvicorn.protocols.http.h11_impl import H11Protocol

from resad import index as index_store
from resad import runtime
from service.app import create_app
from service.settings import Settings
from service.state import AppState

_log: Final = logging.getLogger(__name__)
_KEEP_ALIVE_S: Final = 75
"""Longer than a proxy's keep-alive, so that the proxy closes idle connections first."""
BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
_PROCESSORS: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def run(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        listener: a bound socket.
        announce: called once the socket listens.
    """
    runtime.configure("exact")
    runtime.use_threads(settings.threads)
    configure_logs(plain=sys.stderr.isatty())
    # It would add a series to each counter, with the start time of the process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    app = create_app(settings)
    listener.listen(BACKLOG)
    # uvicorn stops gracefully, then raises the signal again for the handler that was set before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    announce()
    if not any((folder / index_store.CURRENT).is_file() for folder in settings.root.iterdir()):
        _log.warning("no index under %s; one that is built there is served from then on", settings.root)
    state: AppState = app.state.app_state
    create_server(app, settings, state.draining.begin).run(sockets=[listener])


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def configure_logs(*, plain: bool) -> None:
    """Send every log record to stderr: plain lines for people, else a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(plain=plain))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It logs bytes of uploads that it cannot parse.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    # It repeats the service's own messages, and says nothing useful of malformed requests.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def formatter(*, plain: bool) -> ProcessorFormatter:
    """Renders a record of `logging` with its `extra` fields."""
    renderers: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=False)]
        if plain
        # Without local variables: they may hold a photograph.
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    return ProcessorFormatter(
        foreign_pre_chain=_PROCESSORS,
        processors=[ProcessorFormatter.remove_processors_meta, _drop_color_message, *renderers],
    )


def _drop_color_message(logger: logging.Logger, name: str, event: EventDict) -> EventDict:
    """uvicorn's records repeat their message with colors."""
    event.pop("color_message", None)
    return event


def connection_type(head_s: float, unread_s: float, min_read_rate: float) -> type[H11Protocol]:
    """A connection class that closes connections of slow callers.

    Args:
        head_s: seconds for a request's headers, and for the rest of a refused body.
        unread_s: seconds after which a caller that is behind in reading must have read at the least rate.
        min_read_rate: that rate, bytes per second.
    """

    class Connection(H11Protocol):
        """One connection.

        `_head_timer` runs while bytes arrive that no request waits for, `_unread_timer` while an answer waits.
        """

        _head_timer: asyncio.TimerHandle | None = None
        _unread_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # For who finds, over a whole answer, that the caller reads too slowly.
            self.app_state = {**self.app_state, "abort": transport.abort}
            self._start_head_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_timer = _cancel(self._head_timer)
            elif self._head_timer is None:
                self._start_head_timer()

        def on_response_complete(self) -> None:
            self._head_timer = _cancel(self._head_timer)
            super().on_response_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start_unread_timer(self.loop.time(), self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            self._unread_timer = _cancel(self._unread_timer)
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer, self._unread_timer = _cancel(self._head_timer), _cancel(self._unread_timer)
            super().connection_lost(exc)

        def _start_head_timer(self) -> None:
            self._head_timer = self.loop.call_later(head_s, self.transport.abort)

        def _start_unread_timer(self, began: float, unread: int) -> None:
            # The first check is at the end of the grace; with a rate the next ones come each second.
            seconds = unread_s if self.loop.time() == began else 1.0
            self._unread_timer = self.loop.call_later(seconds, self._check_reading, began, unread)

        def _check_reading(self, began: float, unread: int) -> None:
            """Close the connection unless the caller reads at the least rate; `unread` bytes waited at `began`."""
            read = unread - self.transport.get_write_buffer_size()
            if read > min_read_rate * (self.loop.time() - began - unread_s):
                self._start_unread_timer(began, unread)
            else:
                self.transport.abort()

    return Connection


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; returns None, the timer's new value."""
    if timer is not None:
        timer.cancel()
    return None


class Server(uvicorn.Server):
    """A server that calls `stopping` when a signal tells it to stop, before it stops; maybe more than once."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to stop."""
        self._stopping()
        super().handle_exit(sig, frame)


def create_server(app: Any, settings: Settings, stopping: Callable[[], None]) -> Server:
    """A server for `app`, to be run on a listening socket."""
    config = uvicorn.Config(
        app,
        http=connection_type(settings.head_s, settings.unread_s, settings.min_read_rate),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        root_path=settings.root_path,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return Server(config, stopping)
