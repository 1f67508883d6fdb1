"""Every reference photo scored as if it were new: against the memory bank without its own (patient's) memories."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.feature_store import FeatureStore
from indexer.left_out_bank import LeftOutBank, left_out_bank
from resad.calibration import Calibration, calibrate
from resad.config import MethodConfig
from resad.detector import measure_found
from resad.errors import SettingError
from resad.memory_bank import MemoryBank


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Per reference photo its image score and peak; together the calibration.

    covering_radius: the largest distance from any patch to its nearest memory in the whole bank, feature units.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    calibration: Calibration
    covering_radius: float


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutScores:
    """Per photo its image score and peak.  distances: float32, of all their patches, photo by photo.

    covering_radius: as in `LeftOut`, over their patches.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    distances: NDArray[np.float32]
    covering_radius: float


def leave_out(
    store: FeatureStore,
    masks: Iterable[NDArray[np.bool_]],
    patients: Sequence[str | None],
    bank: MemoryBank,
    config: MethodConfig,
    on_photo: Callable[[int], None],
    cameras: Sequence[str | None] = (),
) -> LeftOut:
    """Score each of the store's photographs against the others.

    Args:
        masks: bool (S, S), the field of view of each photo on its prepared square.
        patients: whose photo it is, where known; a patient's photographs are left out together.
        cameras: with which it was taken, where known; each camera gets a calibration of its own.
    Raises:
        SettingError: nothing is left of the bank without some photo or patient.
    """
    measured = score_left_out(store, masks, groups_of(patients), bank, config, on_photo)
    calibration = calibrate(measured.scores, measured.peaks, measured.distances, cameras=cameras)
    return LeftOut(measured.scores, measured.peaks, calibration, measured.covering_radius)


def score_left_out(
    store: FeatureStore,
    masks: Iterable[NDArray[np.bool_]],
    groups: Sequence[set[int]],
    bank: MemoryBank,
    config: MethodConfig,
    on_photo: Callable[[int], None],
) -> LeftOutScores:
    """Score each of the store's photographs against the bank without its group.

    Args:
        groups: per photo of the store, as `bank` numbers them, the photos that are left out with it.
    Raises `SettingError` as `leave_out`.
    """
    scores, peaks, radius = [], [], 0.0
    # Exact quantiles want every patch's distance at once: 4 bytes a patch, and as much again while they are taken.
    rows = store.first_rows
    distances = np.empty(rows[-1], dtype=np.float32)
    for number, (patches, mask, group) in enumerate(zip(store, masks, groups, strict=True)):
        others = left_out_bank(bank, group)
        _check_enough(others, bank, config.search.neighbors)
        found = others.others(patches.features, config.search.neighbors)
        detection = measure_found(patches, mask, found, config)
        scores.append(detection.image_score)
        peaks.append(detection.peak)
        distances[rows[number] : rows[number + 1]] = detection.patch_distances
        radius = max(radius, _farthest(patches.features, detection.nearest, others))
        on_photo(1)
    return LeftOutScores(tuple(scores), tuple(peaks), distances, radius)


def groups_of(patients: Sequence[str | None]) -> list[set[int]]:
    """Per photo which ones are left out with it: its patient's, the photo among them."""
    whose: dict[str, set[int]] = {}
    for number, who in enumerate(patients):
        if who is not None:
            whose.setdefault(who, set()).add(number)
    return [{number} if who is None else whose[who] for number, who in enumerate(patients)]


def _check_enough(others: LeftOutBank, bank: MemoryBank, neighbors: int) -> None:
    if others.count < neighbors:
        raise SettingError(
            f"calibration leaves each photo (or patient) out, and of {len(bank)} memories {others.count} remain, "
            f"fewer than the {neighbors} neighbors asked; give more photographs or a larger --coreset"
        )


def _farthest(features: NDArray[np.float32], nearest_other: NDArray[np.float32], others: LeftOutBank) -> float:
    """The largest distance to the nearest memory of the whole bank, others' and the group's own."""
    if others.own is None:
        return float(nearest_other.max())
    return float(np.minimum(nearest_other, others.own(features, 1).distances[:, 0]).max())
