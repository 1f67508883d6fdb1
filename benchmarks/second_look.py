"""What a second look at a photograph gains, and how much of it the mirror image explains.

Each patch takes the nearer of its distances in the photograph and in a second look at it: the mirror image, as the
preset `resad` does, or one that is no eye's mirror image, as a control.  One memory bank for all rows.

Run as `python -m benchmarks.second_look`; takes RESAD_DATA, and about ten minutes on two cores.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import (
    CORESET,
    Chosen,
    Difference,
    Scores,
    Variant,
    build_index,
    cells,
    count_of,
    data_set,
    difference,
    reporting_half,
    scores,
)
from indexer.datasets.mvtec import read_mvtec
from indexer.evaluate import Measured, measure_with
from resad import runtime
from resad.config import PhotoLimits
from resad.detector import Detection, measure
from resad.encoder import Encoder, PatchFeatures
from resad.loaded_index import LoadedIndex
from resad.preparation import PreparedPhoto

Turn = Callable[[NDArray[np.generic]], NDArray[np.generic]]
_SHIFT: Final = 4
"""px: half a patch of the finest stage, so that cells stay where they are."""


@dataclass(frozen=True, slots=True)
class Look:
    """turn: of (y, x, ...) arrays, in pixels.  back: the same on the patch grid, undone."""

    name: str
    turn: Turn
    back: Turn


LOOKS: Final = (
    Look("mirror image", lambda a: a[:, ::-1], lambda a: a[:, ::-1]),
    Look("upside down", lambda a: a[::-1], lambda a: a[::-1]),
    Look("half a turn", lambda a: a[::-1, ::-1], lambda a: a[::-1, ::-1]),
    Look(f"shifted by {_SHIFT} px", lambda a: np.roll(a, (_SHIFT, _SHIFT), (0, 1)), lambda a: a),
)
_ONE_LOOK: Final = ("search.mirrored=false",)
_INDEXES: Final = (
    Variant("resad", settings=_ONE_LOOK),
    Variant("resad", settings=_ONE_LOOK, backbone="bundled", weights="bundled"),
)
"""Of ResNet-18 and of the trunk of the package."""


@dataclass(frozen=True, slots=True)
class Line:
    """A row on some of the photographs, in JSON."""

    photos: str
    trunk: str
    look: str
    scores: Scores
    less_none: Difference | None
    mirror_less_this: Difference | None


def main(quick: Quick = False, json: Json = None) -> None:
    """Compare second looks at IDRiD's test photographs."""
    shared = shared_data()
    runtime.configure("exact")
    size, looks = (256, LOOKS[:2]) if quick else (512, LOOKS)
    print_header(
        "What a second look gains",
        f"preset resad, stages 2 and 3, size {size} (the files are 512 px), coreset {CORESET}, exact; each patch "
        "takes the nearer of both looks.",
    )
    lines = []
    for variant in _INDEXES[1:] if quick else _INDEXES:
        with tempfile.TemporaryDirectory() as root:
            loaded = build_index(variant, size, shared, Path(root))
        measured = {"none": _measured(loaded, None, shared)}
        measured |= {look.name: _measured(loaded, look, shared) for look in looks}
        reporting = reporting_half(read_mvtec(data_set(shared)))
        for part, chosen in (("the reporting half", reporting), ("all test photographs", np.ones_like(reporting))):
            lines += _print_part(part, variant.backbone, measured, chosen)
    write_json(json, lines)


def second(encoder: Encoder, photo: PreparedPhoto, look: Look) -> PatchFeatures:
    """The photograph's features, with those of the second look as its mirror image's.

    A cell that the second look does not see keeps the first one's.
    """
    turned = replace(
        photo,
        pixels=np.ascontiguousarray(look.turn(photo.pixels)),
        mask=np.ascontiguousarray(look.turn(photo.mask)),
    )
    first, other = encoder.encode([photo])[0], encoder.encode([turned])[0]
    rows = np.full(first.grid, -1)
    rows[tuple(other.cells.T)] = np.arange(len(other.cells))
    found = look.back(rows)[tuple(first.cells.T)]
    features = np.where((found >= 0)[:, None], other.features[found], first.features)
    return replace(first, mirrored=features)


def _measured(loaded: LoadedIndex, look: Look | None, shared: Path) -> Measured:
    detector, config = loaded.detector, loaded.manifest.config

    def detect(photo: PreparedPhoto) -> Detection:
        if look is None:
            return detector.detect([photo])[0]
        return measure(second(detector.encoder, photo, look), photo.mask, detector.bank, config)

    scale = loaded.manifest.calibration.full_scale
    dataset = read_mvtec(data_set(shared))
    return measure_with(detect, config.preparation, scale, dataset, PhotoLimits(), lambda _: None)


def _print_part(part: str, trunk: str, measured: dict[str, Measured], chosen: Chosen) -> list[Line]:
    photos = f"{part} ({count_of(measured['none'], chosen)})"
    mirror = measured[LOOKS[0].name]
    lines = [
        Line(
            photos, trunk, name, scores(one, chosen),
            None if name == "none" else difference(one, measured["none"], chosen),
            None if one is mirror else difference(mirror, one, chosen),
        )
        for name, one in measured.items()
    ]  # fmt: skip
    print_table(
        f"{trunk}: AUROC with 95 % intervals, {photos}",
        ("second look", "image", "pixel, field of view", "image, less none", "pixel fov, less none",
         "image, mirror less this"),
        [
            (line.look, interval(line.scores.image), interval(line.scores.fov), *cells(line.less_none),
             cells(line.mirror_less_this)[0])
            for line in lines
        ],
    )  # fmt: skip
    return lines


if __name__ == "__main__":
    typer.run(main)
