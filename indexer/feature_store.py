"""Patch features on disk while an index is built: one memory-mapped file per photograph, deleted at the end."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from resad.encoder import PatchFeatures


class FeatureStore:
    """The features of all reference photos, in their order; rows are counted through.

    Args:
        folder: to be made, and deleted when the context ends.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._cells: list[NDArray[np.int16]] = []
        self._grids: list[tuple[int, int]] = []

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[PatchFeatures]:
        return (self.photo(number) for number in range(len(self)))

    def append(self, patches: PatchFeatures) -> None:
        """Add the next photograph."""
        np.save(self._path(len(self)), patches.features)
        self._cells.append(patches.cells)
        self._grids.append(patches.grid)

    def photo(self, number: int) -> PatchFeatures:
        """The features of one photograph, mapped and not read."""
        features = np.load(self._path(number), mmap_mode="r")
        return PatchFeatures(features, self._cells[number], self._grids[number])

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """int64 (photos + 1,): the row at which each photograph begins; the last entry is the number of rows."""
        return np.cumsum([0, *(len(cells) for cells in self._cells)], dtype=np.int64)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features (M, D) of some rows, in the order asked."""
        photos, local = self.locate(rows)
        gathered = np.empty((len(rows), self.photo(0).features.shape[1]), dtype=np.float32)
        for number in np.unique(photos):
            here = photos == number
            gathered[here] = self.photo(int(number)).features[local[here]]
        return gathered

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each row's photograph and its row within that."""
        photos = np.searchsorted(self.first_rows, rows, side="right") - 1
        return photos, rows - self.first_rows[photos]

    def cells(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """(y, x) on the patch grid of some rows: int16 (M, 2)."""
        return np.concatenate(self._cells)[rows]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.npy"
