"""Patch features on disk: two or three plain files per photograph, written once, read in order.

They lie so while an index is built, and in a version that keeps them.

They are read, not mapped: pages of a map count as this process's memory for as long as nobody else wants them, so
that a limit could not be kept or even measured.  What is read once goes through the system's cache all the same.
Values stay float32: in float16 distances came out up to 7e-4 off and most picks of the greedy were others.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from resad.encoder import PatchFeatures

_VALUE: Final = np.dtype(np.float32)
_CELL: Final = np.dtype((np.int16, 2))


def stored_files(place: Path) -> tuple[Path, Path]:
    """The two files of a photograph at `place`: cells, int16 (N, 2), and features, float32 (N, D); raw values."""
    return place.with_name(f"{place.name}.cells"), place.with_name(f"{place.name}.features")


def mirrored_file(place: Path) -> Path:
    """The third one, float32 (N, D), there where the settings ask for the mirror image."""
    return place.with_name(f"{place.name}.mirrored")


def all_files(place: Path) -> tuple[Path, ...]:
    """Where a photograph at `place` lies; the last one need not be there."""
    return (*stored_files(place), mirrored_file(place))


def checksum(patches: PatchFeatures) -> int:
    """CRC-32 of what is stored of a photograph: against a disk's faults and cut files, not against anyone."""
    return _checksum(patches.cells, patches.features, patches.mirrored)


def _checksum(*stored: "NDArray[np.int16] | NDArray[np.float32] | None") -> int:
    found = 0
    for values in stored:
        found = found if values is None else zlib.crc32(np.ascontiguousarray(values).data, found)
    return found


class FeatureStore:
    """The features of all reference photos, in their order; rows are counted through.

    Args:
        folder: to be made, or one that an earlier store has left and `recall` takes up.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._places: list[Path] = []
        self._cells: list[NDArray[np.int16]] = []
        self._grids: list[tuple[int, int]] = []
        self._dimension = 0

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[PatchFeatures]:
        return (self.photo(number) for number in range(len(self)))

    def append(self, patches: PatchFeatures) -> None:
        """Add the next photograph."""
        place = self._place(len(self))
        cells, features = stored_files(place)
        patches.cells.tofile(cells)
        patches.features.tofile(features)
        if patches.mirrored is None:
            mirrored_file(place).unlink(missing_ok=True)  # of an earlier store
        else:
            patches.mirrored.tofile(mirrored_file(place))
        self._add(place, patches.cells, patches.grid, patches.features.shape[1])

    def take_up(self, place: Path, grid: tuple[int, int], patches: int, expected: int | None = None) -> bool:
        """Add a photograph that lies at `place`, wherever that is; False where it is not whole.

        Args:
            expected: its `checksum`; without it files that have their size are whole.
        """
        sizes = [path.stat().st_size if path.is_file() else 0 for path in stored_files(place)]
        dimension, rest = divmod(sizes[1], patches * _VALUE.itemsize)
        mirrored = mirrored_file(place)
        fitting = dimension == (self._dimension or dimension)
        fitting = fitting and (not mirrored.is_file() or mirrored.stat().st_size == sizes[1])
        if sizes[0] != patches * _CELL.itemsize or rest or not dimension or not fitting:
            return False
        cells_file, features_file = stored_files(place)
        cells = np.fromfile(cells_file, dtype=np.int16).reshape(-1, 2)
        if expected is not None:
            there = (path for path in (features_file, mirrored) if path.is_file())
            if _checksum(cells, *(np.fromfile(path, dtype=np.float32) for path in there)) != expected:
                return False
        self._add(place, cells, grid, dimension)
        return True

    def take_from(self, other: "FeatureStore", number: int) -> None:
        """Add a photograph of another store, where it lies."""
        self._add(other._places[number], other._cells[number], other._grids[number], other._dimension)

    def recall(
        self, grids: Sequence[tuple[int, int]], patches: Sequence[int], checksums: Sequence[int] | None = None
    ) -> int:
        """Take up photographs that lie in the folder; stops at the first that is not whole.

        Args:
            grids, patches: of each photograph, in order.
            checksums: `checksum` of each; without them a file that has its size is whole.
        Returns:
            how many are whole.
        """
        for number, (grid, count) in enumerate(zip(grids, patches, strict=True)):
            expected = None if checksums is None else checksums[number]
            if not self.take_up(self._place(number), grid, count, expected):
                return number
        return len(patches)

    def forget(self, count: int) -> None:
        """Keep the first `count` photographs alone; the files of the others are written over."""
        del self._cells[count:], self._grids[count:], self._places[count:]

    def photo(self, number: int) -> PatchFeatures:
        """The features of one photograph, read from its files."""
        place, shape = self._places[number], (len(self._cells[number]), self._dimension)
        other = mirrored_file(place)
        mirrored = _read(other, shape) if other.is_file() else None
        return PatchFeatures(
            _read(stored_files(place)[1], shape), self._cells[number], self._grids[number], mirrored
        )

    def place(self, number: int) -> Path:
        """Where a photograph lies, for `stored_files`."""
        return self._places[number]

    @property
    def dimension(self) -> int:
        """D; 0 while there is no photograph."""
        return self._dimension

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """int64 (photos + 1,): the row at which each photograph begins; the last entry is the number of rows."""
        return np.cumsum([0, *(len(cells) for cells in self._cells)], dtype=np.int64)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features (M, D) of some rows, in the order asked."""
        photos, local = self.locate(rows)
        gathered = np.empty((len(rows), self._dimension), dtype=np.float32)
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

    def _add(self, place: Path, cells: NDArray[np.int16], grid: tuple[int, int], dimension: int) -> None:
        self._dimension = dimension
        self._places.append(place)
        self._grids.append(grid)
        self._cells.append(cells)  # last: it is what counts

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06d}"


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    # torch's memory begins at a multiple of 64 bytes, NumPy's of 16, which can change how a product rounds.
    values: NDArray[np.float32] = torch.empty(shape).numpy()
    with path.open("rb", buffering=0) as file:
        if file.readinto(values.data.cast("B")) != values.nbytes:
            raise OSError(f"{file.name} was cut short while it was in use")
    return values
