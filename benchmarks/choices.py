"""Settings tried around the preset `resad` on IDRiD: ranked on the choosing half, printed for both halves.

Run as `python -m benchmarks.choices`; takes RESAD_DATA, and about a minute a row on two cores.
"""

import tempfile
from pathlib import Path
from typing import Final

import typer

from benchmarks._bench import Json, Quick, print_header, shared_data, write_json
from benchmarks._comparison import print_comparison
from benchmarks._idrid import (
    CORESET,
    Variant,
    data_set,
    measure,
    reporting_half,
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
    ("search.mirrored=false",),
    ("score.smoothing=8",),
    ("score.kind=max",),
    ("score.share=0.003",),
    ("score.margin=0.02",),
)


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
    lines = print_comparison("the choosing half", rows, ~reporting, "resad")
    lines += print_comparison("the reporting half", rows, reporting, "resad")
    write_json(json, lines)


if __name__ == "__main__":
    typer.run(main)
