"""`resad-indexer evaluate`."""

from pathlib import Path
from typing import Annotated

import typer
from resad_client.files import write_atomically

from indexer.build.progress import Stages
from indexer.calibration.calibrate import calibration_records
from indexer.commands import console
from indexer.commands.console import Device, Index
from lab.commands.datasets import Altered, Data, Exclude, open_checked
from lab.evaluate import figures, figures_json, measure_dataset
from lab.evaluate.figures import Overlap
from lab.evaluate.tables import figures_tables, photo_table
from lab.report import report
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError


def evaluate_command(
    index: Index,
    data: Data,
    dataset: Annotated[str, typer.Option(help="A name of `resad-indexer datasets`.")] = "mvtec",
    exclude: Exclude = None,
    altered_copy: Altered = False,
    strict: Annotated[bool, typer.Option(help="Refuse a test photograph that is in the index.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line per photograph here.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a report with curves and pictures here: one file, in place of what is there."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure an index on labeled photographs, with 95 % intervals over photographs."""
    for option, place in (("--json", json), ("--csv", csv), ("--html", html)):
        if place is not None and not place.parent.is_dir():
            raise SettingError(f"{option} {place}: {place.parent} is no folder")
    labeled = open_checked(dataset, data, exclude, altered_copy=altered_copy)
    loaded = console.load(index, device)
    calibrated_on = calibration_records(index_store.resolve(index))
    stages = Stages(console.ERR)
    with stages.stage("score", len(labeled.test), "photos") as advance:
        measured = measure_dataset(
            loaded, labeled, PhotoLimits(), advance, calibrated_on=calibrated_on, strict=strict
        )
    with stages.stage("bootstrap", 1, "data set") as advance:
        result = figures(measured, loaded, labeled)
        advance(1)
    _warn_overlap(result.guard)
    for table in figures_tables(result):
        console.OUT.print(table)
    for reason in result.missing:
        console.warn(reason)
    if json is not None:
        write_atomically(json, figures_json(result).encode() + b"\n")
    if csv is not None:
        write_atomically(csv, photo_table(measured, loaded.manifest.calibration))
    if html is not None:
        write_atomically(html, report(result, measured, loaded, PhotoLimits()).encode())


def _warn_overlap(overlap: Overlap) -> None:
    for photo in overlap.photos:
        differ = f"{photo.bits} of 255 bits differ"
        how = (
            "the same file" if photo.bits is None else differ if photo.mirrored else f"the same picture, {differ}"
        )
        console.ERR.print(f"[bold red]IN THE INDEX[/] {photo.description} ({how})")
    if overlap.photos:
        console.ERR.print(
            f"[bold red]{len(overlap.photos)} test photographs are in the index: the figures flatter.[/]"
        )
    if overlap.patients:
        console.ERR.print(f"[bold red]Patients on both sides: {len(overlap.patients)} "
                          f"({', '.join(overlap.patients[:5])}): the figures flatter.[/]")  # fmt: skip
    elif overlap.why is not None:
        console.warn(f"whether patients are on both sides is not known: {overlap.why}"
                     if overlap.patients is None else f"no patient is on both sides, {overlap.why}")  # fmt: skip
