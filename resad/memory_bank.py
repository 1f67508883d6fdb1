"""The memory bank B_c: the healthy patch features that the coreset kept, where each came from, and their search
(equation 7)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from resad.errors import REBUILD, IndexInvalid, SettingError
from resad.neighbors import Neighbors, direct_distances, nearest_first
from resad.search.flat import (
    FlatSearch,
    IvfSearch,
    RowSearch,
    faster_on_gpu,
    flat_index,
    memories_on,
    read_flat,
    vectors_of,
    write_faiss,
)
from resad.search.plan import SearchPlan
from resad.search.pruned import PrunedRows, PrunedSearch

FAISS_FILE: Final = "memory_bank.faiss"
PLAN_FILE: Final = "search.json"
PROVENANCE_FILE: Final = "provenance.npz"
_ROWS_PER_CHECK: Final = 4096
"""Rows that are tested for NaN at a time: bounds the (rows, D) truth values."""
_FLAT: Final = SearchPlan()
_PLAN: Final = TypeAdapter(SearchPlan)


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where each memory came from: `provenance.npz` beside the memories.

    photo: int32 (M,), the reference photo's row in `photos.jsonl`.  cell: int16 (M, 2), (y, x) on the patch grid.
    pick: int32 (M,), its place in the greedy's order, so that the first m picks are the coreset of m memories.
    """

    photo: NDArray[np.int32]
    cell: NDArray[np.int16]
    pick: NDArray[np.int32]

    def subset(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> "Provenance":
        """The provenance of a subset of memories: bool (M,), or rows in their order."""
        return Provenance(self.photo[rows], self.cell[rows], self.pick[rows])

    def bank_order(self) -> NDArray[np.intp]:
        """The rows in the order in which a bank stores its memories: by photo, within a photo in reading order."""
        return np.lexsort((self.cell[:, 1], self.cell[:, 0], self.photo))

    def save(self, folder: Path) -> None:
        """Write `provenance.npz` into `folder`."""
        np.savez_compressed(folder / PROVENANCE_FILE, photo=self.photo, cell=self.cell, pick=self.pick)

    def check(self, memories: int, path: Path) -> None:
        """Raise `IndexInvalid` if these are not the arrays of that many memories."""
        shapes = (self.photo.shape, self.cell.shape, self.pick.shape)
        kinds = {array.dtype.kind for array in (self.photo, self.cell, self.pick)}
        if shapes != ((memories,), (memories, 2), (memories,)) or kinds != {"i"}:
            raise IndexInvalid(f"{path} has arrays of {shapes}, which do not belong to {memories} memories")

    @classmethod
    def load(cls, folder: Path) -> "Provenance":
        """The inverse of `save`; raises about ten types of errors for a file that it did not write."""
        with np.load(folder / PROVENANCE_FILE, allow_pickle=False) as arrays:
            return cls(arrays["photo"], arrays["cell"], arrays["pick"])


class MemoryBank:
    """Memories and their search.

    A GPU index must not be used from two threads at a time, not even for searches.

    Args:
        memories: float32 (M, D).
        provenance: of the M memories.
        gpu: number of the GPU to search on; None for the CPU.
        plan: how to search.
    Raises:
        IndexInvalid: a memory is not finite.
        SettingError: FAISS does not see the GPU, or its memory is too small.
    """

    def __init__(
        self,
        memories: NDArray[np.float32],
        provenance: Provenance,
        *,
        gpu: int | None = None,
        plan: SearchPlan = _FLAT,
    ) -> None:
        _check_finite(memories, "memory")
        self._set_memories(flat_index(memories), provenance, gpu, plan)
        self._set_searches()

    def _set_memories(self, flat: Any, provenance: Provenance, gpu: int | None, plan: SearchPlan) -> None:
        if flat.ntotal != len(provenance.photo):
            raise IndexInvalid(f"{flat.ntotal} memories, but {len(provenance.photo)} rows of provenance")
        self.provenance = provenance
        self.plan = plan
        self._gpu = gpu
        # The CPU index owns the only copy; with a GPU it remains for the direct distances.
        self._flat = flat
        self.memories: NDArray[np.float32] = vectors_of(flat)

    def _set_searches(self, pruned: PrunedSearch | None = None, folder: Path | None = None) -> None:
        """Set up the exact search and the fast one; they are the same where the plan is exact.

        pruned: a pruned search of these memories, if it exists already.  folder: where an IVF search was saved.
        """
        self._exact = self._exact_search(pruned)
        self._fast: RowSearch = self._exact
        if not self.plan.exact:
            self._fast = (
                IvfSearch.build(self.memories, self.plan)
                if folder is None
                else IvfSearch.load(folder, self.memories, self.plan)
            )

    def _exact_search(self, pruned: PrunedSearch | None) -> RowSearch:
        if self.plan.kind == "flat":
            if self._gpu is not None:
                return faster_on_gpu(self._flat, self.memories, self._gpu)
            return FlatSearch(self._flat, len(self.memories))
        device = torch.device("cpu" if self._gpu is None else f"cuda:{self._gpu}")
        if pruned is None:
            pruned = PrunedSearch(memories_on(self.memories, device), self.plan.width, self.plan.limit)
        return PrunedRows(pruned, device)

    def __len__(self) -> int:
        return len(self.memories)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.memories.shape[1])

    @property
    def gpu(self) -> int | None:
        """Number of the GPU that searches; None for the CPU."""
        return self._gpu

    @property
    def proved(self) -> float:
        """`PrunedResult.proved` of the last search; 1 where no pruned search runs."""
        return self._exact.proved if isinstance(self._exact, PrunedRows) else 1.0

    def search(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest memories of each patch, exactly, whatever the plan.

        FAISS finds the rows through |q|^2 - 2 q b + |b|^2, which cancels for near neighbors.  The returned
        distances come from the differences themselves, and so agree between CPU and GPU and between plans.

        Args:
            features: float32 (N, D).
            k: at most the number of memories.
        Raises:
            IndexInvalid: `features` have another dimension, are not finite or so large that squared distances
                exceed float32, or there are fewer than k memories.
        """
        return self._measure(self._exact, features, k)

    def search_fast(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """As the plan says.  With `ivf` neighbors may not be the nearest; no distance is below the true one.

        Arguments and errors as for `search`.
        """
        return self._measure(self._fast, features, k)

    def _measure(self, search: RowSearch, features: NDArray[np.float32], k: int) -> Neighbors:
        if features.shape[1] != self.dimension or k > len(self):
            raise IndexInvalid(
                f"{k} neighbors of {features.shape[1]}-dimensional patches asked of a memory bank "
                f"of {len(self)} memories with {self.dimension} dimensions"
            )
        # Writable, because torch warns of an array that is mapped for reading only.
        features = np.require(features, dtype=np.float32, requirements=("C", "W"))
        _check_finite(features, "patch")
        neighbors = self._nearest(search, features, k)
        if isinstance(search, IvfSearch):
            neighbors = self._complete(neighbors, features, k)
        if np.isinf(neighbors.distances).any():
            row = int(np.isinf(neighbors.distances).any(axis=1).argmax())
            raise IndexInvalid(f"patch {row} is too far from the memories: squared distances exceed float32")
        return neighbors

    def _nearest(self, search: RowSearch, features: NDArray[np.float32], k: int) -> Neighbors:
        """The neighbors by `search`, measured; row -1 and an infinite distance where it finds too few."""
        rows = search.rows(features, k)
        return nearest_first(direct_distances(features, self.memories, rows), rows, k)

    def _complete(self, neighbors: Neighbors, features: NDArray[np.float32], k: int) -> Neighbors:
        """`neighbors` of an approximate search, with an exact one where it found fewer than k rows."""
        short = neighbors.rows[:, -1] < 0
        if short.any():
            exact = self._nearest(self._exact, features[short], k)
            neighbors.distances[short], neighbors.rows[short] = exact.distances, exact.rows
        return neighbors

    def without_photos(self, photos: NDArray[np.int32]) -> "MemoryBank":
        """The bank as if these reference photos had never been in it (their memories gone, nothing refilled).

        Searched exactly: flat, or pruned where this one is.
        """
        keep = ~np.isin(self.provenance.photo, photos)
        plan = self.plan if self.plan.exact and keep.any() else _FLAT
        part = MemoryBank.__new__(MemoryBank)
        part._set_memories(flat_index(self.memories[keep]), self.provenance.subset(keep), self._gpu, plan)
        pruned = None
        if plan.kind == "proved" and isinstance(self._exact, PrunedRows):
            pruned = self._exact.subset(part.memories, keep)
        part._set_searches(pruned)
        return part

    def with_plan(self, plan: SearchPlan) -> "MemoryBank":
        """The same memories, not copied, with another search."""
        bank = MemoryBank.__new__(MemoryBank)
        bank._set_memories(self._flat, self.provenance, self._gpu, plan)
        bank._set_searches()
        return bank

    def save(self, folder: Path) -> None:
        """Write the memories (in CPU form), the provenance and, if it is not flat, the plan into `folder`."""
        write_faiss(self._flat, folder / FAISS_FILE)
        self.provenance.save(folder)
        if self.plan != _FLAT:
            (folder / PLAN_FILE).write_bytes(_PLAN.dump_json(self.plan, indent=2) + b"\n")
        if isinstance(self._fast, IvfSearch):
            self._fast.save(folder)

    @classmethod
    def load(cls, folder: Path, *, gpu: int | None = None) -> "MemoryBank":
        """The inverse of `save`; raises `IndexInvalid` if the files are missing or of another kind."""
        try:
            index = read_flat(folder / FAISS_FILE)
            provenance = Provenance.load(folder)
            plan_file = folder / PLAN_FILE
            plan = _PLAN.validate_json(plan_file.read_bytes()) if plan_file.exists() else _FLAT
        except SettingError as error:
            raise IndexInvalid(f"{folder / PLAN_FILE}: {error}; {REBUILD}") from error
        except (IndexInvalid, MemoryError):
            raise
        except Exception as error:  # NumPy and its zip reader raise about ten types for a damaged file
            raise IndexInvalid(f"the memory bank in {folder} cannot be read") from error
        provenance.check(index.ntotal, folder / PROVENANCE_FILE)
        bank = cls.__new__(cls)
        bank._set_memories(index, provenance, gpu, plan)
        _check_finite(bank.memories, "memory")
        bank._set_searches(folder=folder)
        return bank


def _check_finite(vectors: NDArray[np.float32], name: str) -> None:
    """Raise `IndexInvalid` for the first row with NaN or infinity: its distances would mean nothing."""
    for start in range(0, len(vectors), _ROWS_PER_CHECK):
        finite = np.isfinite(vectors[start : start + _ROWS_PER_CHECK]).all(axis=1)
        if not finite.all():
            raise IndexInvalid(f"{name} {start + int(finite.argmin())} is not finite: its feature has NaN or inf")
