"""Distances against their surroundings: the definition written out, and where it changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from resad.surround import against_surroundings, lattice

GRID = (24, 32)


def disc() -> NDArray[np.int16]:
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    return np.argwhere(np.hypot(y - 11.5, x - 15.5) < 14).astype(np.int16)


def distances(rng: np.random.Generator, cells: NDArray[np.int16]) -> NDArray[np.float32]:
    return rng.uniform(0.5, 1.5, len(cells)).astype(np.float32)


def test_it_is_the_definition(rng: np.random.Generator) -> None:
    cells = disc()
    d = distances(rng, cells)
    ours = against_surroundings(d, cells, GRID, 0.4)
    chosen = [number for number, (y, x) in enumerate(cells.tolist()) if y % 2 == 1 and x % 2 == 1]
    assert lattice(cells, GRID).nonzero()[0].tolist() == chosen
    for number in (0, 40, 300, len(cells) - 1):
        squared = ((cells[chosen] - cells[number].astype(float)) ** 2).sum(axis=1)
        mean = np.average(d[chosen], weights=np.exp(-squared / (2 * (32 / 8) ** 2)))
        assert ours[number] == pytest.approx(d[number] - 0.4 * mean, rel=1e-5)


def test_what_is_raised_all_over_falls_behind_what_stands_out(rng: np.random.Generator) -> None:
    cells = disc()
    d = np.ones(len(cells), dtype=np.float32)
    wide = cells[:, 1] < 14
    spot = cells.tolist().index([12, 24])
    d[wide], d[spot] = 1.5, 1.4
    ours = against_surroundings(d, cells, GRID, 0.4)
    deep = cells.tolist().index([12, 6])
    assert d[spot] < d[deep]
    assert ours[spot] > ours[deep]


def test_a_level_map_stays_level() -> None:
    cells = disc()
    same = np.full(len(cells), 2.0, dtype=np.float32)
    np.testing.assert_allclose(against_surroundings(same, cells, GRID, 0.25), 1.5, rtol=1e-6)
    np.testing.assert_array_equal(against_surroundings(same, cells, GRID, 0.0), same)


@given(seed=st.integers(0, 999), share=st.floats(0, 1))
def test_where_the_lattice_is_exact_nothing_comes_out_too_low(seed: int, share: float) -> None:
    """What lets an approximate search, whose distances are never too small, be made exact at the top alone."""
    rng, cells = np.random.default_rng(seed), disc()
    exact = distances(rng, cells)
    found = np.where(lattice(cells, GRID), exact, exact + rng.exponential(0.1, len(cells)).astype(np.float32))
    ours = against_surroundings(found, cells, GRID, share)
    assert (ours >= against_surroundings(exact, cells, GRID, share)).all()
    assert (ours >= 0).all()


def test_few_patches_off_the_lattice_are_their_own_surroundings() -> None:
    cells = np.array([[0, 0], [0, 2]], dtype=np.int16)
    ours = against_surroundings(np.array([1.0, 3.0], dtype=np.float32), cells, GRID, 1.0)
    assert ours[0] == 0
    assert 0 < ours[1] < 1
