"""`resad-indexer score`: photographs -> results, maps, overlays and evidence pictures, each in its file."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from indexer.photos.listing import ReferencePhoto, list_photos
from indexer.photos.remote import placed
from indexer.places import unique_labels, unique_places
from indexer.prefetching import Behind, ahead
from indexer.run_tables import RunTables, journal_path, refuse_existing
from indexer.score_journal import ScoreJournal, Stamp, stamp_of
from resad.calibration import DecisionRule
from resad.config import Eye, PhotoLimits
from resad.detector import Detection
from resad.engine import ScoreOptions, assemble
from resad.errors import PhotoError, ResadError, SettingError, naming
from resad.exports import Outcome, answer_json, geojson
from resad.files import write_atomically
from resad.loaded_index import LoadedIndex
from resad.manifest import Manifest
from resad.photo import read_photo
from resad.pictures.evidence import Squares, draw_strips, jpeg
from resad.pictures.map_files import map_png16, map_tiff
from resad.pictures.overlay import Layout, PictureKind, overlay_picture, picture_file
from resad.preparation import PreparedPhoto, prepare
from resad.quality import PhotoQuality, demand, judge
from resad.result import Result, Timings, result_json


def fault_of(error: Exception) -> str:
    """Why a photograph has no score, in a line; of an error that nobody raised on purpose its kind alone.

    What libraries say may hold names of files and of keys.  An error that is the operator's to mend is raised: it
    would come again with every photograph.
    """
    if isinstance(error, PhotoError):
        return in_a_line(str(error))
    if isinstance(error, ResadError):
        raise error
    return f"it could not be scored ({type(error).__name__})"


def in_a_line(text: str) -> str:
    """`text` with spaces for line breaks, as CSVs and journals know them."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


MapKind = Literal["png", "tiff"]
"""16 bits on the absolute scale, or float32 distances."""


@dataclass(frozen=True, slots=True)
class Order:
    """How each photograph is judged and shown.

    eye: of those whose source does not say.  require_quality: a photograph below the index's limits fails.
    """

    rule: DecisionRule
    evidence: int
    eye: Eye | None = None
    require_quality: bool = False
    layout: Layout = "blend"
    overlay_kind: PictureKind = "png"
    map_kind: MapKind = "png"


@dataclass(frozen=True, slots=True)
class Job:
    """A photograph, what it is called, the place of its files below any folder, and the files to write, if any."""

    path: Path
    label: str
    place: str
    eye: Eye | None = None
    json: Path | None = None
    map: Path | None = None
    overlay: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        paths = (self.json, self.map, self.overlay, self.geojson, self.strips)
        return tuple(path for path in paths if path is not None)


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
        ready.photo, detection, loaded,
        ScoreOptions(order.rule, order.evidence, job.eye or order.eye, order.require_quality),
        timings=timings, quality=ready.quality,
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
        write_atomically(job.map, encode(in_photo, manifest.calibration.full_scale, manifest.fingerprint))
    if job.overlay:
        with naming(job.path):
            pixels = read_photo(job.path, limits).pixels
        picture = overlay_picture(pixels, in_photo, result, manifest.calibration, order.layout)
        write_atomically(job.overlay, picture_file(picture, order.overlay_kind))
    if job.strips and result.findings and any(finding.evidence for finding in result.findings):
        strips = draw_strips(photo, result.findings, squares, manifest.counts.grid)
        write_atomically(job.strips, jpeg(strips))
    if job.geojson:
        write_atomically(job.geojson, geojson(job.label, result).encode())
    if job.json:
        # Last, so that a photograph with an answer has its pictures, too.
        write_atomically(job.json, answer_json(job.label, result_json(result)).encode())


_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif"}

Existing = Literal["refuse", "resume", "overwrite"]
"""What becomes of files that are there: an error, a run to go on with, or replaced."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A photograph to score, and what it is called: its path below the folder that was asked for."""

    photo: ReferencePhoto
    label: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files are to be written: tables of the run, and folders for files of each photograph.

    strips: pictures of evidence, where the index keeps what they are made of.
    """

    tables: RunTables = RunTables()
    json: Path | None = None
    maps: Path | None = None
    overlays: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """Of all kinds."""
        return self.json, self.maps, self.overlays, self.geojson, self.strips

    def job(self, one: Listed, place: str, order: Order) -> Job:
        """What is to be done about a photograph."""
        return Job(
            one.photo.path,
            one.label,
            place,
            one.photo.eye,
            json=self.json / f"{place}.json" if self.json else None,
            map=self.maps / f"{place}_map{_SUFFIXES[order.map_kind]}" if self.maps else None,
            overlay=self.overlays / f"{place}_overlay{_SUFFIXES[order.overlay_kind]}" if self.overlays else None,
            geojson=self.geojson / f"{place}.geojson" if self.geojson else None,
            strips=self.strips / f"{place}_evidence.jpg" if self.strips else None,
        )


def list_labeled(sources: Sequence[Path]) -> list[Listed]:
    """The photographs of all `sources` (files, folders, CSVs), each once; raises as `list_photos`."""
    found: dict[str, tuple[ReferencePhoto, str]] = {}
    for source in map(placed, sources):
        is_folder = source.is_dir()
        folder = source if is_folder else source.parent
        for photo in list_photos(source):
            below = is_folder or (source != photo.path and photo.path.is_relative_to(folder))
            short = photo.path.relative_to(folder).as_posix() if below else photo.path.name
            # abspath and not resolve: two links to one file are two photographs.
            found.setdefault(os.path.abspath(photo.path), (photo, short))  # noqa: PTH100
    once = list(found.values())
    labels = unique_labels([short for _, short in once], [photo.path for photo, _ in once])
    return [Listed(photo, label) for (photo, _), label in zip(once, labels, strict=True)]


@contextmanager
def opened(wanted: Wanted, order: Order, manifest: Manifest, existing: Existing) -> Iterator[ScoreJournal]:
    """The journal of a run, held while it goes on.

    Raises `SettingError` where the run's files are there and must not be replaced, or nothing is to be written.
    """
    path = journal_path(wanted.tables, wanted.folders)
    if path is None:
        raise SettingError("nothing would be written: give --out FOLDER, or --csv FILE")
    going_on = existing == "resume" and path.is_file()
    if existing != "overwrite" and not going_on:
        refuse_existing((*wanted.tables.paths, path))
    with ScoreJournal(path, _deciding(wanted, order, manifest), resume=going_on) as journal:
        yield journal


def plan(
    found: Sequence[Listed], wanted: Wanted, order: Order, journal: ScoreJournal, existing: Existing
) -> tuple[Job, ...]:
    """What is left to do; raises `SettingError` where a file would replace a photograph, or one that is there."""
    known = journal.places
    fresh = [one.label for one in found if one.label not in known]
    places = known | dict(zip(fresh, unique_places(fresh, known.values()), strict=True))
    jobs = tuple(
        wanted.job(one, places[one.label], order)
        for one in found
        if not journal.done(one.label, stamp_of(one.photo.path))
    )
    _keep_photos(found, [file for job in jobs for file in job.files])
    if existing != "overwrite":
        # What a killed run has left without a line in its journal is younger than the run.
        begun = journal.begun_ns if journal.resumed else None
        refuse_existing((file for job in jobs if job.label not in known for file in job.files), begun)
    return jobs


def _keep_photos(found: Sequence[Listed], outputs: Sequence[Path]) -> None:
    inputs = {one.photo.path.resolve() for one in found}
    for output in outputs:
        if output.resolve() in inputs:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten; give another --out"
            )


def _deciding(wanted: Wanted, order: Order, manifest: Manifest) -> dict[str, object]:
    """What two runs must have in common for one to go on with the other."""
    kinds = ("json", "maps", "overlays", "geojson", "strips")
    return {
        "index": f"{manifest.name}/{manifest.version}",
        **asdict(order.rule),
        "evidence": order.evidence,
        "eye": order.eye,
        "require_quality": order.require_quality,
        "overlays": [order.layout, order.overlay_kind] if wanted.overlays else None,
        "maps": order.map_kind if wanted.maps else None,
        "files": [kind for kind, folder in zip(kinds, wanted.folders, strict=True) if folder],
    }
