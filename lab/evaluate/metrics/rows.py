"""Counts per photograph and bin, most of them 0: a normal photograph has no lesion, a map its own range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lab.evaluate.bootstrap import Floats, Labels


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A row of counts a photograph, only those held that are not 0: nothing is lost, and ten thousand
    photographs fit where whole rows would take ten times the memory.

    held: int32 for pixels, float64 for regions; (n, bins), lowest bin first.
    """

    held: "csr_array[Any]"

    @classmethod
    def of(cls, table: "NDArray[np.int64] | Floats") -> Self:
        """The same as a `table` (n, bins)."""
        gathered = GatheredRows(table.shape[1])
        for row in table:
            gathered.add(row)
        return cls(gathered.rows().held)

    @property
    def shape(self) -> tuple[int, int]:
        """Photographs and bins."""
        photos, bins = self.held.shape
        return photos, bins

    def any(self) -> bool:
        """Is there a count at all?"""
        return self.held.nnz > 0

    def per_bin(self) -> Floats:
        """Sums over photographs: float64 (bins,)."""
        return np.asarray(np.ones(self.shape[0]) @ self.held, dtype=np.float64)

    def per_photo(self) -> Floats:
        """Sums over bins: float64 (n,)."""
        return np.asarray(self.held @ np.ones(self.shape[1]), dtype=np.float64)

    def only(self, chosen: Labels) -> "Rows":
        """Those of the `chosen` photographs, bool (n,)."""
        return Rows(self.held[chosen])

    def row(self, number: int) -> Floats:
        """One photograph's: float64 (1, bins)."""
        return np.asarray(self.held[[number]].toarray(), dtype=np.float64)

    def table(self, places: NDArray[np.intp], count: int) -> Floats:
        """All of them as float64 (n, count), bin b added to column `places[b]`."""
        held = self.held
        merged = csr_array(
            (held.data.astype(np.float64), places[held.indices], held.indptr), shape=(held.shape[0], count)
        )
        return np.asarray(merged.toarray())


class GatheredRows:
    """Rows while photographs are still being measured."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._places: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int32 | np.float64]] = []

    def add(self, row: "NDArray[np.int64] | Floats") -> None:
        """The next photograph's (bins,), not negative."""
        places = np.flatnonzero(row)
        self._places.append(places.astype(np.int32))
        # A photograph has fewer than 2**31 pixels.
        kind = np.float64 if row.dtype == np.float64 else np.int32
        self._counts.append(row[places].astype(kind))

    def rows(self) -> Rows:
        """What was gathered, of which nothing is kept here."""
        ends = np.cumsum([0, *(len(one) for one in self._places)])
        counts, self._counts = _joined(self._counts), []
        places, self._places = _joined(self._places), []
        return Rows(csr_array((counts, places, ends), shape=(len(ends) - 1, self._bins)))


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
