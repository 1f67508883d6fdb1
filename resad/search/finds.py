"""The nearest memories that a search has found so far, and how near a memory must be to belong to them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True, eq=False)
class Finds:
    """The best so far of N queries; threads may share it, each with queries of its own.

    squares: float32 (N, k).  rows: int64 (N, k), -1 for none.  bound: float32 (N,), an upper bound of the k-th
    squared distance; it may come from elsewhere than `rows`.
    """

    squares: Tensor
    rows: Tensor
    bound: Tensor

    @classmethod
    def nothing(cls, count: int, k: int, device: torch.device) -> "Finds":
        """Of `count` queries that nothing is known of yet."""
        return cls(
            torch.full((count, k), torch.inf, device=device),
            torch.full((count, k), -1, dtype=torch.int64, device=device),
            torch.full((count,), torch.inf, device=device),
        )

    def take(self, query: Tensor, memory: Tensor, squares: Tensor, dimension: int) -> None:
        """Take over the pairs that are near enough, no pair twice; float32 (pairs,) of vectors of `dimension`."""
        # The bound may come from the same pair, its squares summed in another order: up to D roundings apart.
        near = squares <= self.bound[query] * (1 + 1e-6 + 2.0**-22 * dimension)
        if not bool(near.any()):
            return
        query, memory, squares = query[near], memory[near], squares[near]
        order = squares.argsort(stable=True)
        order = order[query[order].argsort(stable=True)]
        query, memory, squares = query[order], memory[order], squares[order]
        who, first = torch.unique_consecutive(query, return_inverse=True)
        rank = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        k = self.rows.shape[1]
        kept = rank < k
        new_squares = torch.full((len(who), k), torch.inf, device=query.device)
        new_rows = torch.full((len(who), k), -1, dtype=torch.int64, device=query.device)
        new_squares[first[kept], rank[kept]] = squares[kept]
        new_rows[first[kept], rank[kept]] = memory[kept]
        both = torch.cat([self.squares[who], new_squares], dim=1).sort(dim=1, stable=True)
        self.squares[who] = both.values[:, :k]
        self.rows[who] = torch.cat([self.rows[who], new_rows], dim=1).gather(1, both.indices[:, :k])
        self.bound[who] = torch.minimum(self.bound[who], self.squares[who, -1])
