"""The paper's table 3 and figure 2 repeated: parts of ReSC left out, and fewer normals."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pydantic import TypeAdapter
from resad_client.records import INTENDED_USE
from resad_client.text import counted
from rich.table import Table

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.photos.listing import ReferencePhoto
from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.dataset import read_lesions
from lab.datasets.layouts import listed_csv
from lab.evaluate import Measurement, measure_dataset, metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.paper import FULL, PROTOCOLS, TABLE_3, WEIGHTS, FourFigures
from lab.evaluate.tables import empty_table, three_digits
from lab.report.pictures import usual_scale
from resad.config import MethodConfig, Part, PhotoLimits, preset, to_json, without
from resad.errors import SettingError, naming
from resad.loaded_index import LoadedIndex, load_index
from resad.photo import read_photo
from resad.pictures.overlay import under_map
from resad.preparation import prepare

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
class AblationOptions:
    """The experiment.  seeds: random subsets of the normals for each share of them."""

    dataset: Dataset
    config: MethodConfig
    weights: str
    device: torch.device
    seeds: int
    limits: PhotoLimits = PhotoLimits()


@dataclass(frozen=True, slots=True)
class Trial:
    """An index and its figures.  seed: of the random subset of normals; None for all.  photos: built from."""

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


def run(options: AblationOptions, stages: Stages) -> Iterator[tuple[Trial, LoadedIndex]]:
    """Build and measure every index of the table: first the full method, then without ReSC, then the rest.

    Raises `SettingError` for a data set without photographs to build from or without marks, and as `build`.
    """
    if len(options.dataset.train) < _FEWEST:
        raise SettingError(
            f"data set {options.dataset.name} has {counted(len(options.dataset.train), 'photograph')} to build "
            f"from; an ablation needs {_FEWEST} or more"
        )
    if options.seeds < 1:
        raise SettingError(f"--seeds {options.seeds}: must be 1 or more")
    for plan in _plans(options):
        loaded = _build(plan, options, stages)
        with stages.stage(f"measure, {plan.row}", len(options.dataset.test), "photos") as advance:
            measured = measure_dataset(loaded, options.dataset, options.limits, advance)
        yield Trial(plan.row, plan.seed, loaded.manifest.counts.photos, four_figures(measured)), loaded


def four_figures(measured: Measurement) -> FourFigures:
    """AUC and balanced accuracy of image scores and of pixels in the field of view; None without both classes."""
    labels, pixels = measured.labels, measured.fov
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
            metrics.pixel_auroc(pixels, fresh_generator(), _ONCE),
            metrics.pixel_balanced_accuracy(pixels, fresh_generator(), _ONCE),
        )
        if pixels.abnormal.any() and pixels.normal.any()
        else (None, None)
    )
    return FourFigures(*image, *pixel)


def _plans(options: AblationOptions) -> Iterator[_Plan]:
    normals = options.dataset.train
    yield _Plan(FULL, None, normals, options.config)
    for row, part in _PARTS:
        yield _Plan(row, None, normals, without(options.config, part))
    for share in _SHARES:
        for seed in range(options.seeds):
            yield _Plan(f"{share * 100:.0f} % of the normals", seed, _subset(normals, share, seed), options.config)


def _subset(photos: tuple[ReferencePhoto, ...], share: float, seed: int) -> tuple[ReferencePhoto, ...]:
    """`share` of the photographs at random, in list order; of one seed a smaller share is part of a larger one."""
    count = max(_FEWEST, round(share * len(photos)))
    order = np.random.default_rng(seed).permutation(len(photos))
    return tuple(photos[number] for number in sorted(order[:count].tolist()))


def _build(plan: _Plan, options: AblationOptions, stages: Stages) -> LoadedIndex:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv = folder / "normals.csv"
        csv.write_bytes(listed_csv(replace(options.dataset, train=plan.train, test=())))
        build_options = BuildOptions(
            csv, folder / "root", "ablation", plan.config, options.weights, options.device, limits=options.limits
        )
        return load_index(build(build_options, stages).version, options.device)


def _values(auc: Figure, acc: Figure) -> tuple[float, float]:
    return auc.value, acc.value


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: mean of its trials, standard deviation of several, and the paper's figures."""

    name: str
    photos: int
    trials: int
    mean: FourFigures
    spread: FourFigures | None
    paper: FourFigures | None


def summary(trials: Sequence[Trial], dataset: str) -> tuple[Row, ...]:
    """The measured rows of the table, in the paper's options."""
    rows = []
    for name in TABLE_3:
        row_trials = [trial for trial in trials if trial.row == name]
        if row_trials:
            figures = [trial.figures for trial in row_trials]
            spread = _by_column(figures, stdev) if len(figures) > 1 else None
            mean = _by_column(figures, fmean)
            rows.append(Row(name, row_trials[0].photos, len(row_trials), mean, spread, _paper(name, dataset)))
    return tuple(rows)


def differences(options: AblationOptions) -> tuple[str, ...]:
    """How this differs from the paper's experiment, a line each: with any, its figures cannot be expected."""
    lines = []
    if options.dataset.name not in PROTOCOLS:
        lines.append(f"data set {options.dataset.name} instead of IDRiD under the protocol idrid-paper")
    lines += options.dataset.deviations
    values, paper = (dict(_flat(json.loads(to_json(config)))) for config in (options.config, preset("paper")))
    lines += [f"{name} {value} instead of {paper[name]}" for name, value in values.items() if value != paper[name]]
    if options.weights != WEIGHTS:
        lines.append(f"weights {Path(options.weights).name} instead of {WEIGHTS}")
    return tuple(lines)


def _paper(row: str, dataset: str) -> FourFigures | None:
    """The paper's figures of a row: table 3 is of IDRiD; on ADAM the paper has only the full method."""
    if dataset == "adam-paper":
        return PROTOCOLS[dataset] if row == FULL else None
    return TABLE_3[row]


def _by_column(figures: Sequence[FourFigures], statistic: Callable[[Sequence[float]], float]) -> FourFigures:
    columns = zip(*(astuple(trial) for trial in figures), strict=True)
    return FourFigures(*(None if None in column else statistic(column) for column in columns))


def _flat(document: dict[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Pairs of SECTION.FIELD and value."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def ablation_table(rows: Sequence[Row], options: AblationOptions) -> Table:
    """Table 3 with mean and standard deviation of the trials above the paper's figures."""
    data = options.dataset
    normal = sum(not photo.abnormal for photo in data.test)
    title = f"{data.name}: {normal} normal and {len(data.test) - normal} abnormal photographs; in gray the paper"
    table = empty_table(title, "built from", "image AUC", "image ACC", "pixel AUC", "pixel ACC")
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
    return f"{three_digits(value)}{'' if spread is None else f' ±{spread:.3f}'}\n[dim]{three_digits(paper)}[/]"


_CELL: Final = 320
_GAP: Final = 8
_HEAD: Final = 34
_GROUND, _INK = (255, 255, 255), (29, 36, 48)
_TITLES: Final = ("photograph", "marked by hand", "map without ReSC", "map with ReSC")


def example_maps(
    dataset: Dataset, without_resc: LoadedIndex, with_resc: LoadedIndex, limits: PhotoLimits, count: int = 4
) -> Image.Image:
    """The paper's figure 2, RGB: a line per photograph with photograph, mask, map without and map with ReSC.

    Shows `count` of the test photographs with masks, evenly spaced in the list; maps are on their index's own
    scale. Raises `SettingError` where no test photograph has a mask.
    """
    marked = [photo for photo in dataset.test if photo.masks]
    if not marked:
        raise SettingError(f"data set {dataset.name} has no marked photographs to draw")
    numbers = np.unique(np.linspace(0, len(marked) - 1, min(count, len(marked))).round().astype(int))
    rows = [_row(marked[number], without_resc, with_resc, limits) for number in numbers]
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
    maps = [_gray_under_map(labeled, photo, loaded, limits) for loaded in (without_resc, with_resc)]
    return [photo, small.convert("RGB"), *maps]


def _gray_under_map(
    labeled: LabeledPhoto, photo: Image.Image, loaded: LoadedIndex, limits: PhotoLimits
) -> Image.Image:
    with naming(labeled.path):
        prepared = prepare(labeled.path, loaded.manifest.config.preparation, limits)
    anomaly_map = loaded.detector.detect([prepared])[0].anomaly_map
    values = prepared.frame.map_to_photo(anomaly_map, photo.width, photo.height)
    gray = photo.convert("L").convert("RGB")  # so that only the map has colors
    return under_map(np.asarray(gray), values, usual_scale(loaded.manifest.calibration))


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
