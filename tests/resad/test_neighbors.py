"""Which of a patch's two looks is taken, and what is listed of it: against distances measured one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad.memory_bank import MemoryBank, Provenance
from resad.neighbors import direct_distances, list_with_mirror, nearest_with_mirror

PATCHES, MEMORIES, D = 40, 60, 3


def bank_of(memories: np.ndarray) -> MemoryBank:
    count = len(memories)
    origin = Provenance(
        np.zeros(count, np.int32), np.zeros((count, 2), np.int16), np.arange(count, dtype=np.int32)
    )
    return MemoryBank(memories, origin)


def literal_listing(
    views: list[np.ndarray], memories: np.ndarray, k: int, count: int
) -> tuple[list[int], list[float], bool]:
    """The rows and distances of the `count` nearest memories of one patch, and whether the second look won."""
    distances = [np.sqrt(((memories - view) ** 2).sum(axis=1)) for view in views]
    nearest = [sorted(values)[:k] for values in distances]
    mirror_wins = len(views) == 2 and bool(sum(nearest[1]) < sum(nearest[0]))
    rows = sorted(range(len(memories)), key=distances[mirror_wins].__getitem__)[:count]
    return rows, [float(distances[mirror_wins][row]) for row in rows], mirror_wins


@given(st.integers(0, 999), st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_neighbors_of_the_scored_view_are_listed_for_every_count(
    seed: int, k: int, count: int, with_mirror: bool
) -> None:
    rng = np.random.default_rng(seed)
    memories = rng.normal(size=(MEMORIES, D)).astype(np.float32)
    views = [rng.normal(size=(PATCHES, D)).astype(np.float32) for _ in range(1 + with_mirror)]
    mirrored = views[1] if with_mirror else None
    search = bank_of(memories).search
    neighbors, in_mirror = list_with_mirror(search, views[0], mirrored, k, count)
    for patch in range(PATCHES):
        patch_views = [view[patch] for view in views]
        rows, distances, mirror_wins = literal_listing(patch_views, memories, k, count)
        assert (neighbors.rows[patch].tolist(), bool(in_mirror[patch])) == (rows, mirror_wins)
        assert neighbors.distances[patch] == pytest.approx(distances, rel=1e-5)
    longer, _ = list_with_mirror(search, views[0], mirrored, k, count + 3)
    np.testing.assert_array_equal(longer.rows[:, :count], neighbors.rows)
    np.testing.assert_array_equal(longer.distances[:, :count], neighbors.distances)
    scored = nearest_with_mirror(search, views[0], mirrored, k)
    common = min(k, count + 3)
    np.testing.assert_array_equal(longer.rows[:, :common], scored.rows[:, :common])


def test_a_tie_goes_to_the_photographs_own_view(rng: np.random.Generator) -> None:
    memories, features = (rng.normal(size=(n, D)).astype(np.float32) for n in (MEMORIES, PATCHES))
    _, in_mirror = list_with_mirror(bank_of(memories).search, features, features.copy(), 2, 1)
    assert not in_mirror.any()


def test_the_nearest_memory_alone_does_not_decide() -> None:
    """The photograph's look has the nearest memory of all, its mirror image nearer ones together."""
    bank = bank_of(np.array([[0.0], [9.0], [9.5], [20.0], [21.0], [21.5]], np.float32))
    features, mirrored = np.array([[0.3]], np.float32), np.array([[20.45]], np.float32)
    for k, expected in ((1, (0, False)), (3, (3, True))):
        neighbors, in_mirror = list_with_mirror(bank.search, features, mirrored, k, 1)
        assert (int(neighbors.rows[0, 0]), bool(in_mirror[0])) == expected


@given(st.integers(0, 999), st.integers(0, 30), st.integers(1, 4), st.integers(1, 300))
def test_direct_distances_are_those_of_the_differences(seed: int, patches: int, k: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    # Far from the origin and near each other, where |q|^2 - 2 q b + |b|^2 would cancel.
    features = (100 + rng.normal(0, 1e-2, (patches, dimension))).astype(np.float32)
    memories = (100 + rng.normal(0, 1e-2, (7, dimension))).astype(np.float32)
    rows = rng.integers(-1, 7, (patches, k))
    difference = features[:, None].astype(np.float64) - memories[rows].astype(np.float64)
    expected = np.where(rows < 0, np.inf, np.sqrt((difference**2).sum(axis=2)))
    np.testing.assert_allclose(direct_distances(features, memories, rows), expected, rtol=1e-5)
