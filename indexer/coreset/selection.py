"""Selects a memory bank from patch features: projection, greedy k-center, and the picks' features."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim
from torch import Tensor

from indexer.build.feature_store import FeatureStore
from indexer.coreset.k_center import (
    Checkpoint,
    Coreset,
    GreedyState,
    LocalShards,
    Shard,
    Shards,
    from_existing_centers,
    greedy_k_center,
)
from indexer.coreset.projected_features import (
    BLOCK_ROWS,
    Points,
    points_in_file,
    points_in_memory,
    points_in_store,
)
from resad.config import CoresetConfig
from resad.device import full_float32
from resad.errors import SettingError
from resad.memory_bank import MemoryBank, Provenance

SHARD_ROWS: Final = 16 * BLOCK_ROWS
"""Points of one shard; shards go to the devices in turn."""


class Features(Protocol):
    """The part of a feature store that `selection_of` uses, on one machine or over a cluster."""

    @property
    def dimension(self) -> int:
        """As `FeatureStore.dimension`."""

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """As `FeatureStore.first_rows`."""

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `FeatureStore.locate`."""

    def cells(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """As `FeatureStore.cells`."""

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `FeatureStore.gather`."""


class Selection(NamedTuple):
    """The selected memories.

    memories: float32 (M, D), by photo and then in reading order.  radius: covering radius in the projection.
    dimension: of the projection.
    """

    memories: NDArray[np.float32]
    provenance: Provenance
    radius: float
    dimension: int


def memory_count(config: CoresetConfig, patches: int) -> int | None:
    """Memories that the settings select from so many patches; None if a radius decides."""
    if config.share is not None:
        memories = max(1, round(config.share * patches))
        return memories if config.most is None else min(memories, config.most)
    if config.count is not None and config.count > patches:
        raise SettingError(f"a coreset of {config.count} memories asked of {patches} patches; 1.0 keeps them all")
    return config.count


def sample_size(config: CoresetConfig, patches: int) -> int:
    """Patches that the greedy picks from."""
    return patches if config.sample == 1 else max(1, round(config.sample * patches))


def select(
    store: FeatureStore,
    config: CoresetConfig,
    devices: Sequence[torch.device],
    on_picks: Callable[[int], None],
    *,
    file: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Selection:
    """Select memories from all patches in `store`.

    Args:
        devices: share the points; the picks do not depend on their number.
        file: for the points, unless they are the stored features themselves; without it they are in memory.  The
            picks are the same.
        checkpoint: of an interrupted greedy, which resumes there.
    """
    total = int(store.first_rows[-1])
    sample, size = sample_of(config, total), sample_size(config, total)
    points = _points(store, config, sample, size, devices, file)
    shards = LocalShards([Shard(part, number * SHARD_ROWS) for number, part in enumerate(points)])
    return selection_of(run_greedy(shards, config, total, on_picks, checkpoint), sample, store, config)


def run_greedy(
    shards: Shards,
    config: CoresetConfig,
    patches: int,
    on_picks: Callable[[int], None],
    checkpoint: Checkpoint | None = None,
) -> Coreset:
    """Run the greedy over the points of so many patches, resumed from `checkpoint` if it has a state."""
    first = int(np.random.default_rng(config.seed).integers(shards.total))
    on_round: Callable[[Callable[[], GreedyState]], None] = (
        (lambda _: None) if checkpoint is None else checkpoint.on_round
    )
    coreset = greedy_k_center(
        shards,
        first,
        count=memory_count(config, patches),
        radius=config.radius,
        on_picks=on_picks,
        resume_from=None if checkpoint is None else checkpoint.read(shards.total, first),
        on_round=on_round,
    )
    if checkpoint is not None:
        checkpoint.flush()
    return coreset


def selection_of(
    coreset: Coreset, sample: NDArray[np.int64] | None, store: Features, config: CoresetConfig
) -> Selection:
    """The features and provenance of the picks.

    Args:
        sample: the rows that the greedy picked from; None for all.
    """
    picked = coreset.rows if sample is None else sample[coreset.rows]
    order = np.argsort(picked)
    rows = picked[order]
    photos, _ = store.locate(rows)
    provenance = Provenance(photos.astype(np.int32), store.cells(rows), order.astype(np.int32))
    size = sample_size(config, int(store.first_rows[-1]))
    dimension = projected_dimension(config, size, store.dimension)
    return Selection(store.gather(rows), provenance, coreset.radius, dimension)


def projected_dimension(config: CoresetConfig, patches: int, dimension: int) -> int:
    """Dimensions of the projection; never more than the features have."""
    return min(int(johnson_lindenstrauss_min_dim(patches, eps=config.epsilon)), dimension)


def sample_of(config: CoresetConfig, patches: int) -> NDArray[np.int64] | None:
    """The rows that the greedy picks from, ascending; None for all of them, which would be 8 bytes a patch."""
    size = sample_size(config, patches)
    if size == patches:
        return None
    return np.sort(np.random.default_rng((config.seed, 1)).choice(patches, size, replace=False))


def _points(
    store: FeatureStore,
    config: CoresetConfig,
    sample: NDArray[np.int64] | None,
    size: int,
    devices: Sequence[torch.device],
    file: Path | None,
) -> Sequence[Points]:
    """The projected and centered features of the `size` patches of `sample`, or of all, shard by shard."""
    target = projected_dimension(config, size, store.dimension)
    matrix = projection(store.dimension, target, config.seed)
    if matrix is not None:
        matrix = matrix.to(devices[0])
    chunks = projected_chunks(store, sample, matrix, devices[0])
    if file is None:
        return points_in_memory(chunks, size, target, devices, SHARD_ROWS)
    if matrix is None and sample is None:
        return points_in_store(store, chunks, devices, SHARD_ROWS)
    return points_in_file(chunks, size, target, devices, SHARD_ROWS, file)


def projected_chunks(
    store: FeatureStore, sample: NDArray[np.int64] | None, matrix: Tensor | None, device: torch.device
) -> Iterator[Tensor]:
    """Photo by photo the projected features of the rows of `sample`, or of all: float32 (n, d)."""
    first_rows = store.first_rows
    borders = first_rows if sample is None else np.searchsorted(sample, first_rows)
    for number, (start, stop) in enumerate(pairwise(borders.tolist())):
        if start == stop:
            continue
        features = torch.from_numpy(store.photo(number).features)
        if sample is not None and stop - start < len(features):
            features = features[torch.from_numpy(sample[start:stop] - first_rows[number])]
        chunk = features.to(device)
        if matrix is not None:
            with full_float32():
                chunk = torch.matmul(chunk, matrix)
        yield chunk


def projection(dimension: int, target: int, seed: int) -> Tensor | None:
    """The sparse random projection (D, d) of Li, Hastie & Church (2006); None if d is not below D."""
    if target >= dimension:
        return None
    projection = SparseRandomProjection(target, random_state=seed % 2**32, dense_output=True)
    projection.fit(np.zeros((1, dimension), dtype=np.float32))
    return torch.from_numpy(projection.components_.T.toarray().astype(np.float32))


_TOLERANCE: Final = 1 + 1e-6
"""Times the radius: a patch just at the radius counts as covered, whichever way it is rounded."""
_MAX_MEMORY: Final = 2 * 10**9
"""Bytes of uncovered patches in memory; more go to disk while the greedy runs."""


class _Uncovered(NamedTuple):
    """Rows of the store's photographs, by photograph, and their squared distance to the nearest memory."""

    rows: tuple[NDArray[np.int64], ...]
    squared: NDArray[np.float32]


def extend(
    bank: MemoryBank,
    store: FeatureStore,
    numbers: Sequence[int],
    radius: float,
    device: torch.device,
    on_photo: Callable[[int], None],
    file: Path,
) -> MemoryBank:
    """Add patches of `store` to a memory bank until it covers all of them at `radius`.

    Only patches farther from every memory than the radius are considered, so that this takes the time of searching
    the patches in the bank.  Distances are those of the features themselves, without a build's projection: the
    radius is the one that the manifest states.

    Args:
        numbers: of the store's photographs in the bank's provenance.
        radius: feature units.
        on_photo: called for each photograph that was searched in the bank.
        file: for the points, if the uncovered patches do not fit into memory.
    """
    uncovered = _uncovered(bank, store, radius * _TOLERANCE, on_photo)
    total = len(uncovered.squared)
    if not total:
        return bank
    chunks = _chunks(store, uncovered.rows, device)
    if total * store.dimension * 4 <= _MAX_MEMORY:
        points = points_in_memory(chunks, total, store.dimension, [device], SHARD_ROWS)
    else:
        points = points_in_file(chunks, total, store.dimension, [device], SHARD_ROWS, file)  # type: ignore[assignment]
    shards = LocalShards([Shard(part, number * SHARD_ROWS) for number, part in enumerate(points)])
    picks = greedy_k_center(
        shards, 0, radius=radius * _TOLERANCE, resume_from=from_existing_centers(uncovered.squared)
    ).rows
    first_rows = store.first_rows
    store_rows = np.concatenate([first_rows[place] + rows for place, rows in enumerate(uncovered.rows)])[picks]
    return _with_memories(bank, store, store_rows, np.asarray(numbers, dtype=np.int32))


def _uncovered(
    bank: MemoryBank, store: FeatureStore, radius: float, on_photo: Callable[[int], None]
) -> _Uncovered:
    rows, squared = [], []
    for patches in store:
        nearest = bank.search(patches.features, 1).distances[:, 0]
        beyond = np.flatnonzero(nearest > radius)
        rows.append(beyond)
        squared.append(nearest[beyond] ** 2)
        on_photo(1)
    return _Uncovered(tuple(rows), np.concatenate(squared))


def _chunks(store: FeatureStore, rows: Sequence[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    for number, photo_rows in enumerate(rows):
        if len(photo_rows):
            yield torch.from_numpy(store.photo(number).features[photo_rows]).to(device)


def _with_memories(
    bank: MemoryBank, store: FeatureStore, rows: NDArray[np.int64], numbers: NDArray[np.int32]
) -> MemoryBank:
    """`bank` with the store's `rows`, given in the order of their picks; memories lie photo by photo."""
    origin, entered = bank.provenance, len(rows)
    places, _ = store.locate(rows)
    merged = Provenance(
        np.concatenate([origin.photo, numbers[places]]),
        np.concatenate([origin.cell, store.cells(rows)]),
        np.concatenate([origin.pick, np.arange(len(bank), len(bank) + entered, dtype=np.int32)]),
    )
    order = merged.bank_order()
    memories = np.concatenate([bank.memories, store.gather(rows)])[order]
    return MemoryBank(memories, merged.subset(order), gpu=bank.gpu, plan=bank.plan)
