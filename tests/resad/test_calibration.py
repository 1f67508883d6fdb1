"""P-values, thresholds and the criterion that a decision rule chooses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from resad.calibration import Calibration, DecisionRule, calibrate, criterion, p_value, rate_at, threshold
from resad.errors import SettingError
from resad.false_regions import RATES, RegionHeights

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
    assert p_value(score, normals) == (1 + sum(normal >= score for normal in normals)) / (len(normals) + 1)


@pytest.mark.parametrize(("fpr", "needed"), [(0.05, 19), (0.01, 99), (0.10, 9), (0.5, 1)])
def test_the_smallest_number_of_normals_is_named(fpr: float, needed: int) -> None:
    assert threshold(tuple(range(needed)), fpr).value is not None
    limit = threshold(tuple(range(needed - 1)), fpr)
    assert limit.value is None
    assert f"needs {needed} normal" in str(limit.reason)


def test_a_rate_a_hair_below_one_takes_the_lowest_normal() -> None:
    assert threshold((1.0, 2.0), 1 - 1e-10).value == 1.0


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.10])
def test_unseen_normals_are_called_abnormal_no_more_often_than_stated(fpr: float) -> None:
    rng = np.random.default_rng(1)
    trials, n = 4000, 99
    draws = rng.lognormal(size=(trials, n + 1))
    verdicts = [
        draws[t, n] > limit
        for t in range(trials)
        if (limit := threshold(tuple(np.sort(draws[t, :n]).tolist()), fpr).value) is not None
    ]
    assert len(verdicts) == trials
    standard_error = (fpr * (1 - fpr) / trials) ** 0.5
    assert np.mean(verdicts) == pytest.approx(
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
    assert [limit.needed for limit in calibration.thresholds] == [99, 19, 9]


@given(scores.filter(lambda normals: len(normals) > 1), st.floats(0, 11))
def test_a_given_threshold_gets_the_lowest_rate_that_calls_as_much(
    normals: tuple[float, ...], value: float
) -> None:
    limit = rate_at(normals, value)
    higher_scores = [score for score in (*normals, 12.0) if score > value]
    assert limit.fpr == max(p_value(score, normals) for score in higher_scores)
    assert limit.value == value
    assert limit.interval is not None
    share = (len(higher_scores) - 1) / len(normals)
    assert limit.interval.low <= share <= limit.interval.high


@pytest.mark.parametrize(("n", "fpr"), [(19, 0.05), (36, 0.1), (134, 0.05), (99, 0.01)])
def test_the_interval_holds_the_true_rate_though_the_threshold_is_one_of_the_scores(n: int, fpr: float) -> None:
    rng = np.random.default_rng(2)
    trials = 2000
    coverage = []
    for _ in range(trials):
        limit = threshold(tuple(np.sort(rng.uniform(size=n)).tolist()), fpr)
        assert limit.value is not None
        assert limit.interval is not None
        true_rate = 1 - limit.value  # of a uniform score
        coverage.append(limit.interval.low <= true_rate <= limit.interval.high)
    assert np.mean(coverage) >= 0.95 - 4 * (0.95 * 0.05 / trials) ** 0.5


def test_the_interval_is_clopper_pearsons() -> None:
    # At both ends the tail of the binomial that has the observed count in it is 2.5 %.
    normals = tuple(float(score) for score in range(40))
    limit = threshold(normals, 0.1)
    assert limit.value == 36.0  # 4 of 41 allowed: the new photo and 3 above
    assert limit.interval is not None
    assert binom.cdf(3, 40, limit.interval.high) == pytest.approx(0.025)
    assert binom.sf(2, 40, limit.interval.low) == pytest.approx(0.025)


def test_the_interval_is_open_to_the_end_where_none_or_all_are_above() -> None:
    none_above, all_above = (rate_at((1.0, 2.0, 3.0), value).interval for value in (5.0, 0.5))
    assert none_above is not None
    assert all_above is not None
    assert (none_above.low, all_above.high) == (0.0, 1.0)
    assert none_above.high == pytest.approx(1 - 0.025 ** (1 / 3)) == pytest.approx(1 - all_above.low)


def test_each_camera_is_calibrated_on_its_own() -> None:
    cameras = ["a", "b", None, "b", "a", "b"]
    numbers = [1.0, 20.0, 300.0, 40.0, 5.0, 60.0]
    whole = calibrate(numbers, numbers, np.ones(3, np.float32), cameras=cameras, source="separate")
    assert whole.scores == tuple(sorted(numbers))
    assert whole.source == "separate"
    assert {entry.camera: entry.normals.scores for entry in whole.cameras} == {
        "a": (1.0, 5.0),
        "b": (20.0, 40.0, 60.0),
    }
    alone = calibrate([20.0, 40.0, 60.0], [20.0, 40.0, 60.0], np.ones(1, np.float32))
    assert whole.cameras[1].normals.thresholds == alone.thresholds


def test_a_camera_is_one_however_it_is_capitalized() -> None:
    cameras = ["TopCon", "Canon", "topcon", None, "TOPCON"]
    calibration = calibrate([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5, np.ones(4, np.float32), cameras=cameras)
    assert {entry.camera: entry.normals.scores for entry in calibration.cameras} == {
        "TopCon": (1.0, 3.0, 5.0),
        "Canon": (2.0,),
    }


RNG = np.random.default_rng(3)
CAMERAS = ["Topcon"] * 30 + ["Canon"] * 12 + [None] * 18
SCORES = RNG.lognormal(size=60).tolist()
PEAKS = (RNG.lognormal(size=60) + 1).tolist()


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(SCORES, PEAKS, np.ones(4, np.float32), cameras=CAMERAS)


def test_without_a_camera_all_normals_count(calibration: Calibration) -> None:
    basis = criterion(calibration, DecisionRule())
    assert basis.normals.scores == tuple(sorted(SCORES))
    assert (basis.camera, basis.reason) == (None, None)
    assert basis.limit == threshold(tuple(sorted(SCORES)), 0.05)


@pytest.mark.parametrize("name", ["Topcon", " topcon "])
def test_a_camera_with_enough_normals_is_compared_with_its_own(calibration: Calibration, name: str) -> None:
    basis = criterion(calibration, DecisionRule(camera=name))
    assert basis.normals.scores == tuple(sorted(SCORES[:30]))
    assert (basis.camera, basis.reason) == ("Topcon", None)
    assert basis.limit == threshold(tuple(sorted(SCORES[:30])), 0.05)
    assert basis.level == threshold(tuple(sorted(PEAKS[:30])), 0.05).value


def test_too_few_of_a_camera_fall_back_and_say_why(calibration: Calibration) -> None:
    basis = criterion(calibration, DecisionRule(camera="Canon"))
    assert basis.normals is calibration
    assert basis.camera is None
    assert basis.reason is not None
    assert "0.05 needs 19 normal photographs of this camera, there are 12; compared with all 60" in basis.reason
    # Twelve support one in ten.
    assert criterion(calibration, DecisionRule(fpr=0.1, camera="Canon")).camera == "Canon"


def test_an_unknown_camera_falls_back_and_names_no_other(calibration: Calibration) -> None:
    basis = criterion(calibration, DecisionRule(camera="Kowa"))
    assert basis.normals is calibration
    assert basis.reason is not None
    assert basis.reason == "no normal photographs of this camera; compared with all 60 normal photographs"


def test_a_given_threshold_decides_and_findings_keep_its_rank(calibration: Calibration) -> None:
    value = sorted(SCORES)[50]
    basis = criterion(calibration, DecisionRule(threshold=value))
    assert basis.limit.value == value
    assert basis.limit.fpr == pytest.approx(10 / 61)
    assert basis.level == sorted(PEAKS)[50]
    # What is above it has a p-value of at most the rate that is stated.
    assert p_value(np.nextafter(value, 9e9), calibration.scores) <= basis.limit.fpr


def test_the_level_of_findings_is_that_of_the_rate_asked_for_whatever_decides() -> None:
    regions = [RegionHeights(tuple(peak / part for part in range(1, 11)), (), 0.0) for peak in PEAKS]
    calibration = calibrate(SCORES, PEAKS, np.ones(4, np.float32), cameras=CAMERAS, regions=regions)
    levels = {entry.rate: entry.value for entry in calibration.finding_levels}
    assert tuple(levels) == RATES
    for rate in RATES:
        for rule in (DecisionRule(false_regions=rate), DecisionRule(threshold=1.0, false_regions=rate)):
            basis = criterion(calibration, rule)
            assert (basis.level, basis.false_regions) == (levels[rate], rate)
            assert basis.level is not None
            assert sum(entry.count(basis.level) for entry in regions) + 1 <= rate * (len(regions) + 1)
    default = criterion(calibration, DecisionRule(fpr=0.1))
    assert (default.level, default.false_regions) == (levels[0.25], 0.25)
    camera = criterion(calibration, DecisionRule(camera="Topcon", false_regions=1.0))
    camera_levels = {entry.rate: entry.value for entry in camera.normals.finding_levels}
    assert camera.level == camera_levels[1.0] != levels[1.0]


def test_a_rate_of_findings_that_is_not_stated_is_refused_with_those_that_are(calibration: Calibration) -> None:
    with pytest.raises(SettingError, match=r"false_regions 3: levels are stated for 0\.25, 0\.5, 1, 2, 4, 8"):
        DecisionRule(false_regions=3.0)
    with pytest.raises(SettingError, match="false_regions 1: the index states levels for no rate: build it again"):
        criterion(calibration, DecisionRule(false_regions=1.0))
    default = criterion(calibration, DecisionRule())
    assert default.false_regions is None
    assert default.level == threshold(tuple(sorted(PEAKS)), 0.05).value


def test_a_threshold_below_every_normal_has_rate_one(calibration: Calibration) -> None:
    basis = criterion(calibration, DecisionRule(threshold=1e-9))
    assert basis.limit.fpr == 1
    assert basis.level == min(PEAKS)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"fpr": 0.1, "threshold": 2.0}, "exclude each other"),
        ({"fpr": 1.5}, "fpr 1.5"),
        ({"threshold": 0.0}, "threshold 0"),
        ({"threshold": float("nan")}, "threshold nan"),
    ],
)
def test_invalid_decision_rules_are_refused(rule: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DecisionRule(**rule)  # type: ignore[arg-type]
