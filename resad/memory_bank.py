"""The memory bank B_c: the healthy patch features that the coreset kept, where each came from, and their search
(equation 7)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from resad.errors import IndexInvalid
from resad.neighbors import Neighbors, direct_distances, nearest_first
from resad.search.flat import (
    ApproximateSearch,
    FlatSearch,
    ProvedRows,
    RowSearch,
    build_approximate,
    faster_on_gpu,
    flat_index,
    load_approximate,
    memories_on,
    vectors_of,
)
from resad.search.plan import SearchPlan
from resad.search.pruned import ProvedSearch

FAISS_FILE: Final = "memory_bank.faiss"
PLAN_FILE: Final = "search.json"
_CHECKED_ROWS: Final = 4096
"""Rows looked through for NaN at a time: bounds the (rows, D) truth values."""
_FLAT: Final = SearchPlan()
_PLAN: Final = TypeAdapter(SearchPlan)


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


class MemoryBank:
    """Memories and what searches them.

    A GPU index must not be used from two threads at a time, searches included.

    Args:
        memories: float32 (M, D).
        provenance: of the M memories.
        gpu: number of the GPU to search on; on the CPU without one.
        plan: how to search.
    Raises:
        IndexInvalid: a memory is not finite.
        SettingError: a GPU was asked for where FAISS sees none, or its memory is too small.
    """

    def __init__(
        self,
        memories: NDArray[np.float32],
        provenance: Provenance,
        *,
        gpu: int | None = None,
        plan: SearchPlan = _FLAT,
    ) -> None:
        _refuse_unfinite(memories, "memory")
        self._hold(flat_index(memories), provenance, gpu, plan)
        self._searches(None, None)

    def _hold(self, flat: Any, provenance: Provenance, gpu: int | None, plan: SearchPlan) -> None:
        if flat.ntotal != len(provenance.photo):
            raise IndexInvalid(f"{flat.ntotal} memories, but {len(provenance.photo)} rows of provenance")
        self.provenance = provenance
        self.plan = plan
        self._gpu = gpu
        # The CPU index owns the only copy; on a GPU it stays behind for the direct distances.
        self._flat = flat
        self.memories: NDArray[np.float32] = vectors_of(flat)

    def _searches(self, proved: ProvedSearch | None, folder: Path | None) -> None:
        """Set up what searches exactly and what searches fast; the same where the plan is exact."""
        self._exact = exact_search(self._flat, self.memories, self.plan, self._gpu, proved)
        self._fast = fast_search(self._exact, self._flat, self.memories, self.plan, folder)

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
        """`Proof.proved` of the last search where the plan is `proved`; else 1."""
        return self._exact.proved if isinstance(self._exact, ProvedRows) else 1.0

    def search(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest memories of each patch, exactly, whatever the plan.

        FAISS finds the rows through |q|^2 - 2 q b + |b|^2, which cancels for near neighbors; the distances that
        are returned come from the differences themselves, and so agree between CPU and GPU and between plans.

        Args:
            features: float32 (N, D).
            k: at most the number of memories.
        Raises:
            IndexInvalid: `features` have another dimension, are not finite or so large that squared distances
                exceed float32, or fewer than k memories are there.
        """
        return self._measured(self._exact, features, k)

    def search_fast(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """As the plan says: with `hnsw` and `ivf` near memories, so that no distance is smaller than the true one.

        Arguments and errors as for `search`.
        """
        return self._measured(self._fast, features, k)

    def _measured(self, search: RowSearch, features: NDArray[np.float32], k: int) -> Neighbors:
        if features.shape[1] != self.dimension or k > len(self):
            raise IndexInvalid(
                f"{k} neighbors of {features.shape[1]}-dimensional patches asked of a memory bank "
                f"of {len(self)} memories with {self.dimension} dimensions"
            )
        # Writable, because torch warns of an array that is mapped for reading only.
        features = np.require(features, dtype=np.float32, requirements=("C", "W"))
        _refuse_unfinite(features, "patch")
        found = self._nearest(search, features, k)
        if isinstance(search, ApproximateSearch):
            found = self._completed(found, features, k)
        if np.isinf(found.distances).any():
            row = int(np.isinf(found.distances).any(axis=1).argmax())
            raise IndexInvalid(f"patch {row} is too far from the memories: squared distances exceed float32")
        return found

    def _nearest(self, search: RowSearch, features: NDArray[np.float32], k: int) -> Neighbors:
        """What `search` finds, measured; row -1 and an infinite distance where it finds too little."""
        rows = search.rows(features, k)
        distances = direct_distances(features, self.memories, rows)
        distances[rows < 0] = np.inf  # too few were found in the lists that were looked into
        return nearest_first(distances, rows, k)

    def _completed(self, found: Neighbors, features: NDArray[np.float32], k: int) -> Neighbors:
        """`found`, by an approximate search, with an exact one where fewer than k rows came back."""
        short = found.rows[:, -1] < 0
        if short.any():
            exact = self._nearest(self._exact, features[short], k)
            found.distances[short], found.rows[short] = exact.distances, exact.rows
        return found

    def without_photos(self, photos: NDArray[np.int32]) -> "MemoryBank":
        """The bank as if these reference photos had never been in it (their memories gone, nothing refilled).

        Searched exactly: flat, or proved where this one is.
        """
        keep = ~np.isin(self.provenance.photo, photos)
        plan = self.plan if self.plan.exact and keep.any() else _FLAT
        part = MemoryBank.__new__(MemoryBank)
        part._hold(flat_index(self.memories[keep]), self.provenance.taken(keep), self._gpu, plan)
        proved = None
        if plan.kind == "proved" and isinstance(self._exact, ProvedRows):
            proved = self._exact.subset(part.memories, keep)
        part._searches(proved, None)
        return part

    def searched(self, plan: SearchPlan) -> "MemoryBank":
        """The same memories, not copied, searched in another way."""
        other = MemoryBank.__new__(MemoryBank)
        other._hold(self._flat, self.provenance, self._gpu, plan)
        other._searches(None, None)
        return other

    def save(self, folder: Path) -> None:
        """Write the index (in CPU form), the provenance and, where it is not flat, the plan into `folder`."""
        faiss.write_index(self._flat, str(folder / FAISS_FILE))
        self.provenance.save(folder)
        if self.plan != _FLAT:
            (folder / PLAN_FILE).write_bytes(_PLAN.dump_json(self.plan, indent=2) + b"\n")
        if isinstance(self._fast, ApproximateSearch):
            self._fast.save(folder)

    @classmethod
    def load(cls, folder: Path, *, gpu: int | None = None) -> "MemoryBank":
        """The inverse of `save`; raises `IndexInvalid` where the files are missing or of another kind."""
        try:
            index = faiss.read_index(str(folder / FAISS_FILE))
            provenance = Provenance.load(folder)
            plan_file = folder / PLAN_FILE
            plan = _PLAN.validate_json(plan_file.read_bytes()) if plan_file.exists() else _FLAT
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise IndexInvalid(f"the memory bank in {folder} cannot be read") from error
        if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_L2:
            raise IndexInvalid(f"{folder / FAISS_FILE} is not a flat L2 index")
        bank = cls.__new__(cls)
        bank._hold(index, provenance, gpu, plan)
        _refuse_unfinite(bank.memories, "memory")
        bank._searches(None, folder)
        return bank


def _refuse_unfinite(vectors: NDArray[np.float32], name: str) -> None:
    """Raise `IndexInvalid` for the first row that holds NaN or infinity; nothing is near to it, or to all else."""
    for start in range(0, len(vectors), _CHECKED_ROWS):
        finite = np.isfinite(vectors[start : start + _CHECKED_ROWS]).all(axis=1)
        if not finite.all():
            raise IndexInvalid(f"{name} {start + int(finite.argmin())} is not finite: its feature has NaN or inf")


def exact_search(
    flat: Any,
    memories: NDArray[np.float32],
    plan: SearchPlan,
    gpu: int | None,
    proved: ProvedSearch | None = None,
) -> RowSearch:
    """What finds the nearest memories, whatever the plan.

    Args:
        flat: FAISS's flat index of the memories, on the CPU.
        memories: float32 (M, D), the same.
        gpu: number of the GPU to search on; on the CPU without one.
        proved: a proved search of these memories, where there is one already.
    Raises:
        SettingError: a GPU was asked for where FAISS sees none, or its memory is too small.
    """
    if plan.kind == "flat":
        return FlatSearch(flat, len(memories)) if gpu is None else faster_on_gpu(flat, memories, gpu)
    device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
    if proved is None:
        proved = ProvedSearch(memories_on(memories, device), plan.width, plan.limit)
    return ProvedRows(proved, device)


def fast_search(
    exact: RowSearch, flat: Any, memories: NDArray[np.float32], plan: SearchPlan, folder: Path | None
) -> RowSearch:
    """What searches as the plan says: `exact` where that is exact; from `folder`, where it was saved.

    Raises `IndexInvalid` where the file in `folder` is missing or does not fit.
    """
    if plan.exact:
        return exact
    return build_approximate(flat, memories, plan) if folder is None else load_approximate(folder, flat, plan)
