"""Where each memory of a memory bank came from: `provenance.npz` beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

PROVENANCE_FILE: Final = "provenance.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where each memory came from.

    photo: int32 (M,), the reference photo's row in `photos.jsonl`.  cell: int16 (M, 2), (y, x) on the patch grid.
    pick: int32 (M,), its place in the greedy's order, so that the first m picks are the coreset of m memories.
    """

    photo: NDArray[np.int32]
    cell: NDArray[np.int16]
    pick: NDArray[np.int32]

    def taken(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Provenance":
        """That of some memories, bool (M,), or of the memories at these rows in their order."""
        return Provenance(self.photo[rows], self.cell[rows], self.pick[rows])

    def photo_by_photo(self) -> NDArray[np.intp]:
        """The rows in the order in which a bank holds its memories: by photo, in each in reading order."""
        return np.lexsort((self.cell[:, 1], self.cell[:, 0], self.photo))

    def save(self, folder: Path) -> None:
        """Write `provenance.npz` into `folder`."""
        np.savez_compressed(folder / PROVENANCE_FILE, photo=self.photo, cell=self.cell, pick=self.pick)

    @classmethod
    def load(cls, folder: Path) -> "Provenance":
        """The inverse of `save`; raises `OSError`, `ValueError` or `KeyError` for a file that it did not write."""
        with np.load(folder / PROVENANCE_FILE, allow_pickle=False) as arrays:
            return cls(arrays["photo"], arrays["cell"], arrays["pick"])
