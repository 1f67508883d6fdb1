"""How far p-values hold on unseen normals, and what other ways to calibrate would give.

Run as `python -m benchmarks.calibration [--size 256] [--splits 40]`; takes RESAD_DATA.  IDRiD's 36 + 16 healthy
photographs are parted at random, many times, into 36 to build from and 16 that count as new.  Were references and
new photographs scored alike, the rates over all ways of parting would be exactly those of the column "exact",
whatever the photographs: what differs is the way of calibrating.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._held import Encoded, Rows, Seen, index_of, look_at, score
from benchmarks._idrid import CORESET, Variant, data_set
from resad import runtime

_REFERENCES: Final = 36
_FOLDS: Final = 6
_RATES: Final = (0.05, 0.10)
_RESAMPLES: Final = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to calibrate.  normals: how many scores a new photograph is compared with."""

    name: str
    normals: int


_WAYS: Final = (
    Way("left out of the bank (default)", _REFERENCES),
    Way(f"{_FOLDS} folds, each scored in a bank of the others", _REFERENCES),
    Way("left out, new photo in the same reduced banks (jackknife+)", _REFERENCES),
    Way("bank of one half, the other half scored in it (split)", _REFERENCES // 2),
)


@dataclass(frozen=True, slots=True)
class Held:
    """What came of one way: means over photographs with 95 % intervals from a bootstrap over photographs."""

    way: Way
    rates: tuple[tuple[float, float, float], ...]
    exact_rates: tuple[float, ...]
    mean_p: tuple[float, float, float]
    exact_mean_p: float


def main(
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 256,
    splits: Annotated[int, typer.Option(help="Random partings.")] = 40,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Print the table."""
    shared = shared_data()
    runtime.configure("exact")
    size, splits = (128, 3) if quick else (size, splits)
    paths = _normals(shared)
    weights = str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors")
    seen = look_at(paths, Variant("resad"), size, weights)
    p_values, shift = _parted(seen, splits)
    print_header(
        "Calibration on unseen normals",
        f"ResNet-18 (ImageNet), size {size}, coreset {CORESET}; {len(paths)} healthy photographs of IDRiD parted "
        f"{splits} times into {_REFERENCES} to build from and {len(paths) - _REFERENCES} new ones.",
    )
    found = [_held(way, p_values[number]) for number, way in enumerate(_WAYS)]
    headings = ["way", *(f"p <= {rate:g}" for rate in _RATES), "exact", "mean p", "exact"]
    rows = [
        [
            one.way.name,
            *(_interval(rate) for rate in one.rates),
            " / ".join(f"{rate:.3f}" for rate in one.exact_rates),
            _interval(one.mean_p),
            f"{one.exact_mean_p:.3f}",
        ]
        for one in found
    ]
    print_table("Share of new normals with so low a p-value", headings, rows)
    print(f"Left out, the median score is {shift:.1%} above that of new photographs in the whole bank.\n")
    write_json(json, found)


def _normals(shared: Path) -> list[Path]:
    folder = data_set(shared)
    return [path for part in ("train", "test") for path in sorted((folder / part / "good").iterdir())]


def _parted(seen: Seen, splits: int) -> tuple[Floats, float]:
    """p (ways, splits, photos), NaN for references; and by how much left-out scores lie above new ones."""
    rng = np.random.default_rng(0)
    count = len(seen.photos)
    p_values = np.full((len(_WAYS), splits, count), np.nan)
    shifts = []
    for number in range(splits):
        order = rng.permutation(count)
        references, new = order[:_REFERENCES], order[_REFERENCES:]
        encoded = seen.fitted(references)
        index = index_of(encoded, references)
        left_out = np.array(index.left_out.scores)
        scores = np.array([score(encoded, int(row), index) for row in new])
        shifts.append(np.median(left_out) / np.median(scores) - 1)
        p_values[0, number, new] = _p(left_out[None], scores[:, None])
        p_values[1, number, new] = _p(_folds(encoded, references)[None], scores[:, None])
        reduced = [index.without(place) for place in range(_REFERENCES)]
        in_reduced = np.array([[score(encoded, int(row), one) for one in reduced] for row in new])
        p_values[2, number, new] = _p(left_out[None], in_reduced)
        half, other = references[: _REFERENCES // 2], references[_REFERENCES // 2 :]
        half_index = index_of(encoded, half)
        calibration, fresh = (
            np.array([score(encoded, int(row), half_index) for row in rows]) for rows in (other, new)
        )
        p_values[3, number, new] = _p(calibration[None], fresh[:, None])
    return p_values, float(np.mean(shifts))


def _folds(encoded: Encoded, references: Rows) -> Floats:
    """Each reference's score in a bank made anew of the other folds."""
    scores = np.empty(len(references))
    for fold in range(_FOLDS):
        out = np.arange(len(references)) % _FOLDS == fold
        others = index_of(encoded, references[~out])
        scores[out] = [score(encoded, int(row), others) for row in references[out]]
    return scores


def _p(normals: Floats, new: Floats) -> Floats:
    """(1 + #{normals >= new}) / (n + 1) along the last axis, (photos,)."""
    normals, new = np.broadcast_arrays(normals, new)
    result: Floats = (1 + (normals >= new).sum(axis=1)) / (normals.shape[1] + 1)
    return result


def _held(way: Way, p_values: Floats) -> Held:
    """p (splits, photos), NaN where a photograph was a reference."""
    exact = tuple(np.floor(rate * (way.normals + 1) + 1e-9) / (way.normals + 1) for rate in _RATES)
    tested = ~np.isnan(p_values)
    rates = tuple(_mean(tested, lambda rate=rate: p_values <= rate) for rate in _RATES)  # type: ignore[misc]
    mean_p = _mean(tested, lambda: p_values)
    return Held(way, rates, exact, mean_p, (way.normals + 2) / (2 * (way.normals + 1)))


def _mean(tested: NDArray[np.bool_], values: Callable[[], NDArray[np.generic]]) -> tuple[float, float, float]:
    """The mean over all tests, resampled over photographs with all their tests."""
    filled = np.where(tested, values(), 0).astype(np.float64)
    sums, counts = filled.sum(axis=0), tested.sum(axis=0)
    drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / np.maximum(counts[drawn].sum(axis=1), 1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _interval(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    typer.run(main)
