"""The bundled trunk and its levels beside other trunks, on one camera, a second camera, or many cameras.

Run as `python -m benchmarks.trunk --data idrid`, `heimed` or `cameras`; takes RESAD_DATA, and one to five minutes
a row on two cores.  Every row builds its own index from the set's healthy photographs.
"""

import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import Chosen, reporting_half
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.layouts import read_mvtec
from lab.evaluate import Measurement, bootstrap, froc, measure_dataset, metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.figures import calibrated
from lab.evaluate.froc import FrocPoint
from resad import runtime
from resad.backbone import default_weights
from resad.calibration import threshold
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex, load_index

_STDERR: Final = Console(stderr=True)
_TEXTURE_ONLY: Final = ("resc.levels=[]", "backbone.stages=[2,3]", "search.mirrored=true")
_FROC_RATES: Final = (0.25, 1.0, 4.0)
_LARGE: Final = 64
_RATE: Final = 0.05


@dataclass(frozen=True, slots=True)
class TrunkRow:
    """A row: settings on the command line.  weights: a file below RESAD_DATA, or the trunk's own."""

    name: str
    backbone: str | None = None
    settings: tuple[str, ...] = ()
    preset: Literal["resad", "patchcore"] = "resad"
    weights: str | None = None


_RESNET: Final = "weights/resnet18-imagenet1k_v1-trunk.safetensors"
_FINE: Final = '{"scale":"constant","region":false,"spatial":false}'
_LIGHT: Final = '{"weight":100,"region":true,"spatial":false}'
_PLAIN: Final = '{"weight":150,"region":false,"spatial":false}'
_BOTH: Final = '{"weight":1500,"region":true,"spatial":true}'
_ROWS: Final = (
    TrunkRow("default"),
    TrunkRow("texture features alone (the default before)", "bundled", _TEXTURE_ONLY),
    TrunkRow(
        "lesion features alone", settings=("resc.levels=[]", "backbone.stages=[1]", f"resc.levels=[{_FINE}]")
    ),
    TrunkRow("default, texture of weight 100", settings=(f"resc.levels=[{_FINE},{_LIGHT},{_LIGHT}]",)),
    TrunkRow("default, texture without region filter", settings=(f"resc.levels=[{_FINE},{_PLAIN},{_PLAIN}]",)),
    TrunkRow("default, texture with region and attention", settings=(f"resc.levels=[{_FINE},{_BOTH},{_BOTH}]",)),
    TrunkRow("default, mirror images searched", settings=("search.mirrored=true",)),
    TrunkRow("ResNet-18", "resnet18", weights=_RESNET),
    TrunkRow("ResNet-18, patchcore", "resnet18", preset="patchcore", weights=_RESNET),
)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A row's index measured.  seconds: from file to detection, a photograph."""

    row: TrunkRow
    loaded: LoadedIndex
    measurement: Measurement
    seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the tables, in JSON."""

    photos: str
    row: str
    kind: str
    image: Figure
    less_first: Figure | None
    abnormal_above: Figure | None
    normal_above: Figure | None
    specificity_at_95: Figure
    pixel_auroc: Figure | None
    pixel_precision: Figure | None
    milliseconds: float
    bank_bytes: int


def main(
    data: Annotated[str, typer.Option(help="idrid, heimed or cameras.")] = "idrid",
    part: Annotated[str, typer.Option(help="Of idrid: all, choosing or reporting photographs.")] = "all",
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 512,
    weights: Annotated[str | None, typer.Option(help="Weights of the bundled trunk, as for build.")] = None,
    rows: Annotated[int, typer.Option(help="Measure the first so many rows.")] = len(_ROWS),
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Compare trunks and levels on real photographs."""
    shared = shared_data()
    runtime.configure("exact")
    dataset = data_set(shared, data)
    if quick:
        size, rows = 128, 2
        dataset = Dataset(dataset.name, dataset.train[:20], (*dataset.test[:4], *dataset.test[-4:]))
    settings = f"{len(dataset.train)} healthy photographs, {size} px, exact"
    print_header(
        f"Trunks and levels: {data}", f"{settings}; coreset 0.002 at stride 4, at most 1,300; 0.02 at stride 8."
    )
    measured = []
    for row in _ROWS[:rows]:
        with tempfile.TemporaryDirectory() as root:
            measured.append(_measure(row, dataset, size, weights, shared, Path(root)))
    chosen = _part(dataset, part)
    lines = [line for kind in _kinds(dataset) for line in _print_kind(measured, dataset, kind, chosen, part)]
    if any(photo.masks for photo in dataset.test):
        for entry in measured:
            _print_froc(entry, chosen)
    write_json(json, lines)


def data_set(shared: Path, name: str) -> Dataset:
    """A set of real photographs; `cameras` has labels of photographs and no masks."""
    match name:
        case "idrid":
            return read_mvtec(shared / "data/idrid-512")
        case "heimed":
            return read_mvtec(shared / "data/heimed-784")
        case "cameras":
            return _many_cameras(shared / "data/cameras-400")
        case _:
            raise SettingError(f"--data {name!r}: expected idrid, heimed or cameras")


def _many_cameras(folder: Path) -> Dataset:
    from indexer.photos.listing import ReferencePhoto

    with (folder / "normals.csv").open(newline="") as file:
        normals = list(csv.DictReader(file))
    train = tuple(
        ReferencePhoto(folder / row["path"], patient=row["patient"]) for row in normals if row["split"] == "train"
    )
    test = [LabeledPhoto(folder / row["path"], False, "good") for row in normals if row["split"] == "test"]
    for kind in ("cataract", "glaucoma", "diabetic_retinopathy"):
        test += [LabeledPhoto(path, True, kind) for path in sorted((folder / kind).iterdir())]
    return Dataset("cameras", train, tuple(test))


def _measure(
    row: TrunkRow, dataset: Dataset, size: int, weights: str | None, shared: Path, root: Path
) -> Measured:
    _STDERR.print(row.name, style="bold")
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    # A grid at stride 8 has a quarter of the patches.
    fine = row.backbone is None
    coreset = None if fine else "0.02"
    config = method_config(row.preset, backbone=row.backbone, size=size, coreset=coreset, settings=row.settings)
    trunk_weights = weights or default_weights(config.backbone.name)
    listed = root / "train.csv"
    with listed.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "patient"))
        writer.writerows((photo.path, photo.patient or "") for photo in dataset.train)
    file_of_weights = str(shared / row.weights) if row.weights else trunk_weights
    options = BuildOptions(listed, root, "trunk", config, file_of_weights, device)
    loaded = load_index(build(options, Stages(_STDERR)).version, device)
    began = time.perf_counter()
    measurement = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    return Measured(row, loaded, measurement, (time.perf_counter() - began) / len(dataset.test))


def _part(dataset: Dataset, part: str) -> Chosen:
    if part == "all":
        return np.ones(len(dataset.test), np.bool_)
    return reporting_half(dataset) if part == "reporting" else ~reporting_half(dataset)


def _kinds(dataset: Dataset) -> list[str]:
    """`any`, and each kind if there are several."""
    kinds = sorted({photo.kind for photo in dataset.test if photo.abnormal})
    return ["any", *kinds] if len(kinds) > 1 else ["any"]


def _print_kind(
    measured: Sequence[Measured], dataset: Dataset, kind: str, chosen: Chosen, part: str
) -> list[Line]:
    of_kind = np.array([not photo.abnormal or kind in ("any", photo.kind) for photo in dataset.test])
    keep = chosen & of_kind
    labels = measured[0].measurement.labels[keep]
    photos = f"{part} photographs, {kind}: {int((~labels).sum())} normal, {int(labels.sum())} abnormal"
    lines = [_line(entry, measured[0], keep, photos, kind) for entry in measured]
    print_table(
        f"Images, {photos}",
        ("row", "AUROC", "less the first", "abnormal above 5 %", "normal above 5 %", "specificity at 95 %", "ms",
         "bank, MB"),
        [
            (
                line.row, interval(line.image), _cell(line.less_first, signed=True), _cell(line.abnormal_above),
                _cell(line.normal_above), interval(line.specificity_at_95), f"{line.milliseconds:.0f}",
                f"{line.bank_bytes / 1e6:.1f}",
            )
            for line in lines
        ],
    )  # fmt: skip
    if lines[0].pixel_auroc is not None:
        print_table(
            f"Pixels in the field of view, {photos}",
            ("row", "AUROC", "average precision"),
            [(line.row, _cell(line.pixel_auroc), _cell(line.pixel_precision)) for line in lines],
        )
    return lines


def _line(entry: Measured, first: Measured, keep: Chosen, photos: str, kind: str) -> Line:
    part = entry.measurement.only(keep)
    limit = threshold(entry.loaded.manifest.calibration.scores, _RATE).value
    stated = None if limit is None else calibrated(part, limit)
    specificity = None if stated is None else stated.specificity
    has_masks = part.fov.abnormal.any()
    base = first.measurement.only(keep)
    less = metrics.paired_difference(part.scores, base.scores, part.labels, fresh_generator())
    memories = entry.loaded.detector.bank.memories
    return Line(
        photos=photos,
        row=entry.row.name,
        kind=kind,
        image=metrics.image_auroc(part.scores, part.labels, fresh_generator()),
        less_first=None if entry is first else less,
        abnormal_above=None if stated is None else stated.sensitivity,
        normal_above=None
        if specificity is None
        else Figure(1 - specificity.value, 1 - specificity.high, 1 - specificity.low),
        specificity_at_95=metrics.specificity_at(part.scores, part.labels, 0.95, fresh_generator()),
        pixel_auroc=metrics.pixel_auroc(part.fov, fresh_generator()) if has_masks else None,
        pixel_precision=metrics.pixel_average_precision(part.fov, fresh_generator()) if has_masks else None,
        milliseconds=1e3 * entry.seconds,
        bank_bytes=memories.nbytes,
    )


def _print_froc(entry: Measured, chosen: Chosen) -> None:
    part = entry.measurement.only(chosen)
    levels = entry.loaded.manifest.calibration.finding_levels
    result = froc.froc(part.lesion_regions, part.labels, levels, bootstrap.RESAMPLES)
    if result is None:
        return
    points = [(rate, result.at(rate)) for rate in _FROC_RATES]
    names = [group.name for group in result.points[0].lesions] if result.points else []
    print_table(
        f"Lesions touched at false regions per healthy photograph, {entry.row.name}",
        ("lesions", *(f"{rate:g}" for rate, _ in points)),
        [(name, *(_touched(point, name) for _, point in points)) for name in names],
    )
    print_table(
        f"Diseased photographs with a lesion touched, {entry.row.name}",
        ("lesions", *(f"{rate:g}" for rate, _ in points)),
        [(name, *(_touched(point, name, photos=True) for _, point in points)) for name in names],
    )
    print_table(
        f"The index's own levels, {entry.row.name}",
        ("stated rate", "false regions measured", f"lesions of {_LARGE} px and more touched"),
        [
            (f"{point.rate:g}", _cell(point.false_regions), _touched(point, f"all lesions, {_LARGE} px+"))
            for point in result.index_levels
        ],
    )


def _touched(point: FrocPoint | None, name: str, *, photos: bool = False) -> str:
    group = next((group for group in point.lesions if group.name == name), None) if point else None
    if group is None:
        return "-"
    figure = group.photos_touched if photos else group.touched
    return f"{figure.value:.0%} ({figure.low:.0%} to {figure.high:.0%})"


def _cell(figure: Figure | None, *, signed: bool = False) -> str:
    return "-" if figure is None else interval(figure, signed=signed)


if __name__ == "__main__":
    typer.run(main)
