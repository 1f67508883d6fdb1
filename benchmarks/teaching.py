"""What marks teach an index: kinds of findings named right, and false alarms gone, on photographs held out.

Run as `python -m benchmarks.teaching`; takes RESAD_DATA, and about six minutes on two cores.  IDRiD's test
photographs are parted into three folds: marks come from two, the third is measured.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.console import Console

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import data_set
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.lifecycle.teach import learn
from indexer.settings import method_config
from lab.commands.examples import mark_dataset, regions_of
from lab.datasets.dataset import LabeledPhoto
from lab.datasets.layouts import read_mvtec
from resad import runtime
from resad.backbone import default_weights
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.engine import Engine, ScoredPhoto, ScoreOptions
from resad.loaded_index import LoadedIndex, load_index
from resad.marks import NORMAL_VARIANT, Region, mark_photo

_STDERR: Final = Console(stderr=True)
_FOLDS: Final = 3
_RATES: Final = (0.25, 1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Named:
    """A finding that touches lesions of exactly one kind, and what it resembles, with the share of the votes."""

    rate: float
    kind: str
    resembles: str
    share: float


@dataclass(frozen=True, slots=True)
class Quieted:
    """Counts at a rate before and after false alarms were marked as normal variants, guarded by examples.

    others: findings on other healthy photographs.  again: findings on the marked ones, photographed again.
    touched: lesions, as regions of the masks, that a finding touches on diseased photographs that gave no example.
    """

    rate: float
    others: tuple[int, int]
    again: tuple[int, int]
    touched: tuple[int, int]


def main(
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 512,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Print the tables."""
    shared = shared_data()
    runtime.configure("exact")
    dataset = read_mvtec(data_set(shared))
    size = 128 if quick else size
    ill = [photo for photo in dataset.test if photo.masks]
    good = [photo for photo in dataset.test if not photo.abnormal]
    if quick:
        ill, good = ill[:6], good[:6]
    with tempfile.TemporaryDirectory() as root:
        config = method_config("resad", size=size)
        train = tuple(photo.path for photo in dataset.train)
        options = BuildOptions(
            train[0].parent,
            Path(root),
            "idrid",
            config,
            default_weights(config.backbone.name),
            torch.device("cpu"),
        )
        loaded = load_index(build(options, Stages(_STDERR)).version, torch.device("cpu"))
        place = Path(root) / "idrid"
        named = [
            entry
            for fold in range(_FOLDS)
            for entry in _named(place, loaded, _others(ill, fold), _held_out(ill, fold))
        ]
        quieted = [
            _quieted(place, loaded, good, ill, fold, rate, Path(root)) for rate in _RATES for fold in range(_FOLDS)
        ]
    print_header("What marks teach", f"size {size}; {len(ill)} diseased and {len(good)} healthy photographs")
    for rate in _RATES:
        _print_kinds(rate, [entry for entry in named if entry.rate == rate])
    print_table(
        "False alarms of two folds marked as normal variants, lesions of two as examples; the third measured",
        ["false regions", "findings on other healthy photographs", "on the marked ones again", "lesions touched"],
        [_sum(rate, [entry for entry in quieted if entry.rate == rate]) for rate in _RATES],
    )
    write_json(json, [*named, *quieted])


def _others(photos: Sequence[LabeledPhoto], fold: int) -> list[LabeledPhoto]:
    return [photo for number, photo in enumerate(photos) if number % _FOLDS != fold]


def _held_out(photos: Sequence[LabeledPhoto], fold: int) -> list[LabeledPhoto]:
    return list(photos[fold::_FOLDS])


def _taught(place: Path, loaded: LoadedIndex) -> LoadedIndex:
    """The index with the journal learned; the journal is deleted."""
    examples = learn(place, loaded).examples
    shutil.rmtree(place / "MARKS")
    return loaded.with_examples(examples)


def _named(
    place: Path, loaded: LoadedIndex, examples: Sequence[LabeledPhoto], held_out: Sequence[LabeledPhoto]
) -> list[Named]:
    mark_dataset(place, loaded, examples, "benchmark", PhotoLimits(), lambda _: None)
    engine = Engine(_taught(place, loaded))
    entries = []
    for photo in held_out:
        for rate in _RATES:
            scored = engine.score(photo.path, ScoreOptions(DecisionRule(false_regions=rate)))
            regions = regions_of(photo, scored.photo.frame, scored.photo.mask)
            for finding, mask in zip(scored.result.findings, _masks(scored), strict=True):
                kinds = [region.label for region in regions if (region.mask & mask).any()]
                if len(kinds) == 1 and finding.resembles is not None:
                    entries.append(Named(rate, kinds[0], finding.resembles.kind, finding.resembles.share))
    return entries


def _masks(scored: ScoredPhoto) -> list[NDArray[np.bool_]]:
    """The findings on the prepared square, bool (S, S) each, in their order."""
    from scipy import ndimage

    detection, result = scored.detection, scored.result
    level = result.normals.finding_level
    if level is None:
        return []
    above = detection.scored & (detection.anomaly_map.astype(np.float64) > level)
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    if not count:
        return []
    order = np.argsort(
        -np.asarray(ndimage.maximum(detection.anomaly_map, labels, range(1, count + 1))), kind="stable"
    )
    return [labels == order[number] + 1 for number in range(len(result.findings))]


def _quieted(
    place: Path,
    loaded: LoadedIndex,
    good: Sequence[LabeledPhoto],
    ill: Sequence[LabeledPhoto],
    fold: int,
    rate: float,
    scratch: Path,
) -> Quieted:
    options = ScoreOptions(DecisionRule(false_regions=rate))
    before = Engine(loaded)
    mark_dataset(place, loaded, _others(ill, fold), "benchmark", PhotoLimits(), lambda _: None)
    for photo in _others(good, fold):
        scored = before.score(photo.path, options)
        regions = [Region(NORMAL_VARIANT, mask) for mask in _masks(scored)]
        if regions:
            detection = scored.detection
            mark_photo(
                place, loaded.manifest, scored.photo, detection.patches, detection.patch_distances, regions, ""
            )
    engines = before, Engine(_taught(place, loaded))
    rng = np.random.default_rng(0)
    again = [_photographed_again(rng, photo.path, scratch) for photo in _others(good, fold)]
    others, marked = (
        _pair(sum(len(engine.score(path, options).result.findings) for path in paths) for engine in engines)
        for paths in ([photo.path for photo in _held_out(good, fold)], again)
    )
    touched = _pair(
        sum(_touched(engine.score(photo.path, options), photo) for photo in _held_out(ill, fold))
        for engine in engines
    )
    return Quieted(rate, others, marked, touched)


def _pair(values: Iterable[int]) -> tuple[int, int]:
    first, second = values
    return first, second


def _photographed_again(rng: np.random.Generator, path: Path, folder: Path) -> Path:
    """The photograph turned by up to 6 degrees, shifted, in other colors, a little blurred, as JPEG."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    x, y = rng.integers(-8, 9, 2).tolist()
    turned = picture.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, translate=(x, y))
    pixels = (np.asarray(turned).astype(np.float32) / 255) ** rng.uniform(0.88, 1.14) * rng.uniform(0.92, 1.08, 3)
    blurred = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(0, 0.6))
    )
    target = folder / f"{path.stem}-again.jpg"
    blurred.save(target, "JPEG", quality=85)
    return target


def _touched(scored: ScoredPhoto, photo: LabeledPhoto) -> int:
    """Lesions that a finding touches: connected regions of each kind on the prepared square."""
    from scipy import ndimage

    above = np.logical_or.reduce(_masks(scored) or [np.zeros_like(scored.photo.mask)])
    touched = 0
    for region in regions_of(photo, scored.photo.frame, scored.photo.mask):
        labels, _ = ndimage.label(region.mask, structure=np.ones((3, 3)))
        touched += len(set(np.unique(labels[above])) - {0})
    return touched


def _print_kinds(rate: float, entries: Sequence[Named]) -> None:
    kinds = sorted({entry.kind for entry in entries} | {entry.resembles for entry in entries})
    counts = Counter((entry.kind, entry.resembles) for entry in entries)
    rows = []
    for kind in kinds:
        total = sum(counts[kind, other] for other in kinds)
        right = f"{counts[kind, kind] / total:.0%}" if total else "-"
        rows.append([kind, *(str(counts[kind, other]) for other in kinds), right])
    print_table(
        f"Findings that touch one kind alone, at {rate:g} false regions: what they resemble",
        ["kind", *kinds, "right"],
        rows,
    )


def _sum(rate: float, entries: Sequence[Quieted]) -> list[str]:
    columns = [[getattr(entry, name) for entry in entries] for name in ("others", "again", "touched")]
    cells = (f"{sum(was for was, _ in pairs)} -> {sum(becomes for _, becomes in pairs)}" for pairs in columns)
    return [f"{rate:g}", *cells]


if __name__ == "__main__":
    typer.run(main)
