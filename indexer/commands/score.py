"""`resad-indexer score`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import tables
from indexer.commands import console
from indexer.commands.console import Device, Index, Rate
from indexer.scoring import Failed, score_photos
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.result import INTENDED_USE


def score_command(
    index: Index,
    photos: Annotated[list[Path], typer.Argument(help="Photographs, folders or CSVs.")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME_map.png and NAME_overlay.png.")],
    fpr: Rate = 0.05,
    evidence: Annotated[int, typer.Option(min=0, max=50, help="Healthy patches listed per finding.")] = 3,
    device: Device = "auto",
) -> None:
    """Score photographs against an index."""
    console.check_rate(fpr)
    loaded = console.load(index, device)
    scored, failed = [], []
    for outcome in score_photos(loaded, photos, out, PhotoLimits(), fpr=fpr, evidence=evidence):
        if isinstance(outcome, Failed):
            failed.append(outcome)
            console.warn(f"{outcome.path}: {outcome.reason}")
        else:
            scored.append(outcome)
    console.OUT.print(tables.score_table(scored, title=f"{len(scored)} photographs, files in {out}"))
    console.OUT.print(INTENDED_USE)
    if failed:
        raise SettingError(f"{len(failed)} of {len(failed) + len(scored)} photographs could not be scored")
