"""The presets and the ablations of ReSC on IDRiD, with intervals and paired differences.

Run as `python -m benchmarks.presets`; takes RESAD_DATA, and about a minute a row on two cores.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import typer

from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import (
    CORESET,
    Chosen,
    Difference,
    Row,
    Scores,
    Variant,
    cells,
    count_of,
    data_set,
    difference,
    find_row,
    measure,
    reporting_half,
    scores,
)
from lab.datasets.layouts import read_mvtec
from resad import runtime

_BASELINE: Final = Variant("patchcore")
_ROWS: Final = (
    Variant("resad"),
    Variant("resad", ("region",)),
    Variant("resad", ("spatial",)),
    Variant("resad", ("resc",)),
    Variant("paper"),
    Variant("paper", ("region",)),
    Variant("paper", ("spatial",)),
    Variant("paper", ("resc",)),
    _BASELINE,
)
_QUICK: Final = (Variant("resad"), Variant("resad", ("resc",)))
"""Prepared alike: below the files' own 512 px a crop changes the decoding, and with it the field of view found, so
that `patchcore` would not be measured on the same pixels."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row on some of the photographs, in JSON."""

    photos: str
    row: str
    scores: Scores
    less_patchcore: Difference | None
    less_full: Difference | None


def main(quick: Quick = False, json: Json = None) -> None:
    """Compare the presets and the ablations on IDRiD."""
    shared = shared_data()
    runtime.configure("exact")
    size, variants = (256, _QUICK) if quick else (512, _ROWS)
    print_header(
        "Presets and ablations on IDRiD",
        f"ResNet-18 (ImageNet), stages 2 and 3, size {size} (the files are 512 px), coreset {CORESET}, exact.",
    )
    rows = []
    for variant in variants:
        with tempfile.TemporaryDirectory() as root:
            rows.append(measure(variant, size, shared, Path(root)))
    reporting = reporting_half(read_mvtec(data_set(shared)))
    lines = _print_part("the reporting half", rows, reporting)
    lines += _print_part("all test photographs", rows, np.ones_like(reporting))
    _print_times(rows)
    write_json(json, lines)


def _print_part(part: str, rows: Sequence[Row], chosen: Chosen) -> list[Line]:
    photos = f"{part} ({count_of(rows[0].measured, chosen)})"
    lines = [_line(row, rows, chosen, photos) for row in rows]
    print_table(
        f"AUROC with 95 % intervals, {photos}",
        ("row", "image", "pixel, field of view", "pixel, whole image"),
        [
            (line.row, interval(line.scores.image), interval(line.scores.fov), interval(line.scores.whole))
            for line in lines
        ],
    )
    print_table(
        f"Paired differences in AUROC, {photos}",
        ("row", "image, less patchcore", "pixel fov, less patchcore", "image, less full", "pixel fov, less full"),
        [(line.row, *cells(line.less_patchcore), *cells(line.less_full)) for line in lines],
    )
    return lines


def _line(row: Row, rows: Sequence[Row], chosen: Chosen, photos: str) -> Line:
    baseline = None if row.variant == _BASELINE else find_row(rows, _BASELINE)
    full = find_row(rows, Variant(row.variant.preset)) if row.variant.leave_out else None
    return Line(
        photos,
        row.variant.name,
        scores(row.measured, chosen),
        None if baseline is None else difference(row.measured, baseline.measured, chosen),
        None if full is None else difference(row.measured, full.measured, chosen),
    )


def _print_times(rows: Sequence[Row]) -> None:
    print_table(
        "Wall-clock seconds, one run each",
        ("row", "memories", "build", "score all test photographs"),
        [
            (row.variant.name, f"{row.memories:,}", f"{row.build_seconds:.1f}", f"{row.score_seconds:.1f}")
            for row in rows
        ],
    )


if __name__ == "__main__":
    typer.run(main)
