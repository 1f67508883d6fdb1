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
    groups = _groups(patients)
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
    calibration = calibrate(scores, peaks, distances, cameras=cameras)
    return LeftOut(tuple(scores), tuple(peaks), calibration, radius)


def _groups(patients: Sequence[str | None]) -> list[set[int]]:
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
