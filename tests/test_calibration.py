"""p-values and thresholds: the guarantee on unseen normals, and their agreement with each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad.calibration import calibrate, p_value, threshold

scores = st.lists(st.floats(0, 10), min_size=1, max_size=60).map(lambda values: tuple(sorted(values)))
rates = st.floats(0.005, 0.9)


@given(scores, rates, st.floats(-1, 11))
def test_above_the_threshold_is_p_at_most_the_rate(normals: tuple[float, ...], fpr: float, score: float) -> None:
    limit = threshold(normals, fpr)
    p = p_value(score, normals)
    if limit.value is None:
        assert limit.reason is not None
        assert p_value(max(normals) + 1, normals) > fpr * (1 - 1e-9)  # no score at all could reach the rate
    else:
        assert (score > limit.value) == (p <= fpr * (1 + 1e-9))


@given(scores, st.floats(-1, 11))
def test_p_is_the_rank(normals: tuple[float, ...], score: float) -> None:
    assert p_value(score, normals) == (1 + sum(other >= score for other in normals)) / (len(normals) + 1)


@pytest.mark.parametrize(("fpr", "needed"), [(0.05, 19), (0.01, 99), (0.10, 9), (0.5, 1)])
def test_the_smallest_number_of_normals_is_named(fpr: float, needed: int) -> None:
    assert threshold(tuple(range(needed)), fpr).value is not None
    refused = threshold(tuple(range(needed - 1)), fpr)
    assert refused.value is None
    assert f"needs {needed} normal" in str(refused.reason)


def test_a_rate_a_hair_below_one_takes_the_lowest_normal() -> None:
    assert threshold((1.0, 2.0), 1 - 1e-10).value == 1.0


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.10])
def test_unseen_normals_are_called_abnormal_no_more_often_than_stated(fpr: float) -> None:
    rng = np.random.default_rng(1)
    trials, n = 4000, 99
    draws = rng.lognormal(size=(trials, n + 1))
    called = [
        draws[t, n] > limit
        for t in range(trials)
        if (limit := threshold(tuple(np.sort(draws[t, :n]).tolist()), fpr).value) is not None
    ]
    assert len(called) == trials
    standard_error = (fpr * (1 - fpr) / trials) ** 0.5
    assert np.mean(called) == pytest.approx(
        fpr, abs=4 * standard_error
    )  # with 99 normals these rates are met exactly


def test_the_scale_of_maps_covers_the_normals() -> None:
    distances = np.linspace(0, 5, 1001, dtype=np.float32)
    calibration = calibrate([3.0, 1.0, 2.0], [4.0, 5.0, 3.0], distances)
    assert calibration.scores == (1.0, 2.0, 3.0)
    assert calibration.peaks == (3.0, 4.0, 5.0)
    assert calibration.shown == pytest.approx((3.75, 5))
    assert calibration.full_scale == pytest.approx(10)
    assert calibration.p_value(2.5) == 0.5
    assert calibration.peak_p_value(2.5) == 1
    assert [limit.value for limit in calibration.thresholds] == [None, None, None]
