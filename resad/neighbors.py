"""The memories nearest to patches: their distances, and which of a patch's two looks is nearer (equation 7)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_VALUES: Final = 2**22
"""Of the (rows, k, D) differences that are held at a time: 16 MB."""


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
        rows: int64 (N, k), the memories that each patch is measured against.
    Returns:
        float32 (N, k).
    """
    distances = np.empty(rows.shape, dtype=np.float32)
    at_once = max(_VALUES // max(rows.shape[1] * features.shape[1], 1), 1)
    for start in range(0, len(features), at_once):
        some = slice(start, start + at_once)
        difference = features[some, None, :] - memories[rows[some]]  # (rows, k, D)
        distances[some] = np.sqrt(np.einsum("nkd,nkd->nk", difference, difference))
    return distances


def nearest_first(distances: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbors:
    """The k nearest of the memories found for each patch, (N, k or more); of equal ones those found first."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return Neighbors(np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1))


def nearest_of_both(
    search: Search, features: NDArray[np.float32], mirrored: NDArray[np.float32] | None, k: int
) -> Neighbors:
    """What `search` finds for each patch as it is, or as it looks in the mirror image where that is nearer.

    features, mirrored: float32 (N, D), the latter where there is one.
    """
    found = search(features, k)
    return found if mirrored is None else nearer(found, search(mirrored, k))


def nearer(found: Neighbors, other: Neighbors) -> Neighbors:
    """For each patch what is nearer by the mean of the k distances; `found` where they are equal."""
    return _either(found, other, _other_is_nearer(found, other, found.distances.shape[1]))


def listed_of_both(
    search: Search, features: NDArray[np.float32], mirrored: NDArray[np.float32] | None, k: int, count: int
) -> tuple[Neighbors, NDArray[np.bool_]]:
    """The `count` nearest memories of the look that `nearest_of_both` takes for k, and which look that is.

    The k decide however many are listed, so that a longer list begins with the shorter one.

    Args:
        features, mirrored: float32 (N, D), the latter where there is one.
        k: at least 1.
        count: listed, at least 0.
    Returns:
        Neighbors (N, count); bool (N,), True where it is the mirror image.
    """
    found = search(features, max(k, count))
    in_mirror = np.zeros(len(features), dtype=bool)
    if mirrored is not None:
        other = search(mirrored, max(k, count))
        in_mirror = _other_is_nearer(found, other, k)
        found = _either(found, other, in_mirror)
    return Neighbors(found.distances[:, :count], found.rows[:, :count]), in_mirror


def _other_is_nearer(found: Neighbors, other: Neighbors, k: int) -> NDArray[np.bool_]:
    """bool (N,): by the mean of the first k distances; not where they are equal."""
    nearer: NDArray[np.bool_] = other.distances[:, :k].mean(axis=1) < found.distances[:, :k].mean(axis=1)
    return nearer


def _either(found: Neighbors, other: Neighbors, take_other: NDArray[np.bool_]) -> Neighbors:
    take = take_other[:, None]
    return Neighbors(np.where(take, other.distances, found.distances), np.where(take, other.rows, found.rows))
