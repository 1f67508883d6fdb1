"""`resad-indexer score`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from indexer.cluster.orders import Workers
from indexer.cluster.parquet import TABLE as PARQUET
from indexer.cluster.parquet import check_installed, write_parquet
from indexer.cluster.score_rows import Row
from indexer.cluster.scoring import TABLE, check_scorable, listed, score_on
from indexer.commands import console
from indexer.commands.clustering import ClusterAddress, MostWorkers, WorkerCpus, workers_at
from indexer.commands.console import Device, Index
from indexer.progress import Stages
from indexer.run_tables import RunTables
from indexer.score_jobs import Job, MapKind, Order
from indexer.score_journal import ScoreJournal
from indexer.score_runs import Existing, Wanted, list_labeled, opened, plan
from indexer.score_tables import print_scores
from indexer.scoring import Failed, Scored, score_photos
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.evidence_crops import keeps_crops, read_square
from resad.evidence_strips import Squares
from resad.loaded_index import LoadedIndex
from resad.manifest import read_manifest
from resad.place import Eye
from resad.rendering import Layout, PictureKind
from resad.result import INTENDED_USE
from resad.verdict import Rule

TableFormat = Literal["csv", "parquet"]


def score_command(
    index: Index,
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders, or CSVs (path,eye).")],
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
    fpr: Annotated[
        float | None, typer.Option(help="False-positive rate of the verdict, between 0 and 1; 0.05 unless given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Image score above which a photograph is abnormal, instead of --fpr.")
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
        PictureKind, typer.Option(help="Of overlays: png, or jpeg, which is much faster and smaller.")
    ] = "png",
    map_format: Annotated[
        MapKind, typer.Option(help="Of maps: png (16 bits), or tiff (float32, unchanged).")
    ] = "png",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that wrote these files.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run.")] = False,
    device: Device = "auto",
    table_format: Annotated[
        TableFormat | None,
        typer.Option("--format", help=f"Of the table over a cluster: csv, or parquet: OUT/{PARQUET}, too."),
    ] = None,
    cluster: ClusterAddress = None,
    worker_cpus: WorkerCpus = 4,
    most_workers: MostWorkers = None,
) -> None:
    """Score photographs against an index; over a cluster into one table, OUT/scores.csv, which is gone on with."""
    if cluster is not None:
        one_by_one = (csv, findings_csv, coco, json, geojson, overlays, eye)
        if out is None or any(option is not None for option in one_by_one) or overwrite:
            raise SettingError(
                f"--cluster writes OUT/{TABLE} alone, and goes on with it: give --out, and no other file"
            )
        if table_format == "parquet":
            check_installed()
        rule = Rule(fpr, threshold, camera)
        with workers_at(cluster, device, cpus=worker_cpus, most=most_workers) as workers:
            rows = _on_cluster(workers, index, photos, out, rule, require_quality=require_quality)
        _tell_rows(rows, out, table_format or "csv")
        return
    if table_format is not None:
        raise SettingError(f"--format {table_format}: without --cluster, --csv FILE names the table")
    if resume and overwrite:
        raise SettingError("--resume and --overwrite: one of them")
    existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    order = Order(Rule(fpr, threshold, camera), evidence, eye, require_quality, layout, overlay_format, map_format)
    found = list_labeled(photos)
    loaded = console.load(index, device)
    console.tell_stale(loaded.manifest)
    kept = out if evidence and keeps_crops(loaded.manifest) else None
    wanted = Wanted(RunTables(csv, findings_csv, coco), json or out, out, overlays or out, geojson, kept)
    with opened(wanted, order, loaded.manifest, existing) as journal:
        jobs = plan(found, wanted, order, journal, existing)
        squares = _squares(index, loaded)
        scored, failed = _run(loaded, jobs, order, journal, wanted.tables, squares)
    _tell(scored, failed, camera, before=len(found) - len(jobs))


def _run(
    loaded: LoadedIndex,
    jobs: tuple[Job, ...],
    order: Order,
    journal: ScoreJournal,
    run_tables: RunTables,
    squares: Squares,
) -> tuple[list[Scored], list[Failed]]:
    """Score, then write the tables, also of a run that was stopped."""
    scored: list[Scored] = []
    failed: list[Failed] = []
    try:
        with (
            Stages(console.ERR).stage("score", len(jobs), "photos") as advance,
            closing(score_photos(loaded, jobs, order, PhotoLimits(), journal, squares)) as outcomes,
        ):
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    advance(0 if outcome.late else 1)
                    failed.append(outcome)
                    console.warn(f"{outcome.label}: {outcome.reason}")
                    continue
                advance(1)
                scored.append(outcome)
    except KeyboardInterrupt:
        console.warn("stopped: the same command with --resume goes on")
        raise typer.Exit(130) from None
    finally:
        if journal.places:
            run_tables.write(journal.outcomes)
    late = {one.label for one in failed if one.late}
    return [one for one in scored if one.label not in late], failed


def _squares(index: Path, loaded: LoadedIndex) -> Squares:
    version = index_store.resolve(index)
    return lambda photo: read_square(version, loaded.manifest, photo)


def _tell(scored: list[Scored], failed: list[Failed], camera: str | None, *, before: int) -> None:
    if scored and (reason := scored[0].result.normals.reason):
        console.warn(f"--camera {camera}: {reason}")
    if scored and (reason := scored[0].result.reason):
        console.warn(f"no verdict: {reason}")
    print_scores(console.OUT, scored, before=before)
    console.OUT.print(INTENDED_USE)
    if failed:
        raise SettingError(f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored")


def _on_cluster(
    workers: Workers, index: Path, photos: list[Path], out: Path, rule: Rule, *, require_quality: bool
) -> dict[str, Row]:
    found = listed(photos)
    console.tell_stale(read_manifest(index_store.resolve(index) / index_store.MANIFEST))
    with Stages(console.ERR).stage("score", len(found), "photos") as advance:
        return score_on(
            workers, index, found, out, device=workers.kind, rule=rule, require_quality=require_quality,
            on_rows=lambda new: advance(len(new)),
        )  # fmt: skip


def _tell_rows(rows: dict[str, Row], out: Path, table_format: TableFormat) -> None:
    tables = f"{out / TABLE}"
    if table_format == "parquet":
        write_parquet(list(rows.values()), out / PARQUET)
        tables += f" and {out / PARQUET}"
    doubtful = sum(bool(row.reasons) for row in rows.values())
    abnormal = sum(row.abnormal == "true" and not row.reasons for row in rows.values())
    counted = f"{abnormal} abnormal, {doubtful} doubtful" if doubtful else f"{abnormal} abnormal"
    for row in rows.values():
        if row.fault:
            console.warn(f"{row.photo}: {row.fault}")
    console.say(f"{len(rows)} photographs, {counted}, scores in {tables}")
    console.say(INTENDED_USE)
    check_scorable(rows)
