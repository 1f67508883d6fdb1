"""The memory bank as if some photographs had never been in it, without a copy of the rest.

Memories lie photo by photo, so that leaving some out leaves a few stretches of rows, which FAISS searches on the
CPU where they are.  On a GPU, where it takes no part of a bank, `indexer.left_out_on_device` searches.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.left_out_on_device import DevicePart
from resad.errors import IndexInvalid
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, Search, direct_distances, nearest_first
from resad.search.gpu import memories_on


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutBank:
    """What is searched for a photograph that is left out.

    others: the memories of all other photographs.  own: those of the group.  Each finds a patch's k nearest.
    count: how many memories the others have.
    """

    others: Search
    own: Search | None
    count: int


class Part(Protocol):
    """Searches a part of a bank's memories, exactly."""

    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `MemoryBank.search`, among the memories `chosen`, bool (M,); the rows found are the whole bank's."""


class LeftOutBanks:
    """One bank, less the memories of any photographs; what it takes is set up once.

    Raises:
        SettingError: the memories do not fit into the GPU's memory beside what searches the whole bank.
    """

    def __init__(self, bank: MemoryBank) -> None:
        self._photos = bank.provenance.photo
        self._part: Part = CpuPart(bank.memories)
        if bank.gpu is not None:
            self._part = DevicePart(memories_on(bank.memories, torch.device("cuda", bank.gpu)))

    def without(self, photos: Iterable[int]) -> LeftOutBank:
        """The bank less the memories of `photos`, and these alone."""
        inside = np.isin(self._photos, np.fromiter(photos, dtype=np.int32))
        own = partial(self._part.search, inside) if inside.any() else None
        return LeftOutBank(partial(self._part.search, ~inside), own, int((~inside).sum()))


class CpuPart:
    """As `Part`, stretch by stretch on the CPU.

    Args:
        memories: float32 (M, D).
    """

    def __init__(self, memories: NDArray[np.float32]) -> None:
        self._memories = memories

    def search(self, chosen: NDArray[np.bool_], features: NDArray[np.float32], k: int) -> Neighbors:
        """As `Part.search`; see `MemoryBank.search` for why distances are computed again."""
        if k > (count := int(chosen.sum())):
            raise IndexInvalid(f"{k} neighbors asked of {count} memories")
        borders = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
        found = [self._in_stretch(features, k, start, stop) for start, stop in borders.reshape(-1, 2).tolist()]
        distances = np.concatenate([part.distances for part in found], axis=1)
        rows = np.concatenate([part.rows for part in found], axis=1)
        return nearest_first(distances, rows, k)

    def _in_stretch(self, features: NDArray[np.float32], k: int, start: int, stop: int) -> Neighbors:
        memories = self._memories[start:stop]
        _, rows = faiss.knn(features, memories, min(k, stop - start))
        return Neighbors(direct_distances(features, memories, rows), rows + start)
