"""What is usual at a place: against its definition written out, and what it must never do to distances."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from resad import usual
from resad.errors import IndexInvalid
from resad.usual import Usual, moments, sum_of, usual_from

GRID = (12, 16)
Photo = tuple[NDArray[np.float32], NDArray[np.int16]]


def photo(rng: np.random.Generator) -> Photo:
    """Distances in a disc that touches the grid's edge; those on the left are higher, those below differ more."""
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    cells = np.argwhere(np.hypot(y - 5.5, x - 7.5) < 7.5).astype(np.int16)
    y, x = cells.T
    return (1 + (x < 4) + (0.1 + 0.3 * (y > 7)) * rng.standard_normal(len(cells))).astype(np.float32), cells


def fitted(photos: list[Photo]) -> Usual:
    return usual_from(sum_of(moments(*one, GRID) for one in photos))


def literal(photos: list[Photo], y: int, x: int) -> tuple[float, float]:
    """gain and offset of one cell by the definition: weights, a mean and a standard deviation."""
    sigma = usual._NEAR * GRID[1]
    reach = int(4 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    bell = np.exp(-(steps**2) / (2 * sigma**2))
    kernel = dict(zip(steps.tolist(), (bell / bell.sum()).tolist(), strict=True))
    values, weights = [], []
    for distances, cells in photos:
        for d, (row, column) in zip(distances.tolist(), cells.tolist(), strict=True):
            for at in (column, GRID[1] - 1 - column):
                values.append(d)
                weights.append(kernel.get(row - y, 0.0) * kernel.get(at - x, 0.0))
    v, w = np.array(values), np.array(weights)
    w = w + usual._PRIOR / len(v)
    m, s = v.mean(), v.std()
    near = np.average(v, weights=w)
    spread = np.sqrt(np.average((v - near) ** 2, weights=w))
    return s / spread, m - s / spread * near


def test_it_is_the_definition(rng: np.random.Generator) -> None:
    photos = [photo(rng) for _ in range(3)]
    found = fitted(photos)
    for y, x in ((0, 0), (5, 7), (5, 0), (11, 8), (9, 15)):
        gain, offset = literal(photos, y, x)
        assert found.gain[y, x] == pytest.approx(gain, rel=1e-5)
        assert found.offset[y, x] == pytest.approx(offset, rel=1e-4, abs=1e-5)


def test_healthy_places_come_out_alike(rng: np.random.Generator) -> None:
    photos = [photo(rng) for _ in range(200)]
    found = fitted(photos)
    cells = photos[0][1].tolist()
    calm, restless = cells.index([3, 8]), cells.index([10, 8])
    before, after = (np.stack(values) for values in ([d for d, _ in photos], [found.of(*one) for one in photos]))
    spread = [values[:, restless].std() / values[:, calm].std() for values in (before, after)]
    assert spread[0] > 3
    assert spread[1] == pytest.approx(1, abs=0.3)


def test_left_and_right_eyes_are_treated_alike(rng: np.random.Generator) -> None:
    found = fitted([photo(rng) for _ in range(4)])
    np.testing.assert_allclose(found.gain, found.gain[:, ::-1], rtol=1e-5)
    np.testing.assert_allclose(found.offset, found.offset[:, ::-1], rtol=1e-4, atol=1e-5)


def test_what_a_photo_added_can_be_taken_out(rng: np.random.Generator) -> None:
    photos = [photo(rng) for _ in range(5)]
    parts = [moments(*one, GRID) for one in photos]
    without, others = usual_from(sum_of(parts) - parts[2]), fitted([photos[i] for i in (0, 1, 3, 4)])
    np.testing.assert_allclose(without.gain, others.gain, rtol=1e-5)
    np.testing.assert_allclose(without.offset, others.offset, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 999), count=st.integers(1, 4))
def test_at_a_place_the_farther_stays_the_farther_and_nothing_is_below_zero(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    found = fitted([photo(rng) for _ in range(count)])
    distances, cells = photo(rng)
    nearer, farther = found.of(distances, cells), found.of(distances + np.float32(0.5), cells)
    assert (found.gain > 0).all()
    assert (nearer >= 0).all()
    assert (farther >= nearer).all()
    assert np.isfinite(farther).all()


def test_places_that_are_all_alike_change_nothing() -> None:
    cells = np.argwhere(np.ones(GRID, dtype=bool)).astype(np.int16)
    same = np.full(len(cells), 0.25, dtype=np.float32)  # its square is exact: no spread by rounding
    found = fitted([(same, cells)] * 2)
    np.testing.assert_array_equal(found.of(same, cells), same)
    np.testing.assert_array_equal(Usual.alike(GRID).of(same, cells), same)


def test_files_come_back_and_others_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    found, file = fitted([photo(rng)]), tmp_path / usual.FILE
    with pytest.raises(IndexInvalid, match="does not say"):
        Usual.load(file, GRID)
    file.write_bytes(found.to_bytes())
    back = Usual.load(file, GRID)
    np.testing.assert_array_equal(back.gain, found.gain)
    np.testing.assert_array_equal(back.offset, found.offset)
    with pytest.raises(IndexInvalid, match=r"gain is float32 \(12, 16\), the grid \(16, 16\)"):
        Usual.load(file, (16, 16))
    file.write_bytes(Usual(found.gain, found.offset * np.float32(np.nan)).to_bytes())
    with pytest.raises(IndexInvalid, match="offset"):
        Usual.load(file, GRID)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(IndexInvalid, match="does not say"):
        Usual.load(file, GRID)
