"""What a calibration rests on, in sentences: normals that the trunk was trained on, outliers, those set aside."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from resad_client.text import counted

from resad.calibration import USUAL_RATE, Calibration, Normals, Outliers, has_moved, threshold
from resad.false_regions import USUAL as USUAL_FALSE_REGIONS
from resad.manifest import Manifest, Standing

_MAX_NAMES: Final = 5
"""Printed at most; the manifest has all."""
_STANDINGS: Final[dict[Standing, str]] = {
    "measured": "in this version's bank",
    "bound": "in an earlier, smaller bank: p-values err upwards",
    "stale": "in an earlier bank, before photographs left it: p-values may be too low (STALE)",
}


def origin_line(manifest: Manifest) -> str:
    """Where the calibration of an index comes from: which photographs, how and when they were scored."""
    calibration, count = manifest.calibration, len(manifest.calibration.scores)
    separate = calibration.source == "separate"
    entry = next(
        (entry for entry in reversed(manifest.history) if entry.operation == "calibrate" or not separate), None
    )
    photos = (
        f"{counted(count, 'normal photograph')} outside the memory bank"
        if separate
        else f"{counted(count, 'reference photo')}, each left out of the bank to score it"
    )
    when = f", by {entry.operation} at {entry.at}" if entry is not None else ""
    cameras = ", ".join(f"{camera.camera} ({len(camera.normals.scores)})" for camera in calibration.cameras)
    parts = [
        f"{photos}{when}; scored {_STANDINGS[manifest.calibrated]}",
        f"cameras: {cameras}" if cameras else "",
        f"set aside: {len(calibration.set_aside)}" if calibration.set_aside else "",
    ]
    return "; ".join(part for part in parts if part)


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
            f"{counted(stated.photos, 'other')}, whose scores would be too low"
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
    are = "is an outlier" if count == 1 else "are outliers"
    if outliers.moves_threshold:
        verb = "moves" if count == 1 else "move"
        yield (
            f"WARNING: {count} of {normals} normals {verb} the {outliers.rate:.0%} threshold by more than a "
            f"quarter: {_thresholds(outliers)}. "
            "Look at them; --set-aside leaves out a photograph that is not normal"
        )
    elif outliers.threshold is not None:
        yield f"{count} of {normals} normals {are}; {outliers.rate:.0%} threshold {_thresholds(outliers)}"
    else:
        yield f"{count} of {normals} normals {are}; there are too few for a {outliers.rate:.0%} threshold"
    for number, photo in enumerate(outliers.photos[:_MAX_NAMES]):
        where = "far above the rest" if number < outliers.far else "high"
        yield f"  {_name(photo.id, named)}: score {photo.score:#.4g}, {where}"
    if count > _MAX_NAMES:
        yield f"  and {count - _MAX_NAMES} more"


def verdict_changes(before: Calibration, after: Calibration) -> Iterator[str]:
    """What another calibration changes in verdicts, if it changes thresholds by more than a quarter."""
    for of_camera, earlier, later in _normals_of_both(before, after):
        old, new = (threshold(normals.scores, USUAL_RATE) for normals in (earlier, later))
        if has_moved(old.value, new.value):
            yield (
                f"the {USUAL_RATE:.0%} threshold{of_camera} changes by more than a quarter, "
                f"from {old.value:#.4g} to {new.value:#.4g}"
            )
        if old.value is not None and new.value is None:
            yield f"there are no verdicts at {USUAL_RATE:.0%}{of_camera} any more: {new.reason}"
    if after.outliers is not None and after.outliers.moves_threshold:
        yield f"outliers move the {USUAL_RATE:.0%} threshold by more than a quarter: {_thresholds(after.outliers)}"


def finding_changes(before: Calibration, after: Calibration) -> Iterator[str]:
    """What another calibration changes in findings, if it changes their level by more than a quarter."""
    for of_camera, earlier, later in _normals_of_both(before, after):
        for level in later.finding_levels:
            was = next((entry.value for entry in earlier.finding_levels if entry.rate == level.rate), None)
            if level.rate == USUAL_FALSE_REGIONS and has_moved(was, level.value):
                yield (
                    f"the level of findings{of_camera} changes by more than a quarter, from {was:#.4g} to "
                    f"{level.value:#.4g}"
                )


def _normals_of_both(before: Calibration, after: Calibration) -> Iterator[tuple[str, Normals, Normals]]:
    """All normals before and after, then those of each camera that both have."""
    yield "", before, after
    cameras = {entry.camera.casefold(): entry.normals for entry in before.cameras}
    for entry in after.cameras:
        if entry.camera.casefold() in cameras:
            yield f" of camera {entry.camera}", cameras[entry.camera.casefold()], entry.normals


def set_aside_line(calibration: Calibration, named: Mapping[str, Path]) -> str | None:
    """The photographs that were left out on request; None without any."""
    if not calibration.set_aside:
        return None
    return f"set aside: {first_names([_name(photo_id, named) for photo_id in calibration.set_aside])}"


def first_names(names: Sequence[str], most: int = _MAX_NAMES) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _thresholds(outliers: Outliers) -> str:
    assert outliers.threshold is not None
    without = "too few normals for one" if outliers.without is None else f"{outliers.without:#.4g}"
    return f"{outliers.threshold:#.4g} with them, {without} without them"


def _name(photo_id: str, named: Mapping[str, Path]) -> str:
    return f"{photo_id} ({named[photo_id]})" if photo_id in named else photo_id
