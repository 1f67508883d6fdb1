"""p-values on unseen drawn normals: as rare as they say, with the real trunk, coreset, search and calibration."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import betabinom

from indexer.build.feature_store import FeatureStore
from indexer.calibration.leave_out import leave_out
from indexer.calibration.normals import Normal, calibrate_normals, normals_to_use
from indexer.coreset.selection import select
from indexer.settings import method_config
from lab.drawing import draw_photo
from resad.backbone import TrainingPhoto, default_weights, load_backbone
from resad.calibration import p_value
from resad.detector import measure
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.memory_bank import MemoryBank
from resad.near_duplicates import group_photos
from resad.preparation import PreparedPhoto
from tests.conftest import prepared

SIDE: Final = 64
REFERENCES, UNSEEN, SPLITS = 100, 40, 3
CONFIG: Final = method_config("resad", backbone="bundled", size=SIDE, coreset="0.1")
FULL: Final = np.ones((SIDE, SIDE), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """References' scores left out and with their own memories, unseen photographs' scores in the whole bank."""

    left_out: tuple[float, ...]
    with_own: tuple[float, ...]
    unseen: NDArray[np.float64]


def drawn_square(seed: int) -> PreparedPhoto:
    image = Image.fromarray(draw_photo(np.random.default_rng(seed), height=SIDE).pixels)
    x = (image.width - SIDE) // 2
    return replace(prepared(np.asarray(image.crop((x, 0, x + SIDE, SIDE)))), content_hash=str(seed))


def scores(patches: list[PatchFeatures], bank: MemoryBank) -> list[float]:
    return [measure(photo, FULL, bank, CONFIG).image_score for photo in patches]


def split(patches: tuple[PatchFeatures, ...], order: NDArray[np.int64], folder: Path) -> Split:
    references, unseen = ([patches[i] for i in part] for part in (order[:REFERENCES], order[REFERENCES:]))
    store = FeatureStore(folder)
    for photo in references:
        store.append(photo)
    selection = select(store, CONFIG.coreset, [torch.device("cpu")], lambda _: None)
    bank = MemoryBank(selection.memories, selection.provenance)
    left_out = leave_out(
        store, [FULL] * REFERENCES, group_photos([None] * REFERENCES), bank, CONFIG, lambda _: None
    )
    return Split(
        left_out.calibration.scores,
        tuple(sorted(scores(references, bank))),
        np.array(scores(unseen, bank)),
    )


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Split]:
    """The same drawn photographs parted at random several times: each time another bank and calibration."""
    trunk = Trunk(load_backbone(CONFIG.backbone, default_weights("bundled")), CONFIG, torch.device("cpu"))
    encoder = Encoder(trunk)
    patches = tuple(encoder.encode([drawn_square(seed)])[0] for seed in range(REFERENCES + UNSEEN))
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("splits")
    return [split(patches, rng.permutation(len(patches)), folder / str(number)) for number in range(SPLITS)]


def highest_rate(fpr: float) -> float:
    """What the mean rate over the splits stays below but once in 10,000, if p <= fpr comes at a rate of fpr.

    Of exchangeable scores, the count among the unseen is beta-binomial: the calibration's own chance is in it.
    """
    allowed = int(fpr * (REFERENCES + 1))
    counts = betabinom(UNSEEN, allowed, REFERENCES + 1 - allowed)
    return float(counts.mean() + 3.7 * counts.std() / SPLITS**0.5) / UNSEEN


def rate(normals: tuple[float, ...], unseen: NDArray[np.float64], fpr: float) -> float:
    return float(np.mean([p_value(score, normals) <= fpr for score in unseen]))


@pytest.mark.long
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.10])
def test_unseen_normals_get_low_p_values_no_more_often_than_these_say(splits: list[Split], fpr: float) -> None:
    assert fpr > 1 / (REFERENCES + 1), "no score could get so low a p-value"
    observed = np.mean([rate(part.left_out, part.unseen, fpr) for part in splits])
    assert observed <= highest_rate(fpr)


@pytest.mark.long
def test_left_out_errs_upwards_and_not_by_much(splits: list[Split]) -> None:
    """Of exact p-values the mean is (n + 2) / (2 (n + 1)), a half."""
    mean = np.mean([[p_value(score, part.left_out) for score in part.unseen] for part in splits])
    assert 0.5 < mean < 0.8


@pytest.mark.long
@pytest.mark.parametrize("fpr", [0.05, 0.10])
def test_with_their_own_memories_it_would_not_hold(splits: list[Split], fpr: float) -> None:
    observed = np.mean([rate(part.with_own, part.unseen, fpr) for part in splits])
    assert observed > 2 * highest_rate(fpr)


@dataclass(frozen=True, slots=True)
class KnownTrunk:
    """A trunk that only tells what it was trained on."""

    trained_on: tuple[TrainingPhoto, ...]
    unseen_ratio: float


QUIETER: Final = 1.4
"""An unseen photograph scores so many times as high as if the trunk had been trained on it."""


def trained_rates(photos: int, trained: int, trials: int, *, names_photos: bool) -> list[float]:
    """Shares of unseen normals with p <= 5 %, where the trunk was trained on part of an index's photographs.

    names_photos: the trunk's file names them.
    """
    rng, rates = np.random.default_rng(photos), []
    hashes = [TrainingPhoto(f"{row:064x}", rng.bytes(32).hex()) for row in range(photos)]
    use = normals_to_use(hashes, KnownTrunk(tuple(hashes[:trained]) if names_photos else (), QUIETER))
    for _ in range(trials):
        healthy = np.exp(rng.normal(0, 0.2, photos + UNSEEN))
        measured = healthy[:photos] / np.where(np.arange(photos) < trained, QUIETER, 1.0)
        normals = [
            Normal(str(row), score, score, np.full(1, score, np.float32), None, None)
            for row, score in enumerate(measured.tolist())
        ]
        calibration = calibrate_normals(normals, use, source="left-out")
        rates.append(rate(calibration.scores, healthy[photos:], 0.05))
    return rates


@pytest.mark.parametrize(("photos", "trained", "used"), [(60, 30, "others"), (36, 30, "corrected")])
def test_p_values_hold_if_part_of_the_photographs_trained_the_trunk(photos: int, trained: int, used: str) -> None:
    """The mean over many drawn indexes stays within what chance allows; it would not if the trunk told nothing."""
    trials = 200
    named_rates, unnamed_rates = (
        trained_rates(photos, trained, trials, names_photos=names_photos) for names_photos in (True, False)
    )
    normals = photos - trained if used == "others" else photos
    allowed = int(0.05 * (normals + 1))
    unseen = betabinom(UNSEEN, allowed, normals + 1 - allowed)
    assert np.mean(named_rates) <= (unseen.mean() + 3.7 * unseen.std() / trials**0.5) / UNSEEN
    assert np.mean(unnamed_rates) > 1.2 * np.mean(named_rates)
