"""Which normals a photo is compared with, and by what it is judged."""

import numpy as np
import pytest

from resad.calibration import Calibration, DecisionRule, calibrate, criterion, p_value, threshold
from resad.errors import SettingError

RNG = np.random.default_rng(3)
CAMERAS = ["Topcon"] * 30 + ["Canon"] * 12 + [None] * 18
SCORES = RNG.lognormal(size=60).tolist()
PEAKS = (RNG.lognormal(size=60) + 1).tolist()


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(SCORES, PEAKS, np.ones(4, np.float32), cameras=CAMERAS)


def test_without_a_camera_all_normals_count(calibration: Calibration) -> None:
    by = criterion(calibration, DecisionRule())
    assert by.normals.scores == tuple(sorted(SCORES))
    assert (by.camera, by.reason) == (None, None)
    assert by.limit == threshold(tuple(sorted(SCORES)), 0.05)


@pytest.mark.parametrize("name", ["Topcon", " topcon "])
def test_a_camera_with_enough_normals_is_compared_with_its_own(calibration: Calibration, name: str) -> None:
    by = criterion(calibration, DecisionRule(camera=name))
    assert by.normals.scores == tuple(sorted(SCORES[:30]))
    assert (by.camera, by.reason) == ("Topcon", None)
    assert by.limit == threshold(tuple(sorted(SCORES[:30])), 0.05)
    assert by.level == threshold(tuple(sorted(PEAKS[:30])), 0.05).value


def test_too_few_of_a_camera_fall_back_and_say_why(calibration: Calibration) -> None:
    by = criterion(calibration, DecisionRule(camera="Canon"))
    assert by.normals is calibration
    assert by.camera is None
    assert by.reason is not None
    assert "0.05 needs 19 normal photographs of this camera, there are 12; compared with all 60" in by.reason
    # Twelve support one in ten.
    assert criterion(calibration, DecisionRule(fpr=0.1, camera="Canon")).camera == "Canon"


def test_an_unknown_camera_falls_back_and_names_no_other(calibration: Calibration) -> None:
    by = criterion(calibration, DecisionRule(camera="Kowa"))
    assert by.normals is calibration
    assert by.reason is not None
    assert by.reason == "no normal photographs of this camera; compared with all 60 normal photographs"


def test_a_given_threshold_decides_and_findings_keep_its_rank(calibration: Calibration) -> None:
    value = sorted(SCORES)[50]
    by = criterion(calibration, DecisionRule(threshold=value))
    assert by.limit.value == value
    assert by.limit.fpr == pytest.approx(10 / 61)
    assert by.level == sorted(PEAKS)[50]
    # What is above it has a p-value of at most the rate that is stated.
    assert p_value(np.nextafter(value, 9e9), calibration.scores) <= by.limit.fpr


def test_a_threshold_below_every_normal_has_rate_one(calibration: Calibration) -> None:
    by = criterion(calibration, DecisionRule(threshold=1e-9))
    assert by.limit.fpr == 1
    assert by.level == min(PEAKS)


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"fpr": 0.1, "threshold": 2.0}, "exclude each other"),
        ({"fpr": 1.5}, "fpr 1.5"),
        ({"threshold": 0.0}, "threshold 0"),
        ({"threshold": float("nan")}, "threshold nan"),
    ],
)
def test_what_cannot_be_asked_is_refused(rule: dict[str, float], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        DecisionRule(**rule)  # type: ignore[arg-type]
