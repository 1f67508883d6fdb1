"""Scoring over a cluster: `indexer.scoring.score_photos` on workers, with the journal on this machine.

Photographs, the index and output folders must lie where every node sees them under the same path: workers read and
write them.  No photograph ends the run, even if the process that decodes it dies.
"""

import os
import socket
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from resad_client.exports import Outcome
from resad_client.journal import ScoreJournal, Stamp
from resad_client.records import ScoreRow

from cluster.scheduling import process_chunks
from cluster.worker_pool import PoolOptions, Worker, WorkerInfo, WorkerPool
from indexer.scoring import RunOptions, ScoreFailure, ScoreJob, score_photos
from resad import runtime
from resad.config import PhotoLimits
from resad.engine import Engine
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.pictures.evidence import read_square

CHUNK_PHOTOS: Final = 16
_LIMITS: Final = PhotoLimits()
TRIES: Final = 2
"""Workers that may be lost with a photograph scored alone, before it counts as the reason."""


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What every worker gets.  version: ROOT/NAME/VERSION, where every node sees it.  device: its kind."""

    version: Path
    device: str
    threads: int
    options: RunOptions
    limits: PhotoLimits


class JournalNote(NamedTuple):
    """Arguments of `ScoreJournal.note`."""

    outcome: Outcome
    place: str
    stamp: Stamp | None


class _Notes:
    """Collects notes in place of a journal."""

    def __init__(self) -> None:
        self.entries: list[JournalNote] = []

    def note(self, outcome: Outcome, place: str, stamp: Stamp | None) -> None:
        """Keep the note, in place of an earlier one on the same photograph."""
        earlier = [entry for entry in self.entries if entry.outcome.photo != outcome.photo]
        self.entries = [*earlier, JournalNote(outcome, place, stamp)]


class ScoreWorker:
    """The actor of a scoring run: an engine with the index in memory."""

    def start(self, task: ScoreTask) -> WorkerInfo:
        """Load the index; raises `SettingError` where this node does not see it."""
        if not task.version.is_dir():
            raise SettingError(
                f"{task.version} is not there on the worker {socket.gethostname()}: an index must lie where "
                "every node of the cluster sees it under the same path"
            )
        runtime.use_threads(task.threads)
        loaded = load_index(task.version, runtime.pick_device(task.device))
        runtime.configure(loaded.manifest.config.precision)
        self.engine = Engine(loaded, task.limits)
        self._task = task
        return WorkerInfo(socket.gethostname(), os.getpid())

    def score(self, jobs: Sequence[ScoreJob]) -> list[JournalNote]:
        """Score photographs and write their files; a note for each, whatever is wrong with it."""
        notes = _Notes()
        squares = partial(read_square, self._task.version, self.engine.loaded.manifest)
        with closing(score_photos(self.engine, jobs, self._task.options, notes, squares)) as outcomes:
            for _ in outcomes:
                pass
        return notes.entries

    def clean_up(self) -> None:
        """Nothing to delete."""


def score_over_workers(
    pool_options: PoolOptions,
    version: Path,
    jobs: Sequence[ScoreJob],
    options: RunOptions,
    journal: ScoreJournal,
    *,
    limits: PhotoLimits = _LIMITS,
    chunk_photos: int = CHUNK_PHOTOS,
    tries: int = TRIES,
    worker_class: type[Any] = ScoreWorker,
) -> Generator[ScoreRow | ScoreFailure, None, None]:
    """Score each photograph on a worker and note it in the journal; outcomes as they come.

    Args:
        version: ROOT/NAME/VERSION, as every node sees it.
        chunk_photos: photographs that a worker gets together.
        tries: workers that may be lost with a photograph scored alone, before it counts as the reason.
    Raises:
        SettingError: a worker does not see the index, or its files cannot be seen from here.
        OSError: a worker cannot write files, as on a full disk.
    """
    if not jobs:
        return
    task = ScoreTask(version.absolute(), pool_options.device, pool_options.size.cpus, options, limits)
    count = min(pool_options.count, -(-len(jobs) // chunk_photos))
    # Every photograph may cost some workers, and be in a chunk with others that do.
    max_losses = 3 * count + 2 * tries * len(jobs)
    by_label = {job.label: job for job in jobs}
    visible = False
    with (
        WorkerPool(pool_options.cluster, worker_class, task, pool_options.size, count, max_losses) as pool,
        closing(_score_chunks(pool, jobs, chunk_photos, tries)) as notes,
    ):
        for note in notes:
            outcome = note.outcome
            if outcome.result is not None and not visible:
                _check_visible(by_label[outcome.photo])
                visible = True
            journal.note(*note)
            if outcome.result is None:
                yield ScoreFailure(outcome.photo, outcome.fault or "")
            else:
                row = replace(outcome.result, findings=())
                yield ScoreRow(outcome.photo, row, len(outcome.result.findings))


def _score_chunks(
    pool: WorkerPool, jobs: Sequence[ScoreJob], chunk_photos: int, tries: int
) -> Generator[JournalNote, None, None]:
    """Notes chunk by chunk.  Photographs in work when a worker was lost are scored alone, to find the reason."""
    chunks = [tuple(jobs[start : start + chunk_photos]) for start in range(0, len(jobs), chunk_photos)]
    for attempt in range(tries + 1):
        suspects: list[ScoreJob] = []
        yield from _score_once(pool, chunks, suspects)
        if attempt == tries:
            for job in suspects:
                reason = "the worker that scored it was lost, each time"
                yield JournalNote(Outcome(job.label, None, reason), job.place, None)
        chunks = [(job,) for job in suspects]


def _score_once(
    pool: WorkerPool, chunks: Sequence[tuple[ScoreJob, ...]], suspects: list[ScoreJob]
) -> Iterator[JournalNote]:
    """Score the chunks; adds the jobs of a chunk whose worker was lost to `suspects`."""

    def on_lost(worker: Worker, submitted: Sequence[int]) -> Collection[int]:
        suspects.extend(chunks[submitted[0]])
        return submitted[1:]

    replies = process_chunks(pool, range(len(chunks)), "score", lambda number: (chunks[number],), on_lost)
    for reply in replies:
        yield from reply.value


def _check_visible(job: ScoreJob) -> None:
    """Raise `SettingError` where the files that a worker wrote are not here."""
    for file in job.files:
        # Listed, because a shared file system may remember for a while that a name was not there.
        if file != job.strips and file.name not in os.listdir(file.parent):  # noqa: PTH208
            raise SettingError(
                f"{file} was written by a worker and is not here: output folders must lie where every node of the "
                "cluster sees them under the same path"
            )
