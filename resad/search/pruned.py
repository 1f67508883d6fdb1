"""Exact search with pruning: each memory is either shown to be too far by a lower bound, or measured in full.

An exhaustive pass over the quantized memories (`resad.search.bounds`) leaves, for each patch, the few memories
whose lower bound is below an upper bound of its k-th distance; these are measured by direct difference.  The upper
bound comes from the clusters that the patch is nearest to, and falls as the pass goes from the nearest blocks to
the farthest.  Where many patches have many candidates in a block, these patches are searched in it in full.
The result is therefore that of the flat search, whatever the leading directions are.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, Final, TypeVar

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from resad.device import full_float32
from resad.search.bounds import Shaded, Shadows, faster_multiply, shade, slices

_SPARE: Final = 8
"""Rows taken beyond k where a block is searched in full, for what the expanded form rounds away."""


_PROBES: Final = 3
"""Leaves that the first upper bound of a patch comes from."""


_DRAINS: Final = (2, 5, 10, 20, 40)
"""Blocks after which what was found lowers the bounds."""


_GROUP: Final = 8
"""Columns of which the largest is looked at first."""


_PAIRS: Final = 2**16
"""Pairs whose vectors are gathered together on a GPU: bounds the (pairs, D) difference."""


Part = TypeVar("Part")


Answer = TypeVar("Answer")


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


@contextmanager
def lone_threads(device: torch.device) -> Iterator[Executor | None]:
    """As many threads as torch uses on a CPU; none on another device or where it uses one.

    How many threads OpenMP starts is kept by each thread for itself, so that the process' own setting stays.
    """
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, "search", initializer=_alone) as pool:
        yield pool


def for_each(pool: Executor | None, work: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
    """What `work` says of every part, on the pool's threads if there is one; raises what was raised there."""
    return list(map(work, parts) if pool is None else pool.map(work, parts))


def _alone() -> None:
    torch.get_num_threads()  # torch writes its own number over a thread's at the first call there
    for library in _libraries():
        library.set_num_threads(1)


@cache
def _libraries() -> tuple[Any, ...]:
    return tuple(ThreadpoolController().select(user_api="openmp").lib_controllers)
