"""`resad-client report`: photographs -> a printable page for each patient or photograph, as HTML and PDF."""

import asyncio
import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from resad_client import options
from resad_client.async_client import AsyncClient
from resad_client.batch import RunOptions, RunReport, ScoreFailure, ScoreJob, score_photos
from resad_client.errors import NotAllowed, NotFound, SettingError
from resad_client.files import write_atomically
from resad_client.http import DEFAULT_URL
from resad_client.options import say, warn
from resad_client.photos import list_labeled
from resad_client.progress import RunProgress, shown
from resad_client.protocol import Layout
from resad_client.records import INTENDED_USE, Finding, Result, ScoreRow, read_result
from resad_client.report.contents import (
    MOST_DETAILS,
    MOST_FINDINGS,
    MOST_PATCHES,
    FindingDetail,
    HealthyPatch,
    PhotoReport,
    Report,
    report_page,
)
from resad_client.report.grouping import ReportGroup, group_photos
from resad_client.report.pictures import PHOTO_SIDE, detail, mirrored, numbered_photo, open_photo
from resad_client.score_command import patient_client, reach
from resad_client.text import counted

_INTERRUPTED: Final = 130

Formats = Literal["both", "html", "pdf"]


def report_command(
    photos: Annotated[
        list[Path],
        typer.Argument(help="Photographs, folders of them, or CSVs (path,patient,eye,visit)."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for a NAME.html and NAME.pdf each.")] = Path("reports"),
    url: options.Url = DEFAULT_URL,
    index: options.Index = None,
    fpr: options.Fpr = None,
    threshold: options.Threshold = None,
    false_regions: options.FalseRegions = None,
    camera: options.Camera = None,
    eye: options.EyeOption = None,
    key_file: options.KeyFile = None,
    formats: Annotated[Formats, typer.Option("--format", help="Which files to write.")] = "both",
    separate: Annotated[
        bool,
        typer.Option(
            "--separate", help="A report for each photograph, though names or the CSV put some together."
        ),
    ] = False,
    concurrency: options.Concurrency = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace reports that are there.")] = False,
    patience: options.Patience = None,
) -> None:
    """Make printable reports: two eyes or two visits of a patient side by side, where names or the CSV say so.

    Photographs belong together if a CSV names the same patient, or if their names differ only in the eye (left,
    right, l, r, os, od), a date, or a visit.  Reports hold photographs: keep them as you keep those.
    """
    query = options.score_query(
        index, fpr, threshold, false_regions, None, camera, eye, MOST_PATCHES, require_quality=False
    )
    key = options.key_from(key_file)
    labeled, unusable = list_labeled(photos)
    if not labeled:
        raise SettingError("; ".join(unusable))
    groups = group_photos(labeled, together=not separate)
    suffixes = {"both": (".html", ".pdf"), "html": (".html",), "pdf": (".pdf",)}[formats]
    if not overwrite:
        refuse_reports(groups, out, suffixes)
    patience_s = math.inf if patience is None else patience
    run_options = RunOptions(query, concurrency, "overlay-jpeg", PHOTO_SIDE, "blend", patience_s)
    # Answers and pictures of patients, in a folder that nobody else may read, until the reports are written.
    with tempfile.TemporaryDirectory(prefix="resad-report-") as folder:
        try:
            report = asyncio.run(_make(url, key, groups, run_options, Path(folder), out, suffixes))
        except KeyboardInterrupt:
            warn("stopped: reports that were written stay")
            raise typer.Exit(_INTERRUPTED) from None
    _print(report, groups, unusable, out)


def refuse_reports(groups: Sequence[ReportGroup], out: Path, suffixes: Sequence[str]) -> None:
    """Raise `SettingError` for the first report that exists."""
    for group in groups:
        for suffix in suffixes:
            path = out / f"{group.place}{suffix}"
            if path.exists():
                raise SettingError(f"{path} exists: --overwrite replaces it, --out names another folder")


async def _make(
    url: str,
    key: str | None,
    groups: Sequence[ReportGroup],
    run_options: RunOptions,
    folder: Path,
    out: Path,
    suffixes: Sequence[str],
) -> RunReport:
    """Score the photographs, then write the report of each group."""
    photos = [photo for group in groups for photo in group.photos]
    jobs = {
        photo.label: ScoreJob(photo, str(number), folder / f"{number}.json", folder / f"{number}.jpg")
        for number, photo in enumerate(photos)
    }
    progress = RunProgress(len(jobs))
    async with patient_client(url, key, run_options.patience_s, progress.wait) as client:
        await reach(client)
        with shown(progress, options.ERR):
            report = await _score(client, tuple(jobs.values()), run_options, progress)
        if report.stopped is None:
            reasons = {
                outcome.label: outcome.reason for outcome in report.outcomes if isinstance(outcome, ScoreFailure)
            }
            patches = _HealthyPatches(client)
            for group in _with_results(groups, reasons):
                rows = [
                    tuple([None if photo is None else await _photo_report(jobs[photo.label], patches, reasons)
                           for photo in row])
                    for row in group.rows
                ]  # fmt: skip
                await asyncio.to_thread(
                    _write, Report(group.title, tuple(rows), _made()), out / group.place, suffixes
                )
    return report


def _with_results(groups: Sequence[ReportGroup], failed: Collection[str]) -> list[ReportGroup]:
    """The groups of which a photograph was scored.  failed: labels."""
    return [group for group in groups if not all(photo.label in failed for photo in group.photos)]


async def _score(
    client: AsyncClient, jobs: Sequence[ScoreJob], run_options: RunOptions, progress: RunProgress
) -> RunReport:
    """Score with an overlay each; a photograph that only the service decodes comes from there, beside its map."""
    outcomes: list[ScoreRow | ScoreFailure] = []
    parts: dict[Layout, list[ScoreJob]] = {"blend": [], "side": []}
    for job in jobs:
        # Decoded as a whole: a file may be damaged anywhere.
        decodes = await asyncio.to_thread(open_photo, job.photo.path) is not None
        parts["blend" if decodes else "side"].append(job)
    for layout, part in parts.items():
        report = await score_photos(
            client, part, replace(run_options, layout=layout), None, progress.count, progress.wait
        )
        outcomes += report.outcomes
        if report.stopped:
            return RunReport(tuple(outcomes), report.stopped)
    return RunReport(tuple(outcomes), None)


async def _photo_report(job: ScoreJob, patches: "_HealthyPatches", reasons: Mapping[str, str]) -> PhotoReport:
    photo = job.photo
    if photo.label in reasons or job.json is None or job.overlay is None:
        return PhotoReport(photo.label, photo.eye, photo.visit, None, reasons.get(photo.label))
    result, overlay = read_result(job.json.read_bytes()), job.overlay.read_bytes()
    picture = await asyncio.to_thread(open_photo, photo.path)
    report = PhotoReport(photo.label, photo.eye, photo.visit, result, overlay=overlay)
    if picture is None or picture.size != (result.photo.width, result.photo.height):
        return report
    numbered = await asyncio.to_thread(numbered_photo, picture, result.findings[:MOST_FINDINGS])
    details = [
        FindingDetail(
            finding, detail(picture, finding, result.photo.field_of_view), await patches.of(result, finding)
        )
        for finding in result.findings[:MOST_DETAILS]
    ]
    return replace(report, photo=numbered, details=tuple(details))


class _HealthyPatches:
    """Pictures of healthy patches, as long as the index keeps them and the key may see them."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.refused: set[str] = set()
        """Versions of indexes."""

    async def of(self, result: Result, finding: Finding) -> tuple[HealthyPatch, ...]:
        """The nearest healthy patches of a finding, in order; none if there are no pictures."""
        patches = []
        for evidence in finding.evidence[:MOST_PATCHES]:
            if result.index.version in self.refused:
                break
            try:
                picture = await self.client.evidence_crop(result.index, evidence)
            except (NotFound, NotAllowed):
                self.refused.add(result.index.version)
                break
            patches.append(HealthyPatch(evidence, mirrored(picture) if evidence.mirrored else picture))
        return tuple(patches)


def _write(report: Report, path: Path, suffixes: Sequence[str]) -> None:
    if ".html" in suffixes:
        write_atomically(path.with_name(f"{path.name}.html"), report_page(report))
    if ".pdf" in suffixes:
        from resad_client.report.document import report_pdf

        write_atomically(path.with_name(f"{path.name}.pdf"), report_pdf(report))


def _made() -> str:
    return f"Made on {datetime.now().astimezone():%Y-%m-%d at %H:%M} by resad-client {version('resad-client')}."


def _print(report: RunReport, groups: Sequence[ReportGroup], unusable: Sequence[str], out: Path) -> None:
    failures = [outcome for outcome in report.outcomes if isinstance(outcome, ScoreFailure)]
    for message in (*unusable, *(failure.message for failure in failures)):
        warn(message)
    if report.stopped:
        raise SettingError(f"stopped, no report was written: {report.stopped}")
    written = len(_with_results(groups, {failure.label for failure in failures}))
    scored = len(report.outcomes) - len(failures)
    say(f"{counted(written, 'report')} of {counted(scored, 'photograph')} in {out}")
    say(INTENDED_USE)
    if failures:
        raise SettingError(f"{len(failures)} of {counted(len(report.outcomes), 'photograph')} could not be scored")
    if unusable:
        raise SettingError(f"{len(unusable)} of the given paths had no photographs")
