"""Many photographs: which are still to be scored, the requests for them, and their files and journal."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from resad_client.async_client import AsyncClient
from resad_client.errors import (
    OUT_OF_MEMORY,
    ConnectionFailed,
    DeadlinePassed,
    NotAllowed,
    NotFound,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    ServerProblem,
    SettingError,
    with_remedy,
)
from resad_client.exports import Outcome, answer_json, geojson
from resad_client.files import write_atomically
from resad_client.http import OnWait
from resad_client.journal import ScoreJournal, Stamp, stamp_of
from resad_client.maps import map_bytes, with_name
from resad_client.photos import LabeledPhoto
from resad_client.protocol import Layout, MapKind, PictureKind, ScoreQuery
from resad_client.records import ScoreRow, to_json
from resad_client.run_files import RunTables, is_name_fault, journal_path, refuse_existing, unique_places

_CALL_PROBLEMS: Final = ("urn:resad:problem:invalid-request", "urn:resad:problem:index-not-named")
"""Types of `PhotoRefused` that are not about the photograph."""
_UPLOAD_TIMEOUT: Final = 408
_ATTEMPTS: Final = 5
"""Attempts at a photograph that takes too long or loses its connection, while others are scored."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
"""Between two rounds of attempts, and between two looks whether a service is back."""
SUFFIXES: Final[dict[PictureKind, str]] = {"png": ".png", "jpeg": ".jpg"}
OVERLAY_KINDS: Final[dict[PictureKind, MapKind]] = {"png": "overlay", "jpeg": "overlay-jpeg"}

ExistingFiles: TypeAlias = Literal["refuse", "resume", "overwrite"]
"""What happens to files of an earlier run: an error, the run continues, or they are replaced."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run scores each photograph.

    query: of each request; its eye is that of photographs without one of their own.  overlay, size, layout: of the
    pictures, if any.  patience_s: seconds that a photograph may wait for a service that is busy, starting or gone.
    """

    query: ScoreQuery
    concurrency: int
    overlay: MapKind = "overlay"
    size: int | None = None
    layout: Layout | None = None
    patience_s: float = math.inf


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A photograph, the place of its files below any output folder, and the files to write."""

    photo: LabeledPhoto
    place: str
    json: Path | None = None
    overlay: Path | None = None
    geojson: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that will be written."""
        return tuple(path for path in (self.json, self.overlay, self.geojson) if path is not None)


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Outputs of a run: its tables, and a folder for each kind of file per photograph.

    suffix: of overlays.
    """

    tables: RunTables = RunTables()
    json: Path | None = None
    geojson: Path | None = None
    overlays: Path | None = None
    suffix: str = ".png"

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """The folder of each kind."""
        return self.json, self.geojson, self.overlays

    def job(self, photo: LabeledPhoto, place: str) -> ScoreJob:
        """The job of a photograph whose files are called `place`."""
        return ScoreJob(
            photo,
            place,
            json=self.json / f"{place}.json" if self.json else None,
            overlay=self.overlays / f"{place}_overlay{self.suffix}" if self.overlays else None,
            geojson=self.geojson / f"{place}.geojson" if self.geojson else None,
        )


@dataclass(frozen=True, slots=True)
class ScoreFailure:
    """A photograph without a score; `message` names it and says why, `reason` only why."""

    label: str
    message: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """Outcomes in the order of the jobs; `stopped` is the error that ended the run early, if any."""

    outcomes: tuple[ScoreRow | ScoreFailure, ...]
    stopped: ResadClientError | None


@contextmanager
def open_journal(
    outputs: OutputFiles, options: RunOptions, existing: ExistingFiles
) -> Iterator[ScoreJournal | None]:
    """The journal of a run, locked while the run goes on; None if nothing is to be written.

    Raises `SettingError` if files of an earlier run must not be replaced, or if there is no run to resume.
    """
    path = journal_path(outputs.tables, outputs.folders)
    if path is None:
        if existing == "resume":
            raise SettingError("--resume continues a run that wrote files: name them, as in --csv out.csv")
        yield None
        return
    resume = existing == "resume" and path.is_file()
    if existing != "overwrite" and not resume:
        refuse_existing((*outputs.tables.paths, path))
    with ScoreJournal(path, _decisive_settings(outputs, options), resume=resume) as journal:
        yield journal


def plan_jobs(
    photos: Sequence[LabeledPhoto],
    outputs: OutputFiles,
    journal: ScoreJournal | None,
    existing: ExistingFiles,
    *,
    reserved: Collection[str] = (),
) -> tuple[ScoreJob, ...]:
    """The photographs that the journal has no score of.

    Args:
        reserved: places that no photograph's files may have.
    Raises:
        SettingError: an output would replace a photograph, or a file that must not be replaced.
    """
    recorded = journal.places if journal else {}
    new = [photo.label for photo in photos if photo.label not in recorded]
    places = recorded | dict(zip(new, unique_places(new, [*recorded.values(), *reserved]), strict=True))
    jobs = tuple(
        outputs.job(photo, places[photo.label])
        for photo in photos
        if journal is None or not journal.done(photo.label, stamp_of(photo.path))
    )
    _protect_photos(photos, [file for job in jobs for file in job.files])
    if existing != "overwrite":
        # Files that a killed run wrote without a line in its journal are younger than the run.
        begun_ns = journal.begun_ns if journal and journal.resumed else None
        refuse_existing((file for job in jobs if job.photo.label not in recorded for file in job.files), begun_ns)
    return jobs


async def score_photos(
    client: AsyncClient,
    jobs: Sequence[ScoreJob],
    options: RunOptions,
    journal: ScoreJournal | None,
    report: Callable[[ScoreRow | ScoreFailure], None],
    on_wait: OnWait = lambda *_: None,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> RunReport:
    """Score every photograph and write its files, `options.concurrency` at a time; then note it in the journal.

    `report` gets each outcome.  A photograph's own failure is an outcome; an error that every other photograph
    would get ends the run.  A service that is gone is waited for.  A photograph that takes too long or loses its
    connection is tried again after all others, by itself; it fails if that happens five times although others are
    scored, or if no other is left.  `on_wait` gets the errors that the run waits for.  Raises `OSError` if a file
    cannot be written.
    """
    run = _Run(client, jobs, options, journal, report, on_wait, sleep)
    try:
        await run.finish()
    except* OSError as errors:
        raise _first(errors) from None
    finished = tuple(outcome for outcome in run.outcomes if outcome is not None)
    return RunReport(finished, run.stopped)


class _Run:
    """The state of `score_photos`."""

    def __init__(
        self,
        client: AsyncClient,
        jobs: Sequence[ScoreJob],
        options: RunOptions,
        journal: ScoreJournal | None,
        report: Callable[[ScoreRow | ScoreFailure], None],
        on_wait: OnWait,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.client = client
        self.jobs = jobs
        self.options = options
        self.journal = journal
        self.report = report
        self.on_wait = on_wait
        self.sleep = sleep
        self.outcomes: list[ScoreRow | ScoreFailure | None] = [None] * len(jobs)
        self.stopped: ResadClientError | None = None
        self.scored = 0
        self.setbacks: dict[int, _Setback] = {}
        self.reaching = asyncio.Lock()

    async def finish(self) -> None:
        """Go through the photographs until each has an outcome or the run is stopped."""
        pending, concurrency, pause = list(range(len(self.jobs))), self.options.concurrency, _FIRST_PAUSE_S
        while True:
            semaphore = asyncio.Semaphore(concurrency)
            postponed: list[int] = []
            async with asyncio.TaskGroup() as group:
                for number in pending:
                    group.create_task(self._attempt(number, semaphore, postponed))
            if not postponed or self.stopped:
                return
            self.on_wait(self.setbacks[postponed[0]].error, pause)
            await self.sleep(pause)
            # By themselves: a photograph that ends the service must not take others with it.
            pending, concurrency, pause = sorted(postponed), 1, min(2 * pause, _LONGEST_PAUSE_S)

    async def _attempt(self, number: int, semaphore: asyncio.Semaphore, postponed: list[int]) -> None:
        job = self.jobs[number]
        async with semaphore:
            if self.stopped:
                return
            # Before the file is read: a change meanwhile makes it another file.
            stamp = stamp_of(job.photo.path)
            outcome: ScoreRow | ScoreFailure
            try:
                outcome = await _score(self.client, job, self.options, self.journal, stamp)
                self.scored += 1
            except ResadClientError as error:
                if _is_gone(error):
                    await self._reach(error)
                if self.stopped:
                    return
                if _affects_all(error):
                    self.stopped = error
                    return
                if self._is_worth_another_attempt(number, error):
                    postponed.append(number)
                    return
                outcome = _fail(job, error, self.journal, stamp)
            self.outcomes[number] = outcome
            self.report(outcome)

    def _is_worth_another_attempt(self, number: int, error: ResadClientError) -> bool:
        if not _may_pass(error):
            return False
        setback = self.setbacks.setdefault(number, _Setback(error, time.monotonic(), self.scored))
        setback.error = error
        # Where no connection came about, the photograph was not tried.
        setback.attempts += type(error) is not ConnectionFailed
        if time.monotonic() - setback.since >= self.options.patience_s:
            return False
        # The last photograph without an outcome has no others to be compared with.
        rest = (outcome for other, outcome in enumerate(self.outcomes) if other != number)
        others_pass = self.scored > setback.scored or None not in rest
        return setback.attempts < _ATTEMPTS or not others_pass

    async def _reach(self, error: ResadClientError) -> None:
        """Return once the service answers again, ready or not; stop the run if patience ends before."""
        began, pause = time.monotonic(), _FIRST_PAUSE_S
        async with self.reaching:
            while not self.stopped and not await _answers(self.client):
                if time.monotonic() - began >= self.options.patience_s:
                    self.stopped = error
                    return
                self.on_wait(error, pause)
                await self.sleep(min(pause, self.options.patience_s))
                pause = min(2 * pause, _LONGEST_PAUSE_S / 4)


@dataclass(slots=True)
class _Setback:
    """Failed attempts at a photograph.  since: monotonic seconds.  scored: photographs scored before the first."""

    error: ResadClientError
    since: float
    scored: int
    attempts: int = 0


async def _answers(client: AsyncClient) -> bool:
    try:
        await client.ready()
    except ConnectionFailed:
        return False
    except ServerProblem as problem:  # a proxy's word for a service that is gone; other answers are the service's
        return not problem.stands_in
    return True


async def _score(
    client: AsyncClient, job: ScoreJob, options: RunOptions, journal: ScoreJournal | None, stamp: Stamp | None
) -> ScoreRow:
    label = job.photo.label
    result = await client.score(job.photo.path, **asdict(_query(job, options)))
    if job.overlay:
        if result.map is None:
            raise ProtocolError("the service sent no overlay")
        _write(label, job.overlay, await asyncio.to_thread(with_name, map_bytes(result), label))
    result = replace(result, map=None)
    if job.geojson:
        _write(label, job.geojson, geojson(label, result))
    if job.json:
        _write(label, job.json, answer_json(label, to_json(result)))
    if journal:
        journal.note(Outcome(label, result), job.place, stamp)
    return ScoreRow(label, replace(result, findings=()), len(result.findings))


def _write(label: str, path: Path, content: bytes | str) -> None:
    """Write a file; raises `PhotoUnusable` where it is its name that the file system refuses."""
    try:
        write_atomically(path, content)
    except OSError as error:
        if is_name_fault(error):
            raise PhotoUnusable(f"{label}: {path.name} cannot be written ({error.strerror})") from error
        raise


def _query(job: ScoreJob, options: RunOptions) -> ScoreQuery:
    query = replace(options.query, eye=job.photo.eye or options.query.eye)
    if job.overlay is None:
        return query
    # Left out if it is the service's default, so that an older service understands.
    layout = options.layout if options.layout != "blend" else None
    return replace(query, map=options.overlay, size=options.size, layout=layout)


def _fail(
    job: ScoreJob, error: ResadClientError, journal: ScoreJournal | None, stamp: Stamp | None
) -> ScoreFailure:
    reason = with_remedy(error, resumable=journal is not None)
    if journal:
        journal.note(Outcome(job.photo.label, None, reason), job.place, stamp)
    # The message of `PhotoUnusable` names the file itself.
    message = reason if isinstance(error, PhotoUnusable) else f"{job.photo.label}: {reason}"
    return ScoreFailure(job.photo.label, message, reason)


def _affects_all(error: ResadClientError) -> bool:
    """Whether every other photograph would get the same error."""
    if isinstance(error, PhotoRefused):
        return error.type in _CALL_PROBLEMS
    if isinstance(error, NotReady):
        return error.type != OUT_OF_MEMORY
    return isinstance(error, NotAllowed | NotFound)


def _is_gone(error: ResadClientError) -> bool:
    """Whether the service, or a proxy in its place, gave no answer of its own."""
    return isinstance(error, ConnectionFailed) or (isinstance(error, ServerProblem) and error.stands_in)


def _may_pass(error: ResadClientError) -> bool:
    """Whether a later attempt may end otherwise."""
    if isinstance(error, NotReady):
        return error.type == OUT_OF_MEMORY
    return (
        _is_gone(error)
        or isinstance(error, DeadlinePassed)
        or (isinstance(error, ServerProblem) and error.status == _UPLOAD_TIMEOUT)
    )


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    """An error of a group, which may hold groups."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one error")


def _protect_photos(photos: Sequence[LabeledPhoto], outputs: Sequence[Path]) -> None:
    inputs = {photo.path.resolve() for photo in photos}
    for output in outputs:
        if output.resolve() in inputs:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten: name another place"
            )


def _decisive_settings(outputs: OutputFiles, options: RunOptions) -> dict[str, object]:
    """Everything that a resumed run must have in common with the run before."""
    kinds = ("json", "geojson", "overlays")
    return asdict(options.query) | {
        "overlay": options.overlay if outputs.overlays else None,
        "size": options.size if outputs.overlays else None,
        "layout": options.layout if outputs.overlays else None,
        "files": [kind for kind, folder in zip(kinds, outputs.folders, strict=True) if folder],
    }
