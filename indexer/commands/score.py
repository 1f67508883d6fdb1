"""`resad-indexer score`."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from indexer.build.progress import Stages
from indexer.commands import console
from indexer.commands.clustering import ClusterAddress, MostWorkers, WorkerCpus, over_cluster
from indexer.commands.console import Device, Index
from indexer.run_tables import RunTables
from indexer.score_journal import ScoreJournal
from indexer.score_tables import print_scores
from indexer.scoring import (
    Existing,
    Failed,
    Job,
    MapKind,
    Order,
    Scored,
    Wanted,
    list_labeled,
    opened,
    plan,
    score_photos,
)
from resad import index as index_store
from resad.calibration import DecisionRule
from resad.config import Eye, PhotoLimits
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex
from resad.pictures.evidence import Squares, keeps_crops, read_square
from resad.pictures.overlay import Layout, PictureKind
from resad.result import INTENDED_USE

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
        typer.Option("--format", help="Of the table over a cluster: csv, or parquet: OUT/scores.parquet, too."),
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
                "--cluster writes OUT/scores.csv alone, and goes on with it: give --out, and no other file"
            )
        over_cluster().score_over_cluster(
            cluster, device, index, photos, out, DecisionRule(fpr, threshold, camera), cpus=worker_cpus, most=most_workers,
            require_quality=require_quality, table_format=table_format or "csv",
        )  # fmt: skip
        return
    if table_format is not None:
        raise SettingError(f"--format {table_format}: without --cluster, --csv FILE names the table")
    if resume and overwrite:
        raise SettingError("--resume and --overwrite: one of them")
    existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    order = Order(
        DecisionRule(fpr, threshold, camera), evidence, eye, require_quality, layout, overlay_format, map_format
    )
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
