"""One photo -> encoder.encode -> MemoryBank.search -> anomaly map -> detection.

The service, `resad-indexer score`, `evaluate` and the calibration all measure here, so that there is one way from
a photograph to a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resad import anomaly_map
from resad.config import MethodConfig
from resad.encoder import Encoder, PatchFeatures
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, nearest_of_both
from resad.preparation import PreparedPhoto


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What distances say of one photograph.

    anomaly_map: float32 (S, S) on the prepared square, feature units, 0 outside the field of view.
    scored: bool (S, S), where the score was taken.
    image_score, peak: feature units; the peak is the map's maximum in the scored area.
    """

    anomaly_map: NDArray[np.float32]
    scored: NDArray[np.bool_]
    image_score: float
    peak: float


@dataclass(frozen=True, slots=True, eq=False)
class Detection(Scored):
    """What was measured on one photograph.

    patch_distances: float32 (N,), of the patches in reading order the mean distance to the k nearest memories;
        with `search.mirrored` the smaller one of the patch and its mirror image.
    patches: the features that were searched, for evidence.
    """

    patch_distances: NDArray[np.float32]
    patches: PatchFeatures


class Detector:
    """An encoder and the memory bank it filled.

    Args:
        encoder: holds the trunk and the settings that serve.
        bank: filled with the same settings.
    """

    def __init__(self, encoder: Encoder, bank: MemoryBank) -> None:
        self.encoder = encoder
        self.bank = bank

    def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
        """One detection per photograph, the same alone and in a batch."""
        encoded = self.encoder.encode(photos)
        return [
            measure(patches, photo.mask, self.bank, self.encoder.config)
            for patches, photo in zip(encoded, photos, strict=True)
        ]


def measure(patches: PatchFeatures, mask: NDArray[np.bool_], bank: MemoryBank, config: MethodConfig) -> Detection:
    """Patch features -> detection.  `mask` is the field of view on the prepared square, bool (S, S).

    The image score and the peak are those of the exact search whatever the bank's plan; with an approximate one
    the rest of the map may be higher than the exact map, and is nowhere lower.
    """
    found = nearest_of_both(bank.search_fast, patches.features, patches.mirrored, config.search.neighbors)
    if not bank.plan.exact:
        _make_exact_where_it_counts(found, patches, mask, bank, config)
    distances = found.distances.mean(axis=1)
    scored = score_distances(distances, patches.cells, patches.grid, mask, config)
    return Detection(
        anomaly_map=scored.anomaly_map,
        scored=scored.scored,
        image_score=scored.image_score,
        peak=scored.peak,
        patch_distances=distances,
        patches=patches,
    )


def score_distances(
    distances: NDArray[np.float32],
    cells: NDArray[np.int16],
    grid: tuple[int, int],
    mask: NDArray[np.bool_],
    config: MethodConfig,
) -> Scored:
    """The last steps alone: mean distances (N,) to the memories, of patches at `cells` (N, 2) of the `grid`."""
    scored = anomaly_map.scored_area(mask, config.score)
    dense, _ = _mapped(distances, cells, grid, mask, config)
    return Scored(
        anomaly_map=dense,
        scored=scored,
        image_score=anomaly_map.image_score(dense, scored, config.score),
        peak=float(dense[scored].max()),
    )


def _make_exact_where_it_counts(
    found: Neighbors, patches: PatchFeatures, mask: NDArray[np.bool_], bank: MemoryBank, config: MethodConfig
) -> None:
    """Search again, exactly, what the image score and the peak come from, until these patches are exact.

    No distance is too small, so where all that enter the score are exact, nothing else can be above them.
    """
    scored = anomaly_map.scored_area(mask, config.score)
    known = np.zeros(len(patches.features), dtype=bool)
    while True:
        dense, valid = _mapped(found.distances.mean(axis=1), patches.cells, patches.grid, mask, config)
        entering = _entering(dense, scored, valid, config)[tuple(patches.cells.T)] & ~known
        if not entering.any():
            return
        exact = nearest_of_both(
            bank.search,
            patches.features[entering],
            None if patches.mirrored is None else patches.mirrored[entering],
            config.search.neighbors,
        )
        found.distances[entering], found.rows[entering] = exact.distances, exact.rows
        known |= entering


def _mapped(
    distances: NDArray[np.float32],
    cells: NDArray[np.int16],
    grid: tuple[int, int],
    mask: NDArray[np.bool_],
    config: MethodConfig,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The map (S, S) and the patches that exist, bool (h, w)."""
    y, x = cells.T
    valid = np.zeros(grid, dtype=bool)
    valid[y, x] = True
    values = np.zeros(grid, dtype=np.float32)
    values[y, x] = distances
    return anomaly_map.anomaly_map(values, valid, mask, config.score), valid


def _entering(
    dense: NDArray[np.float32], scored: NDArray[np.bool_], valid: NDArray[np.bool_], config: MethodConfig
) -> NDArray[np.bool_]:
    """bool (h, w): the patches that the image score and the peak come from."""
    top = anomaly_map.top_pixels(dense, scored, config.score)  # the maximum is always among them
    return anomaly_map.cells_under(top, valid, config.score)
