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

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from resad import neighbors
from resad.device import full_float32
from resad.search.bounds import QuantizedBank, QuantizedVectors, faster_multiply, slices

_SPARE: Final = 8
"""Rows beyond k where a block is searched in full, against the rounding of the expanded form."""
_PROBES: Final = 3
"""Clusters that the first upper bound of a patch comes from."""
_UPDATES: Final = (2, 5, 10, 20, 40)
"""Numbers of blocks after which the new neighbors lower the bounds."""
_GROUP: Final = 8
"""Columns whose maximum is tested first."""
_PAIRS: Final = 2**16
"""Pairs whose vectors are gathered together on a GPU: bounds the (pairs, D) difference."""

Part = TypeVar("Part")
Answer = TypeVar("Answer")
PairSquares = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""As `pair_squares`."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of the parts that are computed together; they change time and memory, never a result.

    queries, memories: a tile's rows and columns.  cluster: memories in a cluster, at most.
    """

    queries: int = 512
    memories: int = 2048
    cluster: int = 1024


GPU_TILING: Final = Tiling(queries=4096, memories=8192)
"""Fewer and larger products, so that starting them takes less time than computing them."""


@dataclass(frozen=True, slots=True, eq=False)
class PrunedResult:
    """The result of a search.

    rows: int64 (N, k), nearest first.  proved: share of pairs of patch and memory not searched in full.
    """

    rows: Tensor
    proved: float


@dataclass(frozen=True, slots=True, eq=False)
class _Queries:
    """Queries, float32 (N, D), in an order in which those near the same cluster are contiguous; and quantized."""

    vectors: Tensor
    quantized: QuantizedVectors


@dataclass(slots=True, eq=False)
class TopK:
    """The nearest memories of N queries so far.  Threads may share it, each with queries of its own.

    squares: float32 (N, k).  rows: int64 (N, k), -1 for none.  bound: float32 (N,), an upper bound of the k-th
    squared distance; it may come from elsewhere than `rows`.
    """

    squares: Tensor
    rows: Tensor
    bound: Tensor

    @classmethod
    def empty(cls, count: int, k: int, device: torch.device) -> "TopK":
        """For `count` queries without any neighbors yet."""
        return cls(
            torch.full((count, k), torch.inf, device=device),
            torch.full((count, k), -1, dtype=torch.int64, device=device),
            torch.full((count,), torch.inf, device=device),
        )

    def update(self, query: Tensor, memory: Tensor, squares: Tensor, dimension: int) -> None:
        """Add the pairs that are near enough; no pair twice.

        squares: float32 (pairs,), squared distances of vectors of `dimension`.
        """
        # The bound may come from the same pair, its squares summed in another order: up to D roundings apart.
        near = squares <= self.bound[query] * (1 + 1e-6 + 2.0**-22 * dimension)
        if not bool(near.any()):
            return
        query, memory, squares = query[near], memory[near], squares[near]
        order = squares.argsort(stable=True)
        order = order[query[order].argsort(stable=True)]
        query, memory, squares = query[order], memory[order], squares[order]
        changed, first = torch.unique_consecutive(query, return_inverse=True)
        rank = torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)
        k = self.rows.shape[1]
        kept = rank < k
        new_squares = torch.full((len(changed), k), torch.inf, device=query.device)
        new_rows = torch.full((len(changed), k), -1, dtype=torch.int64, device=query.device)
        new_squares[first[kept], rank[kept]] = squares[kept]
        new_rows[first[kept], rank[kept]] = memory[kept]
        merged = torch.cat([self.squares[changed], new_squares], dim=1).sort(dim=1, stable=True)
        self.squares[changed] = merged.values[:, :k]
        self.rows[changed] = torch.cat([self.rows[changed], new_rows], dim=1).gather(1, merged.indices[:, :k])
        self.bound[changed] = torch.minimum(self.bound[changed], self.squares[changed, -1])


class PrunedSearch:
    """Exact search of one memory bank by lower bounds.

    Args:
        memories: float32 (M, D), on the device that searches.
        width: numbers in a quantized vector.
        limit: share of a block's memories, and of the patches in a tile: where more patches have more candidates,
            they are searched there in full.
        quantized: of these memories, if it exists already.
        measure: squared distances of pairs; tests replace it.
    """

    def __init__(
        self,
        memories: Tensor,
        width: int,
        limit: float,
        tiling: Tiling | None = None,
        quantized: QuantizedBank | None = None,
        measure: "PairSquares | None" = None,
    ) -> None:
        self._memories = memories
        self._width = width
        self._limit = limit
        self._measure = measure or pair_squares
        self._tiling = tiling or (Tiling() if memories.device.type == "cpu" else GPU_TILING)
        with full_float32():
            self._quantized = quantized or QuantizedBank.of(memories, width, self._tiling.cluster)
            self._quantizer, self._clusters = self._quantized.quantizer, self._quantized.clusters
            self._vectors = self._quantized.vectors
            self._blocks = list(slices(len(memories), self._tiling.memories))
            self._block_digits = torch.stack(
                [self._vectors.digits[block].float().mean(dim=0) for block in self._blocks]
            )
            self._block_slack = torch.stack([self._vectors.slack[block].max() for block in self._blocks])
            self._cluster_digits = torch.stack(
                [self._vectors.digits[cluster].float().mean(dim=0) for cluster in self._clusters.slices()]
            )
        self._multiply = faster_multiply(self._vectors.digits)

    def subset(self, memories: Tensor, rows: Tensor) -> "PrunedSearch":
        """The search over `memories`, which are these `rows` of the present ones, ascending."""
        return PrunedSearch(
            memories, self._width, self._limit, self._tiling, self._quantized.subset(rows), self._measure
        )

    @full_float32()
    @torch.inference_mode(False)  # the threads would not share the caller's mode, and may not write its tensors
    def search(self, queries: Tensor, k: int) -> PrunedResult:
        """The k nearest memories of each query, float32 (N, D)."""
        n, device = len(queries), queries.device
        if not n:
            return PrunedResult(torch.empty((0, k), dtype=torch.int64, device=device), 1.0)
        quantized = self._quantizer.quantize_queries(queries)
        closeness = quantized.digits.float() @ self._cluster_digits.T
        clusters = closeness.topk(min(_PROBES, len(self._clusters)), dim=1).indices
        order = clusters[:, 0].argsort(stable=True)
        ordered, clusters = _Queries(queries[order], quantized[order]), clusters[order]
        top = TopK.empty(n, k, device)
        # Each thread takes tiles of its own through all steps: threads that meet at every small product would wait
        # for each other most of the time.
        with single_threaded_pool(device) as pool:
            first = self._first_neighbors(ordered, clusters, top, pool)
            tiles = list(slices(n, self._tiling.queries))
            full = sum(for_each(pool, partial(self._search_tile, ordered, top), tiles))
        # A block searched in full may miss, by rounding, the memory that a bound came from; `first` has it.
        rows = torch.empty_like(top.rows)
        rows[order], _ = self._nearest_of(ordered.vectors, torch.cat([first, top.rows], dim=1), k)
        return PrunedResult(rows, 1 - full / (n * len(self._memories)))

    def _first_neighbors(self, queries: _Queries, clusters: Tensor, top: TopK, pool: Executor | None) -> Tensor:
        """Near rows (N, k), -1 for none, out of each query's `clusters` (N, probes); sets the bounds from them."""
        n, k = top.rows.shape
        candidates = torch.full((n, clusters.shape[1], 2 * k), -1, dtype=torch.int64, device=clusters.device)

        def search_cluster(number: int, cluster: slice) -> None:
            query, probe = (clusters == number).nonzero(as_tuple=True)
            if len(query):
                products = self._multiply(queries.quantized.digits[query], self._vectors.digits[cluster])
                nearest = products.topk(min(2 * k, cluster.stop - cluster.start), dim=1).indices + cluster.start
                candidates[query, probe, : nearest.shape[1]] = self._clusters.order[nearest]

        for_each(pool, lambda item: search_cluster(*item), list(enumerate(self._clusters.slices())))

        def measure_tile(tile: slice) -> Tensor:
            rows, squares = self._nearest_of(queries.vectors[tile], candidates[tile].flatten(1), k)
            top.bound[tile] = squares[:, -1]
            return rows

        return torch.cat(for_each(pool, measure_tile, list(slices(n, self._tiling.queries))))

    def _nearest_of(self, queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest of each query's `rows`, int64 (N, any number), duplicates and -1 ignored; and squares."""
        candidates = rows.sort(dim=1).values
        ignored = candidates < 0
        ignored[:, 1:] |= candidates[:, 1:] == candidates[:, :-1]
        squares = torch.full(candidates.shape, torch.inf, device=queries.device)
        query, column = (~ignored).nonzero(as_tuple=True)
        squares[query, column] = self._measure(queries, query, self._memories, candidates[query, column])
        nearest, columns = squares.sort(dim=1, stable=True)
        return candidates.gather(1, columns[:, :k]), nearest[:, :k]

    def _search_tile(self, queries: _Queries, top: TopK, tile: slice) -> int:
        """Complete the top k of a tile of queries; returns how many pairs were searched in full."""
        quantized = queries.quantized[tile]
        closeness = self._block_digits @ quantized.digits.float().mean(dim=0)
        order: list[int] = closeness.argsort(descending=True, stable=True).tolist()
        marks = [0, *(mark for mark in _UPDATES if mark < len(order)), len(order)]
        return sum(
            self._search_blocks(queries, top, tile, quantized, order[first:last])
            for first, last in pairwise(marks)
        )

    def _search_blocks(
        self, queries: _Queries, top: TopK, tile: slice, quantized: QuantizedVectors, numbers: list[int]
    ) -> int:
        """The same, in the blocks with these `numbers`."""
        reach = (
            top.bound[tile].double().sqrt() * (1 + 1e-5 + 2.0**-22 * queries.vectors.shape[1]) + quantized.slack
        )
        reach = reach + self._block_slack[numbers, None]  # (blocks, queries)
        steps = (reach / self._quantizer.unit).square() * (0.5 + 1e-9)
        enough = quantized.half_squares + self._quantizer.offset - steps
        enough = enough.floor().clamp(-(2.0**30), 2.0**30) - 1
        hits, full = [], 0
        for number, minimum in zip(numbers, enough, strict=True):
            block = self._blocks[number]
            query, column = hits_of(self._multiply(quantized.digits, self._vectors.digits[block]), minimum)
            size = block.stop - block.start
            if len(query) > self._limit**2 * size * len(minimum):
                many = torch.bincount(query, minlength=len(minimum)) > self._limit * size
                crowded = many.nonzero()[:, 0] + tile.start
                # A few are better measured pair by pair than after the gathering of a whole block.
                if len(crowded) > self._limit * len(minimum):
                    keep = ~many[query]
                    query, column = query[keep], column[keep]
                    self._search_fully(queries, crowded, block, top)
                    full += len(crowded) * size
            hits.append((query + tile.start, column + block.start))
        query, position = (torch.cat(parts) for parts in zip(*hits, strict=True))
        self._update(queries, query, self._clusters.order[position], top)
        return full

    def _search_fully(self, queries: _Queries, crowded: Tensor, block: slice, top: TopK) -> None:
        """The flat search, by one matrix product, of the queries `crowded` in one block."""
        rows = self._clusters.order[block]
        memories = self._memories[rows] - self._quantizer.center
        vectors = queries.vectors[crowded] - self._quantizer.center
        products = torch.addmm(memories.square().sum(dim=1), vectors, memories.T, alpha=-2)
        k = min(top.rows.shape[1] + _SPARE, len(rows))
        nearest = rows[products.topk(k, dim=1, largest=False).indices]
        self._update(queries, crowded.repeat_interleave(k), nearest.flatten(), top)

    def _update(self, queries: _Queries, query: Tensor, rows: Tensor, top: TopK) -> None:
        squares = self._measure(queries.vectors, query, self._memories, rows)
        top.update(query, rows, squares, queries.vectors.shape[1])


class PrunedRows:
    """The pruned search behind NumPy arrays.  proved: `PrunedResult.proved` of the last search."""

    def __init__(self, search: PrunedSearch, device: torch.device) -> None:
        self._search = search
        self._device = device
        self.proved = 1.0

    def subset(self, memories: NDArray[np.float32], keep: NDArray[np.bool_]) -> PrunedSearch:
        """The search over `memories`, which are those to `keep`."""
        rows = torch.from_numpy(np.flatnonzero(keep)).to(self._device)
        return self._search.subset(torch.from_numpy(memories).to(self._device), rows)

    def rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The nearest rows."""
        result = self._search.search(torch.from_numpy(features).to(self._device), k)
        self.proved = result.proved
        nearest: NDArray[np.int64] = result.rows.cpu().numpy()
        return nearest


def hits_of(products: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns, int64, rows ascending, where `products` (n, m) reaches its row's `enough` (n,).

    Few do.  The maximum of each group of columns says where to look, at a fraction of the cost of the whole.
    """
    n, m = products.shape
    minimum = enough.to(products.dtype)
    groups = _GROUP if m % _GROUP == 0 else 1
    members = products.view(n, groups, m // groups)
    largest = members.amax(dim=1)
    if products.device.type == "cpu":
        rows, columns = _hits_by_numpy(members.numpy(), largest.numpy(), minimum.numpy())
        return torch.from_numpy(rows), torch.from_numpy(columns)
    row, first = (largest >= minimum[:, None]).nonzero(as_tuple=True)
    hit, group = (members[row, :, first] >= minimum[row, None]).nonzero(as_tuple=True)
    return row[hit], first[hit] + group * (m // groups)


def _hits_by_numpy(
    members: NDArray[Any], largest: NDArray[Any], minimum: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same: on a single core NumPy compares and gathers several times faster than torch."""
    _, groups, width = members.shape
    row, first = np.divmod(np.flatnonzero(largest >= minimum[:, None]), width)
    hit, group = np.divmod(np.flatnonzero(members[row, :, first] >= minimum[row, None]), groups)
    return row[hit], first[hit] + group * width


def pair_squares(queries: Tensor, query: Tensor, memories: Tensor, memory: Tensor) -> Tensor:
    """|queries[query] - memories[memory]|^2 by direct difference: float32 (pairs,)."""
    if queries.device.type == "cpu":
        return torch.from_numpy(
            neighbors.pair_squares(queries.numpy(), query.numpy(), memories.numpy(), memory.numpy())
        )
    out = torch.empty(len(query), device=queries.device)
    for start in range(0, len(query), _PAIRS):
        part = slice(start, start + _PAIRS)
        out[part] = (queries[query[part]] - memories[memory[part]]).square().sum(dim=1)
    return out


@contextmanager
def single_threaded_pool(device: torch.device) -> Iterator[Executor | None]:
    """A pool of threads whose torch and FAISS calls run on the calling thread alone.

    As many as torch uses on a CPU; no pool on another device or where torch uses one.  OpenMP keeps the number of
    threads for each calling thread, so that the process's own setting stays.
    """
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield None
        return
    with ThreadPoolExecutor(count, "search", initializer=_use_one_thread) as pool:
        yield pool


def for_each(pool: Executor | None, work: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
    """The results of `work` on every part, on the pool's threads if there is a pool; raises what `work` raises."""
    return list(map(work, parts) if pool is None else pool.map(work, parts))


def _use_one_thread() -> None:
    torch.get_num_threads()  # torch writes its own number over a thread's at the first call there
    for library in _openmp_libraries():
        library.set_num_threads(1)


@cache
def _openmp_libraries() -> tuple[Any, ...]:
    return tuple(ThreadpoolController().select(user_api="openmp").lib_controllers)
