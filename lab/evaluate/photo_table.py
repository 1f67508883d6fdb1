"""What was measured, one line of CSV per photograph."""

import csv
from io import StringIO
from typing import Final

from lab.evaluate import bootstrap
from lab.evaluate.measured import Measured
from lab.evaluate.names import names_of
from resad.calibration import USUAL_RATE, Calibration, threshold

COLUMNS: Final = (
    "photo", "label", "kind", "image_score", "p_value", "abnormal_at_5_percent", "marked_share_fov",
    "pixel_auroc_fov", "in_the_index", "patient", "eye", "camera",
)  # fmt: skip


def photo_table(measured: Measured, calibration: Calibration) -> bytes:
    """UTF-8 with a header; numbers with the digits that distinguish them, cells without meaning empty."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(measured, calibration))
    return text.getvalue().encode()


def within_photo(measured: Measured, number: int) -> float | None:
    """Pixel AUROC of one photograph in its field of view; None without pixels of both classes."""
    normal, abnormal = measured.fov.normal.row(number), measured.fov.abnormal.row(number)
    if not normal.any() or not abnormal.any():
        return None
    return float(bootstrap.auroc(normal, abnormal)[0])


def _rows(measured: Measured, calibration: Calibration) -> list[tuple[str, ...]]:
    limit = threshold(calibration.scores, USUAL_RATE).value
    known = {one.photo: one.reference for one in measured.in_the_index}
    abnormal, normal = measured.fov.abnormal.per_photo(), measured.fov.normal.per_photo()
    rows: list[tuple[str, ...]] = []
    for number, (photo, name) in enumerate(zip(measured.photos, names_of(measured.photos), strict=True)):
        score = float(measured.scores[number])
        marked, unmarked = abnormal[number], normal[number]
        auroc = within_photo(measured, number)
        rows.append((
            name, "abnormal" if photo.abnormal else "normal", photo.kind, f"{score!r}",
            f"{calibration.p_value(score):.6f}", "" if limit is None else str(int(score > limit)),
            f"{marked / (marked + unmarked):.6f}" if marked + unmarked else "",
            "" if auroc is None else f"{auroc:.6f}", known.get(number, ""),
            photo.patient or "", photo.eye or "", photo.camera or "",
        ))  # fmt: skip
    return rows
