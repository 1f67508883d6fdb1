"""`resad-indexer score`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.cluster.build import Workers
from indexer.cluster.scoring import TABLE, check_scorable, score_on
from indexer.commands import console
from indexer.commands.clustering import ClusterAddress, MostWorkers, WorkerCpus, workers_at
from indexer.commands.console import Device, Index
from indexer.photos import list_photos
from indexer.progress import Stages
from indexer.scoring import Failed, score_photos
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.result import INTENDED_USE
from resad.verdict import Rule


def score_command(
    index: Index,
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders or CSVs.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME_map.png and NAME_overlay.png.")],
    fpr: Annotated[
        float | None, typer.Option(help="False-positive rate of the verdict, between 0 and 1; 0.05 unless given.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Image score above which a photograph is abnormal, instead of --fpr.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="Compare with this camera's normals, where there are enough.")
    ] = None,
    require_quality: Annotated[
        bool, typer.Option("--require-quality", help="Refuse photographs below the index's limits of quality.")
    ] = False,
    evidence: Annotated[int, typer.Option(min=0, max=50, help="Healthy patches listed per finding.")] = 3,
    device: Device = "auto",
    cluster: ClusterAddress = None,
    worker_cpus: WorkerCpus = 4,
    most_workers: MostWorkers = None,
) -> None:
    """Score photographs against an index; over a cluster into one table, OUT/scores.csv, which is gone on with."""
    rule = Rule(fpr, threshold, camera)
    if cluster is not None:
        with workers_at(cluster, device, cpus=worker_cpus, most=most_workers) as workers:
            _on_cluster(workers, index, photos, out, rule, require_quality=require_quality)
        return
    loaded = console.load(index, device)
    scored, failed = [], []
    outcomes = score_photos(
        loaded, photos, out, PhotoLimits(), rule=rule, evidence=evidence, require_quality=require_quality
    )
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            failed.append(outcome)
            console.warn(f"{outcome.path}: {outcome.reason}")
        else:
            scored.append(outcome)
            if outcome.result.quality.reasons:
                console.warn(f"{outcome.path}: quality: {', '.join(outcome.result.quality.reasons)}")
    if scored and (reason := scored[0].result.normals.reason):
        console.warn(f"--camera {camera}: {reason}")
    if scored and (reason := scored[0].result.reason):
        console.warn(f"no verdict: {reason}")
    console.OUT.print(tables.score_table(scored, title=f"{len(scored)} photographs, files in {out}"))
    console.OUT.print(INTENDED_USE)
    if failed:
        raise SettingError(f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored")


def _on_cluster(
    workers: Workers, index: Path, photos: list[Path], out: Path, rule: Rule, *, require_quality: bool
) -> None:
    listed = sum(len(list_photos(source)) for source in photos)
    with Stages(console.ERR).stage("score", listed, "photos") as advance:
        rows = score_on(
            workers, index, photos, out, device=workers.kind, rule=rule, require_quality=require_quality,
            on_rows=lambda new: advance(len(new)),
        )  # fmt: skip
    abnormal = sum(row.abnormal == "true" for row in rows.values())
    for row in rows.values():
        if row.fault:
            console.warn(f"{row.photo}: {row.fault}")
    console.say(f"{len(rows)} photographs, {abnormal} abnormal, scores in {out / TABLE}")
    console.say(INTENDED_USE)
    check_scorable(rows)
