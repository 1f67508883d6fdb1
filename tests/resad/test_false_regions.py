"""Regions above a level, counted from their heights, against a labeled map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from resad.false_regions import RATES, RegionHeights, finding_levels, region_heights


def heights(values: NDArray[np.float32]) -> RegionHeights:
    cells = np.argwhere(values >= 0).astype(np.int16)
    return region_heights(values[tuple(cells.T)], cells, (values.shape[0], values.shape[1]))


def labeled_count(values: NDArray[np.float32], level: float) -> int:
    """The slow twin."""
    count: int = ndimage.label(values.astype(np.float64) > level, structure=np.ones((3, 3)))[1]
    return count


@given(seed=st.integers(0, 2**32), steps=st.integers(2, 40), side=st.integers(3, 14))
@settings(max_examples=150, deadline=None)
def test_the_count_is_that_of_a_labeled_map(seed: int, steps: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct values, so that there are plateaus and ties.
    values = (rng.integers(0, steps, (side, side)) / steps).astype(np.float32)
    values[rng.random((side, side)) < 0.1] = -1
    if not (values >= 0).any():
        return

    regions = heights(values)

    for level in [*np.unique(values[values >= 0]).tolist(), 0.05, 0.5]:
        if level >= regions.floor:
            assert regions.count(level) == labeled_count(values, level)


def highest_count(maps: list[NDArray[np.float32]]) -> int:
    """Regions of all maps together at the level where they are most: each changes at its own heights alone."""
    levels = np.unique(maps)
    counts = np.zeros(levels.size, np.int64)
    for values in maps:
        own = np.unique(values)
        below = np.searchsorted(own, levels, side="right") - 1
        counts += np.array([labeled_count(values, height) for height in [-1, *own]])[below + 1]
    return int(counts.max())


@given(seed=st.integers(0, 2**32), photos=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_healthy_photographs_pass_a_level_no_more_often_than_stated(seed: int, photos: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [ndimage.gaussian_filter(rng.random((12, 12)), 1).astype(np.float32) for _ in range(photos)]

    levels = finding_levels([heights(values) for values in maps])

    assert [level.rate for level in levels] == list(RATES)
    most = highest_count(maps)
    for level in levels:
        if level.value is None:
            limit = level.rate * (photos + 1) - 1
            assert limit < 0 or most <= limit
            continue
        count = sum(labeled_count(values, level.value) for values in maps)
        assert count + 1 <= level.rate * (photos + 1) + 1e-9
    values = [level.value for level in levels if level.value is not None]
    assert values == sorted(values, reverse=True)


def test_too_few_photographs_support_no_low_rate_and_smooth_maps_no_high_one() -> None:
    values = np.zeros((12, 12), np.float32)
    values[::3, ::3] = np.arange(1, 17, dtype=np.float32).reshape(4, 4)  # sixteen regions

    levels = {level.rate: level.value for level in finding_levels([heights(values)])}

    assert [rate for rate, level in levels.items() if level is None] == [0.25]
    assert levels[1.0] == 15  # of two photographs one region more is counted, so that one is allowed
    smooth = heights(np.ones((4, 4), np.float32))
    assert all(level.value is None for level in finding_levels([smooth]) if level.rate >= 1)
    assert all(level.value is None for level in finding_levels([]))


@pytest.mark.parametrize("count", [0, 3])
def test_many_regions_are_cut_at_a_floor(count: int) -> None:
    values = np.zeros((80, 80), np.float32)
    values[::2, ::2] = np.linspace(1, 2, 1600, dtype=np.float32).reshape(40, 40)

    regions = heights(values)

    assert len(regions.peaks) == 512
    assert regions.count(regions.floor) == 512 == labeled_count(values, regions.floor)
    assert regions.count(2.0 - 1e-3 * count) == labeled_count(values, 2.0 - 1e-3 * count)
