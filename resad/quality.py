"""Judge whether a photograph is good enough to be scored: measures of the prepared photograph, and their limits.

The index's own normal photographs set the limits, so that they follow the camera.  A limit is the first or last
percentile of the normals, moved outwards by half of its distance from their median (for shares; for the others by
the square root of the factor between the two).  At most one in a hundred normals lies beyond each of the six
percentiles, and fewer beyond the limits: at least 94 % of them pass.  The manifest states how many.

The extremes of few normals lie too far inside: with fewer than 30 the limits move further outwards, by four times
as much with 10 (`_margin`).  Color, order of channels and resolution have limits of their own kind, which any
number of normals sets: a fixed one, or what the normals themselves show if that is further outside.
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
from resad.field_of_view import FieldOfView, field_of_view_mask
from resad.preparation import PreparedPhoto
from resad.retina import looks_like_fundus

_CONFIG: Final = ConfigDict(extra="forbid")

Measure = Literal[
    "brightness", "contrast", "sharpness", "completeness", "saturated", "color", "order", "resolution"
]

_BELOW: Final[dict[Measure, QualityReason]] = {
    "brightness": "too-dark",
    "contrast": "low-contrast",
    "sharpness": "blurred",
    "completeness": "cut-off",
    "color": "not-in-color",
    "order": "channels-swapped",
    "resolution": "low-resolution",
}
_SPREAD: Final[tuple[Measure, ...]] = ("brightness", "contrast", "sharpness", "completeness")
"""Measures whose lower limit follows the spread of the normals."""
_ABOVE: Final[dict[Measure, QualityReason]] = {"brightness": "too-bright", "saturated": "too-bright"}
_PERCENTILE: Final = 0.01
_MARGIN: Final = 0.5
_ENOUGH: Final = 30
"""Normals from which on the limits are moved by `_MARGIN`; measured in docs/results.md."""
_FEWER: Final = 1.25
"""Exponent with which the margin grows with fewer normals."""
_RANGE: Final[dict[Measure, tuple[float, float]]] = {
    "brightness": (0.0, 255.0), "contrast": (0.0, 255.0), "sharpness": (0.0, 255.0), "completeness": (0.0, 1.0),
    "saturated": (0.0, 1.0),
}  # fmt: skip
_GRAY: Final = 0.06
"""Color below which a photograph is gray; or half of the least of the normals."""
_SWAPPED: Final = -0.25
"""Order below which channels are swapped; or that of the normals, less this."""
_COARSE: Final = 0.75
"""Resolution below which it is too low, as a share of the lowest among the normals."""
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
    """The limits set by `photos` normal photographs, of which a share `passed` passes.

    Below 10 only those of color, order and resolution.
    """

    photos: int
    passed: float
    limits: tuple[QualityLimit, ...]


def measure_quality(photo: PreparedPhoto) -> QualityMeasures:
    """The measures of a prepared photograph; 0 if nothing of its field of view remains."""
    side = photo.frame.side
    resolution = _resolution(photo)
    inner = field_of_view_mask(_inset(photo.field_of_view), side, side, photo.frame.extent)
    channels = np.stack([photo.pixels[:, :, channel][inner] for channel in range(3)])
    if not channels[1].any():
        completeness = _completeness(photo.field_of_view)
        return QualityMeasures(0.0, 0.0, 0.0, completeness, 0.0, color=0.0, order=0.0, resolution=resolution)
    inside = channels[1].astype(np.float32)
    brightness = float(inside.mean())
    low, high = np.percentile(inside, (5, 95))
    return QualityMeasures(
        brightness=brightness,
        contrast=float(high - low) / brightness,
        sharpness=float(_fine_detail(photo.pixels[:, :, 1].astype(np.float32))[inner].std()) / brightness,
        completeness=_completeness(photo.field_of_view),
        saturated=float((inside >= _WHITE).mean()),
        color=_saturation(channels),
        order=_order(channels),
        resolution=resolution,
    )


def quality_limits(normals: Sequence[QualityMeasures]) -> QualityLimits:
    """The limits that normal photographs set; from fewer than `FEWEST` only those of color, order, resolution."""
    limits: list[QualityLimit] = []
    if len(normals) >= FEWEST:
        limits += [QualityLimit(name, _BELOW[name], _limit(normals, name, below=True)) for name in _SPREAD]
        limits += [
            QualityLimit(name, reason, _limit(normals, name, below=False)) for name, reason in _ABOVE.items()
        ]
    limits += _fixed_limits(normals)
    if not limits:
        return QualityLimits(len(normals), 1.0, ())
    passed = [not _reasons(measures, limits) for measures in normals]
    return QualityLimits(len(normals), sum(passed) / len(passed), tuple(limits))


def judge(photo: PreparedPhoto, limits: QualityLimits) -> PhotoQuality:
    """The verdict on a photograph: whether it shows a retina, and which limits it exceeds.

    With too few normals for the other limits, only a photograph that cannot be of a retina, shows no disc, or
    fails in color, order of channels or resolution is unacceptable.
    """
    measures = measure_quality(photo)
    reasons: list[QualityReason] = []
    if looks_like_fundus(photo.pixels, photo.mask, photo.field_of_view) is not None:
        reasons.append("not-a-fundus-photograph")
    reasons += _reasons(measures, limits.limits)
    if not photo.field_of_view.found:
        # A photograph without a disc is acceptable if normals have none either.
        reasons = ["no-field-of-view" if reason == "cut-off" else reason for reason in reasons]
        has_limit = any(limit.measure == "completeness" for limit in limits.limits)
        reasons += [] if has_limit else ["no-field-of-view"]
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
        value: float | None = getattr(measures, limit.measure)
        if value is None:
            continue
        if (value < limit.value if limit.below else value > limit.value) and limit.reason not in reasons:
            reasons.append(limit.reason)
    return reasons


def _limit(normals: Sequence[QualityMeasures], name: Measure, *, below: bool) -> float:
    """The limit on one side: the value of a normal, moved outwards."""
    values = np.array([getattr(measures, name) for measures in normals], dtype=np.float64)
    # A value of the sample: no more than the stated share lies beyond it, however few values there are.
    percentile, method = (_PERCENTILE, "lower") if below else (1 - _PERCENTILE, "higher")
    end = float(np.quantile(values, percentile, method=method))  # type: ignore[call-overload]
    middle, share = float(np.median(values)), _margin(len(values))
    if name in _MIN_MARGIN:
        margin = max(share * abs(middle - end), _MIN_MARGIN[name] * share / _MARGIN)
        end += -margin if below else margin
    elif middle > 0:
        # By a factor, so that no lower limit comes close to zero.
        end *= float(np.clip(end / middle, 1 / _MAX_FACTOR, _MAX_FACTOR)) ** share
    return float(np.clip(end, *_RANGE[name]))


def _margin(photos: int) -> float:
    """By which share of an extreme's distance from the median a limit lies beyond the extreme."""
    return float(_MARGIN * max(_ENOUGH / photos, 1.0) ** _FEWER)


def _fixed_limits(normals: Sequence[QualityMeasures]) -> list[QualityLimit]:
    """The limits of color, order and resolution; none where the normals were not measured (earlier versions)."""
    limits: list[QualityLimit] = []
    if colors := [normal.color for normal in normals if normal.color is not None]:
        limits.append(QualityLimit("color", _BELOW["color"], min(_GRAY, min(colors) / 2)))
    if orders := [normal.order for normal in normals if normal.order is not None]:
        limits.append(QualityLimit("order", _BELOW["order"], min(0.0, min(orders)) + _SWAPPED))
    if resolutions := [normal.resolution for normal in normals if normal.resolution is not None]:
        limits.append(QualityLimit("resolution", _BELOW["resolution"], _COARSE * min(resolutions)))
    return limits


def _saturation(channels: NDArray[np.uint8]) -> float:
    """Mean saturation (HSV) of pixels (3, n)."""
    red, green, blue = channels.astype(np.float32)
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    return float(((highest - lowest) / np.maximum(highest, 1.0)).mean(dtype=np.float64))


def _order(channels: NDArray[np.uint8]) -> float:
    """How clearly red is above green and green above blue, of pixels (3, n); negative where one is not."""
    red, green, blue = np.log2(channels.mean(axis=1) + 1.0)
    return float(min(red - green, green - blue))


def _resolution(photo: PreparedPhoto) -> float:
    """Width of what the square covers, in px of the photo, over the square's side, at most 1."""
    left, top, right, bottom = photo.frame.extent
    return min(min(right - left, bottom - top) / photo.frame.side, 1.0)


def _inset(field: FieldOfView) -> FieldOfView:
    if field.outline:
        return _shrunk_outline(field)
    margin = _INSET * field.radius
    across, down = (_INSET * half for half in field.half_axes)
    return replace(
        field, radius=field.radius - margin, left=field.left + across, top=field.top + down,
        right=field.right - across, bottom=field.bottom - down,
    )  # fmt: skip


def _shrunk_outline(field: FieldOfView) -> FieldOfView:
    """The field of view with its outline drawn towards the center."""
    share = 1.0 - _INSET
    outline = tuple(
        (field.cx + share * (x - field.cx), field.cy + share * (y - field.cy)) for x, y in field.outline
    )
    return replace(field, outline=outline)


def _completeness(field: FieldOfView) -> float:
    if not field.found:
        return 0.0
    half_width, half_height = field.half_axes
    around = (
        field.cx - half_width, field.cy - half_height, field.cx + half_width, field.cy + half_height
    )  # fmt: skip
    return min(float(field_of_view_mask(field, _RASTER, _RASTER, around).mean()) / (np.pi / 4), 1.0)


def _fine_detail(green: NDArray[np.float32]) -> NDArray[np.float32]:
    """The band between two Gaussians."""
    import scipy.ndimage as ndi

    sigma = _BAND * len(green)
    fine: NDArray[np.float32] = ndi.gaussian_filter(green, sigma)
    fine -= ndi.gaussian_filter(green, 2 * sigma)
    return fine
