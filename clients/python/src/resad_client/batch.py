"""Many photographs, some at a time, each with its files, and a line in the journal of the run."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from resad_client.async_client import AsyncClient
from resad_client.errors import (
    ConnectionFailed,
    NotAllowed,
    NotFound,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    TimedOut,
)
from resad_client.exports import Outcome, answer_json, geojson
from resad_client.maps import map_bytes
from resad_client.models import Result
from resad_client.photos import Source
from resad_client.protocol import Layout, MapKind, ScoreQuery
from resad_client.reading import to_json
from resad_client.score_journal import ScoreJournal, Stamp, stamp_of

_OF_ALL: Final = ("urn:resad:problem:invalid-request", "urn:resad:problem:index-not-named")
"""Types of `PhotoRefused` that are not about the photograph."""


_OUT_OF_MEMORY: Final = "urn:resad:problem:out-of-memory"
"""The 503 that another photograph may not meet."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with each photograph.

    query: what is asked of each; its eye of those whose source does not say.  overlay, size, layout: of the
    picture, where one is wanted.
    """

    query: ScoreQuery
    concurrency: int
    overlay: MapKind = "overlay"
    size: int | None = None
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A photograph, the place of its files below any folder, and the files to write about it, if any."""

    source: Source
    place: str
    json: Path | None = None
    overlay: Path | None = None
    geojson: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(path for path in (self.json, self.overlay, self.geojson) if path is not None)


@dataclass(frozen=True, slots=True)
class Scored:
    """A photograph that was scored; `result` without its map and its findings, of which there are `findings`."""

    label: str
    result: Result
    findings: int


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
    client: AsyncClient,
    jobs: Sequence[Job],
    order: Order,
    journal: ScoreJournal | None,
    tell: Callable[[Scored | Failed], None],
) -> Report:
    """Score every photograph and write its files, `order.concurrency` at a time, each noted once they are there.

    `tell` is told of each.  A photograph's own fault is collected; one that would meet all others too
    ends the run.  Raises `OSError` if a file cannot be written.
    """
    gate = asyncio.Semaphore(order.concurrency)
    outcomes: list[Scored | Failed | None] = [None] * len(jobs)
    stopped: list[ResadClientError] = []

    async def run(place: int) -> None:
        job = jobs[place]
        async with gate:
            if stopped:
                return
            # Before the file is read: if it changes meanwhile, it will count as another one.
            stamp = stamp_of(job.source.path)
            outcome: Scored | Failed
            try:
                outcome = await _score(client, job, order, journal, stamp)
            except ResadClientError as error:
                if _meets_all(error):
                    stopped.append(error)
                    return
                outcome = _failed(job, error, journal, stamp)
            outcomes[place] = outcome
            tell(outcome)

    try:
        async with asyncio.TaskGroup() as group:
            for place in range(len(jobs)):
                group.create_task(run(place))
    except* OSError as faults:
        raise _first(faults) from None
    done = tuple(outcome for outcome in outcomes if outcome is not None)
    return Report(done, stopped[0] if stopped else None)


async def _score(
    client: AsyncClient, job: Job, order: Order, journal: ScoreJournal | None, stamp: Stamp | None
) -> Scored:
    source = job.source
    result = await client.score(source.path, **asdict(_query(job, order)))
    if job.overlay:
        if result.map is None:
            raise ProtocolError("the service sent no overlay")
        _write(job.overlay, map_bytes(result))
    result = replace(result, map=None)
    if job.geojson:
        _write(job.geojson, geojson(source.label, result).encode())
    if job.json:
        _write(job.json, answer_json(source.label, to_json(result)).encode())
    if journal:
        journal.note(Outcome(source.label, result), job.place, stamp)
    return Scored(source.label, replace(result, findings=()), len(result.findings))


def _query(job: Job, order: Order) -> ScoreQuery:
    """What is asked of one photograph."""
    query = replace(order.query, eye=job.source.eye or order.query.eye)
    if job.overlay is None:
        return query
    # Left out where it is the service's own choice, so that an older service understands.
    layout = order.layout if order.layout != "blend" else None
    return replace(query, map=order.overlay, size=order.size, layout=layout)


def _failed(job: Job, error: ResadClientError, journal: ScoreJournal | None, stamp: Stamp | None) -> Failed:
    if journal:
        journal.note(Outcome(job.source.label, None, str(error)), job.place, stamp)
    # An error from before the sending names the file itself.
    return Failed(str(error) if isinstance(error, PhotoUnusable) else f"{job.source.label}: {error}")


def _meets_all(error: ResadClientError) -> bool:
    """Whether every other photograph would meet it too."""
    if isinstance(error, PhotoRefused):
        return error.type in _OF_ALL
    if isinstance(error, TimedOut) or (isinstance(error, NotReady) and error.type == _OUT_OF_MEMORY):
        return False
    return isinstance(error, ConnectionFailed | NotAllowed | NotFound | NotReady)


def _write(path: Path, data: bytes) -> None:
    """Never seen half-written: whoever waits for the file may take it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    """One of the errors in a group of groups."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one error")
