"""What a score means: normals' scores -> p-values, thresholds, the decision, and the absolute scale of maps.

A photo's p is its rank among n normals: (1 + #{normals >= s}) / (n + 1).  If the normals were scored just as new
photos are, p <= a occurs at a rate of at most a whatever the scores' distribution (conformal prediction; Vovk,
Gammerman & Shafer 2005).  This holds for normals that are not in the memory bank (`source` "separate").
Reference photos are scored against the bank without their own memories, or their patient's ("left-out").  New
photos are searched in the whole bank, which is larger by one photo, so they score a little lower and p errs
upwards: on the safe side for false alarms, the more so the fewer the photos (measured in docs/results.md).

Two things can break this, and are stated beside the scores.  A photo that the trunk was trained on scores lower
than an unseen one (`TrainedOn`).  A few normals that are not normal raise the threshold (`Outliers`).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from resad_client.records import Interval

from resad.errors import SettingError
from resad.false_regions import RATES as FALSE_REGION_RATES
from resad.false_regions import USUAL as USUAL_FALSE_REGIONS
from resad.false_regions import FindingLevel, RegionHeights, finding_levels

RATES: Final = (0.01, 0.05, 0.10)
"""False-positive rates whose thresholds the manifest states."""
USUAL_RATE: Final = 0.05
"""The false-positive rate where none is asked for."""
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)
_HEADROOM: Final = 2.0
"""The scale of encoded maps ends at this multiple of the highest normal patch: lesions are seldom higher."""
_FAINT: Final = 0.75
_TAIL: Final = 0.025

_FAR: Final = 3.5
"""A score is far above the rest from so many robust standard deviations of the log scores."""
_LEAST_SPREAD: Final = 0.05
"""The robust standard deviation of log scores, at least: scores within a fifth of the median are never far."""
_MAD_TO_SD: Final = 1.4826
_MOVED: Final = 1.25
"""A threshold has moved if it changes by more than a quarter."""
_SMALLEST: Final = 1e-6
"""Share of a threshold that stands in for 0, so that ratios are finite."""
_FEW: Final = 2
_FEW_SHARE: Final = 0.05
"""A few photographs: two, or this share of the normals if that is more."""

Source = Literal["left-out", "separate"]
Use = Literal["others", "corrected", "none"]


@dataclass(frozen=True)
class Threshold:
    """A photo is abnormal at rate `fpr` when its score is above `value`; no value, a reason instead.

    needed: the fewest normals that support `fpr`.  normals: how many there are.
    interval: Clopper-Pearson, of the rate at which such normals exceed `value`.  Each photograph counts as
    independent, so the interval is too narrow if patients have several.
    """

    fpr: Annotated[float, Field(gt=0, le=1)]
    value: float | None
    needed: int
    normals: int
    interval: Interval | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Quantile:
    """A share `at` of the normals' patch distances is at most `value`."""

    at: Annotated[float, Field(ge=0, le=1)]
    value: float


@dataclass(frozen=True)
class Normals:
    """Normal photographs.

    scores, peaks: their image scores and their maps' maxima, ascending, feature units.
    finding_levels: the levels above which they show so many regions; none in older indexes.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    thresholds: tuple[Threshold, ...]
    finding_levels: tuple[FindingLevel, ...] = Field(default=(), kw_only=True)

    def p_value(self, score: float) -> float:
        """p of an image score, in (0, 1]."""
        return p_value(score, self.scores)

    def peak_p_value(self, peak: float) -> float:
        """p of a finding's peak among the normals' own maxima, in (0, 1]."""
        return p_value(peak, self.peaks)


@dataclass(frozen=True)
class TrainedOn:
    """What the calibration does about normals that the trunk was trained on, which score lower than unseen photos.

    photos: how many of the normals these are.
    used: `others`: only the other normals calibrate.  `corrected`: too few others; these count as if their scores,
    peaks and distances were `factor` times as high.  `none`: the trunk was trained on none of the normals.
    """

    photos: int
    used: Use
    factor: float = 1.0


@dataclass(frozen=True)
class ScoredNormal:
    """A normal by its opaque id, with its score."""

    id: str
    score: float


@dataclass(frozen=True)
class Outliers:
    """The highest normals, if they lie far above the rest or if a few of them move the threshold.

    photos: highest score first.  far: how many of them lie far above the rest, from the first on.
    rate: whose threshold is compared.  threshold: with them.  without: without them; None if too few normals would
    be left.  ratio: of the two; the highest normal that would be left stands in for a threshold that too few
    support.  None if there is no threshold with them.
    """

    photos: tuple[ScoredNormal, ...]
    far: int
    rate: float
    threshold: float | None
    without: float | None
    ratio: float | None

    @property
    def moves_threshold(self) -> bool:
        """Whether they move the threshold by more than a quarter."""
        return self.ratio is not None and self.ratio > _MOVED


@dataclass(frozen=True)
class CameraNormals:
    """The normals of one camera, with its name in the CSV file."""

    camera: str
    normals: Normals


@dataclass(frozen=True)
class Calibration(Normals):
    """All normals, and those of each camera.

    patches: quantiles of all their patch distances.  source: how they were scored (see above).
    trained_on: normals that the trunk was trained on; None in older indexes, where nobody looked.
    outliers: of these normals, if there are any.
    set_aside: ids of photographs that were left out of the calibration on request.
    """

    patches: tuple[Quantile, ...]
    cameras: tuple[CameraNormals, ...] = ()
    source: Source = "left-out"
    trained_on: TrainedOn | None = None
    outliers: Outliers | None = None
    set_aside: tuple[str, ...] = ()

    @property
    def full_scale(self) -> float:
        """The distance at which the scale of encoded maps ends, feature units."""
        return _HEADROOM * self.patches[-1].value

    @property
    def shown(self) -> tuple[float, float]:
        """The distances between which pictures go from transparent to the strongest color, feature units.

        From the distance that three in four normal patches stay below, to the highest normal patch.
        """
        low = next((quantile.value for quantile in self.patches if quantile.at == _FAINT), self.patches[0].value)
        return low, self.patches[-1].value


def calibrate(
    scores: Sequence[float],
    peaks: Sequence[float],
    distances: NDArray[np.float32],
    *,
    regions: Sequence[RegionHeights] = (),
    cameras: Sequence[str | None] = (),
    source: Source = "left-out",
    ids: Sequence[str] = (),
    trained_on: TrainedOn | None = None,
    set_aside: Sequence[str] = (),
) -> Calibration:
    """The calibration from the normals' scores, their maps' maxima, and all their patch distances (any shape).

    Args:
        regions: of each normal's map; without them no levels of findings are stated.
        cameras: of each normal, None if unknown; an empty list if all are unknown.  Spellings that differ only in
            upper and lower case are one camera, named as it is first.
        ids: of each normal; without them outliers are not looked for.
        trained_on, set_aside: as stated in the calibration.
    """
    normals = _normals(scores, peaks, regions)
    values = np.quantile(distances, QUANTILES, method="linear")
    names = list(cameras) or [None] * len(scores)
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name:
            rows_of.setdefault(name.casefold(), []).append(row)
    groups = [
        CameraNormals(
            names[rows[0]] or "",
            _normals(
                [scores[r] for r in rows], [peaks[r] for r in rows], [regions[r] for r in rows] if regions else ()
            ),
        )
        for _, rows in sorted(rows_of.items())
    ]
    return Calibration(
        scores=normals.scores,
        peaks=normals.peaks,
        thresholds=normals.thresholds,
        finding_levels=normals.finding_levels,
        patches=tuple(Quantile(at, float(value)) for at, value in zip(QUANTILES, values, strict=True)),
        cameras=tuple(groups),
        source=source,
        trained_on=trained_on,
        outliers=find_outliers(ids, scores) if ids else None,
        set_aside=tuple(set_aside),
    )


def find_outliers(ids: Sequence[str], scores: Sequence[float]) -> Outliers | None:
    """The normals whose scores stand out, if there are any; `Outliers` says which do.

    Far above the rest: the logarithm of the score is more than 3.5 robust standard deviations (1.4826 median
    absolute deviations) above the median of all.  A few: at most two normals or 5 % of them.  With fewer normals
    than any stated rate needs nothing is said.
    """
    count = len(scores)
    if count < normals_needed(max(RATES)):
        return None
    falling = sorted(range(count), key=lambda row: (-scores[row], row))
    ordered = tuple(scores[row] for row in reversed(falling))
    logs = np.log(np.maximum(ordered, np.finfo(np.float64).tiny))
    center = np.median(logs)
    spread = max(_MAD_TO_SD * float(np.median(np.abs(logs - center))), _LEAST_SPREAD)
    far = int((logs > center + _FAR * spread).sum())
    few = max(_FEW, math.floor(_FEW_SHARE * count))
    moving = next((top for top in range(1, few + 1) if (_ratio(ordered, top) or 0.0) > _MOVED), 0)
    top = max(far, moving)
    if not top:
        return None
    photos = tuple(ScoredNormal(ids[row], scores[row]) for row in falling[:top])
    before, after = (threshold(normals, USUAL_RATE).value for normals in (ordered, ordered[: count - top]))
    return Outliers(photos, far, USUAL_RATE, before, after, _ratio(ordered, top))


def has_moved(before: float | None, after: float | None) -> bool:
    """Whether a threshold or a level differs by more than a quarter, up or down; false if one of them is None."""
    return before is not None and after is not None and max(before, after) > _MOVED * min(before, after)


def _ratio(ordered: tuple[float, ...], top: int) -> float | None:
    """The usual threshold with the `top` highest normals, over that without them.  ordered: ascending.

    The highest of those left stands in for a threshold that too few support.
    """
    before, left = threshold(ordered, USUAL_RATE).value, ordered[: len(ordered) - top]
    if before is None or not left:
        return None
    after = threshold(left, USUAL_RATE).value
    after = left[-1] if after is None else after
    return before / max(after, before * _SMALLEST) if before > 0 else 1.0


def p_value(score: float, normals: tuple[float, ...]) -> float:
    """(1 + #{normals >= score}) / (n + 1); `normals` ascending."""
    at_least = len(normals) - int(np.searchsorted(normals, score, side="left"))
    return (1 + at_least) / (len(normals) + 1)


def normals_needed(fpr: float) -> int:
    """The fewest normals with which p can come down to `fpr`."""
    return math.ceil(1 / fpr - 1e-9) - 1


def threshold(normals: tuple[float, ...], fpr: float) -> Threshold:
    """The value above which, and only above which, p <= fpr; None if n normals cannot support the rate."""
    n, needed = len(normals), normals_needed(fpr)
    # Rounded down with a small tolerance: 0.05 * 20 is 1, not 0.9999....
    allowed = min(math.floor(fpr * (n + 1) + 1e-9), n)
    if allowed < 1:
        reason = f"a rate of {fpr:g} needs {needed} normal photographs, the index has {n}"
        return Threshold(fpr, None, needed, n, reason=reason)
    value = normals[n - allowed]
    return Threshold(fpr, value, needed, n, interval=_interval(normals, value))


def rate_at(normals: tuple[float, ...], value: float) -> Threshold:
    """The threshold `value` with the lowest rate that the normals support for it: the p of scores above it."""
    above = _above(normals, value)
    fpr = (1 + above) / (len(normals) + 1)
    return Threshold(fpr, value, normals_needed(fpr), len(normals), interval=_interval(normals, value))


def _normals(scores: Sequence[float], peaks: Sequence[float], regions: Sequence[RegionHeights]) -> Normals:
    ordered = tuple(sorted(scores))
    return Normals(
        ordered,
        tuple(sorted(peaks)),
        tuple(threshold(ordered, rate) for rate in RATES),
        finding_levels=finding_levels(regions) if regions else (),
    )


def _above(normals: tuple[float, ...], value: float) -> int:
    return len(normals) - int(np.searchsorted(normals, value, side="right"))


def _interval(normals: tuple[float, ...], value: float) -> Interval:
    """Clopper-Pearson interval of the share above `value`.

    It holds although `value` is itself a score: with m of n above, the rate beyond an order statistic follows
    Beta(m + 1, n - m), whose upper quantile is the interval's high end and whose lower one exceeds its low end.
    """
    from scipy.special import betaincinv

    m, n = _above(normals, value), len(normals)
    low = float(betaincinv(m, n - m + 1, _TAIL)) if m else 0.0
    high = float(betaincinv(m + 1, n - m, 1 - _TAIL)) if m < n else 1.0
    return Interval(low, high)


@dataclasses.dataclass(frozen=True, slots=True)
class DecisionRule:
    """Decides whether a photo is abnormal: a false-positive rate or a threshold, and a camera to compare with.

    fpr: rate in (0, 1); `USUAL_RATE` if neither it nor a threshold is given.  threshold: image score, feature
    units.  camera: compare with the normals of this camera; upper and lower case are the same.
    false_regions: findings lie above the level that healthy photographs pass so often, one of
    `false_regions.RATES`; `USUAL_FALSE_REGIONS` if None.
    Raises `SettingError` if rate and threshold are both given, or a number is out of range.
    """

    fpr: float | None = None
    threshold: float | None = None
    camera: str | None = None
    false_regions: float | None = None

    def __post_init__(self) -> None:
        if self.fpr is not None and self.threshold is not None:
            raise SettingError("fpr and threshold exclude each other: give one of them")
        if self.fpr is not None and not 0 < self.fpr < 1:
            raise SettingError(f"fpr {self.fpr:g}: a rate lies between 0 and 1")
        if self.threshold is not None and not 0 < self.threshold < math.inf:
            raise SettingError(f"threshold {self.threshold:g}: a score is above 0 and finite")
        if self.false_regions is not None and self.false_regions not in FALSE_REGION_RATES:
            rates = ", ".join(f"{rate:g}" for rate in FALSE_REGION_RATES)
            raise SettingError(f"false_regions {self.false_regions:g}: levels are stated for {rates}")

    @property
    def rate(self) -> float | None:
        """The rate that decides; None if a threshold does."""
        return (self.fpr or USUAL_RATE) if self.threshold is None else None


@dataclasses.dataclass(frozen=True, slots=True)
class Criterion:
    """What a photo's score is compared with.

    limit: a photo is abnormal above its value.  level: findings lie above it, feature units; None if there are too
    few normals for the rate.  false_regions: so many regions above the level a healthy photograph shows on
    average; None in older indexes, where the level is what healthy photographs' highest points pass at the rate of
    `limit`. normals: those of `camera`, or all; `reason` says why all if a camera was named.
    """

    limit: Threshold
    level: float | None
    false_regions: float | None
    normals: Normals
    camera: str | None
    reason: str | None


def criterion(calibration: Calibration, rule: DecisionRule) -> Criterion:
    """The criterion that `rule` asks for: by the camera's own normals if there are enough of them, else by all.

    Raises `SettingError` if the index states no level for the rate of findings.
    """
    normals, camera, reason = _normals_to_compare(calibration, rule)
    if rule.threshold is None:
        limit = threshold(normals.scores, rule.fpr or USUAL_RATE)
    else:
        limit = rate_at(normals.scores, rule.threshold)
    if not normals.finding_levels and rule.false_regions is None:
        return Criterion(limit, threshold(normals.peaks, limit.fpr).value, None, normals, camera, reason)
    rate = rule.false_regions or USUAL_FALSE_REGIONS
    levels = {entry.rate: entry.value for entry in normals.finding_levels}
    if rate not in levels:
        stated = ", ".join(f"{stated:g}" for stated in levels) or "no rate: build it again with this version"
        raise SettingError(f"false_regions {rate:g}: the index states levels for {stated}")
    return Criterion(limit, levels[rate], rate, normals, camera, reason)


def _normals_to_compare(calibration: Calibration, rule: DecisionRule) -> tuple[Normals, str | None, str | None]:
    """The normals, their camera, and why they are not those of the camera that was named."""
    if rule.camera is None:
        return calibration, None, None
    name = rule.camera.strip().casefold()
    match = next((entry for entry in calibration.cameras if entry.camera.casefold() == name), None)
    fallback = f"compared with all {len(calibration.scores)} normal photographs"
    if match is None:
        # The message lists no cameras: which ones a hospital has is not for every caller to know.
        return calibration, None, f"no normal photographs of this camera; {fallback}"
    # A given threshold names no rate: the usual one decides how many normals a camera needs.
    rate = rule.rate or USUAL_RATE
    if len(match.normals.scores) < normals_needed(rate):
        shortage = f"a rate of {rate:g} needs {normals_needed(rate)} normal photographs of this camera"
        return calibration, None, f"{shortage}, there are {len(match.normals.scores)}; {fallback}"
    return match.normals, match.camera, None
