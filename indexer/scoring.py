"""`resad-indexer score`: photographs -> answers, maps, overlays and pictures of evidence, each in its file."""

import os
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from indexer.faults import fault_of
from indexer.pipeline import Behind, ahead
from indexer.score_jobs import Job, Order
from indexer.score_journal import ScoreJournal, Stamp, stamp_of
from resad.answer import assemble
from resad.config import PhotoLimits
from resad.detector import Detection
from resad.errors import naming
from resad.evidence_crops import jpeg
from resad.evidence_strips import Squares, draw_strips
from resad.exports import Outcome, answer_json, geojson
from resad.loaded_index import LoadedIndex
from resad.map_files import map_png16, map_tiff
from resad.photo import read_photo
from resad.preparation import PreparedPhoto, prepare
from resad.quality import PhotoQuality, demand, judge
from resad.rendering import overlay_picture, picture_file
from resad.result import Result, Timings, result_json

_THREADS: Final = 4
"""That prepare photographs, at most; half the cores, since the network wants them, too."""
_AHEAD: Final = 2
"""Prepared photographs that wait."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A photograph that was scored; `result` without its findings, of which there are `findings`."""

    label: str
    result: Result
    findings: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A photograph that was not.  late: it was told as scored before its files could not be made."""

    label: str
    reason: str
    late: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """A photograph before it is scored.  began: of its preparation, on the clock of `time.perf_counter`."""

    stamp: Stamp | None
    photo: PreparedPhoto
    quality: PhotoQuality
    began: float
    prepared: float


@dataclass(frozen=True, slots=True)
class _Unfit:
    stamp: Stamp | None
    fault: str


def score_photos(
    loaded: LoadedIndex,
    jobs: Sequence[Job],
    order: Order,
    limits: PhotoLimits,
    journal: ScoreJournal | None = None,
    squares: Squares = lambda _: None,
) -> Generator[Scored | Failed, None, None]:
    """Score each photograph and write its files; each is noted in the journal once they are there.
    Outcomes come in order, and after them those that failed late.  A full disk ends the run; no photograph does.

    Threads prepare the next photographs and write the last ones' files meanwhile.  Run the iterator to its end or
    close it: then nothing is written any more.

    Args:
        squares: the reference photos' prepared squares, where the index keeps them.
    """
    late: list[Failed] = []
    threads = min(max(len(os.sched_getaffinity(0)) // 2, 1), _THREADS)
    look = partial(_look, loaded=loaded, order=order, limits=limits)
    with Behind() as writer, closing(ahead(jobs, look, threads=threads, most=threads + _AHEAD)) as looked:
        for job, ready in zip(jobs, looked, strict=True):
            if isinstance(ready, _Unfit):
                writer.do(partial(_note, journal, job, ready.stamp, None, ready.fault))
                yield Failed(job.label, ready.fault)
                continue
            try:
                detection, result = _scored(job, ready, loaded, order)
            except Exception as error:  # no photograph can end the run
                fault = fault_of(error)
                writer.do(partial(_note, journal, job, ready.stamp, None, fault))
                yield Failed(job.label, fault)
                continue
            write = partial(_write, job, ready.photo, detection, result, loaded, limits, order, squares)
            writer.do(partial(_finish, write, journal, job, ready.stamp, result, late))
            yield Scored(job.label, replace(result, findings=()), len(result.findings))
    yield from late


def _look(job: Job, *, loaded: LoadedIndex, order: Order, limits: PhotoLimits) -> _Ready | _Unfit:
    # Before the file is read: if it changes meanwhile, it will count as another one.
    stamp, began = stamp_of(job.path), time.perf_counter()
    try:
        photo = prepare(job.path, loaded.manifest.config.preparation, limits)
        quality = judge(photo, loaded.manifest.photo_quality)
        if order.require_quality:
            demand(quality)
    except Exception as error:
        return _Unfit(stamp, fault_of(error))
    return _Ready(stamp, photo, quality, began, time.perf_counter())


def _scored(job: Job, ready: _Ready, loaded: LoadedIndex, order: Order) -> tuple[Detection, Result]:
    detection = loaded.detector.detect([ready.photo])[0]
    timings = Timings(1e3 * (ready.prepared - ready.began), 1e3 * (time.perf_counter() - ready.began))
    return detection, assemble(
        ready.photo, detection, loaded, rule=order.rule, evidence=order.evidence, timings=timings,
        quality=ready.quality, eye=job.eye or order.eye,
    )  # fmt: skip


def _finish(
    write: Callable[[], None],
    journal: ScoreJournal | None,
    job: Job,
    stamp: Stamp | None,
    result: Result,
    late: list[Failed],
) -> None:
    try:
        write()
    except OSError:  # a disk that is full, which the next photograph would meet, too
        raise
    except Exception as error:  # among others a file that was changed or taken away after it was scored
        fault = fault_of(error)
        _note(journal, job, stamp, None, fault)
        late.append(Failed(job.label, fault, late=True))
    else:
        _note(journal, job, stamp, result, None)


def _note(
    journal: ScoreJournal | None, job: Job, stamp: Stamp | None, result: Result | None, fault: str | None
) -> None:
    if journal is not None:
        journal.note(Outcome(job.label, result, fault), job.place, stamp)


def _write(
    job: Job,
    photo: PreparedPhoto,
    detection: Detection,
    result: Result,
    loaded: LoadedIndex,
    limits: PhotoLimits,
    order: Order,
    squares: Squares,
) -> None:
    manifest = loaded.manifest
    if job.map or job.overlay:
        in_photo = photo.frame.map_to_photo(detection.anomaly_map)
    if job.map:
        encode = map_png16 if order.map_kind == "png" else map_tiff
        write_whole(job.map, encode(in_photo, manifest.calibration.full_scale, manifest.fingerprint))
    if job.overlay:
        with naming(job.path):
            pixels = read_photo(job.path, limits).pixels
        picture = overlay_picture(pixels, in_photo, result, manifest.calibration, order.layout)
        write_whole(job.overlay, picture_file(picture, order.overlay_kind))
    if job.strips and result.findings and any(finding.evidence for finding in result.findings):
        strips = draw_strips(photo, result.findings, squares, manifest.counts.grid)
        write_whole(job.strips, jpeg(strips))
    if job.geojson:
        write_whole(job.geojson, geojson(job.label, result).encode())
    if job.json:
        # Last, so that a photograph with an answer has its pictures, too.
        write_whole(job.json, answer_json(job.label, result_json(result)).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written, whatever happens; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
