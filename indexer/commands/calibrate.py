"""`resad-indexer calibrate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.commands import console
from indexer.commands.console import AsideNames, AsideOutliers, Device, Index
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError

if TYPE_CHECKING:
    from indexer.calibration.calibrate import CalibrationReport


def calibrate_command(
    index: Index,
    photos: Annotated[
        Path,
        typer.Argument(help="Folder of normal photographs that are not in the index, or CSV as for build."),
    ],
    activate: Annotated[bool, typer.Option(help="Make the new version the live one.")] = True,
    strict: Annotated[bool, typer.Option(help="Refuse instead of skipping unusable photographs.")] = False,
    set_aside: AsideNames = None,
    set_aside_outliers: AsideOutliers = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask if the 5 % threshold changes by more than a quarter.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Calibrate an index on other normal photographs: p-values, thresholds, scale and quality limits.

    The memory bank stays as it is; the result is a new version.
    """
    version = index_store.resolve(index).resolve()
    console.warn_unused(photos)

    from indexer.build.progress import Stages
    from indexer.calibration.calibrate import SetAside, calibration_records, recalibrate
    from indexer.photos.naming import named_hashes

    hashes = named_hashes("--set-aside", set_aside or (), calibration_records(version), version)
    loaded = console.load(index, device)
    report = recalibrate(
        version, loaded, photos, PhotoLimits(), Stages(console.ERR), live=activate, strict=strict,
        set_aside=SetAside(hashes, set_aside_outliers), check=lambda report: _check(report, yes=yes),
    )  # fmt: skip
    console.say(f"{report.version} is {'live' if activate else 'written; activate it to use it'}")


def _check(report: "CalibrationReport", *, yes: bool) -> None:
    """Print what the calibration would change, and ask if the usual threshold changes much."""
    from indexer import tables
    from resad.calibration import USUAL_RATE, threshold_moves

    before, after = report.before.calibration, report.after.calibration
    console.warn_skipped(report.skipped, report.duplicates)
    console.OUT.print(tables.calibration_table(report))
    console.tell_calibration(after, report.named)
    for threshold in after.thresholds:
        if threshold.fpr == USUAL_RATE and threshold.reason:
            console.warn(f"no verdicts at the usual rate: {threshold.reason}")
    if not threshold_moves(before, after):
        return
    change = f"the {USUAL_RATE:.0%} threshold changes by more than a quarter"
    if yes:
        console.warn(change)
    elif not sys.stdin.isatty():
        raise SettingError(f"{change}; nothing is written. If that is meant, repeat the command with --yes")
    else:
        typer.confirm(f"{change[0].upper()}{change[1:]}. Write this version?", abort=True, err=True)
