"""`resad-indexer score`."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from resad_client.text import counted

from indexer.commands import console
from indexer.commands.checks import check_device
from indexer.commands.console import ClusterAddress, Device, Index, MostWorkers, WorkerCpus
from resad import index as index_store
from resad.config import Eye
from resad.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Generator

    from resad_client.journal import ScoreJournal
    from resad_client.records import ScoreRow
    from resad_client.run_files import RunTables

    from indexer.scoring import ScoreFailure

# Literals of `indexer.scoring` and `resad.pictures.overlay`, which take long to import.
Layout = Literal["blend", "side"]
PictureKind = Literal["png", "jpeg"]
MapKind = Literal["png", "tiff"]


def score_command(
    index: Index,
    photos: Annotated[
        list[Path],
        typer.Argument(help="Photographs, folders, or CSVs (path,eye). FILE.dcm#2: a DICOM file's second frame."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for NAME.json, NAME_map.png, NAME_overlay.png and, where the index keeps crops, "
            "NAME_evidence.jpg."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Table with a row for each photograph.")] = None,
    findings_csv: Annotated[Path | None, typer.Option(help="Table with a row for each finding.")] = None,
    coco: Annotated[Path | None, typer.Option(help="All findings as one COCO document.")] = None,
    json: Annotated[Path | None, typer.Option(help="Folder for a NAME.json each; --out unless given.")] = None,
    geojson: Annotated[Path | None, typer.Option("--geojson", help="Folder for a NAME.geojson each.")] = None,
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for a NAME_overlay.png each; --out unless given.")
    ] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            help="Folder for each DICOM photograph's results as objects of its study: NAME_map.dcm, "
            "NAME_findings.dcm, NAME_report.dcm, NAME_overlay.dcm."
        ),
    ] = None,
    fpr: Annotated[
        float | None, typer.Option(help="False-positive rate of the verdict, between 0 and 1; 0.05 unless given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Image score above which a photograph is abnormal, instead of --fpr.")
    ] = None,
    false_regions: Annotated[
        float | None,
        typer.Option(
            help="Regions above the level of findings that a healthy photograph shows on average: 0.25, 0.5, 1, "
            "2, 4 or 8; 0.25 unless given."
        ),
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Compare with this camera's normals, where there are enough.")
    ] = None,
    eye: Annotated[
        Eye | None, typer.Option(help="Which eye, for places in words; a CSV's column eye goes before it.")
    ] = None,
    require_quality: Annotated[
        bool, typer.Option("--require-quality", help="Refuse photographs below the index's limits of quality.")
    ] = False,
    evidence: Annotated[int, typer.Option(min=0, max=50, help="Healthy patches listed per finding.")] = 3,
    layout: Annotated[
        Layout, typer.Option(help="Of overlays: the map over the photograph, or the two side by side.")
    ] = "blend",
    overlay_format: Annotated[
        PictureKind, typer.Option(help="Of overlays: png, or jpeg, which is smaller.")
    ] = "png",
    map_format: Annotated[
        MapKind, typer.Option(help="Of maps: png (16 bits), or tiff (float32, unchanged).")
    ] = "png",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that wrote these files.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run.")] = False,
    device: Device = "auto",
    cluster: ClusterAddress = None,
    worker_cpus: WorkerCpus = 4,
    most_workers: MostWorkers = None,
) -> None:
    """Score photographs against an index."""
    if resume and overwrite:
        raise SettingError("--resume and --overwrite: give one of them")
    version = index_store.resolve(index)
    check_device(device)

    from resad_client.run_files import RunTables

    from indexer.scoring import (
        ExistingFiles,
        OutputFiles,
        RunOptions,
        journal_file,
        list_labeled,
        open_journal,
        plan_jobs,
        score_photos,
    )
    from resad.calibration import DecisionRule, criterion
    from resad.manifest import read_manifest

    rule = DecisionRule(fpr, threshold, camera, false_regions)
    existing: ExistingFiles = "resume" if resume else "overwrite" if overwrite else "refuse"
    tables = RunTables(csv, findings_csv, coco)
    outputs = OutputFiles(tables, json or out, out, overlays or out, geojson, dicom=dicom)
    lines = journal_file(outputs, existing)  # refuses, before anything slow is imported
    manifest = read_manifest(version / index_store.MANIFEST)
    criterion(manifest.calibration, rule)  # refuses a rate that the index states no level for
    if resume and not lines.is_file():
        console.warn(f"Nothing to resume: {lines} is not there. Starting.")
    listed = list_labeled(photos)
    console.warn_left_out(photos)

    from resad.engine import Engine, ScoreOptions
    from resad.pictures.evidence import keeps_crops, read_square

    options = RunOptions(ScoreOptions(rule, evidence, eye, require_quality), layout, overlay_format, map_format)
    if evidence and keeps_crops(manifest):
        outputs = replace(outputs, strips=out)
    with open_journal(outputs, options, manifest, existing) as journal:
        jobs = plan_jobs(listed, outputs, options, journal, existing)
        console.warn_stale(manifest)
        if cluster is None:
            squares = partial(read_square, version, manifest)
            outcomes = score_photos(Engine(console.load(version, device)), jobs, options, journal, squares)
            rows, failures = _run(outcomes, len(jobs), journal, outputs.tables)
        else:
            ray = console.cluster_commands()
            with ray.workers_at(cluster, device, cpus=worker_cpus, limit=most_workers) as pool:
                outcomes = ray.score_over_workers(pool, version, jobs, options, journal)
                rows, failures = _run(outcomes, len(jobs), journal, outputs.tables)
    _print(rows, failures, camera, before=len(listed) - len(jobs))


def _run(
    outcomes: "Generator[ScoreRow | ScoreFailure, None, None]",
    count: int,
    journal: "ScoreJournal",
    run_tables: "RunTables",
) -> "tuple[list[ScoreRow], list[ScoreFailure]]":
    """Score, then write the tables, also after an interruption.  count: photographs to score."""
    from indexer.build.progress import Stages
    from indexer.scoring import ScoreFailure

    rows: list[ScoreRow] = []
    failures: list[ScoreFailure] = []
    try:
        with (
            Stages(console.ERR).stage("score", count, "photos") as advance,
            closing(outcomes),
        ):
            for outcome in outcomes:
                if isinstance(outcome, ScoreFailure):
                    advance(0 if outcome.after_scoring else 1)
                    failures.append(outcome)
                    console.warn(f"{outcome.label}: {outcome.reason}")
                    continue
                advance(1)
                rows.append(outcome)
    except KeyboardInterrupt:
        console.warn("stopped: the same command with --resume continues")
        raise typer.Exit(130) from None
    finally:
        if journal.places:
            run_tables.write(journal.outcomes)
    withdrawn = {failure.label for failure in failures if failure.after_scoring}
    return [row for row in rows if row.label not in withdrawn], failures


def _print(rows: "list[ScoreRow]", failures: "list[ScoreFailure]", camera: str | None, *, before: int) -> None:
    from resad_client.records import INTENDED_USE
    from resad_client.tables import print_scores

    if rows and (reason := rows[0].result.normals.reason):
        console.warn(f"--camera {camera}: {reason}")
    if rows and (reason := rows[0].result.reason):
        console.warn(f"no verdict: {reason}")
    print_scores(console.OUT, rows, before=before)
    console.OUT.print(INTENDED_USE)
    if failures:
        raise SettingError(
            f"{len(failures)} of {counted(len(failures) + len(rows), 'photograph')} could not be scored"
        )
