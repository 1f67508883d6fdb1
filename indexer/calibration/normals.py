"""Which normals calibrate an index: those that the trunk was not trained on, if there are enough of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from resad.backbone import TrainingPhoto
from resad.calibration import USUAL_RATE, Calibration, Source, TrainedOn, calibrate, normals_needed
from resad.false_regions import RegionHeights
from resad.near_duplicates import HashedPhoto, match_near_duplicates

ENOUGH: Final = normals_needed(USUAL_RATE)
"""So many normals that the trunk was not trained on calibrate an index alone."""


class TrainedTrunk(Protocol):
    """A trunk that tells what it was trained on: a `Backbone`, or an `Encoder` with one."""

    @property
    def trained_on(self) -> tuple[TrainingPhoto, ...]:
        """As `Backbone.trained_on`."""
        ...

    @property
    def unseen_ratio(self) -> float:
        """As `Backbone.unseen_ratio`."""
        ...


@dataclass(frozen=True, slots=True)
class NormalUse:
    """Which of some normals calibrate, and by how much their scores are raised first.

    rows: of the normals that calibrate, ascending.  factors: of these rows.  stated: as in the calibration.
    """

    rows: tuple[int, ...]
    factors: tuple[float, ...]
    stated: TrainedOn


def normals_to_use(photos: Sequence[HashedPhoto], trunk: TrainedTrunk) -> NormalUse:
    """Leave out the photographs that the trunk was trained on, or, if too few others remain, correct them.

    They are recognized by content, or as copies and mirror images by the perceptual hash (`near_duplicates`).
    """
    trained = {pair.first for pair in match_near_duplicates(photos, trunk.trained_on)}
    untrained = tuple(row for row in range(len(photos)) if row not in trained)
    if not trained:
        return NormalUse(untrained, (1.0,) * len(untrained), TrainedOn(0, "none"))
    if len(untrained) >= ENOUGH:
        return NormalUse(untrained, (1.0,) * len(untrained), TrainedOn(len(trained), "others"))
    factor = trunk.unseen_ratio
    factors = tuple(factor if row in trained else 1.0 for row in range(len(photos)))
    return NormalUse(tuple(range(len(photos))), factors, TrainedOn(len(trained), "corrected", factor))


def far_outliers(calibration: Calibration) -> frozenset[str]:
    """Ids of the normals that lie far above the rest."""
    outliers = calibration.outliers
    return frozenset() if outliers is None else frozenset(photo.id for photo in outliers.photos[: outliers.far])


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """A normal as it was scored.

    distances: of its patches, if they are at hand.  regions: of its map; None in records of older indexes.
    """

    id: str
    score: float
    peak: float
    distances: NDArray[np.float32] | None
    regions: RegionHeights | None
    camera: str | None


def calibrate_normals(
    normals: Sequence[Normal],
    use: NormalUse,
    *,
    source: Source,
    set_aside: Sequence[str] = (),
    distances: NDArray[np.float32] | None = None,
) -> Calibration:
    """The calibration by the normals that `use` names.

    Args:
        set_aside: ids of photographs that are not among `normals` on request.
        distances: of the patches of all of them, where those of each are not at hand.
    """
    chosen = [(normals[row], factor) for row, factor in zip(use.rows, use.factors, strict=True)]
    regions = [normal.regions.scaled(factor) for normal, factor in chosen if normal.regions is not None]
    if distances is None:
        # Exact quantiles need every patch's distance at once: 4 bytes a patch, and as much again while sorting.
        parts = [
            normal.distances if factor == 1 else normal.distances * np.float32(factor)
            for normal, factor in chosen
            if normal.distances is not None
        ]
        distances = np.concatenate([*parts, np.empty(0, np.float32)])
    return calibrate(
        [normal.score * factor for normal, factor in chosen],
        [normal.peak * factor for normal, factor in chosen],
        distances,
        regions=regions if len(regions) == len(chosen) else (),
        cameras=[normal.camera for normal, _ in chosen],
        source=source,
        ids=[normal.id for normal, _ in chosen],
        trained_on=use.stated,
        set_aside=set_aside,
    )
