"""Judge whether a photograph is good enough to be scored: measures of the prepared photograph, and their limits.

The index's own normal photographs set the limits, so that they follow the camera.  A limit is the first or last
percentile of the normals, moved outwards by half of its distance from their median (for shares; for the others by
the square root of the factor between the two).  At most one in a hundred normals lies beyond each of the six
percentiles, and fewer beyond the limits: at least 94 % of them pass.  The manifest states how many.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from resad_client.records import PhotoQuality, QualityMeasures, QualityReason

from resad.errors import PhotoPoor
from resad.field_of_view import FieldOfView, field_of_view_mask, looks_like_fundus
from resad.preparation import PreparedPhoto

_CONFIG: Final = ConfigDict(extra="forbid")

Measure = Literal["brightness", "contrast", "sharpness", "completeness", "saturated"]

_BELOW: Final[dict[Measure, QualityReason]] = {
    "brightness": "too-dark",
    "contrast": "low-contrast",
    "sharpness": "blurred",
    "completeness": "cut-off",
}
_ABOVE: Final[dict[Measure, QualityReason]] = {"brightness": "too-bright", "saturated": "too-bright"}
_PERCENTILE: Final = 0.01
_MARGIN: Final = 0.5
_MIN_MARGIN: Final[dict[Measure, float]] = {"completeness": 0.05, "saturated": 0.01}
"""The smallest such move, for shares that hardly differ among normals of one camera: a disc cut off by less, or
saturation like that of a few exudates, harms no score."""
_MAX_FACTOR: Final = 16.0
"""Largest factor between a percentile and the median."""
FEWEST: Final = 10
"""Fewest photographs that set limits: the extremes of fewer say little."""
_INSET: Final = 0.05
"""Rim that is not measured, as a share of the radius: its edge is no detail."""
_BAND: Final = 1.0 / 512
"""Finer standard deviation of the band-pass whose energy is the sharpness, as a share of the square's side; the
coarser is twice as large.  Vessels' edges and small lesions lie in it."""
_WHITE: Final = 250
_RASTER: Final = 256


@dataclass(frozen=True, config=_CONFIG)
class QualityLimit:
    """A limit: a photograph whose `measure` lies beyond `value` is unacceptable for `reason`."""

    measure: Measure
    reason: QualityReason
    value: float

    @property
    def below(self) -> bool:
        """Whether lower values are the poor ones."""
        return self.reason == _BELOW.get(self.measure)


@dataclass(frozen=True, config=_CONFIG)
class QualityLimits:
    """The limits set by `photos` normal photographs, of which a share `passed` passes.  No limits below 10."""

    photos: int
    passed: float
    limits: tuple[QualityLimit, ...]


def measure_quality(photo: PreparedPhoto) -> QualityMeasures:
    """The measures of a prepared photograph; 0 if nothing of its field of view remains."""
    side = photo.frame.side
    inner = field_of_view_mask(_inset(photo.field_of_view), side, side, photo.frame.extent)
    green = photo.pixels[:, :, 1].astype(np.float32)
    if not inner.any() or not green[inner].any():
        return QualityMeasures(0.0, 0.0, 0.0, _completeness(photo.field_of_view), 0.0)
    inside = green[inner]
    brightness = float(inside.mean())
    low, high = np.percentile(inside, (5, 95))
    return QualityMeasures(
        brightness=brightness,
        contrast=float(high - low) / brightness,
        sharpness=float(_fine_detail(green)[inner].std()) / brightness,
        completeness=_completeness(photo.field_of_view),
        saturated=float((inside >= _WHITE).mean()),
    )


def quality_limits(normals: Sequence[QualityMeasures]) -> QualityLimits:
    """The limits that normal photographs set; none from fewer than `FEWEST`."""
    if len(normals) < FEWEST:
        return QualityLimits(len(normals), 1.0, ())
    limits = [QualityLimit(name, reason, _limit(normals, name, below=True)) for name, reason in _BELOW.items()]
    limits += [QualityLimit(name, reason, _limit(normals, name, below=False)) for name, reason in _ABOVE.items()]
    passed = [not _reasons(measures, limits) for measures in normals]
    return QualityLimits(len(normals), sum(passed) / len(passed), tuple(limits))


def judge(photo: PreparedPhoto, limits: QualityLimits) -> PhotoQuality:
    """The verdict on a photograph: whether it shows a retina, and which limits it exceeds.

    If there are too few normals for limits, only a photograph that cannot be of a retina or shows no disc is
    unacceptable.
    """
    measures = measure_quality(photo)
    reasons: list[QualityReason] = []
    if looks_like_fundus(photo.pixels, photo.field_of_view) is not None:
        reasons.append("not-a-fundus-photograph")
    reasons += _reasons(measures, limits.limits)
    if not photo.field_of_view.found:
        # A photograph without a disc is acceptable if normals have none either.
        reasons = ["no-field-of-view" if reason == "cut-off" else reason for reason in reasons]
        reasons += [] if limits.limits else ["no-field-of-view"]
    return PhotoQuality(not reasons, tuple(reasons), measures)


def poor_reasons(measures: QualityMeasures, limits: QualityLimits) -> tuple[QualityReason, ...]:
    """Why a photograph with these measures exceeds the limits; empty if it does not."""
    return tuple(_reasons(measures, limits.limits))


def demand(quality: PhotoQuality) -> None:
    """Raises `PhotoPoor`, naming the reasons, unless the photograph is acceptable."""
    if not quality.acceptable:
        raise PhotoPoor(f"the photograph's quality is too low: {', '.join(quality.reasons)}")


def _reasons(measures: QualityMeasures, limits: Sequence[QualityLimit]) -> list[QualityReason]:
    reasons: list[QualityReason] = []
    for limit in limits:
        value: float = getattr(measures, limit.measure)
        if (value < limit.value if limit.below else value > limit.value) and limit.reason not in reasons:
            reasons.append(limit.reason)
    return reasons


def _limit(normals: Sequence[QualityMeasures], name: Measure, *, below: bool) -> float:
    """The limit on one side: the value of a normal, moved outwards."""
    values = np.array([getattr(measures, name) for measures in normals], dtype=np.float64)
    # A value of the sample: no more than the stated share lies beyond it, however few values there are.
    percentile, method = (_PERCENTILE, "lower") if below else (1 - _PERCENTILE, "higher")
    end = float(np.quantile(values, percentile, method=method))  # type: ignore[call-overload]
    if name in _MIN_MARGIN:
        margin = max(_MARGIN * abs(float(np.median(values)) - end), _MIN_MARGIN[name])
        return end - margin if below else end + margin
    # By a factor, so that no lower limit comes close to zero.
    middle = float(np.median(values))
    return end * float(np.clip(end / middle, 1 / _MAX_FACTOR, _MAX_FACTOR)) ** _MARGIN if middle > 0 else end


def _inset(field: FieldOfView) -> FieldOfView:
    margin = _INSET * field.radius
    return replace(
        field, radius=field.radius - margin, left=field.left + margin, top=field.top + margin,
        right=field.right - margin, bottom=field.bottom - margin,
    )  # fmt: skip


def _completeness(field: FieldOfView) -> float:
    if not field.found:
        return 0.0
    around = (
        field.cx - field.radius, field.cy - field.radius, field.cx + field.radius, field.cy + field.radius
    )  # fmt: skip
    return min(float(field_of_view_mask(field, _RASTER, _RASTER, around).mean()) / (np.pi / 4), 1.0)


def _fine_detail(green: NDArray[np.float32]) -> NDArray[np.float32]:
    """The band between two Gaussians."""
    import scipy.ndimage as ndi

    sigma = _BAND * len(green)
    fine: NDArray[np.float32] = ndi.gaussian_filter(green, sigma)
    fine -= ndi.gaussian_filter(green, 2 * sigma)
    return fine
