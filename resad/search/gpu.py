"""Memory banks on a GPU: what fits, and which of two flat searches is the faster there."""

import time
from typing import Any, Final

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from resad.errors import SettingError
from resad.search.backends import FlatSearch, RowSearch, TorchSearch

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
