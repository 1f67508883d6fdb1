"""A memory bank and more patches -> the bank with those that it does not cover: the greedy, gone on with.

Only patches farther from every memory than the radius are looked at, so that the time is that of searching the
patches in the bank.  Distances are those of the features themselves, without the projection that a build measures
in: the radius that is kept is the one that the manifest states.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.coreset import beside, greedy_k_center
from indexer.feature_store import FeatureStore
from indexer.points import held, stored
from indexer.selection import SHARD_ROWS
from indexer.shards import HeldShards, Shard
from resad.memory_bank import MemoryBank
from resad.provenance import Provenance

_HAIR: Final = 1 + 1e-6
"""Times the radius: rounding moves the patch that is just at the radius, and it is covered."""
_HELD_BYTES: Final = 2 * 10**9
"""Of uncovered patches; more lie on disk while the greedy looks at them."""


class _Uncovered(NamedTuple):
    """Rows of the store's photographs, by photograph, and their squared distance to the nearest memory."""

    rows: tuple[NDArray[np.int64], ...]
    squared: NDArray[np.float32]


def enlarge(
    bank: MemoryBank,
    store: FeatureStore,
    numbers: Sequence[int],
    radius: float,
    device: torch.device,
    on_photo: Callable[[int], None],
    file: Path,
) -> MemoryBank:
    """`bank` with patches of `store` entered until it covers them all at `radius`; itself where it does already.

    Args:
        numbers: what the bank calls each of the store's photographs.
        radius: feature units.
        on_photo: told of each photograph that was searched in the bank.
        file: to be made, where the uncovered patches do not fit into memory.
    """
    uncovered = _uncovered(bank, store, radius * _HAIR, on_photo)
    total = len(uncovered.squared)
    if not total:
        return bank
    chunks = _chunks(store, uncovered.rows, device)
    if total * store.dimension * 4 <= _HELD_BYTES:
        points = held(chunks, total, store.dimension, [device], SHARD_ROWS)
    else:
        points = stored(chunks, total, store.dimension, [device], SHARD_ROWS, file)  # type: ignore[assignment]
    shards = HeldShards([Shard(some, number * SHARD_ROWS) for number, some in enumerate(points)])
    picks = greedy_k_center(shards, 0, radius=radius * _HAIR, begun=beside(uncovered.squared)).rows
    first_rows = store.first_rows
    of_all = np.concatenate([first_rows[place] + rows for place, rows in enumerate(uncovered.rows)])[picks]
    return _with(bank, store, of_all, np.asarray(numbers, dtype=np.int32))


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
    for number, some in enumerate(rows):
        if len(some):
            yield torch.from_numpy(store.photo(number).features[some]).to(device)


def _with(
    bank: MemoryBank, store: FeatureStore, rows: NDArray[np.int64], numbers: NDArray[np.int32]
) -> MemoryBank:
    """`bank` and the store's `rows`, in the order in which they were picked; photo by photo as ever."""
    origin, entered = bank.provenance, len(rows)
    places, _ = store.locate(rows)
    both = Provenance(
        np.concatenate([origin.photo, numbers[places]]),
        np.concatenate([origin.cell, store.cells(rows)]),
        np.concatenate([origin.pick, np.arange(len(bank), len(bank) + entered, dtype=np.int32)]),
    )
    order = both.photo_by_photo()
    memories = np.concatenate([bank.memories, store.gather(rows)])[order]
    return MemoryBank(memories, both.taken(order), gpu=bank.gpu, plan=bank.plan)
