"""`resad-client score`: many photographs, some at a time, each with its files."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from resad_client.async_client import AsyncClient
from resad_client.errors import (
    ConnectionFailed,
    NotAllowed,
    NotFound,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    TimedOut,
)
from resad_client.maps import map_bytes
from resad_client.models import Result
from resad_client.photos import Source
from resad_client.protocol import MapKind
from resad_client.reading import to_json

_OF_ALL: Final = ("urn:resad:problem:invalid-request", "urn:resad:problem:index-not-named")
"""Types of `PhotoRefused` that are not about the photograph."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with each photograph."""

    index: str | None
    fpr: float | None
    concurrency: int


@dataclass(frozen=True, slots=True)
class Job:
    """A photograph, and the files to write about it, if any."""

    source: Source
    json: Path | None
    overlay: Path | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A photograph that was scored; `result` without its map."""

    label: str
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """A photograph that was not; `line` names it and says why."""

    line: str


@dataclass(frozen=True, slots=True)
class Report:
    """The photographs' outcomes in the order of the jobs; `stopped` says why the rest was not tried, if so."""

    outcomes: tuple[Scored | Failed, ...]
    stopped: ResadClientError | None


async def score_photos(
    client: AsyncClient, jobs: Sequence[Job], order: Order, advance: Callable[[], None]
) -> Report:
    """Score every photograph and write its files, `order.concurrency` at a time.

    `advance` is called after each.  A photograph's own fault is collected; one that would meet all others too
    ends the run.  Raises `OSError` if a file cannot be written.
    """
    gate = asyncio.Semaphore(order.concurrency)
    outcomes: list[Scored | Failed | None] = [None] * len(jobs)
    stopped: list[ResadClientError] = []

    async def run(place: int) -> None:
        async with gate:
            if stopped:
                return
            try:
                outcomes[place] = await _score(client, jobs[place], order)
            except ResadClientError as error:
                if _meets_all(error):
                    stopped.append(error)
                else:
                    outcomes[place] = _failed(jobs[place], error)
            advance()

    try:
        async with asyncio.TaskGroup() as group:
            for place in range(len(jobs)):
                group.create_task(run(place))
    except* OSError as faults:
        raise _first(faults) from None
    done = tuple(outcome for outcome in outcomes if outcome is not None)
    return Report(done, stopped[0] if stopped else None)


async def _score(client: AsyncClient, job: Job, order: Order) -> Scored:
    kind: MapKind | None = "overlay" if job.overlay else None
    result = await client.score(job.source.path, index=order.index, fpr=order.fpr, map=kind)
    if job.overlay:
        if result.map is None:
            raise ProtocolError("the service sent no overlay")
        _write(job.overlay, map_bytes(result))
    result = replace(result, map=None)
    if job.json:
        _write(job.json, (to_json(result) + "\n").encode())
    return Scored(job.source.label, result)


def _failed(job: Job, error: ResadClientError) -> Failed:
    # An error from before the sending names the file itself.
    return Failed(str(error) if isinstance(error, PhotoUnusable) else f"{job.source.label}: {error}")


def _meets_all(error: ResadClientError) -> bool:
    """Whether every other photograph would meet it too."""
    if isinstance(error, PhotoRefused):
        return error.type in _OF_ALL
    return isinstance(error, ConnectionFailed | NotAllowed | NotFound) and not isinstance(error, TimedOut)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    """One of the errors in a group of groups."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one error")
