"""What the proved search does to single pairs of a patch and a memory: find them, measure them."""

from typing import Any, Final

import faiss
import numpy as np
import torch
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
    row, first = _places(members.amax(dim=1), least)
    reached = members[row, :, first] >= least[row, None]  # (hits, groups)
    hit, place = reached.nonzero(as_tuple=True)
    return row[hit], first[hit] + place * (m // groups)


def _places(largest: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where `largest` reaches its row's `least`."""
    if largest.device.type == "cpu":
        # On a single core NumPy compares, and finds the few that are true, several times faster than torch.
        found = torch.from_numpy(np.flatnonzero(largest.numpy() >= least.numpy()[:, None]))
    else:
        found = (largest >= least[:, None]).flatten().nonzero()[:, 0]
    row = torch.div(found, largest.shape[1], rounding_mode="floor")
    return row, found - row * largest.shape[1]


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
