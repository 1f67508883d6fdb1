"""`resad-indexer calibrate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.commands import console
from indexer.commands.checks import check_device, check_source
from indexer.commands.console import AsideNames, AsideOutliers, Device, Index, Yes
from resad import index as index_store
from resad.config import PhotoLimits

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
    yes: Yes = False,
    device: Device = "auto",
) -> None:
    """Calibrate an index on other normal photographs: p-values, thresholds, scale and quality limits.

    The memory bank stays as it is; the result is a new version.
    """
    version = index_store.resolve(index).resolve()
    check_device(device)
    check_source(photos)
    console.warn_unused(photos)

    from indexer.build.progress import Stages
    from indexer.calibration.calibrate import SetAside, calibration_records, recalibrate
    from indexer.photos.naming import named_hashes

    hashes = named_hashes("--set-aside", set_aside or (), calibration_records(version), version)
    loaded = console.load(index, device)
    report = recalibrate(
        version, loaded, photos, PhotoLimits(), Stages(console.ERR), live=activate, strict=strict,
        set_aside=SetAside(hashes, set_aside_outliers),
        check=lambda report: _check(report, live=activate, yes=yes),
    )  # fmt: skip
    console.say(f"{report.version} is {'live' if activate else 'written; activate it to use it'}")


def _check(report: "CalibrationReport", *, live: bool, yes: bool) -> None:
    """Print what the calibration would change, and ask: at a terminal always, in a script if it changes much."""
    from indexer import tables
    from indexer.calibration.lines import finding_changes, verdict_changes
    from resad.calibration import USUAL_RATE

    before, after = report.before.calibration, report.after.calibration
    console.warn_skipped(report.skipped, report.duplicates)
    console.OUT.print(tables.calibration_table(report))
    console.tell_calibration(after, report.named)
    for threshold in after.thresholds:
        if threshold.fpr == USUAL_RATE and threshold.reason:
            console.warn(f"no verdicts at the usual rate: {threshold.reason}")
    changes = [*verdict_changes(before, after)]
    for line in (*changes, *finding_changes(before, after)):
        console.warn(line)
    if changes or sys.stdin.isatty():
        question = "Write this version and make it live?" if live else "Write this version?"
        console.confirm(question, "nothing is written", yes=yes)
