"""The memories nearest to patches, and whether a patch or its mirror image is nearer (equation 7)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """Each query's k nearest memories, nearest first.

    distances: float32 (N, k), L2.  rows: int64 (N, k), rows of the memory bank.
    """

    distances: NDArray[np.float32]
    rows: NDArray[np.int64]


Search = Callable[[NDArray[np.float32], int], Neighbors]
"""Finds the k nearest memories of patches, float32 (N, D)."""


def direct_distances(
    features: NDArray[np.float32], memories: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """L2 distances from the differences themselves, which do not cancel for near neighbors.

    Args:
        features: float32 (N, D).
        memories: float32 (M, D).
        rows: int64 (N, k), the memories that each patch is measured against; -1 for none.
    Returns:
        float32 (N, k), infinite where there is no memory.
    """
    queries = np.repeat(np.arange(len(features)), rows.shape[1])
    distances: NDArray[np.float32] = np.sqrt(pair_squares(features, queries, memories, rows.ravel()))
    return distances.reshape(rows.shape)


def pair_squares(
    features: NDArray[np.float32],
    queries: NDArray[np.int64],
    memories: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """|features[queries] - memories[rows]|^2 from the differences, float32 (pairs,); infinite where a row is -1.

    FAISS reads the vectors in place: nothing is gathered.
    """
    squares = np.full(len(queries), np.inf, dtype=np.float32)
    # The arrays have names because FAISS only gets their addresses.
    arrays = [np.ascontiguousarray(array) for array in (features, queries, memories, rows)]
    measure: Any = faiss.pairwise_indexed_L2sqr  # type: ignore[attr-defined]
    if len(queries):
        measure(features.shape[1], len(queries), *map(faiss.swig_ptr, (*arrays, squares)))
    return squares


def nearest_first(distances: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbors:
    """The k nearest of each patch's candidates, (N, k or more); equal ones in the order given."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1))


def nearest_with_mirror(
    search: Search, features: NDArray[np.float32], mirrored: NDArray[np.float32] | None, k: int
) -> Neighbors:
    """The k nearest memories of each patch, or of the patch in the mirror image where those are nearer.

    features, mirrored: float32 (N, D); `mirrored` is None where mirror images are not searched.
    """
    neighbors = search(features, k)
    return neighbors if mirrored is None else nearer(neighbors, search(mirrored, k))


def nearer(neighbors: Neighbors, of_mirrored: Neighbors) -> Neighbors:
    """For each patch the set with the smaller mean distance; the first where they are equal."""
    return _select(neighbors, of_mirrored, _mirror_is_nearer(neighbors, of_mirrored, neighbors.distances.shape[1]))


def list_with_mirror(
    search: Search, features: NDArray[np.float32], mirrored: NDArray[np.float32] | None, k: int, count: int
) -> tuple[Neighbors, NDArray[np.bool_]]:
    """The `count` nearest memories of the patch or its mirror image, whichever `nearest_with_mirror` takes for k.

    k decides whatever `count` is, so that a longer list begins with the shorter one.

    Args:
        features, mirrored: float32 (N, D); `mirrored` may be None.
        k: at least 1.
        count: how many to list, at least 0.
    Returns:
        Neighbors (N, count); bool (N,), True where the mirror image is nearer.
    """
    neighbors = search(features, max(k, count))
    in_mirror = np.zeros(len(features), dtype=bool)
    if mirrored is not None:
        of_mirrored = search(mirrored, max(k, count))
        in_mirror = _mirror_is_nearer(neighbors, of_mirrored, k)
        neighbors = _select(neighbors, of_mirrored, in_mirror)
    return Neighbors(neighbors.distances[:, :count], neighbors.rows[:, :count]), in_mirror


def _mirror_is_nearer(neighbors: Neighbors, of_mirrored: Neighbors, k: int) -> NDArray[np.bool_]:
    """bool (N,): whether the mirror image has the smaller mean of the first k distances."""
    nearer: NDArray[np.bool_] = of_mirrored.distances[:, :k].mean(axis=1) < neighbors.distances[:, :k].mean(axis=1)
    return nearer


def _select(neighbors: Neighbors, of_mirrored: Neighbors, in_mirror: NDArray[np.bool_]) -> Neighbors:
    mirror = in_mirror[:, None]
    return Neighbors(
        np.where(mirror, of_mirrored.distances, neighbors.distances),
        np.where(mirror, of_mirrored.rows, neighbors.rows),
    )
