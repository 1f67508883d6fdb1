"""A plan -> what searches a memory bank that way."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resad.search.backends import FlatSearch, ProvedRows, RowSearch, build_approximate, load_approximate
from resad.search.gpu import faster_on_gpu, memories_on
from resad.search.plan import SearchPlan
from resad.search.proved import ProvedSearch


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
