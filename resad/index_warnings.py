"""What makes the p-values and verdicts of an index doubtful, for people who read its results."""

from typing import Final

from resad_client.records import IndexWarning

from resad.calibration import Calibration, Outliers
from resad.manifest import Manifest

_STALE: Final = (
    "photographs have left the index since its normals were scored: these may score higher now, and p-values may "
    "be too low; resad-indexer calibrate mends that"
)


def index_warnings(manifest: Manifest) -> tuple[IndexWarning, ...]:
    """The warnings of an index, the most serious first; none if its calibration is sound."""
    calibration = manifest.calibration
    stale = (IndexWarning("stale", _STALE),) if manifest.calibrated == "stale" else ()
    return (*stale, *_outliers(calibration), *_trained_on(calibration))


def _outliers(calibration: Calibration) -> tuple[IndexWarning, ...]:
    outliers = calibration.outliers
    if outliers is None or not outliers.moves_threshold:
        return ()
    few, normals = len(outliers.photos), len(calibration.scores)
    move = "moves" if few == 1 else "move"
    text = (
        f"{few} of the {normals} normals {move} the {outliers.rate:.0%} threshold by more than a quarter"
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
