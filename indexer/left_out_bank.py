"""The memory bank as if some photographs had never been in it, without a copy of the rest.

Memories lie photo by photo, so that leaving some out leaves a few stretches of rows, which are searched where they
are.  On a GPU, whose search takes no part of a bank, a smaller bank is made as before.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from resad.errors import IndexInvalid
from resad.memory_bank import MemoryBank, Neighbors

_REFINED_VALUES: Final = 2**22
"""Of the (rows, k, D) differences that are held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class LeftOutBank:
    """What is searched for a photograph that is left out.

    others: the memories of all other photographs.  own: those of the group.  Each finds a patch's k nearest.
    count: how many memories the others have.
    """

    others: Callable[[NDArray[np.float32], int], Neighbors]
    own: Callable[[NDArray[np.float32], int], Neighbors] | None
    count: int


def left_out_bank(bank: MemoryBank, photos: Iterable[int]) -> LeftOutBank:
    """`bank` less the memories of `photos`, and these alone."""
    group = np.fromiter(photos, dtype=np.int32)
    inside = np.isin(bank.provenance.photo, group)
    count = int((~inside).sum())
    if bank.gpu is not None:
        others = np.setdiff1d(bank.provenance.photo, group).astype(np.int32)
        own = bank.without_photos(others).search if inside.any() else None
        return LeftOutBank(bank.without_photos(group).search, own, count)
    own_rows = _Stretches(bank.memories, inside).search if inside.any() else None
    return LeftOutBank(_Stretches(bank.memories, ~inside).search, own_rows, count)


class _Stretches:
    """Some rows of a bank on the CPU, searched exactly.

    Args:
        memories: float32 (M, D).
        chosen: bool (M,).
    """

    def __init__(self, memories: NDArray[np.float32], chosen: NDArray[np.bool_]) -> None:
        self._memories = memories
        borders = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
        self._stretches = borders.reshape(-1, 2).tolist()
        self._count = int(chosen.sum())

    def search(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """As `MemoryBank.search`, which see for why distances are computed again; rows are the whole bank's."""
        if k > self._count:
            raise IndexInvalid(f"{k} neighbors asked of {self._count} memories")
        found = [self._in_stretch(features, k, start, stop) for start, stop in self._stretches]
        distances = np.concatenate([part.distances for part in found], axis=1)
        rows = np.concatenate([part.rows for part in found], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1))

    def _in_stretch(self, features: NDArray[np.float32], k: int, start: int, stop: int) -> Neighbors:
        memories = self._memories[start:stop]
        _, rows = faiss.knn(features, memories, min(k, stop - start))
        distances = np.empty(rows.shape, dtype=np.float32)
        at_once = max(_REFINED_VALUES // (rows.shape[1] * features.shape[1]), 1)
        for first in range(0, len(features), at_once):
            some = slice(first, first + at_once)
            difference = features[some, None, :] - memories[rows[some]]  # (rows, k, D)
            distances[some] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
        return Neighbors(distances, rows + start)
