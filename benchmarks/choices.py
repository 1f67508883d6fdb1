"""Settings tried around the preset `resad` on IDRiD: ranked on the choosing half, printed for both halves.

Run as `python -m benchmarks.choices`; takes RESAD_DATA, and about a minute a row on two cores.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    measure,
    reporting_half,
    scores,
)
from indexer.datasets.mvtec import read_mvtec
from resad import runtime

_WHITENED: Final = ("resc.whitening=0.5", "resc.attention_scale=3", "score.smoothing=8")
_TRIED: Final = (
    _WHITENED,
    ("resc.whitening=0",),
    ("resc.whitening=0.5",),
    ("resc.whitening=0.5", "resc.attention_scale=3"),
    ("resc.region_radius=12",),
    ("resc.spatial=none",),
    ("search.neighbors=1",),
    ("score.smoothing=8",),
    ("score.kind=max",),
    ("score.share=0.003",),
    ("score.margin=0.02",),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row on one half, in JSON."""

    photos: str
    row: str
    scores: Scores
    less_resad: Difference | None


def main(quick: Quick = False, json: Json = None) -> None:
    """Try settings around the preset `resad`."""
    shared = shared_data()
    runtime.configure("exact")
    size, tried = (256, _TRIED[:1]) if quick else (512, _TRIED)
    print_header(
        "Settings tried around the preset resad, on IDRiD",
        f"ResNet-18 (ImageNet), size {size}, coreset {CORESET}.",
    )
    rows = []
    for variant in (Variant("resad"), *(Variant("resad", settings=one) for one in tried)):
        with tempfile.TemporaryDirectory() as root:
            rows.append(measure(variant, size, shared, Path(root)))
    reporting = reporting_half(read_mvtec(data_set(shared)))
    lines = _print_half("the choosing half", rows, ~reporting)
    lines += _print_half("the reporting half", rows, reporting)
    write_json(json, lines)


def _print_half(half: str, rows: list[Row], chosen: Chosen) -> list[Line]:
    photos = f"{half} ({count_of(rows[0].measured, chosen)})"
    full = rows[0].measured
    lines = [
        Line(
            photos,
            row.variant.name,
            scores(row.measured, chosen),
            difference(row.measured, full, chosen) if row is not rows[0] else None,
        )
        for row in rows
    ]
    print_table(
        f"AUROC and paired differences with 95 % intervals, {photos}",
        ("row", "image", "pixel, field of view", "image, less resad", "pixel fov, less resad"),
        [
            (line.row, interval(line.scores.image), interval(line.scores.fov), *cells(line.less_resad))
            for line in lines
        ],
    )
    return lines


if __name__ == "__main__":
    typer.run(main)
