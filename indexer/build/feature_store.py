"""Patch features on disk: two or three plain files per photograph, written once, read in order.

A build has them in its state, and a version with `--keep-features` keeps them.

The files are read, not mapped: the pages of a map count as this process's memory until the system needs them, so
that no memory limit could be kept.  Values stay float32: in float16 distances were up to 7e-4 off,
and most picks of the greedy changed.
"""

import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
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
    """The third file, float32 (N, D), features of the mirror image; only if the settings ask for it."""
    return place.with_name(f"{place.name}.mirrored")


def all_files(place: Path) -> tuple[Path, ...]:
    """All files of a photograph at `place`; the last one may be missing."""
    return (*stored_files(place), mirrored_file(place))


def checksum(patches: PatchFeatures) -> int:
    """CRC-32 of a photograph's files: detects disk errors and truncation, not tampering."""
    return _checksum(patches.cells, patches.features, patches.mirrored)


def _checksum(*stored: "NDArray[np.int16] | NDArray[np.float32] | None") -> int:
    crc = 0
    for values in stored:
        crc = crc if values is None else zlib.crc32(np.ascontiguousarray(values).data, crc)
    return crc


class FeatureStore:
    """The features of all reference photos, in order; rows are numbered through all photos.

    Args:
        folder: to be made, or the folder of an earlier store, whose photographs `recall` adds.
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

    def add_stored(self, place: Path, grid: tuple[int, int], patches: int, expected: int | None = None) -> bool:
        """Add a photograph whose files lie at `place`, in any folder; False if they are incomplete.

        Args:
            expected: its `checksum`; without it only the files' sizes are checked.
        """
        sizes = [path.stat().st_size if path.is_file() else 0 for path in stored_files(place)]
        dimension, remainder = divmod(sizes[1], patches * _VALUE.itemsize)
        mirrored = mirrored_file(place)
        fitting = dimension == (self._dimension or dimension)
        fitting = fitting and (not mirrored.is_file() or mirrored.stat().st_size == sizes[1])
        if sizes[0] != patches * _CELL.itemsize or remainder or not dimension or not fitting:
            return False
        cells_file, features_file = stored_files(place)
        cells = np.fromfile(cells_file, dtype=np.int16).reshape(-1, 2)
        if expected is not None:
            files = (path for path in (features_file, mirrored) if path.is_file())
            if _checksum(cells, *(np.fromfile(path, dtype=np.float32) for path in files)) != expected:
                return False
        self._add(place, cells, grid, dimension)
        return True

    def share(self, store: "FeatureStore", number: int) -> None:
        """Add a photograph of another store; its files stay where they are."""
        self._add(store._places[number], store._cells[number], store._grids[number], store._dimension)

    def recall(
        self, grids: Sequence[tuple[int, int]], patches: Sequence[int], checksums: Sequence[int] | None = None
    ) -> int:
        """Add the photographs whose files lie in the folder, up to the first that is incomplete.

        Args:
            grids, patches: of each photograph, in order.
            checksums: `checksum` of each; without them only the files' sizes are checked.
        Returns:
            the number of photographs added.
        """
        for number, (grid, count) in enumerate(zip(grids, patches, strict=True)):
            expected = None if checksums is None else checksums[number]
            if not self.add_stored(self._place(number), grid, count, expected):
                return number
        return len(patches)

    def truncate(self, count: int) -> None:
        """Keep only the first `count` photographs; later ones will overwrite the files of the rest."""
        del self._cells[count:], self._grids[count:], self._places[count:]

    def photo(self, number: int) -> PatchFeatures:
        """The features of one photograph, read from its files."""
        place, shape = self._places[number], (len(self._cells[number]), self._dimension)
        file = mirrored_file(place)
        mirrored = _read(file, shape) if file.is_file() else None
        return PatchFeatures(
            _read(stored_files(place)[1], shape), self._cells[number], self._grids[number], mirrored
        )

    def place(self, number: int) -> Path:
        """The place of a photograph's files, for `stored_files`."""
        return self._places[number]

    @property
    def dimension(self) -> int:
        """Dimension of the features, D; 0 without photographs."""
        return self._dimension

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """int64 (photos + 1,): the first row of each photograph; the last entry is the number of rows."""
        return np.cumsum([0, *(len(cells) for cells in self._cells)], dtype=np.int64)

    def read(self, first: int, rows: torch.Tensor) -> None:
        """Fill `rows`, float32 (n, D), with the features from row `first` on, of one photograph or several."""
        values, first_rows, filled = rows.numpy(), self.first_rows, 0
        photo = int(np.searchsorted(first_rows, first, side="right")) - 1
        while filled < len(values):
            start = first + filled - int(first_rows[photo])
            count = min(int(first_rows[photo + 1] - first_rows[photo]) - start, len(values) - filled)
            with stored_files(self._places[photo])[1].open("rb", buffering=0) as file:
                file.seek(start * self._dimension * _VALUE.itemsize)
                _fill(values[filled : filled + count], file)
            filled, photo = filled + count, photo + 1

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features (M, D) of these rows, in the given order."""
        photos, local = self.locate(rows)
        gathered = np.empty((len(rows), self._dimension), dtype=np.float32)
        for number in np.unique(photos):
            with stored_files(self._places[number])[1].open("rb", buffering=0) as file:
                for place in np.flatnonzero(photos == number):
                    file.seek(int(local[place]) * self._dimension * _VALUE.itemsize)
                    _fill(gathered[place], file)
        return gathered

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The photograph of each row, and the row within the photograph."""
        photos = np.searchsorted(self.first_rows, rows, side="right") - 1
        return photos, rows - self.first_rows[photos]

    def cells(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """(y, x) on the patch grid of these rows: int16 (M, 2)."""
        return np.concatenate(self._cells)[rows]

    def _add(self, place: Path, cells: NDArray[np.int16], grid: tuple[int, int], dimension: int) -> None:
        self._dimension = dimension
        self._places.append(place)
        self._grids.append(grid)
        self._cells.append(cells)  # last: its length is the store's

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:06d}"


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    # torch's memory begins at a multiple of 64 bytes, NumPy's of 16, which can change how a product rounds.
    values: NDArray[np.float32] = torch.empty(shape).numpy()
    with path.open("rb", buffering=0) as file:
        _fill(values, file)
    return values


def _fill(values: NDArray[np.float32], file: FileIO) -> None:
    if file.readinto(values.data.cast("B")) != values.nbytes:
        raise OSError(f"{file.name} was cut short while it was in use")
