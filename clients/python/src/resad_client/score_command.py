"""`resad-client score`: photographs -> tables and files, in a run that can be resumed."""

import asyncio
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from resad_client import options
from resad_client.async_client import AsyncClient
from resad_client.batch import (
    OVERLAY_KINDS,
    SUFFIXES,
    ExistingFiles,
    OutputFiles,
    RunOptions,
    RunReport,
    ScoreFailure,
    ScoreJob,
    open_journal,
    plan_jobs,
    score_photos,
)
from resad_client.errors import ConnectionFailed, SettingError
from resad_client.http import DEFAULT_URL, OnWait
from resad_client.journal import ScoreJournal
from resad_client.options import warn
from resad_client.photos import folders_left_out, list_labeled
from resad_client.progress import RunProgress, shown
from resad_client.records import INTENDED_USE, ScoreRow
from resad_client.run_files import RunTables, refuse_existing
from resad_client.tables import print_scores
from resad_client.text import counted

_RETRIES: Final = sys.maxsize
"""Bounded by the patience only."""
_TIMEOUT: Final = httpx.Timeout(300.0, connect=10.0)
"""Seconds.  A slow service states its own deadline long before."""
_ATTEMPTS: Final = 5
"""Attempts to reach the service at all, so that a mistyped address fails soon."""
_INTERRUPTED: Final = 130


def score_command(
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders of them, or CSVs (path,eye).")],
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that wrote these files.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run.")] = False,
    patience: options.Patience = None,
) -> None:
    """Score photographs."""
    query = options.score_query(
        index, fpr, threshold, false_regions, frame, camera, eye, evidence, require_quality=require_quality
    )
    if resume and overwrite:
        raise SettingError("--resume and --overwrite: one of them")
    existing: ExistingFiles = "resume" if resume else "overwrite" if overwrite else "refuse"
    labeled, unusable = list_labeled(photos)
    if line := folders_left_out(photos):
        warn(line)
    if not labeled:
        raise SettingError("; ".join(unusable))
    if overlay and overlays:
        raise SettingError("--overlay and --overlays: one of them")
    if overlay and len(labeled) != 1:
        raise SettingError(f"--overlay is for one photograph, there are {len(labeled)}: use --overlays FOLDER")
    if overlay and not overwrite:
        refuse_existing([overlay])
    if overlay and overlay.suffix.lower() in (".jpg", ".jpeg"):
        overlay_format = "jpeg"
    outputs = OutputFiles(RunTables(csv, findings_csv, coco), json, geojson, overlays, SUFFIXES[overlay_format])
    patience_s = math.inf if patience is None else patience
    run_options = RunOptions(query, concurrency, OVERLAY_KINDS[overlay_format], size, layout, patience_s)
    with open_journal(outputs, run_options, existing) as journal:
        if resume and journal and not journal.resumed:
            warn(f"nothing to resume: there is no {journal.path}; starting")
        jobs = plan_jobs(labeled, outputs, journal, existing)
        if overlay:
            jobs = tuple(replace(job, overlay=overlay) for job in jobs)
        report = _run(url, options.key_from(key_file), jobs, run_options, journal, outputs)
        resumable = journal is not None
    _print_report(report, unusable, camera, photos=len(labeled), jobs=len(jobs), resumable=resumable)


def _run(
    url: str,
    key: str | None,
    jobs: Sequence[ScoreJob],
    run_options: RunOptions,
    journal: ScoreJournal | None,
    outputs: OutputFiles,
) -> RunReport:
    """Score, then write the tables, even if the run is interrupted."""
    try:
        return asyncio.run(_score(url, key, jobs, run_options, journal))
    except KeyboardInterrupt:
        hint = ": the same command with --resume continues" if journal else ""
        warn(f"stopped{hint}")
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        if journal and journal.places:
            outputs.tables.write(journal.outcomes)


async def _score(
    url: str,
    key: str | None,
    jobs: Sequence[ScoreJob],
    run_options: RunOptions,
    journal: ScoreJournal | None,
) -> RunReport:
    progress = RunProgress(len(jobs))
    async with patient_client(url, key, run_options.patience_s, progress.wait) as client:
        if jobs:
            await reach(client)
        with shown(progress, options.ERR):
            return await score_photos(client, jobs, run_options, journal, progress.count, progress.wait)


def patient_client(url: str, key: str | None, patience_s: float, on_wait: OnWait) -> AsyncClient:
    """A client that waits for a service that is busy or starting; `score_photos` waits for one that is gone."""
    return AsyncClient(
        url, key=key, timeout=_TIMEOUT, retries=_RETRIES, lost_retries=0, max_wait_s=patience_s, on_wait=on_wait
    )


async def reach(client: AsyncClient) -> None:
    """Return once the service answers, ready or not; raises `ConnectionFailed` after a few attempts."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await client.ready()
        except ConnectionFailed:
            if attempt == _ATTEMPTS:
                raise
            await asyncio.sleep(1)
        else:
            return


def _print_report(
    report: RunReport, unusable: Sequence[str], camera: str | None, *, photos: int, jobs: int, resumable: bool
) -> None:
    rows = [outcome for outcome in report.outcomes if isinstance(outcome, ScoreRow)]
    failures = [outcome for outcome in report.outcomes if isinstance(outcome, ScoreFailure)]
    for message in (*unusable, *(failure.message for failure in failures)):
        warn(message)
    for reason in dict.fromkeys(row.result.normals.reason for row in rows):
        if reason:
            warn(f"--camera {camera}: {reason}")
    for reason in dict.fromkeys(row.result.reason for row in rows):
        if reason:
            warn(f"no verdict: {reason}")
    if len(versions := sorted({row.result.index.version for row in rows})) > 1:
        warn(f"the index changed during the run: {', '.join(versions)}; their scores cannot be compared")
    print_scores(options.OUT, rows, before=photos - jobs)
    options.OUT.print(INTENDED_USE)
    if report.stopped:
        onward = "; the same command with --resume continues" if resumable else ""
        raise SettingError(f"stopped after {len(rows)} of {counted(jobs, 'photograph')}: {report.stopped}{onward}")
    faults = []
    if failures:
        faults.append(f"{len(failures)} of {counted(len(failures) + len(rows), 'photograph')} could not be scored")
    if unusable:
        faults.append(f"{len(unusable)} of the given paths had no photographs")
    if faults:
        raise SettingError("; ".join(faults))
