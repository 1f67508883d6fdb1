"""The experiment of the paper's table 3 on photographs of your own: without parts of ReSC, and with fewer normals.

Every trial is an index of its own, built as `build` builds it, in a folder that is deleted once it was measured.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import TypeAdapter

from indexer.build.build import BuildOrder, build
from indexer.build.progress import Stages
from indexer.photos.listing import ReferencePhoto
from lab.datasets import Dataset
from lab.datasets.listed import listed_csv
from lab.evaluate import Measured, measure_dataset, metrics
from lab.evaluate.bootstrap import Figure, fresh_generator
from lab.evaluate.paper import FULL, FourFigures
from resad.config import MethodConfig, Part, PhotoLimits, without
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex, load_index

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
        wanted = BuildOrder(
            listed, folder / "root", "ablation", plan.config, order.weights, order.device, limits=order.limits
        )
        return load_index(build(wanted, stages).version, order.device)


def _values(auc: Figure, acc: Figure) -> tuple[float, float]:
    return auc.value, acc.value
