"""The proved search: every memory is either shown to be too far by its shadow, or measured in full.

An exhaustive pass over the shadows (`resad.search.shadows`) leaves, for each patch, the few memories whose lower
bound is under an upper bound of its k-th distance; these are measured by direct difference.  The upper bound comes
from the groups of alike memories (`resad.search.leaves`) that the patch is nearest to, and falls as the pass goes
from the nearest blocks to the farthest.  Where many patches have many candidates in a block, these patches are
searched in it in full.
What is returned is therefore what the flat search returns, wherever the leading directions lie.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from resad.search.finds import Finds
from resad.search.full_float32 import full_float32
from resad.search.integers import faster_multiply
from resad.search.lone_threads import for_each, lone_threads
from resad.search.pairs import hits_of, pair_squares
from resad.search.shaded import Shaded, shade, slices
from resad.search.shadows import Shadows

_SPARE: Final = 8
"""Rows taken beyond k where a block is searched in full, for what the expanded form rounds away."""
_PROBES: Final = 3
"""Leaves that the first upper bound of a patch comes from."""
_DRAINS: Final = (2, 5, 10, 20, 40)
"""Blocks after which what was found lowers the bounds."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How much is in hand at a time; changes time and memory, never a result.

    queries, memories: a tile's rows and columns.  leaf: memories in a group of alike ones, at most.
    """

    queries: int = 512
    memories: int = 2048
    leaf: int = 1024


FOR_GPU: Final = Tiling(queries=4096, memories=8192)
"""Fewer and larger products, so that starting them does not take longer than they do."""


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """rows: int64 (N, k), nearest first.  proved: share of the pairs of patch and memory that the flat search of
    the remainder was not needed for.
    """

    rows: Tensor
    proved: float


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """Queries, float32 (N, D), in an order in which those near the same leaf lie together, and their shadows."""

    vectors: Tensor
    shadows: Shadows


class ProvedSearch:
    """Shadows of one memory bank.

    Args:
        memories: float32 (M, D), on the device that searches.
        width: numbers in a shadow.
        limit: share of a block's memories, and of the patches in a tile: where more patches have more candidates,
            they are searched there in full.
    """

    def __init__(
        self,
        memories: Tensor,
        width: int,
        limit: float,
        tiling: Tiling | None = None,
        known: Shaded | None = None,
    ) -> None:
        self._memories = memories
        self._width = width
        self._limit = limit
        self._tiling = tiling or (Tiling() if memories.device.type == "cpu" else FOR_GPU)
        with full_float32():
            self._shaded = known or shade(memories, width, self._tiling.leaf)
            self._light, self._leaves = self._shaded.light, self._shaded.leaves
            self._shadows = self._shaded.shadows
            self._blocks = list(slices(len(memories), self._tiling.memories))
            self._block_digits = torch.stack(
                [self._shadows.digits[block].float().mean(dim=0) for block in self._blocks]
            )
            self._block_slack = torch.stack([self._shadows.slack[block].max() for block in self._blocks])
            self._leaf_digits = torch.stack(
                [self._shadows.digits[leaf].float().mean(dim=0) for leaf in self._leaves.slices()]
            )
        self._multiply = faster_multiply(self._shadows.digits)

    def subset(self, memories: Tensor, rows: Tensor) -> "ProvedSearch":
        """The search over `memories`, which are these `rows` of the present ones, ascending."""
        return ProvedSearch(memories, self._width, self._limit, self._tiling, self._shaded.kept(rows))

    @full_float32()
    @torch.inference_mode(False)  # the threads would not share the caller's mode, and may not write its tensors
    def search(self, queries: Tensor, k: int) -> Proof:
        """The k nearest memories of each query, float32 (N, D)."""
        n, device = len(queries), queries.device
        if not n:
            return Proof(torch.empty((0, k), dtype=torch.int64, device=device), 1.0)
        shadows = self._light.of_queries(queries)
        near = (shadows.digits.float() @ self._leaf_digits.T).topk(min(_PROBES, len(self._leaves)), dim=1).indices
        order = near[:, 0].argsort(stable=True)
        asked, near = _Asked(queries[order], shadows[order]), near[order]
        finds = Finds.nothing(n, k, device)
        # Each thread takes tiles of its own through all steps: threads that meet at every small product would wait
        # for each other most of the time.
        with lone_threads(device) as pool:
            guesses = self._guesses(asked, near, finds, pool)
            tiles = list(slices(n, self._tiling.queries))
            full = sum(for_each(pool, partial(self._tiles, asked, finds), tiles))
        # A block searched in full may miss, by rounding, the memory that a bound came from; the guesses have it.
        rows = torch.empty_like(finds.rows)
        rows[order], _ = self._best(asked.vectors, torch.cat([guesses, finds.rows], dim=1), k)
        return Proof(rows, 1 - full / (n * len(self._memories)))

    def _guesses(self, asked: _Asked, near: Tensor, finds: Finds, pool: Executor | None) -> Tensor:
        """Rows (N, k) that are near, -1 for none, out of the leaves `near` (N, probes); the bounds, from them."""
        n, k = finds.rows.shape
        guesses = torch.full((n, near.shape[1], 2 * k), -1, dtype=torch.int64, device=near.device)

        def of_leaf(number: int, leaf: slice) -> None:
            who, probe = (near == number).nonzero(as_tuple=True)
            if len(who):
                products = self._multiply(asked.shadows.digits[who], self._shadows.digits[leaf])
                nearest = products.topk(min(2 * k, leaf.stop - leaf.start), dim=1).indices + leaf.start
                guesses[who, probe, : nearest.shape[1]] = self._leaves.order[nearest]

        for_each(pool, lambda some: of_leaf(*some), list(enumerate(self._leaves.slices())))

        def measured(some: slice) -> Tensor:
            rows, squares = self._best(asked.vectors[some], guesses[some].flatten(1), k)
            finds.bound[some] = squares[:, -1]
            return rows

        return torch.cat(for_each(pool, measured, list(slices(n, self._tiling.queries))))

    def _best(self, queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of each query's `rows`, int64 (N, any number), doubles and -1 passed over; squares."""
        others = rows.sort(dim=1).values
        again = others < 0
        again[:, 1:] |= others[:, 1:] == others[:, :-1]
        squares = torch.full(others.shape, torch.inf, device=queries.device)
        query, column = (~again).nonzero(as_tuple=True)
        squares[query, column] = pair_squares(queries, query, self._memories, others[query, column])
        nearest, places = squares.sort(dim=1, stable=True)
        return others.gather(1, places[:, :k]), nearest[:, :k]

    def _tiles(self, asked: _Asked, finds: Finds, some: slice) -> int:
        """Whatever belongs to the finds of `some` queries; pairs searched in full."""
        mine = asked.shadows[some]
        closeness = self._block_digits @ mine.digits.float().mean(dim=0)
        order: list[int] = closeness.argsort(descending=True, stable=True).tolist()
        marks = [0, *(mark for mark in _DRAINS if mark < len(order)), len(order)]
        return sum(self._visit(asked, finds, some, mine, order[first:last]) for first, last in pairwise(marks))

    def _visit(self, asked: _Asked, finds: Finds, some: slice, mine: Shadows, numbers: list[int]) -> int:
        """The same, of the blocks with these `numbers`."""
        reach = finds.bound[some].double().sqrt() * (1 + 1e-5 + 2.0**-22 * asked.vectors.shape[1]) + mine.slack
        reach = reach + self._block_slack[numbers, None]  # (blocks, queries)
        enough = mine.half_squares + self._light.offset - (reach / self._light.unit).square() * (0.5 + 1e-9)
        enough = enough.floor().clamp(-(2.0**30), 2.0**30) - 1
        hits, full = [], 0
        for number, least in zip(numbers, enough, strict=True):
            block = self._blocks[number]
            query, place = hits_of(self._multiply(mine.digits, self._shadows.digits[block]), least)
            size = block.stop - block.start
            if len(query) > self._limit**2 * size * len(least):
                many = torch.bincount(query, minlength=len(least)) > self._limit * size
                which = many.nonzero()[:, 0] + some.start
                # Few are better measured pair by pair than after the gathering of a whole block.
                if len(which) > self._limit * len(least):
                    keep = ~many[query]
                    query, place = query[keep], place[keep]
                    self._in_full(asked, which, block, finds)
                    full += len(which) * size
            hits.append((query + some.start, place + block.start))
        queries, places = (torch.cat(parts) for parts in zip(*hits, strict=True))
        self._measure(asked, queries, self._leaves.order[places], finds)
        return full

    def _in_full(self, asked: _Asked, which: Tensor, block: slice, finds: Finds) -> None:
        """The flat search, by one matrix product, of `which` queries in one block."""
        rows = self._leaves.order[block]
        memories = self._memories[rows] - self._light.center
        vectors = asked.vectors[which] - self._light.center
        products = torch.addmm(memories.square().sum(dim=1), vectors, memories.T, alpha=-2)
        k = min(finds.rows.shape[1] + _SPARE, len(rows))
        nearest = rows[products.topk(k, dim=1, largest=False).indices]
        self._measure(asked, which.repeat_interleave(k), nearest.flatten(), finds)

    def _measure(self, asked: _Asked, query: Tensor, rows: Tensor, finds: Finds) -> None:
        squares = pair_squares(asked.vectors, query, self._memories, rows)
        finds.take(query, rows, squares, asked.vectors.shape[1])
