"""One row of an accuracy table: an index of IDRiD's healthy photographs, measured on its test photographs.

The test photographs are split by content hash: settings are chosen on one half and reported on the other.  The
half that a photograph falls into depends on its own bytes alone.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks._bench import interval
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.datasets import Dataset
from lab.datasets.layouts import read_mvtec
from lab.evaluate import Measurement, measure_dataset, metrics
from lab.evaluate.bootstrap import Figure
from resad.backbone import load_backbone
from resad.config import MethodConfig, Part, PhotoLimits, Preset
from resad.encoder import Encoder, Trunk
from resad.loaded_index import LoadedIndex, load_index
from resad.preparation import PreparedPhoto, prepare

CORESET: Final = "0.02"
_SEED: Final = 0
"""Of every bootstrap, so that all figures see the same resampled photographs."""
_STDERR: Final = Console(stderr=True)

Chosen = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Variant:
    """A row: a preset, perhaps less a part of ReSC, perhaps with some settings changed or on another trunk.

    weights: as on the command line; none are the shared ones of ResNet-18.
    """

    preset: Preset
    leave_out: tuple[Part, ...] = ()
    settings: tuple[str, ...] = ()
    backbone: str = "resnet18"
    weights: str | None = None

    @property
    def name(self) -> str:
        """As typed on the command line; `color` is no trunk."""
        if self.backbone == "color":
            return self.backbone
        trunk = [] if self.weights is None else [f"--backbone {self.backbone} --weights {self.weights}"]
        parts = [f"--without {part}" for part in self.leave_out] + [
            f"--set {setting}" for setting in self.settings
        ]
        return " ".join([self.preset, *trunk, *parts])


DEFAULT: Final = Variant("resad", backbone="bundled", weights="bundled")
"""What `build` does without options."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one row on some of the photographs."""

    image: Figure
    fov: Figure
    whole: Figure


@dataclass(frozen=True, slots=True)
class Difference:
    """One row less another, on the same resampled photographs."""

    image: Figure
    fov: Figure


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What was measured.  Seconds: wall clock."""

    variant: Variant
    measured: Measurement
    memories: int
    build_seconds: float
    score_seconds: float


def data_set(shared: Path) -> Path:
    """The folder of IDRiD at 512 px, in MVTec's layout."""
    return shared / "data" / "idrid-512"


def config_of(variant: Variant, size: int) -> MethodConfig:
    """The settings of a row.  The bundled trunk has its own share of memories, as its grid is finer."""
    return method_config(
        variant.preset,
        backbone=variant.backbone,
        size=size,
        coreset=None if variant.backbone == "bundled" else CORESET,
        settings=variant.settings,
        leave_out=variant.leave_out,
    )


def healthy(shared: Path, size: int, preset: Preset = "resad", count: int | None = None) -> list[PreparedPhoto]:
    """The first `count` healthy training photographs (or all), prepared."""
    preparation = config_of(Variant(preset), size).preparation
    paths = sorted((data_set(shared) / "train" / "good").glob("*.jpg"))[:count]
    return [prepare(path, preparation, PhotoLimits()) for path in paths]


def encoder_for(shared: Path, size: int, preset: Preset = "resad") -> Encoder:
    """ResNet-18 and the settings of `preset`, on the CPU."""
    config = config_of(Variant(preset), size)
    weights = shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors"
    trunk = Trunk(load_backbone(config.backbone, str(weights)), config, torch.device("cpu"))
    return Encoder(trunk)


def build_index(variant: Variant, size: int, shared: Path, root: Path) -> LoadedIndex:
    """Build the row's index below `root` from the healthy training photographs, and load it."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    weights = variant.weights or str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors")
    photos = data_set(shared) / "train" / "good"
    order = BuildOptions(photos, root, "idrid", config_of(variant, size), weights, device)
    return load_index(build(order, Stages(_STDERR)).version, device)


def measure(variant: Variant, size: int, shared: Path, root: Path) -> Row:
    """Build the row's index in the empty folder `root`, and measure it on all test photographs."""
    _STDERR.print(f"{variant.name}", style="bold")
    began = time.perf_counter()
    loaded = build_index(variant, size, shared, root)
    built = time.perf_counter()
    dataset = read_mvtec(data_set(shared))
    measured = measure_dataset(loaded, dataset, PhotoLimits(), lambda _: None)
    scored = time.perf_counter()
    return Row(variant, measured, loaded.manifest.counts.memories, built - began, scored - built)


def reporting_half(dataset: Dataset) -> Chosen:
    """bool (n,): the test photographs whose SHA-256 is odd; the even ones are there to choose settings on."""
    hashes = [hashlib.sha256(photo.path.read_bytes()).digest() for photo in dataset.test]
    return np.array([digest[-1] % 2 == 1 for digest in hashes])


def count_of(measured: Measurement, chosen: Chosen) -> str:
    """`24 photographs: 9 normal, 15 with lesions`."""
    labels = measured.labels[chosen]
    return f"{labels.size} photographs: {int((~labels).sum())} normal, {int(labels.sum())} with lesions"


def scores(measured: Measurement, chosen: Chosen) -> Scores:
    """Image and pixel AUROC over the `chosen` photographs."""
    part = measured.only(chosen)
    return Scores(
        image=metrics.image_auroc(part.scores, part.labels, _generator()),
        fov=metrics.pixel_auroc(part.fov, _generator()),
        whole=metrics.pixel_auroc(part.whole, _generator()),
    )


def difference(a: Measurement, b: Measurement, chosen: Chosen) -> Difference:
    """`a` less `b` over the `chosen` photographs."""
    part_a, part_b = a.only(chosen), b.only(chosen)
    return Difference(
        image=metrics.paired_difference(part_a.scores, part_b.scores, part_a.labels, _generator()),
        fov=metrics.paired_pixel_difference(part_a.fov, part_b.fov, _generator()),
    )


def cells(less: Difference | None) -> tuple[str, str]:
    """A difference as two cells of a table."""
    return ("-", "-") if less is None else (interval(less.image, signed=True), interval(less.fov, signed=True))


def find_row(rows: Sequence[Row], variant: Variant) -> Row | None:
    """The row of `variant`, if it was measured."""
    return next((row for row in rows if row.variant == variant), None)


def _generator() -> np.random.Generator:
    return np.random.default_rng(_SEED)
