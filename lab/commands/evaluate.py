"""`resad-indexer evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from resad_client.files import write_atomically
from resad_client.text import counted

from indexer.build.progress import Stages
from indexer.calibration.calibrate import calibration_records
from indexer.commands import console
from indexer.commands.checks import check_device, check_outputs, check_source
from indexer.commands.console import Device, Index
from indexer.photos.listing import list_photos, list_references
from lab.commands.datasets import Altered, Exclude, open_checked
from lab.evaluate import figures, figures_json, measure_dataset
from lab.evaluate.agreement import ReadersMarks, find_marked_photos, measure_agreement, read_readers_marks
from lab.evaluate.figures import (
    AgreementFigures,
    Overlap,
    PaintedFigures,
    SamePhoto,
    UnlabeledEvaluation,
    agreement_figures,
    painted_figures,
    unlabeled_evaluation,
    unlabeled_json,
)
from lab.evaluate.measuring import IndexPhoto
from lab.evaluate.painted import measure_index_painted, painted_table
from lab.evaluate.tables import agreement_tables, figures_tables, photo_table
from lab.report import report, unlabeled_report
from resad import index as index_store
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.index_warnings import index_warnings
from resad.loaded_index import LoadedIndex


def evaluate_command(
    index: Index,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set as it was unpacked (csv: the file).")
    ] = None,
    dataset: Annotated[str, typer.Option(help="A name of `resad-indexer datasets`.")] = "mvtec",
    painted: Annotated[
        Path | None,
        typer.Option(
            help="Folder of healthy photographs, or CSV (path,...), that are not in the index: lesions are "
            "painted into them, and those found are counted. With it --data may be left out."
        ),
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option(
            help="File of `marks export`: how far readers agree with each other, and the index with each of them. "
            "With it --data may be left out."
        ),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of the photographs of --marks; they are known by their content.")
    ] = None,
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
    """Measure an index on labeled photographs, painted lesions or readers' marks, with 95 % intervals."""
    if (marks is None) != (photos is None):
        given, missing = ("--photos", "--marks") if marks is None else ("--marks", "--photos")
        raise SettingError(f"{given} needs {missing}: a file of `marks export` and the folder of its photographs")
    if data is None and painted is None and marks is None:
        raise SettingError("nothing to measure on: give --data, --painted or both, or --marks with --photos")
    if data is None and csv is not None:
        raise SettingError(f"--csv {csv}: it has a line per labeled photograph; give --data, too")
    check_outputs(json=json, csv=csv, html=html)
    index_store.resolve(index)
    check_device(device)
    for source in (data, painted, marks, photos):
        if source is not None:
            check_source(source)
    readers = None if marks is None or photos is None else _find_marked(marks, photos)
    labeled = None if data is None else open_checked(dataset, data, exclude, altered_copy=altered_copy)
    healthy = [] if painted is None else [photo.path for photo in list_references(painted)]
    loaded = console.load(index, device)
    calibrated_on = calibration_records(index_store.resolve(index))
    stages = Stages(console.ERR)
    of_painted = _measure_painted(loaded, healthy, calibrated_on, stages, strict=strict) if healthy else None
    of_readers = None if readers is None else _measure_marks(loaded, readers, calibrated_on, stages, strict=strict)
    if labeled is None:
        _write_unlabeled(unlabeled_evaluation(loaded, of_painted, of_readers), json, html)
        return
    with stages.stage("score", len(labeled.test), "photos") as advance:
        measured = measure_dataset(
            loaded, labeled, PhotoLimits(), advance, calibrated_on=calibrated_on, strict=strict
        )
    with stages.stage("bootstrap", 1, "data set") as advance:
        result = figures(measured, loaded, labeled, of_painted, of_readers)
        advance(1)
    _warn_overlap(result.guard)
    for table in figures_tables(result):
        console.OUT.print(table)
    console.say(f"calibration: {result.calibration}")
    for warning in index_warnings(loaded.manifest):
        console.warn(f"{warning.code}: {warning.text}")
    for reason in result.missing:
        console.warn(reason)
    _warn_soft(measured.soft_masks)
    if json is not None:
        write_atomically(json, figures_json(result).encode() + b"\n")
    if csv is not None:
        write_atomically(csv, photo_table(measured, loaded.manifest.calibration))
    if html is not None:
        write_atomically(html, report(result, measured, loaded, PhotoLimits()).encode())


def _measure_painted(
    loaded: LoadedIndex,
    healthy: Sequence[Path],
    calibrated_on: Sequence[IndexPhoto],
    stages: Stages,
    *,
    strict: bool,
) -> PaintedFigures:
    with stages.stage("paint", len(healthy), "photos") as advance:
        results, matches = measure_index_painted(
            loaded, healthy, PhotoLimits(), advance, calibrated_on=calibrated_on, strict=strict
        )
    result = painted_figures(results, matches, healthy)
    _warn_same_photos(result.in_the_index, "painted photograph")
    return result


@dataclass(frozen=True, slots=True)
class _Marked:
    """Readers' marks, and the files of their photographs by content hash."""

    marks: ReadersMarks
    files: dict[str, Path]


def _find_marked(marks: Path, photos: Path) -> _Marked:
    """Raise `SettingError` for a file that `marks export` did not write, or if no photograph of it is there."""
    limits = PhotoLimits()
    readers = read_readers_marks(marks, limits)
    paths = [photo.path for photo in list_photos(photos)]
    files = find_marked_photos(paths, [photo.content_sha256 for photo in readers.photos], limits)
    if not files:
        raise SettingError(
            f"{photos}: none of {counted(len(paths), 'photograph')} has the SHA-256 of one in {marks}; give the "
            "folder of the files that were marked, unchanged"
        )
    return _Marked(readers, files)


def _measure_marks(
    loaded: LoadedIndex, marked: _Marked, calibrated_on: Sequence[IndexPhoto], stages: Stages, *, strict: bool
) -> AgreementFigures:
    with stages.stage("compare readers", len(marked.marks.photos), "photos") as advance:
        results, matches = measure_agreement(
            loaded,
            marked.marks,
            marked.files,
            PhotoLimits(),
            advance,
            calibrated_on=calibrated_on,
            strict=strict,
        )
    result = agreement_figures(results, matches, list(marked.files.values()))
    _warn_same_photos(result.in_the_index, "marked photograph")
    for note in results.notes:
        console.warn(note)
    return result


def _warn_soft(masks: Sequence[Path]) -> None:
    if masks:
        count = counted(len(masks), "mask has", "masks have")
        console.warn(
            f"{count} more than two values (lossy, or resized): what has at least half of a mask's maximum counts "
            f"as lesion; the first is {masks[0]}"
        )


def _write_unlabeled(evaluation: UnlabeledEvaluation, json: Path | None, html: Path | None) -> None:
    if evaluation.painted is not None:
        console.OUT.print(painted_table(evaluation.painted.results))
    if evaluation.agreement is not None:
        for table in agreement_tables(evaluation.agreement.results):
            console.OUT.print(table)
    if json is not None:
        write_atomically(json, unlabeled_json(evaluation).encode() + b"\n")
    if html is not None:
        write_atomically(html, unlabeled_report(evaluation).encode())


def _warn_same_photos(photos: Sequence[SamePhoto], which: str) -> None:
    for photo in photos:
        differ = f"{photo.bits} of 255 bits differ"
        how = (
            "the same file" if photo.bits is None else differ if photo.mirrored else f"the same picture, {differ}"
        )
        console.ERR.say(f"IN THE INDEX {photo.description} ({how})", style="red")
    if photos:
        console.ERR.say(
            f"{counted(len(photos), f'{which} is', f'{which}s are')} in the index: the figures flatter.",
            style="bold red",
        )


def _warn_overlap(overlap: Overlap) -> None:
    _warn_same_photos(overlap.photos, "test photograph")
    if overlap.patients:
        names = ", ".join(overlap.patients[:5])
        line = f"Patients on both sides: {len(overlap.patients)} ({names}): the figures flatter."
        console.ERR.say(line, style="bold red")
    elif overlap.why is not None:
        console.warn(f"whether patients are on both sides is not known: {overlap.why}"
                     if overlap.patients is None else f"no patient is on both sides, {overlap.why}")  # fmt: skip
