"""The node: its listeners and threads, from start to stop."""

import logging
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from types import FrameType
from typing import Final

import structlog
import uvicorn
from prometheus_client import disable_created_metrics
from pydicom import config as pydicom_config
from resad_client.errors import SettingError

from resad_dicom.intake import Intake
from resad_dicom.metrics import Metrics
from resad_dicom.peers import HttpService, destination
from resad_dicom.queue import Queue, QueueLimits
from resad_dicom.settings import Settings
from resad_dicom.storage_scp import StorageScp
from resad_dicom.web import create_app
from resad_dicom.work import Scoring, Sending

_log: Final = structlog.get_logger("resad_dicom")
_STOP_S: Final = 30.0
"""Seconds in which a photograph that is at a peer may be finished when the node stops."""


class Node:
    """A running node.

    Raises:
        SettingError: the queue, a file that the settings name, or a port cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        silence_libraries()
        self._stop = threading.Event()
        self._metrics = Metrics()
        with ExitStack() as resources:
            service = resources.enter_context(closing(HttpService(settings)))
            pacs = resources.enter_context(closing(destination(settings, settings.address)))
            limits = QueueLimits(settings.max_items, settings.max_bytes, settings.min_free_bytes)
            queue = resources.enter_context(closing(Queue(settings.queue, limits)))
            self._metrics.watch(queue)
            intake = Intake(queue, self._metrics)
            scoring = Scoring(queue, service, settings.results, self._metrics, self._stop)
            sending = Sending(queue, pacs, self._metrics, self._stop)
            self._threads = [
                *(
                    threading.Thread(target=scoring.run, name="scoring", daemon=True)
                    for _ in range(settings.parallel)
                ),
                threading.Thread(target=sending.run, name="sending", daemon=True),
            ]
            self._scp = StorageScp(settings, intake, self._metrics)
            self._web_socket = resources.enter_context(_bind(settings.host, settings.web_port))
            app = create_app(
                intake, self._metrics, key=settings.web_key, max_object_bytes=settings.max_object_bytes,
                alive=self.alive,
            )  # fmt: skip
            self._web = uvicorn.Server(
                uvicorn.Config(
                    app, log_config=None, access_log=False, lifespan="off", server_header=False,
                    ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key,
                    timeout_graceful_shutdown=int(_STOP_S),
                )
            )  # fmt: skip
            self.web_port = int(self._web_socket.getsockname()[1])
            self.port = self._scp.start()
            self._resources = resources.pop_all()

    def run(self, announce: Callable[[], None]) -> None:
        """Serve until `stop`.  announce: called once both listeners take callers."""
        for thread in self._threads:
            thread.start()
        announce()
        try:
            self._web.run(sockets=[self._web_socket])
        finally:
            self._stop.set()
            self._scp.stop()
            for thread in self._threads:
                thread.join(_STOP_S)
            self._resources.close()

    def stop(self) -> None:
        """End `run`; may be called on any thread and by a signal."""
        self._web.should_exit = True

    def alive(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads)


def serve(settings: Settings, announce: Callable[[Node], None]) -> None:
    """Run a node until SIGTERM or SIGINT; raises `SettingError`."""
    configure_logs(plain=sys.stderr.isatty())
    # It would add a series to each counter, with the start time of the process.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    node = Node(settings)

    def exit_quietly(number: int, frame: FrameType | None) -> None:
        node.stop()

    # uvicorn stops gracefully, then raises the signal again for the handler that was set before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, exit_quietly)
    node.run(lambda: announce(node))


def silence_libraries() -> None:
    """Stop the libraries from logging: their messages quote header values."""
    for name in ("pydicom", "pynetdicom", "python_multipart"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    warnings.filterwarnings("ignore", module="pydicom")
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


def configure_logs(*, plain: bool) -> None:
    """Send every log record of the node to stderr: plain lines for people, else a JSON object a line."""
    renderer = structlog.dev.ConsoleRenderer(colors=False) if plain else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SettingError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener
