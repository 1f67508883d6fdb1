"""What the proved search does to single pairs of a patch and a memory: find them, measure them."""

from typing import Any, Final

import faiss
import numpy as np
import torch
from torch import Tensor

_PAIRS: Final = 2**16
"""Pairs whose vectors are gathered together on a GPU: bounds the (pairs, D) difference."""


def hits_of(products: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns, int64, in reading order, where `products` (n, m) reaches its row's `enough` (n,)."""
    least = enough.to(products.dtype)[:, None]
    if products.device.type == "cpu":
        # On a single core NumPy compares, and finds the few that are true, several times faster than torch.
        found = torch.from_numpy(np.flatnonzero(products.numpy() >= least.numpy()))
    else:
        found = (products >= least).flatten().nonzero()[:, 0]
    width = products.shape[1]
    row = torch.div(found, width, rounding_mode="floor")
    return row, found - row * width


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
