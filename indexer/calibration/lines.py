"""What a calibration rests on, in sentences: normals that the trunk was trained on, outliers, those set aside."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from resad.calibration import Calibration, Outliers

_MAX_NAMES: Final = 5
"""Printed at most; the manifest has all."""


def trained_on_line(calibration: Calibration) -> str:
    """What the calibration does about normals that the trunk was trained on."""
    stated, count = calibration.trained_on, len(calibration.scores)
    if stated is None:
        return "not known whether the trunk was trained on some of the normals (older version)"
    if stated.used == "none":
        return f"calibrated on {count} normals; the trunk was trained on none of them"
    if stated.used == "others":
        return (
            f"calibrated on the {count} normals that the trunk was not trained on; it was trained on "
            f"{stated.photos} others, whose scores would be too low"
        )
    what = (
        f"their scores are raised by a factor of {stated.factor:.3g}, since there are too few others"
        if stated.factor > 1
        else "its file has no unseen_ratio to correct their scores by: THRESHOLDS MAY BE TOO LOW"
    )
    return f"calibrated on {count} normals; the trunk was trained on {stated.photos} of them; {what}"


def outlier_lines(calibration: Calibration, named: Mapping[str, Path]) -> Iterator[str]:
    """The normals that stand out, and what they do to the threshold.  named: id -> file, where it is known."""
    outliers = calibration.outliers
    if outliers is None:
        return
    count, normals = len(outliers.photos), len(calibration.scores)
    if outliers.moves_threshold:
        yield (
            f"WARNING: {count} of {normals} normals move the {outliers.rate:.0%} threshold by more than a quarter:"
            f" {_thresholds(outliers)}. Look at them; --set-aside leaves out a photograph that is not normal"
        )
    elif outliers.threshold is not None:
        yield f"{count} of {normals} normals are outliers; {outliers.rate:.0%} threshold {_thresholds(outliers)}"
    else:
        yield f"{count} of {normals} normals are outliers; there are too few for a {outliers.rate:.0%} threshold"
    for number, photo in enumerate(outliers.photos[:_MAX_NAMES]):
        where = "far above the rest" if number < outliers.far else "high"
        yield f"  {_name(photo.id, named)}: score {photo.score:#.4g}, {where}"
    if count > _MAX_NAMES:
        yield f"  and {count - _MAX_NAMES} more"


def set_aside_line(calibration: Calibration, named: Mapping[str, Path]) -> str | None:
    """The photographs that were left out on request; None without any."""
    if not calibration.set_aside:
        return None
    return f"set aside: {_names(calibration.set_aside, named)}"


def _thresholds(outliers: Outliers) -> str:
    assert outliers.threshold is not None
    without = "too few normals for one" if outliers.without is None else f"{outliers.without:#.4g}"
    return f"{outliers.threshold:#.4g} with them, {without} without them"


def _names(ids: Sequence[str], named: Mapping[str, Path]) -> str:
    more = f" and {len(ids) - _MAX_NAMES} more" if len(ids) > _MAX_NAMES else ""
    return ", ".join(_name(photo_id, named) for photo_id in ids[:_MAX_NAMES]) + more


def _name(photo_id: str, named: Mapping[str, Path]) -> str:
    return f"{photo_id} ({named[photo_id]})" if photo_id in named else photo_id
