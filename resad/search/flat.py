"""Exhaustive searches by FAISS and torch, on the CPU or a GPU, and FAISS's approximate IVF lists."""

import time
from pathlib import Path
from typing import Any, Final, Protocol

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from resad.device import full_float32
from resad.errors import IndexInvalid, SettingError
from resad.search.plan import SearchPlan
from resad.search.pruned import ProvedSearch

SEARCH_FILE: Final = "search.faiss"
_SEED: Final = 1234
_ROUNDS: Final = 10
_CHUNK: Final = 1024
_SPARE: Final = 8
"""Rows found beyond k: the expanded form may confuse rows whose distances nearly agree."""


def flat_index(memories: NDArray[np.float32]) -> Any:
    """FAISS's flat index over a copy of `memories`, float32 (M, D)."""
    flat = faiss.IndexFlatL2(memories.shape[1])
    flat.add(np.ascontiguousarray(memories, dtype=np.float32))
    return flat


def vectors_of(flat: Any) -> NDArray[np.float32]:
    """The vectors of a flat index where they lie, float32 (M, D); the array keeps the index alive."""
    return np.asarray(_Vectors(flat))


class _Vectors:
    """What `rev_swig_ptr` returns does not keep the index: once that is gone it shows memory of others."""

    def __init__(self, flat: Any) -> None:
        self._flat = flat
        where = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
        self.__array_interface__ = where.__array_interface__


class RowSearch(Protocol):
    """Finds rows."""

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows (N, k or a few more) of memories near to each of `features`, float32 (N, D)."""
        ...


class FlatSearch:
    """Every memory measured, by FAISS, on the CPU or a GPU."""

    def __init__(self, index: Any, ntotal: int) -> None:
        self._index = index
        self._count = ntotal

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The nearest rows."""
        _, rows = self._index.search(features, min(k + _SPARE, self._count))
        found: NDArray[np.int64] = rows
        return found


class TorchSearch:
    """Every memory measured, by torch's matrix product, on any device.

    Args:
        memories: float32 (M, D), on the device.
    """

    def __init__(self, memories: torch.Tensor) -> None:
        self._center = memories.mean(dim=0)
        self._memories = memories - self._center
        self._half_squares = self._memories.square().sum(dim=1) / 2

    @torch.inference_mode()
    @full_float32()
    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The nearest rows."""
        asked = torch.from_numpy(features).to(self._memories.device) - self._center
        k = min(k + _SPARE, len(self._memories))
        near = [
            torch.addmm(self._half_squares, some, self._memories.T, alpha=-1).topk(k, dim=1, largest=False).indices
            for some in torch.split(asked, _CHUNK)
        ]
        found: NDArray[np.int64] = torch.cat(near).cpu().numpy() if near else np.empty((0, k), dtype=np.int64)
        return found


class ProvedRows:
    """The proved search behind NumPy arrays.  proved: as `Proof.proved`, of the last search."""

    def __init__(self, search: ProvedSearch, device: torch.device) -> None:
        self._search = search
        self._device = device
        self.proved = 1.0

    def subset(self, memories: NDArray[np.float32], keep: NDArray[np.bool_]) -> ProvedSearch:
        """The search over `memories`, which are those to `keep`."""
        rows = torch.from_numpy(np.flatnonzero(keep)).to(self._device)
        return self._search.subset(torch.from_numpy(memories).to(self._device), rows)

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The nearest rows."""
        proof = self._search.search(torch.from_numpy(features).to(self._device), k)
        self.proved = proof.proved
        found: NDArray[np.int64] = proof.rows.cpu().numpy()
        return found


class ApproximateSearch:
    """HNSW or IVF, on the CPU.  Where too few rows are found, row -1 stands for none."""

    def __init__(self, index: Any, flat: Any) -> None:
        self._index = index
        self._flat = flat  # held because a graph only has its address

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows that are near, and mostly the nearest."""
        _, rows = self._index.search(features, k)
        found: NDArray[np.int64] = rows
        return found

    def save(self, folder: Path) -> None:
        """Write it; a graph without the vectors, which lie beside it already."""
        flag = faiss.IO_FLAG_SKIP_STORAGE if isinstance(self._index, faiss.IndexHNSW) else 0
        write: Any = faiss.write_index  # its stubs lack the flags
        write(self._index, str(folder / SEARCH_FILE), flag)


def build_approximate(flat: Any, memories: NDArray[np.float32], plan: SearchPlan) -> ApproximateSearch:
    """An HNSW graph over `flat`, or IVF lists, as `plan` says."""
    d = memories.shape[1]
    index: Any
    if plan.kind == "hnsw":
        index = faiss.IndexHNSWFlat(d, plan.links)
        index.add(memories)
    else:
        lists = min(plan.lists, max(1, len(memories) // 39))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, lists)
        index.cp.seed, index.cp.niter = _SEED, _ROUNDS
        index.train(memories)
        index.add(memories)
    return _set_up(index, flat, plan)


def load_approximate(folder: Path, flat: Any, plan: SearchPlan) -> ApproximateSearch:
    """The inverse of `ApproximateSearch.save`; raises `IndexInvalid` where the file is missing or does not fit."""
    path = folder / SEARCH_FILE
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise IndexInvalid(f"{path} cannot be read") from error
    kind = faiss.IndexHNSW if plan.kind == "hnsw" else faiss.IndexIVFFlat
    if not isinstance(index, kind) or (index.d, index.ntotal) != (flat.d, flat.ntotal):
        raise IndexInvalid(f"{path} is not the {plan.kind} search of the memory bank beside it")
    return _set_up(index, flat, plan)


def _set_up(index: Any, flat: Any, plan: SearchPlan) -> ApproximateSearch:
    if plan.kind == "ivf":
        index.nprobe = plan.probes
        return ApproximateSearch(index, flat)
    index.hnsw.efSearch = plan.breadth
    if index.storage is not None:
        # Its copy of the vectors is given back; those of the bank serve.
        own = faiss.downcast_index(index.storage)
        index.own_fields = False
        own.reset()
    index.storage = flat
    return ApproximateSearch(index, flat)


_SCRATCH: Final = 512 * 2**20
"""FAISS's scratch memory on a GPU, bytes; its default takes 18 % of the device."""
_TRIED: Final = 2048
"""Memories that the two searches are timed with as queries."""


class FaissOnGpu(FlatSearch):
    """FAISS's flat search on a GPU, in float32: float16 would save time and may confuse near neighbors."""

    def __init__(self, flat: Any, gpu: int) -> None:
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_SCRATCH)
        super().__init__(faiss.index_cpu_to_gpu(self._resources, gpu, flat), flat.ntotal)


def memories_on(memories: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """The memories on `device`, not copied on the CPU; raises `SettingError` where they do not fit."""
    here = torch.from_numpy(memories)
    if device.type == "cuda":
        check_fits(memories.nbytes, *_room_on(device))
    return here.to(device)


def _room_on(device: torch.device) -> tuple[int, int]:
    """Bytes that are free and that there are, after torch gave back what it keeps: FAISS cannot use that."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)


def check_fits(wanted: int, left: int, total: int) -> None:
    """Raise `SettingError` where `wanted` bytes and FAISS's scratch are more than what is `left` of `total`."""
    if wanted + _SCRATCH > left:
        raise SettingError(
            f"the memory bank takes {(wanted + _SCRATCH) / 2**30:.1f} GiB of GPU memory, "
            f"{left / 2**30:.1f} of {total / 2**30:.1f} GiB are free; use --device cpu or a smaller coreset"
        )


def faster_on_gpu(flat: Any, memories: NDArray[np.float32], gpu: int) -> RowSearch:
    """FAISS or torch, by the time each takes; raises `SettingError` without the room or the GPU."""
    if gpu >= faiss.get_num_gpus():
        raise SettingError(f"FAISS sees {faiss.get_num_gpus()} GPUs here, not number {gpu}; use --device cpu")
    device = torch.device(f"cuda:{gpu}")
    check_fits(2 * memories.nbytes, *_room_on(device))
    searches: list[RowSearch] = [FaissOnGpu(flat, gpu), TorchSearch(torch.from_numpy(memories).to(device))]
    return fastest(searches, memories[:_TRIED])


def fastest(searches: list[RowSearch], features: NDArray[np.float32]) -> RowSearch:
    """The one that finds the neighbors of `features` in the shortest time, the second time that it is asked."""
    return min(searches, key=lambda search: _seconds(search, features))


def _seconds(search: RowSearch, features: NDArray[np.float32]) -> float:
    search.rows(features, 1)
    began = time.perf_counter()
    search.rows(features, 1)
    return time.perf_counter() - began
