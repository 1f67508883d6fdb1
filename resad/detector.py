"""One photo -> encoder.encode -> MemoryBank.search -> anomaly map -> detection.

`Engine`, `evaluate` and the calibration all measure here: there is one way from a photograph to a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resad.anomaly_map import anomaly_map, cells_under, check_field_of_view, image_score, top_pixels
from resad.config import MethodConfig, ScoreConfig
from resad.encoder import Encoder, PatchFeatures
from resad.examples import Examples
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, nearest_with_mirror
from resad.preparation import PreparedPhoto


@dataclass(frozen=True, slots=True, eq=False)
class ScoredMap:
    """The anomaly map of one photograph and its scores.

    anomaly_map: float32 (S, S) on the prepared square, feature units, 0 outside the field of view.
    scored: bool (S, S), the field of view, where the score was taken.
    image_score, peak: feature units; the peak is the map's maximum in the field of view.
    """

    anomaly_map: NDArray[np.float32]
    scored: NDArray[np.bool_]
    image_score: float
    peak: float


@dataclass(frozen=True, slots=True, eq=False)
class Detection(ScoredMap):
    """The measurements of one photograph.

    patch_distances: float32 (N,), of the patches in reading order the mean distance to the k nearest memories;
        with `search.mirrored` the smaller one of the patch and its mirror image.
    patches: the features that were searched, for evidence.
    """

    patch_distances: NDArray[np.float32]
    patches: PatchFeatures


class Detector:
    """An encoder and the memory bank it filled.

    Args:
        encoder: holds the trunk and the settings.
        bank: filled with the same settings.
        examples: what readers have taught the index.
    """

    def __init__(self, encoder: Encoder, bank: MemoryBank, examples: Examples | None = None) -> None:
        self.encoder = encoder
        self.bank = bank
        self.examples = examples

    def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
        """One detection per photograph, the same alone and in a batch."""
        encoded = self.encoder.encode(photos)
        return [
            measure(patches, photo.mask, self.bank, self.encoder.config, self.examples)
            for patches, photo in zip(encoded, photos, strict=True)
        ]


def measure(
    patches: PatchFeatures,
    mask: NDArray[np.bool_],
    bank: MemoryBank,
    config: MethodConfig,
    examples: Examples | None = None,
) -> Detection:
    """Patch features -> detection.  `mask` is the field of view on the prepared square, bool (S, S).

    The image score and the peak are those of the exact search, whatever the bank's plan.  With an approximate plan
    the rest of the map may be higher than the exact map, and is nowhere lower.
    """
    neighbors = nearest_with_mirror(bank.search_fast, patches.features, patches.mirrored, config.search.neighbors)
    if not bank.plan.exact:
        _search_top_exactly(neighbors, patches, mask, bank, config, examples)
    distances = _quieted(neighbors, patches, examples)
    result = score_map(distances, patches.cells, patches.grid, mask, config.score)
    return Detection(
        anomaly_map=result.anomaly_map,
        scored=result.scored,
        image_score=result.image_score,
        peak=result.peak,
        patch_distances=distances,
        patches=patches,
    )


def score_map(
    distances: NDArray[np.float32],
    cells: NDArray[np.int16],
    grid: tuple[int, int],
    mask: NDArray[np.bool_],
    config: ScoreConfig,
) -> ScoredMap:
    """The last steps alone: mean distances (N,) to the memories, of patches at `cells` (N, 2) of the `grid`.

    Raises `NotAFundusPhoto` if the field of view is empty.
    """
    check_field_of_view(mask)
    dense, _ = _map_of(distances, cells, grid, mask)
    return ScoredMap(
        anomaly_map=dense,
        scored=mask,
        image_score=image_score(dense, mask, config),
        peak=float(dense[mask].max()),
    )


def _quieted(neighbors: Neighbors, patches: PatchFeatures, examples: Examples | None) -> NDArray[np.float32]:
    """The patches' distances, float32 (N,), with what readers have called normal."""
    distances: NDArray[np.float32] = neighbors.distances.mean(axis=1)
    return distances if examples is None else examples.quieted(patches.features, patches.mirrored, distances)


def _search_top_exactly(
    neighbors: Neighbors,
    patches: PatchFeatures,
    mask: NDArray[np.bool_],
    bank: MemoryBank,
    config: MethodConfig,
    examples: Examples | None,
) -> None:
    """Replace the approximate neighbors of the patches that the image score and the peak come from by exact ones.

    An approximate distance is never too small.  So when all patches that enter the score are exact, no other patch
    can be above them; patches that a normal variant may make smaller are made exact first.
    """
    check_field_of_view(mask)
    exact = np.zeros(len(patches.features), dtype=bool)
    entering = exact
    if examples is not None:
        entering = examples.may_quiet(patches.features, patches.mirrored, neighbors.distances.mean(axis=1))
    while True:
        if not entering.any():
            dense, valid = _map_of(_quieted(neighbors, patches, examples), patches.cells, patches.grid, mask)
            top = top_pixels(dense, mask, config.score)  # the maximum is always among them
            entering = cells_under(top, valid)[tuple(patches.cells.T)] & ~exact
        if not entering.any():
            return
        nearest = nearest_with_mirror(
            bank.search,
            patches.features[entering],
            None if patches.mirrored is None else patches.mirrored[entering],
            config.search.neighbors,
        )
        neighbors.distances[entering], neighbors.rows[entering] = nearest.distances, nearest.rows
        exact |= entering
        entering = np.zeros_like(exact)


def _map_of(
    distances: NDArray[np.float32], cells: NDArray[np.int16], grid: tuple[int, int], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The map (S, S) and the patches that exist, bool (h, w)."""
    y, x = cells.T
    valid = np.zeros(grid, dtype=bool)
    valid[y, x] = True
    values = np.zeros(grid, dtype=np.float32)
    values[y, x] = distances
    return anomaly_map(values, valid, mask), valid
