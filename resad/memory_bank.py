"""The memory bank B_c: the healthy patch features that were kept, searched exactly by FAISS (equation 7)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from resad.errors import IndexInvalid, SettingError

FAISS_FILE: Final = "memory_bank.faiss"
PROVENANCE_FILE: Final = "provenance.npz"
_REFINED_ROWS: Final = 1024
"""Queries whose distances are computed directly at a time: bounds the (rows, k, D) difference."""
_GPU_SCRATCH: Final = 512 * 2**20
"""FAISS's scratch memory on a GPU, bytes; its default takes 18 % of the device."""


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Where each memory came from.

    photo: int32 (M,), the reference photo's row in `photos.jsonl`.  cell: int16 (M, 2), (y, x) on the patch grid.
    pick: int32 (M,), its place in the greedy's order, so that the first m picks are the coreset of m memories.
    """

    photo: NDArray[np.int32]
    cell: NDArray[np.int16]
    pick: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """Each query's k nearest memories, nearest first.

    distances: float32 (N, k), L2.  rows: int64 (N, k), rows of the memory bank.
    """

    distances: NDArray[np.float32]
    rows: NDArray[np.int64]


class MemoryBank:
    """Memories and the FAISS index over them.

    A GPU index must not be used from two threads at a time, searches included.

    Args:
        memories: float32 (M, D).
        provenance: of the M memories.
        gpu: number of the GPU to search on; on the CPU without one.
    Raises:
        SettingError: a GPU was asked for where FAISS sees none.
    """

    def __init__(self, memories: NDArray[np.float32], provenance: Provenance, *, gpu: int | None = None) -> None:
        if len(memories) != len(provenance.photo):
            raise IndexInvalid(f"{len(memories)} memories, but {len(provenance.photo)} rows of provenance")
        self.provenance = provenance
        self._gpu = gpu
        flat = faiss.IndexFlatL2(memories.shape[1])
        flat.add(np.ascontiguousarray(memories, dtype=np.float32))
        # The CPU index owns the only copy; on a GPU it stays behind for the direct distances.
        self._flat = flat
        self.memories = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
        self._index = flat if gpu is None else self._to_gpu(flat, gpu)

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

    def search(self, features: NDArray[np.float32], k: int) -> Neighbors:
        """The k nearest memories of each patch, exactly.

        FAISS finds the rows through |q|^2 - 2 q b + |b|^2, which cancels for near neighbors; the distances that
        are returned come from the differences themselves, and so agree between CPU and GPU.

        Args:
            features: float32 (N, D).
            k: at most the number of memories.
        Raises:
            IndexInvalid: `features` have another dimension, or fewer than k memories are there.
        """
        if features.shape[1] != self.dimension or k > len(self):
            raise IndexInvalid(
                f"{k} neighbors of {features.shape[1]}-dimensional patches asked of a memory bank "
                f"of {len(self)} memories with {self.dimension} dimensions"
            )
        _, rows = self._index.search(np.ascontiguousarray(features, dtype=np.float32), k)
        distances = np.empty(rows.shape, dtype=np.float32)
        for start in range(0, len(features), _REFINED_ROWS):
            some = slice(start, start + _REFINED_ROWS)
            difference = features[some, None, :] - self.memories[rows[some]]  # (rows, k, D)
            distances[some] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
        order = np.argsort(distances, axis=1, kind="stable")
        return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1))

    def without_photos(self, photos: NDArray[np.int32]) -> "MemoryBank":
        """The bank as if these reference photos had never been in it (their memories gone, nothing refilled)."""
        keep = ~np.isin(self.provenance.photo, photos)
        kept = Provenance(self.provenance.photo[keep], self.provenance.cell[keep], self.provenance.pick[keep])
        return MemoryBank(self.memories[keep], kept, gpu=self._gpu)

    def save(self, folder: Path) -> None:
        """Write the index (in CPU form) and the provenance into `folder`."""
        faiss.write_index(self._flat, str(folder / FAISS_FILE))
        origin = self.provenance
        np.savez_compressed(folder / PROVENANCE_FILE, photo=origin.photo, cell=origin.cell, pick=origin.pick)

    @classmethod
    def load(cls, folder: Path, *, gpu: int | None = None) -> "MemoryBank":
        """The inverse of `save`; raises `IndexInvalid` where the files are missing or of another kind."""
        try:
            index = faiss.read_index(str(folder / FAISS_FILE))
            with np.load(folder / PROVENANCE_FILE, allow_pickle=False) as arrays:
                provenance = Provenance(arrays["photo"], arrays["cell"], arrays["pick"])
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise IndexInvalid(f"the memory bank in {folder} cannot be read") from error
        if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_L2:
            raise IndexInvalid(f"{folder / FAISS_FILE} is not a flat L2 index")
        memories = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
        return cls(memories, provenance, gpu=gpu)

    def _to_gpu(self, flat: Any, gpu: int) -> Any:
        if gpu >= faiss.get_num_gpus():
            raise SettingError(f"FAISS sees {faiss.get_num_gpus()} GPUs here, not number {gpu}; use --device cpu")
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_GPU_SCRATCH)
        return faiss.index_cpu_to_gpu(self._resources, gpu, flat)
