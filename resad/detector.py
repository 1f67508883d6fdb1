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
from resad.errors import SettingError
from resad.memory_bank import MemoryBank, Neighbors
from resad.preparation import PreparedPhoto
from resad.surround import against_surroundings, lattice
from resad.usual import Usual


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What distances say of one photograph.

    anomaly_map: float32 (S, S) on the prepared square, feature units, 0 outside the field of view.
    scored: bool (S, S), where the score was taken.
    image_score, peak: feature units; the peak is the map's maximum in the scored area.
    patch_distances: float32 (N,), of the patches in reading order the mean distance to the k nearest memories,
        against what is usual at its place and against its surroundings where the settings ask for that.
    """

    anomaly_map: NDArray[np.float32]
    scored: NDArray[np.bool_]
    image_score: float
    peak: float
    patch_distances: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Detection(Scored):
    """What was measured on one photograph.  patches: the features that were searched, for evidence."""

    patches: PatchFeatures


class Detector:
    """An encoder, the memory bank it filled, and what is usual in healthy photographs.

    Args:
        encoder: holds the trunk and the settings that serve.
        bank: filled with the same settings.
        usual: distances of healthy photographs, where the settings ask for it.
    Raises:
        SettingError: it is missing, or there is one that is not asked for.
    """

    def __init__(self, encoder: Encoder, bank: MemoryBank, usual: Usual | None) -> None:
        if encoder.config.score.relative != (usual is not None):
            raise SettingError(
                f"score.relative is {encoder.config.score.relative}, but what is usual is "
                f"{'missing' if usual is None else 'given'}"
            )
        self.encoder = encoder
        self.bank = bank
        self.usual = usual

    def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
        """One detection per photograph, the same alone and in a batch."""
        encoded = self.encoder.encode(photos)
        return [
            measure(patches, photo.mask, self.bank, self.encoder.config, self.usual)
            for patches, photo in zip(encoded, photos, strict=True)
        ]


def measure(
    patches: PatchFeatures, mask: NDArray[np.bool_], bank: MemoryBank, config: MethodConfig, usual: Usual | None
) -> Detection:
    """Patch features -> detection.  `mask` is the field of view on the prepared square, bool (S, S).

    The image score and the peak are those of the exact search whatever the bank's plan; with an approximate one
    the rest of the map may be higher than the exact map, and is nowhere lower.
    """
    found = bank.search_fast(patches.features, config.search.neighbors)
    if not bank.plan.exact:
        _make_exact_where_it_counts(found, patches, mask, bank, config, usual)
    scored = score_distances(found.distances.mean(axis=1), patches.cells, patches.grid, mask, config, usual)
    return Detection(
        anomaly_map=scored.anomaly_map,
        scored=scored.scored,
        image_score=scored.image_score,
        peak=scored.peak,
        patch_distances=scored.patch_distances,
        patches=patches,
    )


def score_distances(
    distances: NDArray[np.float32],
    cells: NDArray[np.int16],
    grid: tuple[int, int],
    mask: NDArray[np.bool_],
    config: MethodConfig,
    usual: Usual | None,
) -> Scored:
    """The last steps alone: mean distances (N,) to the memories, of patches at `cells` (N, 2) of the `grid`."""
    scored = anomaly_map.scored_area(mask, config.score)
    standing = _standing(distances, cells, grid, config, usual)
    dense, _ = _mapped(standing, cells, grid, mask, config)
    return Scored(
        anomaly_map=dense,
        scored=scored,
        image_score=anomaly_map.image_score(dense, scored, config.score),
        peak=float(dense[scored].max()),
        patch_distances=standing,
    )


def _make_exact_where_it_counts(
    found: Neighbors,
    patches: PatchFeatures,
    mask: NDArray[np.bool_],
    bank: MemoryBank,
    config: MethodConfig,
    usual: Usual | None,
) -> None:
    """Search again, exactly, what the image score and the peak come from, until these patches are exact.

    Where surroundings are exact, no distance is too small, neither against what is usual nor against them; so
    where all that enter the score are exact, nothing else can be above them.
    """

    def search_again(some: NDArray[np.bool_]) -> None:
        exact = bank.search(patches.features[some], config.search.neighbors)
        found.distances[some], found.rows[some] = exact.distances, exact.rows
        known[some] = True

    scored = anomaly_map.scored_area(mask, config.score)
    known = np.zeros(len(patches.features), dtype=bool)
    if config.score.surround > 0:
        search_again(lattice(patches.cells, patches.grid))
    while True:
        standing = _standing(found.distances.mean(axis=1), patches.cells, patches.grid, config, usual)
        dense, valid = _mapped(standing, patches.cells, patches.grid, mask, config)
        entering = _entering(dense, scored, valid, config)[tuple(patches.cells.T)] & ~known
        if not entering.any():
            return
        search_again(entering)


def _standing(
    distances: NDArray[np.float32],
    cells: NDArray[np.int16],
    grid: tuple[int, int],
    config: MethodConfig,
    usual: Usual | None,
) -> NDArray[np.float32]:
    """Distances (N,) against what is usual at their place and against their surroundings, as the settings ask."""
    relative = distances if usual is None else usual.of(distances, cells)
    share = config.score.surround
    return relative if share == 0 else against_surroundings(relative, cells, grid, share)


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
