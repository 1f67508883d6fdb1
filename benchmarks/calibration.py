"""How often unseen normals get low p-values, and how high diseased photographs rank among the references.

Run as `python -m benchmarks.calibration [--size 256] [--splits 40]`; needs RESAD_DATA.

Rates: IDRiD's 36 + 16 healthy photographs are split at random, many times, into 36 references and 16 new ones.  If
references and new photographs were scored alike, the rates over all splits would be exactly those in the column
"exact".  Ranks: each diseased test photograph is added to the 36 references, alone and with a second one, the bank
is built from all of them, and each is scored without its own memories, as `build` does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import CORESET, Variant, config_of, data_set
from indexer.build.feature_store import FeatureStore
from indexer.calibration.leave_out import LeftOut, leave_out
from indexer.coreset.selection import select
from resad import runtime
from resad.backbone import load_backbone
from resad.config import MethodConfig, PhotoLimits
from resad.detector import measure
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.memory_bank import MemoryBank
from resad.near_duplicates import group_photos
from resad.preparation import prepare

_REFERENCES: Final = 36
_FOLDS: Final = 6
_RATES: Final = (0.05, 0.10)
_RESAMPLES: Final = 2000
_SEED: Final = 0
_PER_TENTH: Final = 10

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Procedure:
    """A way to calibrate.  normals: how many scores a new photograph is compared with."""

    name: str
    normals: int


_PROCEDURES: Final = (
    Procedure("left out of the bank (default)", _REFERENCES),
    Procedure(f"{_FOLDS} folds, each scored in a bank of the others", _REFERENCES),
    Procedure("left out, new photo in the same reduced banks (jackknife+)", _REFERENCES),
    Procedure("bank of one half, the other half scored in it (split)", _REFERENCES // 2),
)


@dataclass(frozen=True, slots=True)
class RateCheck:
    """Result of one procedure: means over photographs, 95 % intervals from a bootstrap over photographs."""

    procedure: Procedure
    rates: tuple[tuple[float, float, float], ...]
    exact_rates: tuple[float, ...]
    mean_p: tuple[float, float, float]
    exact_mean_p: float


@dataclass(frozen=True, slots=True)
class Planted:
    """One diseased photograph among the references.

    rank: 1 for the highest score.  beside: the photograph planted with it.  of: photographs that were ranked.
    """

    photo: str
    beside: str | None
    rank: int
    of: int


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPhotos:
    """Patch features and fields of view of photographs, and the settings they were made with."""

    patches: tuple[PatchFeatures, ...]
    masks: tuple[NDArray[np.bool_], ...]
    config: MethodConfig


@dataclass(frozen=True, slots=True, eq=False)
class MemoryIndex:
    """An index in memory: the bank of some photographs, and their left-out scores."""

    bank: MemoryBank
    left_out: LeftOut

    def without(self, photo: int) -> "MemoryIndex":
        """The same without the memories of one photograph."""
        return replace(self, bank=self.bank.without_photos(np.array([photo], dtype=np.int32)))


class _MemoryStore(FeatureStore):
    """A feature store in memory."""

    def __init__(self, patches: Sequence[PatchFeatures]) -> None:
        self._patches = list(patches)
        self._cells = [photo.cells for photo in patches]
        self._grids = [photo.grid for photo in patches]
        self._dimension = patches[0].features.shape[1]

    def photo(self, number: int) -> PatchFeatures:
        return self._patches[number]


def main(
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 256,
    splits: Annotated[int, typer.Option(help="Random splits of the healthy photographs.")] = 40,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Measure rates of p-values on unseen normals, then ranks of planted diseased photographs."""
    folder = data_set(shared := shared_data())
    runtime.configure("exact")
    train, test, diseased = (
        sorted((folder / part).iterdir()) for part in ("train/good", "test/good", "test/lesion")
    )
    size, splits = (128, 3) if quick else (size, splits)
    weights = str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors")
    photos = encode_photos([*train, *test, *diseased[: 4 if quick else None]], Variant("resad"), size, weights)
    checks = _print_rates(photos, len(train) + len(test), size, splits)
    planted = _print_ranks(photos, 8 if quick else len(train), len(train) + len(test), diseased, size)
    write_json(json, {"rates": checks, "planted": planted})


def encode_photos(paths: Sequence[Path], variant: Variant, size: int, weights: str) -> EncodedPhotos:
    """Prepare and encode the photographs as an index of `variant` at `size` px does."""
    config = config_of(variant, size)
    encoder = Encoder(Trunk(load_backbone(config.backbone, weights), config, torch.device("cpu")))
    photos = [prepare(path, config.preparation, PhotoLimits()) for path in paths]
    patches = tuple(encoder.encode([photo])[0] for photo in photos)
    return EncodedPhotos(patches, tuple(photo.mask for photo in photos), config)


def build_in_memory(photos: EncodedPhotos, rows: Rows) -> MemoryIndex:
    """The index of the photographs `rows`, as a build makes it."""
    store = _MemoryStore([photos.patches[row] for row in rows])
    selection = select(store, photos.config.coreset, [torch.device("cpu")], lambda _: None)
    bank = MemoryBank(selection.memories, selection.provenance)
    masks = [photos.masks[row] for row in rows]
    groups = group_photos([None] * len(rows))
    return MemoryIndex(bank, leave_out(store, masks, groups, bank, photos.config, lambda _: None))


def image_score(photos: EncodedPhotos, row: int, index: MemoryIndex) -> float:
    """The image score of one photograph."""
    return measure(photos.patches[row], photos.masks[row], index.bank, photos.config).image_score


def _print_rates(photos: EncodedPhotos, normals: int, size: int, splits: int) -> list[RateCheck]:
    p_values, shift = _split_p_values(photos, normals, splits)
    print_header(
        "Calibration on unseen normals",
        f"ResNet-18 (ImageNet), size {size}, coreset {CORESET}; {normals} healthy photographs of IDRiD split "
        f"{splits} times into {_REFERENCES} references and {normals - _REFERENCES} new ones.",
    )
    checks = [_check(procedure, p_values[number]) for number, procedure in enumerate(_PROCEDURES)]
    rows = [
        [
            check.procedure.name,
            *(_interval(rate) for rate in check.rates),
            " / ".join(f"{rate:.3f}" for rate in check.exact_rates),
            _interval(check.mean_p),
            f"{check.exact_mean_p:.3f}",
        ]
        for check in checks
    ]
    headings = ["procedure", *(f"p <= {rate:g}" for rate in _RATES), "exact", "mean p", "exact"]
    print_table("Share of new normals with p-values that low", headings, rows)
    print(f"Left out, the median score is {shift:.1%} above that of new photographs in the whole bank.\n")
    return checks


def _split_p_values(photos: EncodedPhotos, normals: int, splits: int) -> tuple[Floats, float]:
    """p (procedures, splits, photos), NaN for references; and by how much left-out scores lie above new ones."""
    rng = np.random.default_rng(_SEED)
    p_values = np.full((len(_PROCEDURES), splits, normals), np.nan)
    shifts = []
    for number in range(splits):
        order = rng.permutation(normals)
        references, new = order[:_REFERENCES], order[_REFERENCES:]
        index = build_in_memory(photos, references)
        left_out = np.array(index.left_out.scores)
        scores = np.array([image_score(photos, int(row), index) for row in new])
        shifts.append(np.median(left_out) / np.median(scores) - 1)
        p_values[0, number, new] = _p_values(left_out[None], scores[:, None])
        p_values[1, number, new] = _p_values(_fold_scores(photos, references)[None], scores[:, None])
        reduced = [index.without(photo) for photo in range(_REFERENCES)]
        in_reduced = np.array([[image_score(photos, int(row), smaller) for smaller in reduced] for row in new])
        p_values[2, number, new] = _p_values(left_out[None], in_reduced)
        half, rest = references[: _REFERENCES // 2], references[_REFERENCES // 2 :]
        half_index = build_in_memory(photos, half)
        calibration, new_scores = (
            np.array([image_score(photos, int(row), half_index) for row in rows]) for rows in (rest, new)
        )
        p_values[3, number, new] = _p_values(calibration[None], new_scores[:, None])
    return p_values, float(np.mean(shifts))


def _fold_scores(photos: EncodedPhotos, references: Rows) -> Floats:
    """Each reference's score in a bank built from the other folds."""
    scores = np.empty(len(references))
    for fold in range(_FOLDS):
        out = np.arange(len(references)) % _FOLDS == fold
        index = build_in_memory(photos, references[~out])
        scores[out] = [image_score(photos, int(row), index) for row in references[out]]
    return scores


def _p_values(normals: Floats, new: Floats) -> Floats:
    """(1 + #{normals >= new}) / (n + 1) along the last axis, (photos,)."""
    normals, new = np.broadcast_arrays(normals, new)
    result: Floats = (1 + (normals >= new).sum(axis=1)) / (normals.shape[1] + 1)
    return result


def _check(procedure: Procedure, p_values: Floats) -> RateCheck:
    """p_values: (splits, photos), NaN where a photograph was a reference."""
    exact = tuple(np.floor(rate * (procedure.normals + 1) + 1e-9) / (procedure.normals + 1) for rate in _RATES)
    tested = ~np.isnan(p_values)
    rates = tuple(_mean(tested, lambda rate=rate: p_values <= rate) for rate in _RATES)  # type: ignore[misc]
    mean_p = _mean(tested, lambda: p_values)
    return RateCheck(procedure, rates, exact, mean_p, (procedure.normals + 2) / (2 * (procedure.normals + 1)))


def _mean(tested: NDArray[np.bool_], values: Callable[[], NDArray[np.generic]]) -> tuple[float, float, float]:
    """The mean over all tests, resampled over photographs with all their tests."""
    filled = np.where(tested, values(), 0).astype(np.float64)
    sums, counts = filled.sum(axis=0), tested.sum(axis=0)
    drawn = np.random.default_rng(_SEED).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / np.maximum(counts[drawn].sum(axis=1), 1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _interval(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


def _print_ranks(
    photos: EncodedPhotos, references: int, normals: int, diseased: Sequence[Path], size: int
) -> dict[str, list[Planted]]:
    """Plant each diseased photograph alone, then in pairs.  normals: the row of the first diseased photograph."""
    rows = np.arange(normals, len(photos.patches))
    names = {int(row): path.stem for row, path in zip(rows, diseased, strict=False)}
    alone = [planted for row in rows for planted in _plant(photos, np.array([row]), references, names)]
    # A ring: each photograph once with the next one in a random order, and once with the one before.
    ring = np.random.default_rng(_SEED).permutation(rows)
    pairs = np.stack([ring, np.roll(ring, 1)], axis=1)
    paired = [planted for pair in pairs for planted in _plant(photos, pair, references, names)]
    print_header(
        "Diseased photographs planted among the normals",
        f"ResNet-18 (ImageNet), size {size}, coreset {CORESET}; {references} healthy training photographs and "
        f"{len(rows)} diseased test photographs of IDRiD.",
    )
    headings = ["planted", "cases", "first", "in the first three", "in the first tenth", "median rank", "worst"]
    print_table("Rank by the left-out score", headings, [_rank_row("one", alone), _rank_row("two", paired)])
    return {"alone": alone, "paired": paired}


def _plant(photos: EncodedPhotos, rows: Rows, references: int, names: dict[int, str]) -> list[Planted]:
    """The rank of each of the photographs `rows` among the references, without the others of `rows`."""
    everyone = np.concatenate([np.arange(references), rows])
    scores = np.array(build_in_memory(photos, everyone).left_out.scores)
    planted = []
    for number, row in enumerate(rows):
        above = int((scores[:references] > scores[references + number]).sum())
        beside = [names[int(neighbor)] for neighbor in rows if neighbor != row]
        planted.append(Planted(names[int(row)], beside[0] if beside else None, above + 1, references + 1))
    return planted


def _rank_row(name: str, planted: list[Planted]) -> list[str]:
    ranks = np.array([photo.rank for photo in planted])
    tenth = -(-planted[0].of // _PER_TENTH)
    shares = (f"{np.mean(ranks <= limit):.0%}" for limit in (1, 3, tenth))
    return [name, str(len(ranks)), *shares, f"{np.median(ranks):g} of {planted[0].of}", str(ranks.max())]


if __name__ == "__main__":
    typer.run(main)
