"""The proved search: every memory is either shown to be too far by its shadow, or measured in full.

An exhaustive pass over the shadows (`resad.search.shadows`) leaves, for each patch, the few memories whose lower
bound is under an upper bound of its k-th distance; these are measured by direct difference.  The upper bound comes
from a sample of the bank and from what neighboring patches found, and falls with every block of memories.  Patches
with too many candidates in a block are searched in it in full.  What is returned is therefore what the flat search
returns, wherever the leading directions lie.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from resad.search.full_float32 import full_float32
from resad.search.integers import Multiply, multiply_float32, multiply_int8
from resad.search.lone_threads import for_each, lone_threads
from resad.search.pairs import hits_of, pair_squares
from resad.search.shadows import Light, Shadows, cast

_SPARE: Final = 8
"""Rows taken beyond k where a block is searched in full, for what the expanded form rounds away."""
_ROUNDS: Final = 2
_EXCHANGES: Final = (2, 4, 8, 16, 32, 64)
"""Blocks after which patches look at their neighbors' finds."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How much is in hand at a time; changes time and memory, never a result.

    queries, memories: a tile's rows and columns.  seeds: memories that the first upper bounds come from.
    """

    queries: int = 1024
    memories: int = 1024
    seeds: int = 2048


@dataclass(slots=True, eq=False)
class _Finds:
    """The best so far.  squares: float32 (N, k).  rows: int64 (N, k), -1 for none.  bound: (N,), an upper bound of
    the k-th squared distance.
    """

    squares: Tensor
    rows: Tensor
    guesses: Tensor
    bound: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """rows: int64 (N, k), nearest first.  proved: share of the pairs of patch and memory that the flat search of
    the remainder was not needed for.
    """

    rows: Tensor
    proved: float


class ProvedSearch:
    """Shadows of one memory bank.

    Args:
        memories: float32 (M, D), on the device that searches.
        width: numbers in a shadow.
        limit: share of a block's memories; a patch with more candidates in it is searched in it in full.
    """

    def __init__(
        self,
        memories: Tensor,
        width: int,
        limit: float,
        tiling: Tiling | None = None,
        shadows: tuple[Light, Shadows] | None = None,
    ) -> None:
        self._memories = memories
        self._width = width
        self._limit = limit
        self._tiling = tiling or Tiling()
        with full_float32():
            self._light, self._shadows = shadows or _shadows(memories, width)
        self._multiply = _fastest(self._shadows.digits)

    def subset(self, memories: Tensor, rows: Tensor) -> "ProvedSearch":
        """The search over `memories`, which are these `rows` of the present ones."""
        shadows = (self._light, self._shadows[rows])
        return ProvedSearch(memories, self._width, self._limit, self._tiling, shadows)

    @full_float32()
    @torch.inference_mode(False)  # the threads would not share the caller's mode, and may not write its tensors
    def search(self, queries: Tensor, k: int) -> Proof:
        """The k nearest memories of each query, float32 (N, D)."""
        n, device = len(queries), queries.device
        if not n:
            return Proof(torch.empty((0, k), dtype=torch.int64, device=device), 1.0)
        shadows = self._light.of_queries(queries)
        finds = self._seeded(queries, shadows, k)
        blocks = self._blocks()
        # Each thread takes tiles of its own through all steps: threads that meet at every small product would wait
        # for each other most of the time.
        steps = [0, *(mark for mark in _EXCHANGES if mark < len(blocks)), len(blocks)]
        full = 0
        with lone_threads(device) as pool:
            for first, last in pairwise(steps):
                if first:
                    self._exchange(queries, finds)
                some_blocks = blocks[first:last]
                work = partial(self._tiles, queries, shadows, finds, some_blocks)
                full += sum(for_each(pool, work, list(_slices(n, self._tiling.queries))))
        # A block searched in full may miss, by rounding, the memory that a bound came from; the guesses have it.
        rows, _ = self._best(queries, torch.cat([finds.guesses, finds.rows], dim=1), k)
        return Proof(rows, 1 - full / (n * len(self._memories)))

    def _blocks(self) -> list[slice]:
        """All memories, block by block, from all over the bank early: the bounds fall the faster."""
        size = self._tiling.memories
        starts = range(0, len(self._memories), size)
        order = sorted(range(len(starts)), key=lambda number: number * 0.6180339887 % 1)
        return [slice(starts[number], min(starts[number] + size, len(self._memories))) for number in order]

    def _seeded(self, queries: Tensor, shadows: Shadows, k: int) -> _Finds:
        """Nothing found yet, but upper bounds: the k-th distance within a sample of the bank."""
        n, count = len(queries), len(self._memories)
        taken = min(count, max(self._tiling.seeds, k))
        sample = torch.arange(taken, device=queries.device) * count // taken
        finds = _Finds(
            torch.full((n, k), torch.inf, device=queries.device),
            torch.full((n, k), -1, dtype=torch.int64, device=queries.device),
            torch.full((n, k), -1, dtype=torch.int64, device=queries.device),
            torch.full((n,), torch.inf, device=queries.device),
        )
        digits = self._shadows.digits[sample]
        for some in _slices(n, self._tiling.queries):
            nearest = self._multiply(shadows.digits[some], digits).topk(k, dim=1).indices
            finds.guesses[some] = sample[nearest]
        for _ in range(_ROUNDS):
            self._exchange(queries, finds)
        return finds

    def _exchange(self, queries: Tensor, finds: _Finds) -> None:
        """Lower each query's bound by what lies beside its own guesses, and by what its neighbors guess.

        Queries come in reading order and memories by photo and reading order, and what lies side by side in a
        photograph is alike (PatchMatch; Barnes et al. 2009).
        """
        k = finds.rows.shape[1]
        own = torch.cat([finds.guesses, finds.rows], dim=1)
        beside = [(finds.guesses + step).clamp(0, len(self._memories) - 1) for step in (-1, 1)]
        others = torch.cat([own, own.roll(1, 0), own.roll(-1, 0), *beside], dim=1)
        finds.guesses, squares = self._best(queries, others, k)
        torch.minimum(finds.bound, squares[:, -1], out=finds.bound)

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

    def _tiles(
        self, queries: Tensor, shadows: Shadows, finds: _Finds, blocks: Sequence[slice], some: slice
    ) -> int:
        return sum(self._tile(queries, shadows, some, block, finds) for block in blocks)

    def _tile(self, queries: Tensor, shadows: Shadows, some: slice, block: slice, finds: _Finds) -> int:
        """Whatever of the memories in `block` belongs to the finds of `some` queries; pairs searched in full."""
        mine, size = shadows[some], block.stop - block.start
        reach = finds.bound[some].double().sqrt() * (1 + 1e-5 + 2.0**-22 * queries.shape[1])
        reach += mine.slack + self._shadows.slack[block].max()
        enough = mine.half_squares + self._light.offset - (reach / self._light.unit).square() * (0.5 + 1e-9)
        products = self._multiply(mine.digits, self._shadows.digits[block])
        query, memory = hits_of(products, enough.floor().clamp(-(2.0**30), 2.0**30) - 1)
        full = 0
        if len(query) > self._limit * size * mine.digits.shape[0]:
            many = torch.bincount(query, minlength=len(enough)) > self._limit * size
            keep = ~many[query]
            query, memory = query[keep], memory[keep]
            which = many.nonzero()[:, 0] + some.start
            self._in_full(queries, which, block, finds)
            full = len(which) * size
        self._measure(queries, query + some.start, memory + block.start, finds)
        return full

    def _in_full(self, queries: Tensor, which: Tensor, block: slice, finds: _Finds) -> None:
        """The flat search, by one matrix product, of `which` queries in one block."""
        k = min(finds.rows.shape[1] + _SPARE, block.stop - block.start)
        memories = self._memories[block] - self._light.center
        asked = queries[which] - self._light.center
        products = torch.addmm(memories.square().sum(dim=1), asked, memories.T, alpha=-2)
        nearest = products.topk(k, dim=1, largest=False).indices + block.start
        self._measure(queries, which.repeat_interleave(k), nearest.flatten(), finds)

    def _measure(self, queries: Tensor, query: Tensor, memory: Tensor, finds: _Finds) -> None:
        """Take over the pairs that are near enough; `query` is in ascending order."""
        squares = pair_squares(queries, query, self._memories, memory)
        # The bound may come from the same pair, its squares summed in another order: up to D roundings apart.
        near = squares <= finds.bound[query] * (1 + 1e-6 + 2.0**-22 * queries.shape[1])
        if not bool(near.any()):
            return
        query, memory, squares = query[near], memory[near], squares[near]
        order = squares.argsort(stable=True)
        order = order[query[order].argsort(stable=True)]
        query, memory, squares = query[order], memory[order], squares[order]
        who, first = torch.unique_consecutive(query, return_inverse=True)
        rank = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        k = finds.rows.shape[1]
        kept = rank < k
        new_squares = torch.full((len(who), k), torch.inf, device=query.device)
        new_rows = torch.full((len(who), k), -1, dtype=torch.int64, device=query.device)
        new_squares[first[kept], rank[kept]] = squares[kept]
        new_rows[first[kept], rank[kept]] = memory[kept]
        both = torch.cat([finds.squares[who], new_squares], dim=1).sort(dim=1, stable=True)
        finds.squares[who] = both.values[:, :k]
        finds.rows[who] = torch.cat([finds.rows[who], new_rows], dim=1).gather(1, both.indices[:, :k])
        finds.bound[who] = torch.minimum(finds.bound[who], finds.squares[who, -1])


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _shadows(memories: Tensor, width: int) -> tuple[Light, Shadows]:
    light = cast(memories, width)
    parts = [light.of_memories(memories[some]) for some in _slices(len(memories), 16384)]
    return light, Shadows(
        torch.cat([part.digits for part in parts]),
        torch.cat([part.slack for part in parts]),
        torch.cat([part.half_squares for part in parts]),
    )


def _fastest(digits: Tensor) -> Multiply:
    """The faster of two ways to the same whole numbers, on this machine."""
    if digits.device.type != "cpu":
        return multiply_int8
    some = digits[:1024].repeat(-(-1024 // max(1, len(digits))), 1)[:1024]
    return min((multiply_int8, multiply_float32), key=lambda way: _seconds(way, some))


def _seconds(multiply: Multiply, digits: Tensor) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        multiply(digits, digits)
        best = min(best, time.perf_counter() - began)
    return best
