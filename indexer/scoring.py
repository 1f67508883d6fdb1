"""A scoring run: which photographs are to be scored, and their results, maps, overlays and evidence as files.

The engine is imported by the functions that score, so that refusals are quick.
"""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from resad_client.exports import Outcome, answer_json, geojson
from resad_client.files import write_atomically
from resad_client.journal import ScoreJournal, Stamp, stamp_of
from resad_client.records import Result, ScoreRow, to_json
from resad_client.run_files import (
    RunTables,
    is_name_fault,
    journal_path,
    refuse_existing,
    unique_labels,
    unique_places,
)
from resad_client.text import printable

from indexer.photos.listing import ReferencePhoto, list_photos
from indexer.photos.remote import as_path
from indexer.prefetching import BackgroundWriter, prefetch
from resad.config import Eye
from resad.dicom import OBJECT_KINDS, ObjectKind
from resad.errors import PhotoError, PhotoUnsupported, ResadError, SettingError, naming
from resad.manifest import Manifest
from resad.runtime import package_version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from resad.engine import CheckedPhoto, Engine, ScoredPhoto, ScoreOptions
    from resad.pictures.evidence import Squares
    from resad.pictures.overlay import Layout, PictureKind

MapKind = Literal["png", "tiff"]
"""16 bits on the absolute scale, or float32 distances."""

ExistingFiles = Literal["refuse", "resume", "overwrite"]
"""What happens to files of an earlier run: an error, the run continues, or they are replaced."""

_MAX_THREADS: Final = 4
"""Threads that prepare photographs, at most; half the cores, since the network needs them too."""
_MAX_READY: Final = 2
"""Prepared photographs that wait to be scored."""
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "tiff": ".tif"}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run judges each photograph, and how it draws maps and overlays.

    score: `score.eye` is that of photographs whose CSV names none.
    """

    score: "ScoreOptions"
    layout: "Layout" = "blend"
    overlay_kind: "PictureKind" = "png"
    map_kind: MapKind = "png"


@dataclass(frozen=True, slots=True)
class LabeledPhoto:
    """A photograph to score and its label: its path below the folder that was given."""

    photo: ReferencePhoto
    label: str


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """A photograph, its label, the place of its files below any output folder, and the files to write."""

    path: Path
    label: str
    place: str
    eye: Eye | None = None
    json: Path | None = None
    map: Path | None = None
    overlay: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None
    dicom: Path | None = None
    """The start of its DICOM objects' paths."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that will be written."""
        paths = (self.json, self.map, self.overlay, self.geojson, self.strips)
        objects = (self.dicom_file(kind) for kind in OBJECT_KINDS) if self.dicom else ()
        return (*(path for path in paths if path is not None), *objects)

    def dicom_file(self, kind: ObjectKind) -> Path:
        """The path of a DICOM object."""
        assert self.dicom is not None
        return self.dicom.with_name(f"{self.dicom.name}_{kind}.dcm")


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Outputs of a run: its tables, and a folder for each kind of file per photograph.

    strips: pictures of evidence, for an index that keeps its photographs' squares.  dicom: results as objects.
    """

    tables: RunTables = RunTables()
    json: Path | None = None
    maps: Path | None = None
    overlays: Path | None = None
    geojson: Path | None = None
    strips: Path | None = None
    dicom: Path | None = None

    @property
    def folders(self) -> tuple[Path | None, ...]:
        """The folder of each kind."""
        return self.json, self.maps, self.overlays, self.geojson, self.strips, self.dicom

    def job(self, labeled: LabeledPhoto, place: str, options: RunOptions) -> ScoreJob:
        """The job of a photograph whose files are called `place`."""
        map_suffix, overlay_suffix = _SUFFIXES[options.map_kind], _SUFFIXES[options.overlay_kind]
        return ScoreJob(
            labeled.photo.path,
            labeled.label,
            place,
            labeled.photo.eye,
            json=self.json / f"{place}.json" if self.json else None,
            map=self.maps / f"{place}_map{map_suffix}" if self.maps else None,
            overlay=self.overlays / f"{place}_overlay{overlay_suffix}" if self.overlays else None,
            geojson=self.geojson / f"{place}.geojson" if self.geojson else None,
            strips=self.strips / f"{place}_evidence.jpg" if self.strips else None,
            dicom=self.dicom / place if self.dicom else None,
        )


class Notes(Protocol):
    """Takes the outcome of each photograph, as a `ScoreJournal` does."""

    def note(self, outcome: Outcome, place: str, stamp: Stamp | None) -> None:
        """The outcome of a photograph, the place of its files, and its file's stamp; the last one counts."""


@dataclass(frozen=True, slots=True)
class ScoreFailure:
    """A photograph without a score, and why.  after_scoring: its row was given before its files failed."""

    label: str
    reason: str
    after_scoring: bool = False


def list_labeled(sources: Sequence[Path]) -> list[LabeledPhoto]:
    """The photographs of all `sources` (files, folders, CSVs), each once; raises as `list_photos`."""
    photos: dict[str, tuple[ReferencePhoto, str]] = {}
    for source in map(as_path, sources):
        is_folder = source.is_dir()
        folder = source if is_folder else source.parent
        for photo in list_photos(source, check=False):
            below = is_folder or (source != photo.path and photo.path.is_relative_to(folder))
            name = photo.path.relative_to(folder).as_posix() if below else photo.path.name
            # abspath and not resolve: two links to one file are two photographs.
            photos.setdefault(os.path.abspath(photo.path), (photo, printable(name)))  # noqa: PTH100
    unique = list(photos.values())
    labels = unique_labels([name for _, name in unique], [photo.path for photo, _ in unique])
    return [LabeledPhoto(photo, label) for (photo, _), label in zip(unique, labels, strict=True)]


def journal_file(outputs: OutputFiles, existing: ExistingFiles) -> Path:
    """The path of a run's journal; raises `SettingError` as `open_journal`."""
    path = journal_path(outputs.tables, outputs.folders)
    if path is None:
        raise SettingError("nothing would be written: give --out FOLDER, or --csv FILE")
    if existing != "overwrite" and not (existing == "resume" and path.is_file()):
        refuse_existing((*outputs.tables.paths, path))
    return path


@contextmanager
def open_journal(
    outputs: OutputFiles, options: RunOptions, manifest: Manifest, existing: ExistingFiles
) -> Iterator[ScoreJournal]:
    """The journal of a run, locked while the run goes on.

    Raises `SettingError` if files of an earlier run must not be replaced, or if nothing is to be written.
    """
    path = journal_file(outputs, existing)
    resume = existing == "resume" and path.is_file()
    with ScoreJournal(path, _decisive_settings(outputs, options, manifest), resume=resume) as journal:
        yield journal


def plan_jobs(
    photos: Sequence[LabeledPhoto],
    outputs: OutputFiles,
    options: RunOptions,
    journal: ScoreJournal,
    existing: ExistingFiles,
) -> tuple[ScoreJob, ...]:
    """The photographs that the journal has no score of.

    Raises `SettingError` if an output would replace a photograph, or a file that must not be replaced.
    """
    recorded = journal.places
    new = [photo.label for photo in photos if photo.label not in recorded]
    places = recorded | dict(zip(new, unique_places(new, recorded.values()), strict=True))
    jobs = tuple(
        outputs.job(photo, places[photo.label], options)
        for photo in photos
        if not journal.done(photo.label, stamp_of(photo.photo.path))
    )
    _protect_photos(photos, [file for job in jobs for file in job.files])
    if existing != "overwrite":
        # Files that a killed run wrote without a line in its journal are younger than the run.
        start_ns = journal.begun_ns if journal.resumed else None
        refuse_existing((file for job in jobs if job.label not in recorded for file in job.files), start_ns)
    return jobs


def score_photos(
    engine: "Engine",
    jobs: Sequence[ScoreJob],
    options: RunOptions,
    journal: Notes | None = None,
    squares: "Squares" = lambda _: None,
) -> Generator[ScoreRow | ScoreFailure, None, None]:
    """Score each photograph and write its files; the journal gets an entry once they are written.

    Outcomes come in order; failures to write files come after them.  A full disk ends the run; no photograph does.
    Threads prepare the next photographs and write the previous files meanwhile.  Run the iterator to its end or
    close it: then nothing is written any more.

    Args:
        squares: the reference photos' prepared squares, if the index keeps them.
    """
    from resad.decoder_pool import shared_pool

    engine = replace(engine, decoder=shared_pool())
    failed_files: list[ScoreFailure] = []
    threads = min(max(len(os.sched_getaffinity(0)) // 2, 1), _MAX_THREADS)
    check = partial(_check, engine=engine, options=options)
    with (
        BackgroundWriter() as writer,
        closing(prefetch(jobs, check, threads=threads, most=threads + _MAX_READY)) as prepared,
    ):
        for job, (stamp, checked) in zip(jobs, prepared, strict=True):
            record = partial(_record, journal, job, stamp)
            scored = checked if isinstance(checked, str) else _score(checked, engine, _options_of(job, options))
            if isinstance(scored, str):
                writer.do(partial(record, None, scored))
                yield ScoreFailure(job.label, scored)
                continue
            write = partial(_write_files, job, scored, engine, options, squares)
            writer.do(partial(_finish, write, record, job, scored.result, failed_files))
            yield ScoreRow(job.label, replace(scored.result, findings=()), len(scored.result.findings))
    yield from failed_files


def failure_reason(error: Exception) -> str:
    """One line on why a photograph has no score; of an unexpected error only its type.

    Messages of libraries may hold names of files and of keys.  A `ResadError` that is not about the photograph is
    raised: it would come again with every photograph.
    """
    if isinstance(error, PhotoError):
        return single_line(str(error))
    if isinstance(error, ResadError):
        raise error
    return f"it could not be scored ({type(error).__name__})"


def single_line(text: str) -> str:
    """`text` with spaces for line breaks, for CSVs and journals."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def _options_of(job: ScoreJob, options: RunOptions) -> "ScoreOptions":
    return replace(options.score, eye=job.eye or options.score.eye)


def _check(job: ScoreJob, *, engine: "Engine", options: RunOptions) -> "tuple[Stamp | None, CheckedPhoto | str]":
    """The file's stamp, and the prepared photograph or why there is none."""
    stamp = stamp_of(job.path)  # before the file is read: a change meanwhile makes it another file
    try:
        return stamp, engine.check(job.path, options.score)
    except Exception as error:
        return stamp, failure_reason(error)


def _score(checked: "CheckedPhoto", engine: "Engine", options: "ScoreOptions") -> "ScoredPhoto | str":
    try:
        return engine.score_checked(checked, options)
    except Exception as error:  # no photograph can end the run
        return failure_reason(error)


def _finish(
    write: Callable[[], None],
    record: Callable[[Result | None, str | None], None],
    job: ScoreJob,
    result: Result,
    failed_files: list[ScoreFailure],
) -> None:
    try:
        write()
    except OSError as error:
        if not is_name_fault(error):  # a full disk, which the next photograph would meet, too
            raise
        reason = f"its files cannot be written ({error.strerror})"
        record(None, reason)
        failed_files.append(ScoreFailure(job.label, reason, after_scoring=True))
    except Exception as error:  # for example a photograph that was changed or deleted after it was scored
        reason = failure_reason(error)
        record(None, reason)
        failed_files.append(ScoreFailure(job.label, reason, after_scoring=True))
    else:
        record(result, None)


def _record(
    journal: Notes | None, job: ScoreJob, stamp: Stamp | None, result: Result | None, reason: str | None
) -> None:
    if journal is not None:
        journal.note(Outcome(job.label, result, reason), job.place, stamp)


def _write_files(
    job: ScoreJob, scored: "ScoredPhoto", engine: "Engine", options: RunOptions, squares: "Squares"
) -> None:
    from resad.pictures.evidence import draw_strips, jpeg
    from resad.pictures.map_files import map_png16, map_tiff
    from resad.pictures.overlay import overlay_picture, picture_file

    manifest, photo, result = engine.loaded.manifest, scored.photo, scored.result
    if job.map or job.overlay or job.dicom:
        dense_map = photo.frame.map_to_photo(scored.detection.anomaly_map)
    if job.map:
        encode = map_png16 if options.map_kind == "png" else map_tiff
        write_atomically(job.map, encode(dense_map, manifest.calibration.full_scale, manifest.fingerprint))
    if job.overlay or job.dicom:
        with naming(job.path):
            pixels = engine.decoder.read_photo(job.path, engine.limits).pixels
    if job.overlay:
        picture = overlay_picture(pixels, dense_map, result, manifest.calibration, options.layout, name=job.label)
        write_atomically(job.overlay, picture_file(picture, options.overlay_kind))
    if job.strips and result.findings and any(finding.evidence for finding in result.findings):
        strips = draw_strips(photo, result.findings, squares, manifest.counts.grid)
        write_atomically(job.strips, jpeg(strips))
    if job.dicom:
        # Without the file's name, which may be a patient's.
        picture = overlay_picture(pixels, dense_map, result, manifest.calibration, options.layout)
        _write_dicom(job, scored, engine, picture, dense_map)
    if job.geojson:
        write_atomically(job.geojson, geojson(job.label, result))
    if job.json:
        # Last: a photograph with a JSON file has its pictures, too.
        write_atomically(job.json, answer_json(job.label, to_json(result)))


def _write_dicom(
    job: ScoreJob,
    scored: "ScoredPhoto",
    engine: "Engine",
    picture: "Image.Image",
    dense_map: "NDArray[np.float32]",
) -> None:
    """Write the result's DICOM objects.  picture: the overlay; it is made smaller in place."""
    import numpy as np

    from resad.dicom.files import is_dicom
    from resad.dicom.results import OVERLAY_SIDE, Drawing, result_objects
    from resad.photo import read_bytes

    with naming(job.path):
        data = read_bytes(job.path, engine.limits)
        if not is_dicom(data):
            raise PhotoUnsupported("only a DICOM photograph has results as DICOM (--dicom)")
        picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
        drawing = Drawing(dense_map, np.asarray(picture), engine.loaded.manifest.calibration.full_scale)
        objects = result_objects(data, scored.result, drawing, package_version(), engine.limits)
    for entry in objects:
        write_atomically(job.dicom_file(entry.kind), entry.file)


def _protect_photos(photos: Sequence[LabeledPhoto], outputs: Sequence[Path]) -> None:
    inputs = {photo.photo.path.resolve() for photo in photos}
    for output in outputs:
        if output.resolve() in inputs:
            raise SettingError(
                f"{output} is a photograph to be scored and would be overwritten; give another --out"
            )


def _decisive_settings(outputs: OutputFiles, options: RunOptions, manifest: Manifest) -> dict[str, object]:
    """Everything that a resumed run must have in common with the run before."""
    kinds = ("json", "maps", "overlays", "geojson", "strips", "dicom")
    return {
        "index": f"{manifest.name}/{manifest.version}",
        **asdict(options.score.rule),
        "evidence": options.score.evidence,
        "eye": options.score.eye,
        "require_quality": options.score.require_quality,
        "overlays": [options.layout, options.overlay_kind] if outputs.overlays or outputs.dicom else None,
        "maps": options.map_kind if outputs.maps else None,
        "files": [kind for kind, folder in zip(kinds, outputs.folders, strict=True) if folder],
    }
