"""Exhaustive searches by FAISS and torch, on the CPU or a GPU, and FAISS's approximate IVF lists."""

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from resad_client.text import counted

from resad.device import full_float32
from resad.errors import IndexInvalid, SettingError
from resad.search.plan import SearchPlan

SEARCH_FILE: Final = "search.faiss"
_FLAT_HEAD: Final = struct.Struct("<4siqqqBiQ")
"""Of a flat index's file: kind, dimension, vectors, two unused numbers, trained, metric, floats that follow."""
_WRITE_BYTES: Final = 1 << 20
"""Of an index's file at a time."""
_SEED: Final = 1234
_ITERATIONS: Final = 10
"""Of the k-means that makes the IVF lists."""
_QUERIES: Final = 1024
"""Queries of one matrix product on torch's device."""
_SPARE: Final = 8
"""Rows beyond k: the expanded form |q|^2 - 2 q b + |b|^2 may confuse rows whose distances nearly agree."""
_SCRATCH: Final = 512 * 2**20
"""FAISS's scratch memory on a GPU, bytes; its default takes 18 % of the device."""
_TIMED: Final = 2048
"""Memories that serve as queries to time the two searches on a GPU."""


def flat_index(memories: NDArray[np.float32]) -> Any:
    """FAISS's flat index over a copy of `memories`, float32 (M, D)."""
    flat = faiss.IndexFlatL2(memories.shape[1])
    flat.add(np.ascontiguousarray(memories, dtype=np.float32))
    return flat


def vectors_of(flat: Any) -> NDArray[np.float32]:
    """A view of a flat index's vectors, float32 (M, D), not copied; the array keeps the index alive."""
    return np.asarray(_Vectors(flat))


class _Vectors:
    """Keeps the index that the memory belongs to: `rev_swig_ptr` returns an array that does not."""

    def __init__(self, flat: Any) -> None:
        self._flat = flat
        view = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
        self.__array_interface__ = view.__array_interface__


class RowSearch(Protocol):
    """Finds rows."""

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows (N, k or a few more) of memories near to each of `features`, float32 (N, D)."""
        ...


class FlatSearch:
    """Measures every memory, by FAISS, on the CPU or a GPU."""

    def __init__(self, index: Any, count: int) -> None:
        self._index = index
        self._count = count

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The nearest rows."""
        _, rows = self._index.search(features, min(k + _SPARE, self._count))
        nearest: NDArray[np.int64] = rows
        return nearest


class FaissOnGpu(FlatSearch):
    """FAISS's flat search on a GPU, in float32: float16 would save time and may confuse near neighbors."""

    def __init__(self, flat: Any, gpu: int) -> None:
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(_SCRATCH)
        super().__init__(faiss.index_cpu_to_gpu(self._resources, gpu, flat), flat.ntotal)


class TorchSearch:
    """Measures every memory, by torch's matrix product, on any device.

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
        queries = torch.from_numpy(features).to(self._memories.device) - self._center
        k = min(k + _SPARE, len(self._memories))
        parts = [
            torch.addmm(self._half_squares, part, self._memories.T, alpha=-1).topk(k, dim=1, largest=False).indices
            for part in torch.split(queries, _QUERIES)
        ]
        nearest: NDArray[np.int64] = torch.cat(parts).cpu().numpy() if parts else np.empty((0, k), dtype=np.int64)
        return nearest


def memories_on(memories: NDArray[np.float32], device: torch.device) -> torch.Tensor:
    """The memories on `device`, not copied on the CPU; raises `SettingError` if they do not fit."""
    on_host = torch.from_numpy(memories)
    if device.type == "cuda":
        check_fits(memories.nbytes, *_gpu_memory(device))
    return on_host.to(device)


def _gpu_memory(device: torch.device) -> tuple[int, int]:
    """Free and total bytes, after torch's cache is emptied: FAISS cannot use that."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)


def check_fits(needed: int, free: int, total: int) -> None:
    """Raise `SettingError` if `needed` bytes and FAISS's scratch are more than the `free` ones of `total`."""
    if needed + _SCRATCH > free:
        raise SettingError(
            f"the memory bank takes {(needed + _SCRATCH) / 2**30:.1f} GiB of GPU memory, "
            f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free; use --device cpu or a smaller coreset"
        )


def faster_on_gpu(flat: Any, memories: NDArray[np.float32], gpu: int) -> RowSearch:
    """FAISS or torch, whichever takes less time; raises `SettingError` without the memory or the GPU."""
    if gpu >= faiss.get_num_gpus():
        raise SettingError(
            f"FAISS sees {counted(faiss.get_num_gpus(), 'GPU')} here, not number {gpu}; use --device cpu"
        )
    device = torch.device(f"cuda:{gpu}")
    check_fits(2 * memories.nbytes, *_gpu_memory(device))
    searches: list[RowSearch] = [FaissOnGpu(flat, gpu), TorchSearch(torch.from_numpy(memories).to(device))]
    return fastest(searches, memories[:_TIMED])


def fastest(
    searches: list[RowSearch], features: NDArray[np.float32], clock: Callable[[], float] = time.perf_counter
) -> RowSearch:
    """The search that takes the least time for the neighbors of `features`, in its second run."""

    def seconds(search: RowSearch) -> float:
        search.rows(features, 1)
        started = clock()
        search.rows(features, 1)
        return clock() - started

    return min(searches, key=seconds)


def write_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index; raises `OSError`, also for the last bytes, whose loss FAISS itself would not notice."""
    with path.open("wb") as file:
        writer = faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)


def read_flat(path: Path) -> Any:
    """The flat L2 index in `path`, as `write_faiss` writes it.

    FAISS believes the sizes in a file, and crashes on wrong ones: they are compared with the file first.
    Raises `IndexInvalid` for any other file, `OSError` if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_FLAT_HEAD.size)
    if len(head) < _FLAT_HEAD.size:
        raise IndexInvalid(f"{path} is cut short: {len(head)} bytes")
    kind, dimension, count, _, _, _, metric, floats = _FLAT_HEAD.unpack(head)
    if kind != b"IxF2" or metric != faiss.METRIC_L2:
        raise IndexInvalid(f"{path} is not a flat L2 index")
    size = path.stat().st_size
    if dimension < 1 or count < 0 or floats != dimension * count or size != _FLAT_HEAD.size + 4 * floats:
        raise IndexInvalid(
            f"{path} states {count} vectors of {dimension} values in {floats} numbers, and has {size} bytes"
        )
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise IndexInvalid(f"{path} cannot be read") from error


class IvfSearch:
    """FAISS's IVF lists on the CPU.  Approximate; row -1 stands for none where too few rows are in the lists."""

    def __init__(self, index: Any, plan: SearchPlan) -> None:
        self._index = index
        self._index.nprobe = plan.probes

    @classmethod
    def build(cls, memories: NDArray[np.float32], plan: SearchPlan) -> "IvfSearch":
        """Divide `memories`, float32 (M, D), into lists."""
        d = memories.shape[1]
        lists = min(plan.lists, max(1, len(memories) // 39))
        index: Any = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, lists)
        index.cp.seed, index.cp.niter = _SEED, _ITERATIONS
        index.train(memories)
        index.add(memories)
        return cls(index, plan)

    @classmethod
    def load(cls, folder: Path, memories: NDArray[np.float32], plan: SearchPlan) -> "IvfSearch":
        """The inverse of `save`; raises `IndexInvalid` if the file is missing or of another memory bank."""
        path = folder / SEARCH_FILE
        try:
            index = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            raise IndexInvalid(f"{path} cannot be read") from error
        if not isinstance(index, faiss.IndexIVFFlat) or (index.ntotal, index.d) != memories.shape:
            raise IndexInvalid(f"{path} is not the ivf search of the memory bank beside it")
        return cls(index, plan)

    def save(self, folder: Path) -> None:
        """Write the lists into `folder`."""
        write_faiss(self._index, folder / SEARCH_FILE)

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Near rows, mostly the nearest."""
        _, rows = self._index.search(features, k)
        near: NDArray[np.int64] = rows
        return near
