"""At which step the quality gate fires on real photographs spoilt more and more, and how often on sound ones.

Run as `python -m benchmarks.quality [--size 512]`; takes RESAD_DATA.  The limits come from IDRiD's 36 healthy
training photographs, as `build` takes them; its 16 healthy test photographs are spoilt, its 27 diseased ones not.
The last table takes the limits from few healthy photographs, of three sets.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from resad_client.records import QualityMeasures
from scipy.stats import binomtest

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import data_set
from resad.config import PhotoLimits, PreparationConfig
from resad.preparation import PreparedPhoto, prepare
from resad.quality import QualityLimits, judge, measure_quality, poor_reasons, quality_limits

_PARTINGS: Final = 200
_FEW: Final = (10, 15, 20, 30)
"""Normals from which limits are taken in the last table; 10 is the fewest that `build` takes them from."""
_DRAWS: Final = 60
_CAMERAS: Final = 60
"""Photographs of many cameras in the last table."""

Spoil = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True, slots=True)
class Damage:
    """A way to spoil a photograph, in steps from none on; `named` is the reason that it should get."""

    name: str
    named: str
    steps: tuple[float, ...]
    spoil: Spoil


@dataclass(frozen=True, slots=True)
class DamageStep:
    """One step: of `photos`, so many got the reason that they should, and so many any reason."""

    damage: str
    step: float
    photos: int
    named: int
    any_reason: int


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _darkened(image: Image.Image, factor: float) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.float64) * factor).clip(0, 255).astype(np.uint8))


def _hazy(image: Image.Image, share: float) -> Image.Image:
    """A veil of the field of view's mean color over it."""
    pixels = np.asarray(image).astype(np.float64)
    lit = pixels.max(axis=2, keepdims=True) > 16
    veil = pixels[lit[..., 0]].mean(axis=0)
    mixed = np.where(lit, (1 - share) * pixels + share * veil, pixels)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _cut(image: Image.Image, share: float) -> Image.Image:
    """The right part of the frame taken away."""
    return image.crop((0, 0, round(image.width * (1 - share)), image.height))


_DAMAGES: Final = (
    Damage("blur, sigma in px of the photo", "blurred", (0, 0.5, 1, 1.5, 2, 3, 4), _blurred),
    Damage("brightness times", "too-dark", (1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2), _darkened),
    Damage("brightness times", "too-bright", (1, 1.25, 1.5, 2, 2.5, 3, 4), _darkened),
    Damage("veil, share", "low-contrast", (0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8), _hazy),
    Damage("cut off, share of the width", "cut-off", (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), _cut),
)


def main(
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 512,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Print the tables."""
    folder = data_set(shared_data())
    size = 128 if quick else size
    train, good, ill = (sorted((folder / part).iterdir()) for part in ("train/good", "test/good", "test/lesion"))
    if quick:
        train, good, ill = train[:12], good[:3], ill[:3]
    normals = [_prepared(Image.open(path), size) for path in [*train, *good]]
    limits = quality_limits([measure_quality(photo) for photo in normals[: len(train)]])
    steps = [step for damage in _DAMAGES for step in _steps(damage, good, size, limits)]
    print_header(
        "The quality gate",
        f"size {size}; limits from {len(train)} healthy photographs of IDRiD; {limits.passed:.1%} of them pass.",
    )
    for damage in _DAMAGES:
        rows = [
            step for step in steps if (step.damage, step.step) in {(damage.named, step) for step in damage.steps}
        ]
        print_table(
            f"{damage.named}: healthy test photographs of {len(good)} that are flagged",
            [damage.name, *(f"{row.step:g}" for row in rows)],
            [
                [f"as {damage.named}", *(str(row.named) for row in rows)],
                ["for any reason", *(str(row.any_reason) for row in rows)],
            ],
        )
    flagged = [_flagged(name, paths, size, limits) for name, paths in (("healthy", good), ("diseased", ill))]
    flagged.append(_parted(normals, len(train)))
    print_table("Sound photographs that are flagged", ["photographs", "flagged", "95 % interval"], flagged)
    sets = {"IDRiD": [measure_quality(photo) for photo in normals]}
    for name, paths in _other_sets(shared_data(), quick=quick).items():
        sets[name] = [measure_quality(_prepared(Image.open(path), size)) for path in paths]
    counts = [number for number in _FEW if not quick or number == min(_FEW)]
    print_table(
        f"Unseen healthy photographs called poor, by limits from few others ({_DRAWS} draws: mean, at worst)",
        ["photographs", *map(str, counts)],
        [[f"{name}, {len(measured)}", *_few(measured, counts)] for name, measured in sets.items()],
    )
    write_json(json, steps)


def _other_sets(shared: Path, *, quick: bool) -> dict[str, list[Path]]:
    """Healthy photographs of a second camera, and of many cameras: not more of these than of the first two."""
    second = sorted((shared / "data/heimed-784").glob("t*/good/*"))
    many = sorted((shared / "data/cameras-400/normal").iterdir())
    chosen = [many[i] for i in np.linspace(0, len(many) - 1, _CAMERAS).astype(int)]
    return {"HEI-MED": second[:14] if quick else second, "many cameras": chosen[:14] if quick else chosen}


def _few(measured: Sequence[QualityMeasures], counts: Sequence[int]) -> list[str]:
    """For each count of normals: the mean and the highest share of the others that their limits call poor."""
    cells = []
    for count in counts:
        rng, shares = np.random.default_rng(0), []
        for _ in range(_DRAWS):
            order = rng.permutation(len(measured))
            limits = quality_limits([measured[row] for row in order[:count]])
            shares.append(np.mean([bool(poor_reasons(measured[row], limits)) for row in order[count:]]))
        cells.append(f"{np.mean(shares):.1%}, {max(shares):.0%}")
    return cells


def _prepared(image: Image.Image, size: int) -> PreparedPhoto:
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", compress_level=1)
    return prepare(file.getvalue(), PreparationConfig(size=size), PhotoLimits())


def _steps(damage: Damage, paths: list[Path], size: int, limits: QualityLimits) -> list[DamageStep]:
    counted = []
    for step in damage.steps:
        spoilt = (damage.spoil(Image.open(path).convert("RGB"), step) for path in paths)
        reasons = [judge(_prepared(image, size), limits).reasons for image in spoilt]
        named = sum(damage.named in photo_reasons for photo_reasons in reasons)
        counted.append(
            DamageStep(
                damage.named, step, len(paths), named, sum(bool(photo_reasons) for photo_reasons in reasons)
            )
        )
    return counted


def _flagged(name: str, paths: list[Path], size: int, limits: QualityLimits) -> list[str]:
    verdicts = [judge(_prepared(Image.open(path), size), limits) for path in paths]
    wrong = sum(not verdict.acceptable for verdict in verdicts)
    exact = binomtest(wrong, len(paths)).proportion_ci(method="exact")
    reasons = sorted({reason for verdict in verdicts for reason in verdict.reasons})
    named = f" ({', '.join(reasons)})" if reasons else ""
    return [f"{name}, of the test set", f"{wrong} of {len(paths)}{named}", f"{exact.low:.1%} to {exact.high:.1%}"]


def _parted(normals: list[PreparedPhoto], references: int) -> list[str]:
    """All healthy photographs parted at random: limits from some, the others judged."""
    measured = [measure_quality(photo) for photo in normals]
    rng = np.random.default_rng(0)
    wrong: NDArray[np.float64] = np.zeros(len(normals))
    tests: NDArray[np.float64] = np.zeros(len(normals))
    for _ in range(_PARTINGS):
        order = rng.permutation(len(normals))
        limits = quality_limits([measured[row] for row in order[:references]])
        for row in order[references:]:
            tests[row] += 1
            wrong[row] += bool(poor_reasons(measured[row], limits))
    drawn = rng.integers(len(normals), size=(2000, len(normals)))
    rates = wrong[drawn].sum(axis=1) / np.maximum(tests[drawn].sum(axis=1), 1)
    low, high = np.percentile(rates, (2.5, 97.5))
    rate = wrong.sum() / tests.sum()
    return [f"healthy, {len(normals)} parted {_PARTINGS} times", f"{rate:.1%}", f"{low:.1%} to {high:.1%}"]


if __name__ == "__main__":
    typer.run(main)
