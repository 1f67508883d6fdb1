"""Many photographs: which are still to be scored, the requests for them, and their files and journal."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from resad_client.async_client import AsyncClient
from resad_client.captions import with_name
from resad_client.errors import (
    ConnectionFailed,
    NotAllowed,
    NotFound,
    NotReady,
    PhotoRefused,
    PhotoUnusable,
    ProtocolError,
    ResadClientError,
    SettingError,
    TimedOut,
)
from resad_client.exports import Outcome, answer_json, geojson
from resad_client.files import write_atomically
from resad_client.journal import ScoreJournal, Stamp, stamp_of
from resad_client.maps import map_bytes
from resad_client.photos import LabeledPhoto
from resad_client.protocol import Layout, MapKind, PictureKind, ScoreQuery
from resad_client.records import ScoreRow, to_json
from resad_client.run_files import RunTables, journal_path, refuse_existing, unique_places

_CALL_PROBLEMS: Final = ("urn:resad:problem:invalid-request", "urn:resad:problem:index-not-named")
"""Types of `PhotoRefused` that are not about the photograph."""
_OUT_OF_MEMORY: Final = "urn:resad:problem:out-of-memory"
"""A 503 that another photograph may not get."""
SUFFIXES: Final[dict[PictureKind, str]] = {"png": ".png", "jpeg": ".jpg"}
OVERLAY_KINDS: Final[dict[PictureKind, MapKind]] = {"png": "overlay", "jpeg": "overlay-jpeg"}

ExistingFiles: TypeAlias = Literal["refuse", "resume", "overwrite"]
"""What happens to files of an earlier run: an error, the run continues, or they are replaced."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run scores each photograph.

    query: of each request; its eye is that of photographs without one of their own.  overlay, size, layout: of the
    pictures, if any.
    """

    query: ScoreQuery
    concurrency: int
    overlay: MapKind = "overlay"
    size: int | None = None
    layout: Layout | None = None


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
    """A photograph without a score; `message` names it and says why."""

    message: str


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
) -> RunReport:
    """Score every photograph and write its files, `options.concurrency` at a time; then note it in the journal.

    `report` gets each outcome.  A photograph's own failure is an outcome; an error that every other photograph
    would get ends the run.  Raises `OSError` if a file cannot be written.
    """
    semaphore = asyncio.Semaphore(options.concurrency)
    outcomes: list[ScoreRow | ScoreFailure | None] = [None] * len(jobs)
    stopped: list[ResadClientError] = []

    async def run(number: int) -> None:
        job = jobs[number]
        async with semaphore:
            if stopped:
                return
            # Before the file is read: a change meanwhile makes it another file.
            stamp = stamp_of(job.photo.path)
            outcome: ScoreRow | ScoreFailure
            try:
                outcome = await _score(client, job, options, journal, stamp)
            except ResadClientError as error:
                if _affects_all(error):
                    stopped.append(error)
                    return
                outcome = _fail(job, error, journal, stamp)
            outcomes[number] = outcome
            report(outcome)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(len(jobs)):
                group.create_task(run(number))
    except* OSError as errors:
        raise _first(errors) from None
    finished = tuple(outcome for outcome in outcomes if outcome is not None)
    return RunReport(finished, stopped[0] if stopped else None)


async def _score(
    client: AsyncClient, job: ScoreJob, options: RunOptions, journal: ScoreJournal | None, stamp: Stamp | None
) -> ScoreRow:
    label = job.photo.label
    result = await client.score(job.photo.path, **asdict(_query(job, options)))
    if job.overlay:
        if result.map is None:
            raise ProtocolError("the service sent no overlay")
        write_atomically(job.overlay, await asyncio.to_thread(with_name, map_bytes(result), label))
    result = replace(result, map=None)
    if job.geojson:
        write_atomically(job.geojson, geojson(label, result))
    if job.json:
        write_atomically(job.json, answer_json(label, to_json(result)))
    if journal:
        journal.note(Outcome(label, result), job.place, stamp)
    return ScoreRow(label, replace(result, findings=()), len(result.findings))


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
    if journal:
        journal.note(Outcome(job.photo.label, None, str(error)), job.place, stamp)
    # The message of `PhotoUnusable` names the file itself.
    return ScoreFailure(str(error) if isinstance(error, PhotoUnusable) else f"{job.photo.label}: {error}")


def _affects_all(error: ResadClientError) -> bool:
    """Whether every other photograph would get the same error."""
    if isinstance(error, PhotoRefused):
        return error.type in _CALL_PROBLEMS
    if isinstance(error, TimedOut) or (isinstance(error, NotReady) and error.type == _OUT_OF_MEMORY):
        return False
    return isinstance(error, ConnectionFailed | NotAllowed | NotFound | NotReady)


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
