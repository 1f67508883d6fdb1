"""`resad-client score`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from resad_client import options
from resad_client.async_client import AsyncClient
from resad_client.batch import Failed, Job, Order, Report, Scored, score_photos
from resad_client.errors import ConnectionFailed, SettingError
from resad_client.exchange import DEFAULT_URL
from resad_client.models import INTENDED_USE
from resad_client.options import warn
from resad_client.photos import gather
from resad_client.run_tables import RunTables, refuse_existing
from resad_client.runs import OVERLAY_KINDS, SUFFIXES, Existing, Wanted, opened, plan
from resad_client.score_journal import ScoreJournal
from resad_client.score_tables import print_scores

PATIENCE_S: Final = 300.0
"""Of one photograph at a busy service: a batch had rather wait than leave photographs out."""
_RETRIES: Final = 10_000
"""Bounded by the patience alone."""
_ATTEMPTS: Final = 5
"""To reach the service at all: whoever mistyped its address should not have to be patient."""
_INTERRUPTED: Final = 130


def score_command(
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders of them, or CSVs (path,eye).")],
    url: options.Url = DEFAULT_URL,
    index: options.Index = None,
    fpr: options.Fpr = None,
    threshold: options.Threshold = None,
    camera: options.Camera = None,
    eye: options.EyeOption = None,
    evidence: options.Evidence = None,
    require_quality: options.RequireQuality = False,
    key_file: options.KeyFile = None,
    csv: options.Csv = None,
    findings_csv: options.FindingsCsv = None,
    coco: options.Coco = None,
    json: options.Json = None,
    geojson: options.GeoJson = None,
    overlays: options.Overlays = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Write the photograph under its map here (one photograph).")
    ] = None,
    size: options.Size = None,
    layout: options.LayoutOption = "blend",
    overlay_format: options.OverlayFormat = "png",
    concurrency: options.Concurrency = 4,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that wrote these files.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run.")] = False,
    patience: options.Patience = PATIENCE_S,
) -> None:
    """Score photographs."""
    query = options.score_query(index, fpr, threshold, camera, eye, evidence, require_quality=require_quality)
    if resume and overwrite:
        raise SettingError("--resume and --overwrite: one of them")
    existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    found, missed = gather(photos)
    if not found:
        raise SettingError("; ".join(missed))
    if overlay and overlays:
        raise SettingError("--overlay and --overlays: one of them")
    if overlay and len(found) != 1:
        raise SettingError(f"--overlay is for one photograph, there are {len(found)}: use --overlays FOLDER")
    if overlay and not overwrite:
        refuse_existing([overlay])
    if overlay and overlay.suffix.lower() in (".jpg", ".jpeg"):
        overlay_format = "jpeg"
    wanted = Wanted(RunTables(csv, findings_csv, coco), json, geojson, overlays, SUFFIXES[overlay_format])
    order = Order(query, concurrency, OVERLAY_KINDS[overlay_format], size, layout)
    with opened(wanted, order, existing) as journal:
        jobs = plan(found, wanted, journal, existing)
        if overlay:
            jobs = tuple(Job(job.source, job.place, job.json, overlay, job.geojson) for job in jobs)
        report = _run(url, options.key_from(key_file), jobs, order, journal, wanted, patience)
    _tell(report, missed, camera, found=len(found), tried=len(jobs))


def _run(
    url: str,
    key: str | None,
    jobs: Sequence[Job],
    order: Order,
    journal: ScoreJournal | None,
    wanted: Wanted,
    patience: float,
) -> Report:
    """Score, then write the tables, also of a run that was stopped."""
    try:
        return asyncio.run(_score(url, key, jobs, order, journal, patience))
    except KeyboardInterrupt:
        hint = ": the same command with --resume goes on" if journal else ""
        warn(f"stopped{hint}")
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        if journal and journal.places:
            wanted.tables.write(journal.outcomes)


async def _score(
    url: str, key: str | None, jobs: Sequence[Job], order: Order, journal: ScoreJournal | None, patience: float
) -> Report:
    columns = (TextColumn("score"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not options.ERR.is_terminal
    async with patient_client(url, key, patience) as client:
        if jobs:
            await reach(client)
        with Progress(*columns, console=options.ERR, transient=True, disable=hidden) as progress:
            task = progress.add_task("score", total=len(jobs))
            return await score_photos(client, jobs, order, journal, lambda _: progress.advance(task))


def patient_client(url: str, key: str | None, patience: float) -> AsyncClient:
    """A client that waits for a service that is busy, starting or gone."""
    return AsyncClient(url, key=key, retries=_RETRIES, lost_retries=_RETRIES, max_wait_s=patience)


async def reach(client: AsyncClient) -> None:
    """Returns once the service answers, if only that it is not ready; else `ConnectionFailed`, soon."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await client.ready()
        except ConnectionFailed:
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(1)
        else:
            return


def _tell(report: Report, missed: Sequence[str], camera: str | None, *, found: int, tried: int) -> None:
    scored = [one for one in report.outcomes if isinstance(one, Scored)]
    failed = [one for one in report.outcomes if isinstance(one, Failed)]
    for line in (*missed, *(bad.line for bad in failed)):
        warn(line)
    for reason in dict.fromkeys(one.result.normals.reason for one in scored):
        if reason:
            warn(f"--camera {camera}: {reason}")
    for reason in dict.fromkeys(one.result.reason for one in scored):
        if reason:
            warn(f"no verdict: {reason}")
    if len(versions := sorted({one.result.index.version for one in scored})) > 1:
        warn(f"the index changed while this ran: {', '.join(versions)}; their scores are not to be compared")
    print_scores(options.OUT, scored, before=found - tried)
    options.OUT.print(INTENDED_USE)
    if report.stopped:
        raise SettingError(f"stopped after {len(scored)} of {tried} photographs: {report.stopped}")
    faults = [f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored"] if failed else []
    if missed:
        faults.append(f"{len(missed)} of the places that were named gave no photographs")
    if faults:
        raise SettingError("; ".join(faults))
