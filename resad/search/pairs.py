"""What the proved search does to single pairs of a patch and a memory: find them, measure them."""

from typing import Any, Final

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GROUP: Final = 8
"""Columns of which the largest is looked at first."""
_PAIRS: Final = 2**16
"""Pairs whose vectors are gathered together on a GPU: bounds the (pairs, D) difference."""


def hits_of(products: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns, int64, rows ascending, where `products` (n, m) reaches its row's `enough` (n,).

    Few do: the largest of each group of columns says where to look, at a fraction of looking everywhere.
    """
    n, m = products.shape
    least = enough.to(products.dtype)
    groups = _GROUP if m % _GROUP == 0 else 1
    members = products.view(n, groups, m // groups)
    largest = members.amax(dim=1)
    if products.device.type == "cpu":
        found = _hits_by_numpy(members.numpy(), largest.numpy(), least.numpy())
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])
    row, first = (largest >= least[:, None]).nonzero(as_tuple=True)
    hit, place = (members[row, :, first] >= least[row, None]).nonzero(as_tuple=True)
    return row[hit], first[hit] + place * (m // groups)


def _hits_by_numpy(
    members: NDArray[Any], largest: NDArray[Any], least: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same: on a single core NumPy compares, gathers and finds several times faster than torch."""
    _, groups, width = members.shape
    row, first = np.divmod(np.flatnonzero(largest >= least[:, None]), width)
    hit, place = np.divmod(np.flatnonzero(members[row, :, first] >= least[row, None]), groups)
    return row[hit], first[hit] + place * width


def pair_squares(queries: Tensor, query: Tensor, memories: Tensor, memory: Tensor) -> Tensor:
    """|queries[query] - memories[memory]|^2 by direct difference: float32 (pairs,)."""
    out = torch.empty(len(query), device=queries.device)
    if queries.device.type == "cpu":
        if len(query):
            _by_faiss(queries, query, memories, memory, out)
        return out
    for start in range(0, len(query), _PAIRS):
        some = slice(start, start + _PAIRS)
        out[some] = (queries[query[some]] - memories[memory[some]]).square().sum(dim=1)
    return out


def _by_faiss(queries: Tensor, query: Tensor, memories: Tensor, memory: Tensor, out: Tensor) -> None:
    """FAISS reads the vectors where they lie; nothing is gathered."""
    # Held by name, because FAISS is given addresses only.
    arrays = [part.contiguous().numpy() for part in (queries, query, memories, memory)]
    q, iq, m, im = (faiss.swig_ptr(array) for array in arrays)
    measure: Any = faiss.pairwise_indexed_L2sqr  # type: ignore[attr-defined]
    measure(queries.shape[1], len(query), q, iq, m, im, faiss.swig_ptr(out.numpy()))
