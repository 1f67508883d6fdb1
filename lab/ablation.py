"""The paper's table 3 and figure 2 repeated: parts of ReSC left out, and fewer normals."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import TypeAdapter
from rich.table import Table

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.photos.listing import ReferencePhoto
from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.dataset import read_lesions
from lab.datasets.layouts import listed_csv
from lab.evaluate import Measured, measure_dataset, metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.paper import FULL, PROTOCOLS, TABLE_3, WEIGHTS, FourFigures
from lab.evaluate.tables import plain, titled
from resad.calibration import USUAL_RATE, threshold
from resad.config import MethodConfig, Part, PhotoLimits, preset, to_json, without
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex, load_index
from resad.photo import read_photo
from resad.pictures.overlay import colorize, faded, map_scale
from resad.preparation import prepare
from resad.result import INTENDED_USE

WITHOUT_RESC: Final = "without ReSC"
_PARTS: Final[tuple[tuple[str, Part], ...]] = (
    (WITHOUT_RESC, "resc"),
    ("without region module", "region"),
    ("without spatial module", "spatial"),
)
_SHARES: Final = (0.1, 0.4, 0.7)
_FEWEST: Final = 2
"""Photographs of an index."""
_ONCE: Final = 1
"""Resample: trials are compared by their spread, and need no interval of their own."""


@dataclass(frozen=True, slots=True)
class AblationOrder:
    """What is to be measured.  seeds: how many random choices of the normals stand for each share of them."""

    dataset: Dataset
    config: MethodConfig
    weights: str
    device: torch.device
    seeds: int
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class Trial:
    """One index, measured.  seed: of the choice of its normals; None for all.  photos: it was built from."""

    row: str
    seed: int | None
    photos: int
    figures: FourFigures


@dataclass(frozen=True, slots=True)
class _Plan:
    row: str
    seed: int | None
    train: tuple[ReferencePhoto, ...]
    config: MethodConfig


_TRIALS: Final = TypeAdapter(tuple[Trial, ...])


def trials_json(trials: Sequence[Trial]) -> bytes:
    """Every trial, as indented JSON."""
    return _TRIALS.dump_json(tuple(trials), indent=2) + b"\n"


def run(order: AblationOrder, stages: Stages) -> Iterator[tuple[Trial, LoadedIndex]]:
    """Build and measure every index of the table, the whole one first, the one without ReSC next.

    Raises `SettingError` for a data set without photographs to build from or without marks, and as `build`.
    """
    if len(order.dataset.train) < _FEWEST:
        raise SettingError(
            f"data set {order.dataset.name} has {len(order.dataset.train)} photographs to build from; "
            f"an ablation needs {_FEWEST} or more"
        )
    if order.seeds < 1:
        raise SettingError(f"--seeds {order.seeds}: must be 1 or more")
    for plan in _plans(order):
        loaded = _build(plan, order, stages)
        with stages.stage(f"measure, {plan.row}", len(order.dataset.test), "photos") as advance:
            measured = measure_dataset(loaded, order.dataset, order.limits, advance)
        yield Trial(plan.row, plan.seed, loaded.manifest.counts.photos, four_figures(measured)), loaded


def four_figures(measured: Measured) -> FourFigures:
    """Of image scores, and of pixels in the field of view of all photographs, as far as there are both classes."""
    labels, seen = measured.labels, measured.fov
    image = (
        _values(
            metrics.image_auroc(measured.scores, labels, fresh_generator(), _ONCE),
            metrics.balanced_accuracy(measured.scores, labels, fresh_generator(), _ONCE),
        )
        if labels.any() and not labels.all()
        else (None, None)
    )
    pixel = (
        _values(
            metrics.pixel_auroc(seen, fresh_generator(), _ONCE),
            metrics.pixel_balanced_accuracy(seen, fresh_generator(), _ONCE),
        )
        if seen.abnormal.any() and seen.normal.any()
        else (None, None)
    )
    return FourFigures(*image, *pixel)


def _plans(order: AblationOrder) -> Iterator[_Plan]:
    every = order.dataset.train
    yield _Plan(FULL, None, every, order.config)
    for row, part in _PARTS:
        yield _Plan(row, None, every, without(order.config, part))
    for share in _SHARES:
        for seed in range(order.seeds):
            yield _Plan(f"{share * 100:.0f} % of the normals", seed, _chosen(every, share, seed), order.config)


def _chosen(photos: tuple[ReferencePhoto, ...], share: float, seed: int) -> tuple[ReferencePhoto, ...]:
    """`share` of the photographs at random, in their order; of one seed the smaller is part of the larger."""
    count = max(_FEWEST, round(share * len(photos)))
    order = np.random.default_rng(seed).permutation(len(photos))
    return tuple(photos[number] for number in sorted(order[:count].tolist()))


def _build(plan: _Plan, order: AblationOrder, stages: Stages) -> LoadedIndex:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = folder / "normals.csv"
        listed.write_bytes(listed_csv(replace(order.dataset, train=plan.train, test=())))
        wanted = BuildOptions(
            listed, folder / "root", "ablation", plan.config, order.weights, order.device, limits=order.limits
        )
        return load_index(build(wanted, stages).version, order.device)


def _values(auc: Figure, acc: Figure) -> tuple[float, float]:
    return auc.value, acc.value


@dataclass(frozen=True, slots=True)
class Row:
    """The mean of a row's trials, their standard deviation where there are several, and what the paper has."""

    name: str
    photos: int
    trials: int
    mean: FourFigures
    spread: FourFigures | None
    paper: FourFigures | None


def summary(trials: Sequence[Trial], dataset: str) -> tuple[Row, ...]:
    """The rows of the table in the paper's order, those that were measured."""
    rows = []
    for name in TABLE_3:
        some = [trial for trial in trials if trial.row == name]
        if some:
            figures = [trial.figures for trial in some]
            spread = _each(figures, stdev) if len(figures) > 1 else None
            rows.append(Row(name, some[0].photos, len(some), _each(figures, fmean), spread, _paper(name, dataset)))
    return tuple(rows)


def differences(order: AblationOrder) -> tuple[str, ...]:
    """In what this is not the paper's experiment, a line each: its figures cannot be expected here."""
    lines = []
    if order.dataset.name not in PROTOCOLS:
        lines.append(f"data set {order.dataset.name} instead of IDRiD under the protocol idrid-paper")
    lines += order.dataset.deviations
    ours, theirs = (dict(_flat(json.loads(to_json(one)))) for one in (order.config, preset("paper")))
    lines += [f"{name} {value} instead of {theirs[name]}" for name, value in ours.items() if value != theirs[name]]
    if order.weights != WEIGHTS:
        lines.append(f"weights {Path(order.weights).name} instead of {WEIGHTS}")
    return tuple(lines)


def _paper(row: str, dataset: str) -> FourFigures | None:
    """Table 3 is of IDRiD; of ADAM the paper has the whole method alone."""
    if dataset == "adam-paper":
        return PROTOCOLS[dataset] if row == FULL else None
    return TABLE_3[row]


def _each(figures: Sequence[FourFigures], of: Callable[[Sequence[float]], float]) -> FourFigures:
    columns = (
        [one.image_auc for one in figures],
        [one.image_acc for one in figures],
        [one.pixel_auc for one in figures],
        [one.pixel_acc for one in figures],
    )
    return FourFigures(*(_of(column, of) for column in columns))


def _of(column: Sequence[float | None], of: Callable[[Sequence[float]], float]) -> float | None:
    values = [value for value in column if value is not None]
    return of(values) if len(values) == len(column) else None


def _flat(document: dict[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Section.field and value, in their order."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def ablation_table(rows: Sequence[Row], order: AblationOrder) -> Table:
    """The paper's table 3 with the figures of here, mean and standard deviation, above the paper's own."""
    data = order.dataset
    normal = sum(not photo.abnormal for photo in data.test)
    title = f"{data.name}: {normal} normal and {len(data.test) - normal} abnormal photographs; in gray the paper"
    table = titled(title, "built from", "image AUC", "image ACC", "pixel AUC", "pixel ACC")
    for row in rows:
        times = f", {row.trials} times" if row.trials > 1 else ""
        paper, spread = row.paper or _NOTHING, row.spread or _NOTHING
        table.add_row(
            f"{row.name}\n[dim]({row.photos}{times})[/]",
            _measured(row.mean.image_auc, spread.image_auc, paper.image_auc),
            _measured(row.mean.image_acc, spread.image_acc, paper.image_acc),
            _measured(row.mean.pixel_auc, spread.pixel_auc, paper.pixel_auc),
            _measured(row.mean.pixel_acc, spread.pixel_acc, paper.pixel_acc),
        )
    return table


_NOTHING: Final = FourFigures(None, None, None, None)


def _measured(value: float | None, spread: float | None, paper: float | None) -> str:
    return f"{plain(value)}{'' if spread is None else f' ±{spread:.3f}'}\n[dim]{plain(paper)}[/]"


_CELL: Final = 320
_GAP: Final = 8
_HEAD: Final = 34
_GROUND, _INK = (255, 255, 255), (29, 36, 48)
_TITLES: Final = ("photograph", "marked by hand", "map without ReSC", "map with ReSC")


def qualitative(
    dataset: Dataset, without_resc: LoadedIndex, with_resc: LoadedIndex, limits: PhotoLimits, count: int = 4
) -> Image.Image:
    """`count` of the marked test photographs, evenly chosen, RGB; each index's maps on its own absolute scale.

    Raises `SettingError` if none is marked.
    """
    marked = [photo for photo in dataset.test if photo.masks]
    if not marked:
        raise SettingError(f"data set {dataset.name} has no marked photographs to draw")
    places = np.unique(np.linspace(0, len(marked) - 1, min(count, len(marked))).round().astype(int))
    rows = [_row(marked[place], without_resc, with_resc, limits) for place in places]
    return _composed(rows)


def _row(
    labeled: LabeledPhoto, without_resc: LoadedIndex, with_resc: LoadedIndex, limits: PhotoLimits
) -> list[Image.Image]:
    with naming(labeled.path):
        pixels = read_photo(labeled.path, limits).pixels
    height = round(_CELL * pixels.shape[0] / pixels.shape[1])
    photo = Image.fromarray(pixels).resize((_CELL, height), Image.Resampling.LANCZOS)
    lesions = read_lesions(labeled.masks, pixels.shape[0], pixels.shape[1])
    mask = Image.fromarray(np.logical_or.reduce(list(lesions.values()))).convert("L")
    small = mask.resize((_CELL, height), Image.Resampling.BOX).point(lambda share: min(255, 3 * share))
    maps = [_under_map(labeled, photo, loaded, limits) for loaded in (without_resc, with_resc)]
    return [photo, small.convert("RGB"), *maps]


def _under_map(labeled: LabeledPhoto, photo: Image.Image, loaded: LoadedIndex, limits: PhotoLimits) -> Image.Image:
    with naming(labeled.path):
        prepared = prepare(labeled.path, loaded.manifest.config.preparation, limits)
    dense = loaded.detector.detect([prepared])[0].anomaly_map
    values = prepared.frame.map_to_photo(dense, photo.width, photo.height)
    calibration = loaded.manifest.calibration
    level = threshold(calibration.peaks, USUAL_RATE).value
    colors = Image.fromarray(colorize(values, map_scale(calibration, level)))
    picture = photo.convert("L").convert("RGB")  # gray: the map's colors are then the only ones
    picture.paste(colors, (0, 0), faded(colors))
    return picture


def _composed(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    height = sum(row[0].height + _GAP for row in rows)
    width = len(_TITLES) * (_CELL + _GAP) + _GAP
    canvas = Image.new("RGB", (width, height + 2 * _HEAD), _GROUND)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=17)
    for place, title in enumerate(_TITLES):
        middle = _GAP + place * (_CELL + _GAP) + _CELL / 2
        draw.text((middle, _HEAD / 2), title, _INK, font, anchor="mm")
    top = _HEAD
    for row in rows:
        for place, picture in enumerate(row):
            canvas.paste(picture, (_GAP + place * (_CELL + _GAP), top))
        top += row[0].height + _GAP
    note = (
        f"Each map on its own index's scale, from healthy patches' level to the highest of theirs. {INTENDED_USE}"
    )
    draw.text((_GAP, top + _HEAD / 2 - _GAP), note, _INK, ImageFont.load_default(size=14), anchor="lm")
    return canvas
