"""Every reference photo scored as if it were new: against the memory bank without its own group's memories."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.feature_store import FeatureStore
from indexer.left_out_bank import LeftOutBank, LeftOutBanks
from indexer.pipeline import ahead
from indexer.placed import Placed
from resad.calibration import Calibration, calibrate
from resad.config import MethodConfig
from resad.detector import score_distances
from resad.errors import SettingError
from resad.memory_bank import MemoryBank
from resad.neighbors import nearer


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Per reference photo its image score and peak; together the calibration.

    placed: per photo the distances that all of this comes from.
    covering_radius: the largest distance from any patch to its nearest memory in the whole bank, feature units.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    calibration: Calibration
    placed: tuple[Placed, ...]
    covering_radius: float


def leave_out(
    store: FeatureStore,
    masks: Iterable[NDArray[np.bool_]],
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    config: MethodConfig,
    on_photo: Callable[[int], None],
    cameras: Sequence[str | None] = (),
) -> LeftOut:
    """Score each of the store's photographs against the others.

    Args:
        masks: bool (S, S), the field of view of each photo on its prepared square.
        groups: per photo, as `bank` numbers them, the photos that are left out with it.
        cameras: with which it was taken, where known; each camera gets a calibration of its own.
    Raises:
        SettingError: too little is left of the bank without some group.
    """
    placed, radius = left_out_distances(store, groups, bank, config.search.neighbors, on_photo)
    return score_left_out(placed, radius, masks, config, cameras)


def left_out_distances(
    store: FeatureStore,
    groups: Sequence[frozenset[int]],
    bank: MemoryBank,
    neighbors: int,
    on_photo: Callable[[int], None],
) -> tuple[tuple[Placed, ...], float]:
    """Per photo of the store its patches' mean distances to the others' memories; and the covering radius.

    Args:
        groups: per photo of the store, as `bank` numbers them, the photos that are left out with it.
    Raises `SettingError` as `leave_out`.
    """
    placed, radius, banks = [], 0.0, LeftOutBanks(bank)
    # The next photograph is read while a GPU searches; a CPU has no time to spare, and less memory is held.
    at_once = 1 if bank.gpu is None else 2
    with closing(ahead(range(len(store)), store.photo, threads=1, most=at_once)) as photos:
        for patches, group in zip(photos, groups, strict=True):
            others = banks.without(group)
            check_enough_left(others.count, bank, neighbors)
            found = others.others(patches.features, neighbors)
            nearest = found
            if patches.mirrored is not None:
                nearest = nearer(found, others.others(patches.mirrored, neighbors))
            placed.append(Placed(nearest.distances.mean(axis=1), patches.cells, patches.grid))
            radius = max(radius, _farthest(patches.features, found.distances[:, 0], others))
            on_photo(1)
    return tuple(placed), radius


def score_left_out(
    placed: Sequence[Placed],
    covering_radius: float,
    masks: Iterable[NDArray[np.bool_]],
    config: MethodConfig,
    cameras: Sequence[str | None] = (),
) -> LeftOut:
    """Left-out distances -> scores and calibration; arguments per photo, as for `leave_out`."""
    scores, peaks = [], []
    for one, mask in zip(placed, masks, strict=True):
        scored = score_distances(one.distances, one.cells, one.grid, mask, config)
        scores.append(scored.image_score)
        peaks.append(scored.peak)
    # Exact quantiles want every patch's distance at once: 4 bytes a patch, and as much again while they are taken.
    calibration = calibrate(scores, peaks, np.concatenate([one.distances for one in placed]), cameras=cameras)
    return LeftOut(tuple(scores), tuple(peaks), calibration, tuple(placed), covering_radius)


def check_enough_left(left: int, bank: MemoryBank, neighbors: int) -> None:
    """Raise `SettingError` where fewer memories are left than a patch has neighbors.

    Args:
        left: memories of `bank` without those of a photo and of what is left out with it.
    """
    if left < neighbors:
        raise SettingError(
            f"calibration leaves each photo out (its patient's and copies, too), and of {len(bank)} memories "
            f"{left} remain, fewer than the {neighbors} neighbors asked; give more photographs or a larger "
            "--coreset"
        )


def _farthest(features: NDArray[np.float32], nearest_other: NDArray[np.float32], others: LeftOutBank) -> float:
    """The largest distance to the nearest memory of the whole bank, others' and the group's own."""
    if others.own is None:
        return float(nearest_other.max())
    return float(np.minimum(nearest_other, others.own(features, 1).distances[:, 0]).max())
