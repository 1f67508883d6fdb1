"""The log: a JSON object a line for machines, plain lines on a terminal; the modules know `logging` alone."""

import logging
import sys
from typing import Any, Final

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict

_SHARED: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(*, plain: bool) -> None:
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
