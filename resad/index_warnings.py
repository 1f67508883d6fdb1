"""What makes the p-values and verdicts of an index doubtful, for people who read its results."""

from typing import Final

from resad_client.records import IndexWarning

from resad.calibration import Calibration, Outliers, find_outliers
from resad.manifest import Manifest

_STALE: Final = (
    "photographs have left the index since its normals were scored: these may score higher now, and p-values may "
    "be too low; resad-indexer calibrate mends that"
)


def index_warnings(manifest: Manifest, camera: str | None = None) -> tuple[IndexWarning, ...]:
    """The warnings of an index, the most serious first; none if its calibration is sound.

    Args:
        camera: the camera whose normals a photograph is compared with, as the calibration names it; else all.
    """
    calibration = manifest.calibration
    stale = (IndexWarning("stale", _STALE),) if manifest.calibrated == "stale" else ()
    return (*stale, *_outliers(calibration, camera), *_trained_on(calibration))


def _outliers(calibration: Calibration, camera: str | None) -> tuple[IndexWarning, ...]:
    outliers, scores, suffix = calibration.outliers, calibration.scores, ""
    if camera is not None:
        scores = next(entry.normals.scores for entry in calibration.cameras if entry.camera == camera)
        # Which photographs they are is not said here: without ids.
        outliers, suffix = find_outliers([""] * len(scores), scores), " of this camera"
    if outliers is None or not outliers.moves_threshold:
        return ()
    few, normals = len(outliers.photos), len(scores)
    move = "moves" if few == 1 else "move"
    text = (
        f"{few} of the {normals} normals{suffix} {move} the {outliers.rate:.0%} threshold by more than a quarter"
        f"{_change(outliers)}: if they are not healthy, abnormal photographs pass as normal; "
        "resad-indexer inspect names them, --set-aside leaves them out"
    )
    return (IndexWarning("outliers", text),)


def _change(outliers: Outliers) -> str:
    if outliers.threshold is None or outliers.without is None:
        return ""
    return f", from {outliers.without:#.4g} to {outliers.threshold:#.4g}"


def _trained_on(calibration: Calibration) -> tuple[IndexWarning, ...]:
    stated, normals = calibration.trained_on, len(calibration.scores)
    if stated is None or stated.used != "corrected":
        return ()
    trained = f"the trunk was trained on {stated.photos} of the {normals} normals"
    if stated.factor > 1:
        text = f"{trained}; their scores are raised by a factor of {stated.factor:.3g}: p-values are approximate"
        return (IndexWarning("corrected", text),)
    text = f"{trained} and nothing corrects their scores: thresholds and p-values may be too low"
    return (IndexWarning("uncorrected", text),)
