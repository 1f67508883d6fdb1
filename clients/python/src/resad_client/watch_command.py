"""`resad-client watch`: scores new photographs of a folder that a camera writes to."""

import asyncio
import math
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from resad_client import options
from resad_client.async_client import AsyncClient
from resad_client.batch import (
    OutputFiles,
    RunOptions,
    RunReport,
    ScoreFailure,
    open_journal,
    plan_jobs,
    score_photos,
)
from resad_client.errors import ResadClientError, SettingError
from resad_client.http import DEFAULT_URL
from resad_client.journal import ScoreJournal, Stamp, stamp_of
from resad_client.options import OUT, say, warn
from resad_client.photos import LabeledPhoto, LeftOut, left_out_line, scan_folder
from resad_client.progress import RunProgress
from resad_client.records import INTENDED_USE, ScoreRow
from resad_client.run_files import RunTables
from resad_client.score_command import patient_client, reach
from resad_client.tables import score_line, warning_lines
from resad_client.text import counted, printable

_NOTICE_S: Final = 60.0
"""Between two lines on a wait."""
_ROUNDS: Final = 4
"""Rounds of the concurrency that are scored between two scans of the folder."""
_OVERLAY: Final = "_overlay"
_PICTURE_KEY: Final = b"tEXtresad:"
"""A metadata chunk that the service writes into its pictures before the pixels."""
_HEAD_BYTES: Final = 512
"""The part of a picture that is searched for the chunk."""


@dataclass(slots=True)
class SettledFiles:
    """Tells which files are complete: those that have not changed for `seconds`."""

    seconds: float
    _since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)

    def complete(self, paths: Iterable[Path], now: float) -> list[Path]:
        """The complete files among `paths` at the time `now`, seconds; an empty file is never complete."""
        since: dict[Path, tuple[Stamp, float]] = {}
        for path in paths:
            stamp = stamp_of(path)
            if stamp is not None and stamp.size:
                before = self._since.get(path)
                since[path] = before if before and before[0] == stamp else (stamp, now)
        self._since = since
        return [path for path, (_, start) in since.items() if now - start >= self.seconds]


def watch_command(
    folder: Annotated[Path, typer.Argument(help="Folder that a camera writes to, with its subfolders.")],
    url: options.Url = DEFAULT_URL,
    index: options.Index = None,
    fpr: options.Fpr = None,
    threshold: options.Threshold = None,
    false_regions: options.FalseRegions = None,
    frame: options.Frame = None,
    camera: options.Camera = None,
    eye: options.EyeOption = None,
    evidence: options.Evidence = None,
    require_quality: options.RequireQuality = False,
    key_file: options.KeyFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a NAME.json and NAME_overlay.png per photograph; default beside the photograph."
        ),
    ] = None,
    csv: options.Csv = None,
    findings_csv: options.FindingsCsv = None,
    concurrency: options.Concurrency = 4,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two scans of the folder.")] = 2.0,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds without a change after which a file is complete.")
    ] = 5.0,
) -> None:
    """Score new photographs until Ctrl-C; a restart continues where the last run ended."""
    query = options.score_query(
        index, fpr, threshold, false_regions, frame, camera, eye, evidence, require_quality=require_quality
    )
    if not folder.is_dir():
        raise SettingError(f"{folder}: no such folder")
    key, out_folder = options.key_from(key_file), out or folder
    outputs = OutputFiles(RunTables(csv, findings_csv), out_folder, None, out_folder)
    run_options = RunOptions(query, concurrency)
    # SIGTERM acts like Ctrl-C.  A shell's background jobs ignore SIGINT unless a handler is set.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with open_journal(outputs, run_options, "resume") as journal:
        assert journal is not None, "there is an output folder, so there is a journal"
        watcher = Watcher(folder, outputs, run_options, journal, SettledFiles(settle))
        say(f"watching {folder}, {counted(len(journal.places), 'photograph')} known; Ctrl-C ends it")
        OUT.print(INTENDED_USE)
        try:
            asyncio.run(_watch(watcher, url, key, every))
        except KeyboardInterrupt:
            warn("stopped; the same command continues")
        finally:
            if journal.places:
                outputs.tables.write(journal.outcomes)


@dataclass(slots=True)
class Watcher:
    """The photographs of a folder that are still to be scored."""

    folder: Path
    outputs: OutputFiles
    run_options: RunOptions
    journal: ScoreJournal
    settled: SettledFiles
    attempted: set[str] = field(default_factory=set)
    """Labels since the start: a photograph that fails is tried again only after it has changed."""
    warned: set[str] = field(default_factory=set)
    """Warnings of indexes that were printed."""
    passed_over: set[Path] = field(default_factory=set)
    """Entries of the folder that are no photographs and were counted in a line."""
    progress: RunProgress = field(default_factory=lambda: RunProgress(0))
    noticed_s: float = -math.inf

    def waiting(self) -> list[LabeledPhoto]:
        """The photographs that are complete and have no outcome yet."""
        labels = ((path, path.relative_to(self.folder).as_posix()) for path in self._paths())
        photos = [LabeledPhoto(path, printable(label)) for path, label in labels]
        new = {photo.path: photo for photo in photos if not self._is_finished(photo)}
        return [new[path] for path in self.settled.complete(new, time.monotonic())]

    async def scan(self, client: AsyncClient) -> RunReport | None:
        """Score the first of the waiting photographs; None if none is waiting."""
        photos = self.waiting()[: self.run_options.concurrency * _ROUNDS]
        if not photos:
            return None
        jobs = plan_jobs(photos, self.outputs, self.journal, "resume", reserved=self._foreign_places(photos))
        report = await score_photos(client, jobs, self.run_options, self.journal, self._print, self.notice_wait)
        self.attempted.update(photo.label for photo in photos)
        self.outputs.tables.write(self.journal.outcomes)
        return report

    def notice_wait(self, error: ResadClientError, _seconds: float) -> None:
        """Say now and then that photographs wait, and why."""
        self.progress.wait(error)
        now = time.monotonic()
        if self.progress.wait_line and now - self.noticed_s >= _NOTICE_S:
            warn(self.progress.wait_line)
            self.noticed_s = now

    def _print(self, outcome: ScoreRow | ScoreFailure) -> None:
        self.progress.count(outcome)
        if isinstance(outcome, ScoreFailure):
            warn(outcome.message)
            return
        for line in warning_lines([outcome.result.index]):
            if line not in self.warned:
                warn(line)
                self.warned.add(line)
        say(score_line(outcome))

    def _is_finished(self, photo: LabeledPhoto) -> bool:
        in_journal = self.journal.tried if photo.label in self.attempted else self.journal.done
        return in_journal(photo.label, stamp_of(photo.path))

    def _say_left_out(self, entries: Iterable[LeftOut]) -> None:
        """Say once what else lies in the folder, apart from the files that this command writes."""
        tables = set(self.outputs.tables.paths)
        places = {f"{place}.json" for place in self.journal.places.values()}
        out = self.outputs.json
        new = [
            entry
            for entry in entries
            if entry.path not in self.passed_over
            and entry.path not in tables
            and not (out and entry.path.is_relative_to(out) and entry.path.relative_to(out).as_posix() in places)
        ]
        self.passed_over.update(entry.path for entry in new)
        if line := left_out_line(entry.kind for entry in new):
            warn(line)

    def _paths(self) -> Sequence[Path]:
        """The pictures in the folder without the overlays that this command writes."""
        out = self.outputs.overlays
        scan = scan_folder(self.folder)
        self._say_left_out(scan.left_out)
        paths = sorted(scan.photos)
        if out is None or not out.is_relative_to(self.folder):
            return paths
        if out != self.folder:
            return [path for path in paths if not path.is_relative_to(out)]
        overlays = {out / f"{place}{_OVERLAY}.png" for place in self.journal.places.values()}
        return [
            path
            for path in paths
            if not (path.stem.endswith(_OVERLAY) and (path in overlays or _is_from_service(path)))
        ]

    def _foreign_places(self, photos: Iterable[LabeledPhoto]) -> set[str]:
        """Places beside the photographs with files of somebody else, such as a camera's `NAME.json`."""
        if self.outputs.overlays != self.folder:
            return set()
        places = {PurePosixPath(photo.label).with_suffix("").as_posix() for photo in photos}
        return {place for place in places - set(self.journal.places.values()) if self._is_foreign(place)}

    def _is_foreign(self, place: str) -> bool:
        overlay = self.folder / f"{place}{_OVERLAY}.png"
        return (self.folder / f"{place}.json").exists() or (overlay.exists() and not _is_from_service(overlay))


def _is_from_service(path: Path) -> bool:
    """Whether the file is a picture of the service, of a run that was killed before its journal entry."""
    try:
        with path.open("rb") as file:
            return _PICTURE_KEY in file.read(_HEAD_BYTES)
    except OSError:  # deleted or unreadable: treated as any other photograph
        return False


async def _watch(watcher: Watcher, url: str, key: str | None, every: float) -> None:
    async with patient_client(url, key, math.inf, watcher.notice_wait) as client:
        await reach(client)
        while True:
            try:
                report = await watcher.scan(client)
            except OSError as error:  # a network share that is gone comes back
                warn(f"{error.filename}: {error.strerror}; waiting")
                report = None
            if report is None:
                await asyncio.sleep(every)
            elif report.stopped:
                raise report.stopped
