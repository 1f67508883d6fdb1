"""Every reference photo scored as if it were new: against the memory bank without its own (patient's) memories."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.feature_store import FeatureStore
from resad.calibration import Calibration, calibrate
from resad.config import MethodConfig
from resad.detector import measure
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
    groups = [{i} if who is None else {j for j, other in enumerate(patients) if other == who}
              for i, who in enumerate(patients)]  # fmt: skip
    scores, peaks, distances, radius = [], [], [], 0.0
    for patches, mask, group in zip(store, masks, groups, strict=True):
        detection = measure(patches, mask, _without(bank, group, config.search.neighbors), config)
        scores.append(detection.image_score)
        peaks.append(detection.peak)
        distances.append(detection.patch_distances)
        radius = max(radius, _farthest(patches.features, detection.nearest, bank, group))
        on_photo(1)
    calibration = calibrate(scores, peaks, np.concatenate(distances), cameras=cameras)
    return LeftOut(tuple(scores), tuple(peaks), calibration, radius)


def _without(bank: MemoryBank, group: set[int], neighbors: int) -> MemoryBank:
    others = bank.without_photos(np.fromiter(group, dtype=np.int32))
    if len(others) < neighbors:
        raise SettingError(
            f"calibration leaves each photo (or patient) out, and of {len(bank)} memories {len(others)} remain, "
            f"fewer than the {neighbors} neighbors asked; give more photographs or a larger --coreset"
        )
    return others


def _farthest(
    features: NDArray[np.float32], nearest_other: NDArray[np.float32], bank: MemoryBank, group: set[int]
) -> float:
    """The largest distance to the nearest memory of the whole bank, others' and the group's own."""
    strangers = np.setdiff1d(bank.provenance.photo, np.fromiter(group, dtype=np.int32))
    own = bank.without_photos(strangers.astype(np.int32))
    if not len(own):
        return float(nearest_other.max())
    return float(np.minimum(nearest_other, own.search(features, 1).distances[:, 0]).max())
