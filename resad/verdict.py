"""How a photo is judged: the rate or the threshold that was asked for, and the normals it is compared with."""

import math
from dataclasses import dataclass
from typing import Final

from resad.calibration import Calibration, Normals, Threshold, normals_needed, rate_at, threshold
from resad.errors import SettingError

USUAL_RATE: Final = 0.05
"""The false-positive rate where none is asked for."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked.

    fpr: rate in (0, 1); `USUAL_RATE` where neither it nor a threshold is given.  threshold: image score, feature
    units.  camera: compare with the normals of this camera, in any case of letters.
    Raises `SettingError` where both are given, or one cannot be.
    """

    fpr: float | None = None
    threshold: float | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        if self.fpr is not None and self.threshold is not None:
            raise SettingError("fpr and threshold exclude each other: give one of them")
        if self.fpr is not None and not 0 < self.fpr < 1:
            raise SettingError(f"fpr {self.fpr:g}: a rate lies between 0 and 1")
        if self.threshold is not None and not 0 < self.threshold < math.inf:
            raise SettingError(f"threshold {self.threshold:g}: a score is above 0 and finite")

    @property
    def rate(self) -> float | None:
        """The rate that decides; None where a threshold does."""
        return (self.fpr or USUAL_RATE) if self.threshold is None else None


@dataclass(frozen=True, slots=True)
class Standard:
    """What a photo is measured by.

    limit: above its value a photo is abnormal.  level: findings lie above it, feature units; None where the rate
    has no support.  normals: those of `camera`, or all of them; `reason` says why all, though a camera was named.
    """

    limit: Threshold
    level: float | None
    normals: Normals
    camera: str | None
    reason: str | None


def standard(calibration: Calibration, rule: Rule) -> Standard:
    """`rule` read against the normals: the camera's own where they support the rate, else all."""
    normals, camera, reason = _compared(calibration, rule)
    if rule.threshold is None:
        limit = threshold(normals.scores, rule.fpr or USUAL_RATE)
    else:
        limit = rate_at(normals.scores, rule.threshold)
    level = threshold(normals.peaks, limit.fpr).value
    return Standard(limit, level, normals, camera, reason)


def _compared(calibration: Calibration, rule: Rule) -> tuple[Normals, str | None, str | None]:
    """The normals, the camera whose they are, and why they are not the camera's that was named."""
    if rule.camera is None:
        return calibration, None, None
    wanted = rule.camera.strip().casefold()
    found = next((one for one in calibration.cameras if one.camera.casefold() == wanted), None)
    everyone = f"compared with all {len(calibration.scores)} normal photographs"
    if found is None:
        # Which cameras a hospital has is not told to whoever asks.
        return calibration, None, f"no normal photographs of this camera; {everyone}"
    # A threshold that was given names no rate: the usual one decides how many normals a camera must have.
    rate = rule.rate or USUAL_RATE
    if len(found.normals.scores) < normals_needed(rate):
        few = f"a rate of {rate:g} needs {normals_needed(rate)} normal photographs of this camera"
        return calibration, None, f"{few}, there are {len(found.normals.scores)}; {everyone}"
    return found.normals, found.camera, None
