"""`resad-client watch`: a camera's drop folder, whose photographs are scored as they come."""

import asyncio
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from resad_client import options
from resad_client.async_client import AsyncClient
from resad_client.batch import Failed, Order, Report, Scored, score_photos
from resad_client.errors import ConnectionFailed, NotReady, ResadClientError, SettingError
from resad_client.exchange import DEFAULT_URL
from resad_client.models import INTENDED_USE
from resad_client.options import OUT, say, warn
from resad_client.photos import Source, walk
from resad_client.run_tables import RunTables
from resad_client.runs import Wanted, opened, plan
from resad_client.score_command import PATIENCE_S, patient_client, reach
from resad_client.score_journal import ScoreJournal, Stamp, stamp_of
from resad_client.score_tables import score_line

_AT_ONCE: Final = 4
"""Rounds of the concurrency that are scored before the folder is looked at, and something is printed, again."""
_OVERLAY: Final = "_overlay"
_MARK: Final = b"tEXtresad:"
"""In the head of an overlay: what the service writes into its pictures, before the pixels."""
_HEAD: Final = 512
"""Bytes that are looked through for it."""


@dataclass(slots=True)
class Settled:
    """Tells files that are complete: those that have not changed for `seconds`."""

    seconds: float
    _since: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)

    def of(self, paths: Iterable[Path], now: float) -> list[Path]:
        """The complete ones of the files that are there at the time `now`, seconds; empty ones are never."""
        seen: dict[Path, tuple[Stamp, float]] = {}
        for path in paths:
            stamp = stamp_of(path)
            if stamp is not None and stamp.size:
                before = self._since.get(path)
                seen[path] = before if before and before[0] == stamp else (stamp, now)
        self._since = seen
        return [path for path, (_, since) in seen.items() if now - since >= self.seconds]


def watch_command(
    folder: Annotated[Path, typer.Argument(help="Folder that a camera writes to; folders below it, too.")],
    url: options.Url = DEFAULT_URL,
    index: options.Index = None,
    fpr: options.Fpr = None,
    threshold: options.Threshold = None,
    camera: options.Camera = None,
    eye: options.EyeOption = None,
    evidence: options.Evidence = None,
    require_quality: options.RequireQuality = False,
    key_file: options.KeyFile = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a NAME.json and NAME_overlay.png each, else beside each photograph."),
    ] = None,
    csv: options.Csv = None,
    findings_csv: options.FindingsCsv = None,
    concurrency: options.Concurrency = 4,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at the folder.")] = 2.0,
    settle: Annotated[float, typer.Option(min=0, help="Seconds without change that make a file complete.")] = 5.0,
) -> None:
    """Score photographs as they come, until Ctrl-C; when started again, go on where it ended."""
    query = options.score_query(index, fpr, threshold, camera, eye, evidence, require_quality=require_quality)
    if not folder.is_dir():
        raise SettingError(f"{folder}: no such folder")
    key, place = options.key_from(key_file), out or folder
    wanted, order = Wanted(RunTables(csv, findings_csv), place, None, place), Order(query, concurrency)
    # As Ctrl-C, which a shell's background jobs are born deaf to: whoever supervises a watcher ends it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with opened(wanted, order, "resume") as journal:
        assert journal is not None, "there is a folder, so there is a journal"
        watcher = Watcher(folder, wanted, order, journal, Settled(settle))
        say(f"watching {folder}, {len(journal.places)} photographs known; Ctrl-C ends it")
        OUT.print(INTENDED_USE)
        try:
            asyncio.run(_watch(watcher, url, key, every))
        except KeyboardInterrupt:
            warn("stopped; the same command goes on")
        finally:
            if journal.places:
                wanted.tables.write(journal.outcomes)


@dataclass(slots=True)
class Watcher:
    """A folder, what is known of it, and what is to be done with what comes."""

    folder: Path
    wanted: Wanted
    order: Order
    journal: ScoreJournal
    settled: Settled
    attempted: set[str] = field(default_factory=set)
    """Since the start: a photograph that cannot be scored is tried once, and again when it has changed."""

    def waiting(self) -> list[Source]:
        """The photographs that are complete and have no outcome yet."""
        sources = [Source(path, path.relative_to(self.folder).as_posix()) for path in self._photos()]
        fresh = {one.path: one for one in sources if not self._known(one)}
        return [fresh[path] for path in self.settled.of(fresh, time.monotonic())]

    async def look(self, client: AsyncClient) -> Report | None:
        """Score what waits, some of it; None where nothing does."""
        some = self.waiting()[: self.order.concurrency * _AT_ONCE]
        if not some:
            return None
        jobs = plan(some, self.wanted, self.journal, "resume", taken=self._taken(some))
        report = await score_photos(client, jobs, self.order, self.journal, _tell)
        self.attempted.update(one.label for one in some)
        self.wanted.tables.write(self.journal.outcomes)
        return report

    def _known(self, one: Source) -> bool:
        stamp = stamp_of(one.path)
        known = self.journal.tried if one.label in self.attempted else self.journal.done
        return known(one.label, stamp)

    def _photos(self) -> Sequence[Path]:
        """Those of the folder, less the overlays that this command writes among them."""
        out = self.wanted.overlays
        found = sorted(walk(self.folder))
        if out is None or not out.is_relative_to(self.folder):
            return found
        if out != self.folder:
            return [path for path in found if not path.is_relative_to(out)]
        written = {out / f"{place}{_OVERLAY}.png" for place in self.journal.places.values()}
        return [path for path in found if not (_is_named_so(path) and (path in written or _is_marked(path)))]

    def _taken(self, some: Iterable[Source]) -> set[str]:
        """Places beside the photographs where others' files lie, a camera's `NAME.json` for one."""
        if self.wanted.overlays != self.folder:
            return set()
        places = {PurePosixPath(one.label).with_suffix("").as_posix() for one in some}
        return {place for place in places - set(self.journal.places.values()) if self._is_others(place)}

    def _is_others(self, place: str) -> bool:
        overlay = self.folder / f"{place}{_OVERLAY}.png"
        return (self.folder / f"{place}.json").exists() or (overlay.exists() and not _is_marked(overlay))


def _is_named_so(path: Path) -> bool:
    return path.stem.endswith(_OVERLAY)


def _is_marked(path: Path) -> bool:
    """Whether the file is a picture of the service's, of a run that ended before it could be noted."""
    try:
        with path.open("rb") as file:
            return _MARK in file.read(_HEAD)
    except OSError:  # gone, or not to be read: as any other photograph
        return False


async def _watch(watcher: Watcher, url: str, key: str | None, every: float) -> None:
    async with patient_client(url, key, PATIENCE_S) as client:
        await reach(client)
        while True:
            try:
                report = await watcher.look(client)
            except OSError as error:  # of the folder: a share that is gone comes back
                warn(f"{error.filename}: {error.strerror}; waiting")
                report = None
            if report is not None and report.stopped:
                _tell_of_stop(report.stopped)
            if report is None or report.stopped:
                await asyncio.sleep(every)


def _tell(one: Scored | Failed) -> None:
    if isinstance(one, Failed):
        warn(one.line)
    else:
        say(score_line(one))


def _tell_of_stop(stopped: ResadClientError) -> None:
    """Raises what waiting does not mend."""
    if not isinstance(stopped, ConnectionFailed | NotReady):
        raise stopped
    warn(f"{stopped}; waiting")
