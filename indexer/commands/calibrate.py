"""`resad-indexer calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.commands import console
from indexer.commands.console import Device, Index
from resad import index as index_store
from resad.config import PhotoLimits


def calibrate_command(
    index: Index,
    photos: Annotated[
        Path,
        typer.Argument(help="Folder of normal photographs that are not in the index, or CSV as for build."),
    ],
    activate: Annotated[bool, typer.Option(help="Make the new version the live one.")] = True,
    strict: Annotated[bool, typer.Option(help="Refuse instead of skipping unusable photographs.")] = False,
    device: Device = "auto",
) -> None:
    """Calibrate an index on other normal photographs: p-values, thresholds, scale and quality limits.

    The memory bank stays as it is; the result is a new version.
    """
    version = index_store.resolve(index).resolve()
    console.warn_unused(photos)

    from indexer import tables
    from indexer.build.progress import Stages
    from indexer.calibration.calibrate import recalibrate
    from resad.calibration import USUAL_RATE

    loaded = console.load(index, device)
    report = recalibrate(version, loaded, photos, PhotoLimits(), Stages(console.ERR), live=activate, strict=strict)
    console.warn_skipped(report.skipped, report.duplicates)
    console.OUT.print(tables.calibration_table(report))
    for threshold in report.after.calibration.thresholds:
        if threshold.fpr == USUAL_RATE and threshold.reason:
            console.warn(f"no verdicts at the usual rate: {threshold.reason}")
    console.say(f"{report.version} is {'live' if activate else 'written; activate it to use it'}")
