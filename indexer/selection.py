"""Features on disk -> the memory bank: project, run the greedy, gather the picks."""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim
from torch import Tensor

from indexer.coreset import BLOCK_ROWS, greedy_k_center, shards_of
from indexer.feature_store import FeatureStore
from resad.config import CoresetConfig
from resad.errors import SettingError
from resad.memory_bank import Provenance

_SHARD_ROWS: Final = 16 * BLOCK_ROWS


class Selection(NamedTuple):
    """memories: float32 (M, D), by photo and then in reading order.  radius: where the greedy measured it."""

    memories: NDArray[np.float32]
    provenance: Provenance
    radius: float
    dimension: int


def memory_count(config: CoresetConfig, patches: int) -> int | None:
    """How many memories the settings ask of so many patches; None where a radius decides."""
    if config.share is not None:
        return max(1, round(config.share * patches))
    if config.count is not None and config.count > patches:
        raise SettingError(f"a coreset of {config.count} memories asked of {patches} patches; 1.0 keeps them all")
    return config.count


def select(
    store: FeatureStore, config: CoresetConfig, device: torch.device, on_picks: Callable[[int], None]
) -> Selection:
    """The greedy's memories out of all patches in `store`."""
    points = _project(store, config, device)  # (N, d)
    first = int(np.random.default_rng(config.seed).integers(len(points)))
    count = memory_count(config, len(points))
    coreset = greedy_k_center(
        shards_of(points, _SHARD_ROWS), first, count=count, radius=config.radius, on_picks=on_picks
    )
    order = np.argsort(coreset.rows)
    rows = coreset.rows[order]
    photos, _ = store.locate(rows)
    provenance = Provenance(photos.astype(np.int32), store.cells(rows), order.astype(np.int32))
    return Selection(store.gather(rows), provenance, coreset.radius, points.shape[1])


def projected_dimension(config: CoresetConfig, patches: int, dimension: int) -> int:
    """Dimensions the greedy measures in; never more than the features have."""
    if config.projection == "johnson-lindenstrauss":
        wanted = int(johnson_lindenstrauss_min_dim(patches, eps=config.epsilon))
        return min(wanted, dimension)
    return min(config.projection or dimension, dimension)


def _project(store: FeatureStore, config: CoresetConfig, device: torch.device) -> Tensor:
    """All patches (N, d) after the sparse random projection of Li, Hastie & Church (2006), if any."""
    total, dimension = int(store.first_rows[-1]), store.photo(0).features.shape[1]
    target = projected_dimension(config, total, dimension)
    matrix = None
    if target < dimension:
        projection = SparseRandomProjection(target, random_state=config.seed % 2**32, dense_output=True)
        projection.fit(np.zeros((1, dimension), dtype=np.float32))
        dense = projection.components_.T.toarray().astype(np.float32)  # (D, d)
        matrix = torch.from_numpy(dense).to(device)
    points = torch.empty((total, target), device=device)
    for number, first in enumerate(store.first_rows[:-1]):
        features = torch.from_numpy(np.array(store.photo(number).features)).to(device)
        points[first : first + len(features)] = features if matrix is None else features @ matrix
    return points
