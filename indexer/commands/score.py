"""`resad-indexer score`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.commands import console
from indexer.commands.console import Device, Index
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
) -> None:
    """Score photographs against an index."""
    rule = Rule(fpr, threshold, camera)
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
