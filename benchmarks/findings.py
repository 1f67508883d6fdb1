"""How many of the lesions that experts marked the findings touch, and how many of the findings touch a lesion.

Run as `python -m benchmarks.findings`; takes RESAD_DATA, and `--index` for an index that is there.  Findings
are taken as a caller gets them: their polygons, filled, in the photograph's own px.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from benchmarks._bench import Json, Quick, interval, print_header, print_table, shared_data, write_json
from benchmarks._idrid import CORESET, Variant, build_index, data_set
from indexer.bootstrap import Figure
from indexer.datasets.masks import read_mask
from resad import runtime
from resad.answer import assemble
from resad.config import PhotoLimits
from resad.loaded_index import LoadedIndex, load_index
from resad.preparation import prepare
from resad.result import Finding, Timings
from resad.verdict import Rule

_LESIONS: Final = {"MA": "microaneurysms", "HE": "hemorrhages", "EX": "hard exudates", "SE": "soft exudates"}
_RATES: Final = (0.05, 0.1, 0.25)
_SAMPLES: Final = 2000
_LARGE: Final = 64
"""px at 512 x 512: a patch of the grid; smaller lesions are microaneurysms and dots."""

Mask = NDArray[np.bool_]
Index = Annotated[Path | None, typer.Option(help="ROOT/NAME of an index to measure; one is built unless given.")]


@dataclass(frozen=True, slots=True)
class Counts:
    """Lesions of one kind in one photograph.

    marked: connected regions of the mask.  touched: of these, those that some finding's polygon reaches.
    area, covered: px of the mask, and of these the ones inside findings.
    """

    marked: int
    touched: int
    area: int
    covered: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One photograph at one rate.

    lesions: by kind, and `large` (of any kind, `_LARGE` px or more).  findings, on_lesion: how many there are, and
    touch a lesion of any kind.  by_kind: and of each kind.  by_chance: how many would if they lay mirrored upside
    down, left to right, and both: the sum of the three.
    """

    photo: str
    diseased: bool
    rate: float
    lesions: dict[str, Counts]
    findings: int
    on_lesion: int
    by_kind: dict[str, int]
    by_chance: int


def main(quick: Quick = False, json: Json = None, index: Index = None) -> None:
    """Recall and precision of findings on IDRiD's diseased photographs, lesion by lesion."""
    shared = shared_data()
    runtime.configure("exact")
    size = 256 if quick else 512
    with tempfile.TemporaryDirectory() as root:
        device = runtime.pick_device("auto")
        loaded = load_index(index, device) if index else build_index(Variant("resad"), size, shared, Path(root))
        config = loaded.manifest.config
        print_header(
            "Findings against lesions marked by hand, IDRiD",
            f"{loaded.manifest.counts.photos} healthy photographs, {config.backbone.name}, "
            f"size {config.preparation.size}, coreset {CORESET if index is None else 'of the index'}.",
        )
        folder = data_set(shared) / "test"
        diseased, healthy = (sorted((folder / kind).glob("*.jpg")) for kind in ("lesion", "good"))
        some = (2, 1) if quick else (len(diseased), len(healthy))
        seen = [one for path in [*diseased[: some[0]], *healthy[: some[1]]] for one in _look(loaded, shared, path)]
    for rate in _RATES:
        _print(rate, [one for one in seen if one.rate == rate])
    write_json(json, seen)


def _look(loaded: LoadedIndex, shared: Path, path: Path) -> list[Seen]:
    """One photograph at every rate."""
    photo = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
    detection = loaded.detector.detect([photo])[0]
    shape = (photo.frame.height, photo.frame.width)
    masks = {kind: _mask(shared, path.stem, kind, shape) for kind in _LESIONS}
    seen = []
    for rate in _RATES:
        result = assemble(photo, detection, loaded, rule=Rule(fpr=rate), evidence=0, timings=Timings(0.0, 0.0))
        areas = [_filled(finding, shape) for finding in result.findings]
        union = np.logical_or.reduce([np.zeros(shape, bool), *areas])
        any_lesion = np.logical_or.reduce(list(masks.values()))
        by_kind = {kind: sum(bool((area & mask).any()) for area in areas) for kind, mask in masks.items()}
        lesions = {kind: _counts(mask, union) for kind, mask in masks.items()}
        lesions["large"] = _counts(any_lesion, union, _LARGE)
        touching = sum(bool((area & any_lesion).any()) for area in areas)
        elsewhere = (any_lesion[::-1], any_lesion[:, ::-1], any_lesion[::-1, ::-1])
        chance = sum(bool((area & lesion).any()) for area in areas for lesion in elsewhere)
        diseased = bool(any_lesion.any())
        seen.append(Seen(path.stem, diseased, rate, lesions, len(areas), touching, by_kind, chance))
    return seen


def _mask(shared: Path, name: str, kind: str, shape: tuple[int, int]) -> Mask:
    file = data_set(shared) / "ground_truth" / kind / f"{name}_{kind}.png"
    return read_mask(file, *shape) if file.is_file() else np.zeros(shape, bool)


def _filled(finding: Finding, shape: tuple[int, int]) -> Mask:
    """The pixels of a finding's polygon, its line included."""
    picture = Image.new("1", shape[::-1])
    ImageDraw.Draw(picture).polygon(list(finding.contour), fill=1, outline=1)
    return np.asarray(picture)


def _counts(mask: Mask, found: Mask, least: int = 1) -> Counts:
    """Of the mask's regions of at least so many px."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    counted = [label for label in range(1, count + 1) if sizes[label] >= least]
    touched = set(np.unique(labels[found])) - {0}
    inside = np.isin(labels, counted)
    covered = int((inside & found).sum())
    return Counts(len(counted), sum(label in touched for label in counted), int(inside.sum()), covered)


def _share(top: Sequence[int], bottom: Sequence[int]) -> Figure | None:
    """sum(top) / sum(bottom) over photographs, 95 % by a bootstrap over photographs; None for nothing."""
    above, below = np.array(top, float), np.array(bottom, float)
    if not below.sum():
        return None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(below), (_SAMPLES, len(below)))
    sums = below[drawn].sum(axis=1)
    shares = above[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Figure(float(above.sum() / below.sum()), float(low), float(high))


def _cell(figure: Figure | None) -> str:
    return "-" if figure is None else interval(figure)


def _print(rate: float, seen: Sequence[Seen]) -> None:
    diseased, healthy = ([one for one in seen if one.diseased == wanted] for wanted in (True, False))
    rows = []
    for kind, name in (*_LESIONS.items(), ("large", f"any of {_LARGE} px or more")):
        having = [one for one in diseased if one.lesions[kind].marked]
        counts = [one.lesions[kind] for one in having]
        touching = [one.by_kind.get(kind, one.on_lesion) for one in diseased]
        rows.append(
            (
                name,
                f"{len(having)}",
                f"{sum(count.marked for count in counts)}",
                _cell(_share([c.touched for c in counts], [c.marked for c in counts])),
                _cell(_share([c.covered for c in counts], [c.area for c in counts])),
                _cell(_share([min(c.touched, 1) for c in counts], [1] * len(counts))),
                _cell(_share(touching, [one.findings for one in diseased])) if kind in _LESIONS else "-",
            )
        )
    print_table(
        f"Findings at a false-positive rate of {rate:g}, {len(diseased)} diseased photographs",
        (
            "lesion",
            "photographs with it",
            "marked regions",
            "recall: touched by a finding",
            "recall of their area",
            "photographs with one touched",
            "findings that touch one",
        ),
        rows,
    )
    findings = [one.findings for one in diseased]
    precision = _share([one.on_lesion for one in diseased], findings)
    chance = _share([one.by_chance for one in diseased], [3 * count for count in findings])
    false = [one.findings for one in healthy if one.findings]
    print(f"Precision: {_cell(precision)} of {sum(findings)} findings touch a lesion of some kind.\\")
    print(f"The same findings mirrored: {_cell(chance)}.\\")
    print(
        f"Healthy photographs: {len(false)} of {len(healthy)} have a finding, {sum(false)} in all.\n", flush=True
    )


if __name__ == "__main__":
    typer.run(main)
