"""Interpolation and the score, against literal twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resad.anomaly_map import anomaly_map, check_field_of_view, image_score
from resad.config import ScoreConfig
from resad.errors import NotAFundusPhoto

MAX = ScoreConfig(kind="max")


def disc(side: int, radius: float) -> NDArray[np.bool_]:
    steps = np.arange(side) + 0.5 - side / 2
    inside: NDArray[np.bool_] = np.hypot(steps[:, None], steps) < radius
    return inside


def touched_cells(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells of 8 x 8 px that the mask touches, of a mask 64 x 64."""
    return np.asarray(mask.reshape(8, 8, 8, 8).any(axis=(1, 3)))


def literal_interpolation(grid: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Bilinear between cell centers, constant beyond the outermost ones."""
    h, w = grid.shape
    out = np.empty((side, side))
    for y in range(side):
        for x in range(side):
            v = min(max((y + 0.5) * h / side - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / side - 0.5, 0), w - 1)
            v0, u0 = int(v), int(u)
            v1, u1 = min(v0 + 1, h - 1), min(u0 + 1, w - 1)
            upper = grid[v0, u0] * (1 - (u - u0)) + grid[v0, u1] * (u - u0)
            lower = grid[v1, u0] * (1 - (u - u0)) + grid[v1, u1] * (u - u0)
            out[y, x] = upper * (1 - (v - v0)) + lower * (v - v0)
    return out


def test_the_map_is_bilinear_between_patch_centers(rng: np.random.Generator) -> None:
    grid = rng.random((5, 5)).astype(np.float32)
    dense = anomaly_map(grid, np.ones((5, 5), bool), np.ones((40, 40), bool))
    np.testing.assert_allclose(dense, literal_interpolation(grid, 40), atol=1e-6)


def test_cells_outside_the_field_of_view_never_matter(rng: np.random.Generator) -> None:
    mask = disc(64, 25)
    valid = touched_cells(mask)
    assert not valid.all()
    grid = rng.random((8, 8)).astype(np.float32)
    spoiled = np.where(valid, grid, 1e6).astype(np.float32)
    dense = anomaly_map(spoiled, valid, mask)
    assert dense.max() <= grid[valid].max()
    assert (dense[~mask] == 0).all()
    np.testing.assert_array_equal(dense, anomaly_map(grid, valid, mask))


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0.0005, 1))
def test_the_score_is_the_mean_of_the_highest_share(seed: int, share: float) -> None:
    dense = np.random.default_rng(seed).random((30, 30)).astype(np.float32)
    mask = disc(30, 12)
    values = np.sort(dense[mask])[::-1]
    expected = values[: max(1, round(share * len(values)))].astype(np.float64).mean()
    assert image_score(dense, mask, ScoreConfig(kind="top_mean", share=share)) == pytest.approx(expected)
    assert image_score(dense, mask, MAX) == values[0]


def test_an_empty_field_of_view_is_refused() -> None:
    check_field_of_view(disc(100, 5))
    with pytest.raises(NotAFundusPhoto, match="empty"):
        check_field_of_view(np.zeros((10, 10), bool))
