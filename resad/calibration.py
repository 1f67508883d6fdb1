"""What a score means: left-out normals -> p-values, thresholds and the absolute scale of maps.

Every reference photo is scored against the memory bank without its own memories (or its patient's), and a new
photo's p is its rank among the n of them: (1 + #{normals >= s}) / (n + 1).  Were new photos searched in such a
reduced bank, too, p <= a would come at a rate of at most a whatever the scores' distribution (conformal
prediction; Vovk, Gammerman & Shafer 2005).  They are searched in the whole bank, one photo richer, so that normal
ones score a little lower and p errs upwards: on the safe side for false alarms, the more so the fewer the photos.
"""

import math
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

RATES: Final = (0.01, 0.05, 0.10)
"""False-positive rates for which thresholds are stated."""
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)
_HEADROOM: Final = 2.0
"""The scale of encoded maps ends at this multiple of the highest normal patch: lesions seldom lie beyond it."""
_FAINT: Final = 0.75


@dataclass(frozen=True)
class Threshold:
    """A photo is abnormal at rate `fpr` when its score is above `value`; no value, a reason instead."""

    fpr: Annotated[float, Field(gt=0, lt=1)]
    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Quantile:
    """A share `at` of the normals' patch distances is at most `value`."""

    at: Annotated[float, Field(ge=0, le=1)]
    value: float


@dataclass(frozen=True)
class Calibration:
    """The left-out normals.

    scores, peaks: per reference photo the image score and the maximum of the map, ascending, feature units.
    patches: quantiles of all their patch distances.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    thresholds: tuple[Threshold, ...]
    patches: tuple[Quantile, ...]

    @property
    def full_scale(self) -> float:
        """The distance at which the scale of encoded maps ends, feature units."""
        return _HEADROOM * self.patches[-1].value

    @property
    def shown(self) -> tuple[float, float]:
        """The distances between which pictures go from transparent to the strongest color, feature units.

        From what three in four normal patches stay below to the highest of them all.
        """
        low = next(quantile.value for quantile in self.patches if quantile.at == _FAINT)
        return low, self.patches[-1].value

    def p_value(self, score: float) -> float:
        """p of an image score, in (0, 1]."""
        return p_value(score, self.scores)

    def peak_p_value(self, peak: float) -> float:
        """p of a finding's peak among the normals' own maxima, in (0, 1]."""
        return p_value(peak, self.peaks)


def calibrate(scores: list[float], peaks: list[float], distances: NDArray[np.float32]) -> Calibration:
    """From the left-out normals' scores, their maps' maxima, and all their patch distances (any shape)."""
    ordered = tuple(sorted(scores))
    values = np.quantile(distances, QUANTILES, method="linear")
    return Calibration(
        scores=ordered,
        peaks=tuple(sorted(peaks)),
        thresholds=tuple(threshold(ordered, rate) for rate in RATES),
        patches=tuple(Quantile(at, float(value)) for at, value in zip(QUANTILES, values, strict=True)),
    )


def p_value(score: float, normals: tuple[float, ...]) -> float:
    """(1 + #{normals >= score}) / (n + 1); `normals` ascending."""
    at_least = len(normals) - int(np.searchsorted(normals, score, side="left"))
    return (1 + at_least) / (len(normals) + 1)


def threshold(normals: tuple[float, ...], fpr: float) -> Threshold:
    """The value above which, and only above which, p <= fpr; null where n normals cannot support the rate."""
    n = len(normals)
    # Rounded down with a hair of tolerance: 0.05 * 20 is 1, not 0.9999....
    allowed = min(math.floor(fpr * (n + 1) + 1e-9), n)
    if allowed < 1:
        needed = math.ceil(1 / fpr - 1e-9) - 1
        return Threshold(fpr, None, f"a rate of {fpr:g} needs {needed} normal photographs, the index has {n}")
    return Threshold(fpr, normals[n - allowed])
