"""Results as files, tables and annotations: JSON, CSV, GeoJSON, COCO.

Coordinates are the photo's own px, x to the right and y DOWN.  In CSV they are pixel indexes, boxes include both
of their ends.  In GeoJSON and COCO they are points of the plane in which pixel (0, 0) covers [0, 1) x [0, 1): a
contour goes through its pixels' centers, and a box ends where its last pixel does.

`resad-indexer score` and `resad-client score` write the same files.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from resad_client.csv_text import csv_row
from resad_client.records import INTENDED_USE, Finding, Result

PHOTO_COLUMNS: Final = (
    "photo", "image_score", "p_value", "fpr", "threshold", "abnormal", "reason", "findings", "acceptable",
    "quality", "width", "height", "camera", "index", "version", "index_warnings", "same_as", "error",
)  # fmt: skip
FINDING_COLUMNS: Final = (
    "photo", "rank", "peak", "p_value", "place", "x", "y", "left", "top", "right", "bottom", "area_px",
    "area_share", "nearest", "nearest_distance", "nearest_mirrored", "index", "version", "index_warnings",
    "resembles", "resembles_votes", "resembles_of", "resembles_distance", "healthy_distance",
)  # fmt: skip
_FRAME: Final = "px of the photo, x to the right, y down"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one photograph: a result, or the reason why there is none.  photo: its label in exports."""

    photo: str
    result: Result | None
    fault: str | None = None


def answer_json(photo: str, answer: str) -> str:
    """`answer`, a photograph's JSON, with its name first, as `file_name`: stems may be equal."""
    return json.dumps({"file_name": photo} | json.loads(answer), indent=2, allow_nan=False) + "\n"


def photos_csv(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """A row for each photograph, scored or not, after a line with `PHOTO_COLUMNS`."""
    yield csv_row(PHOTO_COLUMNS)
    for outcome in outcomes:
        r = outcome.result
        if r is None:
            yield csv_row([outcome.photo, *[None] * (len(PHOTO_COLUMNS) - 2), outcome.fault])
            continue
        quality, size = r.quality, r.photo
        yield csv_row([
            outcome.photo, r.image_score, r.p_value, r.fpr, r.threshold, r.abnormal, r.reason, len(r.findings),
            quality.acceptable, ";".join(quality.reasons), size.width, size.height, r.normals.camera,
            r.index.name, r.index.version, _codes(r), r.same_as.photo if r.same_as else None, None,
        ])  # fmt: skip


def findings_csv(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """A row for each finding, after a line with `FINDING_COLUMNS`; `nearest`: the id of a healthy photo."""
    yield csv_row(FINDING_COLUMNS)
    for outcome in outcomes:
        r = outcome.result
        if r is None:
            continue
        for f in r.findings:
            nearest = f.evidence[0] if f.evidence else None
            yield csv_row([
                outcome.photo, f.rank, f.peak, f.p_value, f.place, f.x, f.y, *f.box, f.area_px, f.area_share,
                nearest.photo if nearest else None, nearest.distance if nearest else None,
                nearest.mirrored if nearest else None,
                r.index.name, r.index.version, _codes(r), *_resemblance(f),
            ])  # fmt: skip


def geojson(photo: str, result: Result) -> str:
    """One photograph's findings as a GeoJSON FeatureCollection (RFC 7946 but for the frame, which is no map's).

    Rings are counterclockwise in the numbers as they stand (section 3.1.6); with y down they look clockwise.
    """
    features = [_feature(photo, finding) for finding in result.findings]
    index = {"name": result.index.name, "version": result.index.version, "warnings": _texts(result)}
    whole = {
        "type": "FeatureCollection", "frame": _FRAME, "intended_use": INTENDED_USE, "index": index,
        "features": features,
    }  # fmt: skip
    return _json(whole) + "\n"


def coco(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Findings of all photographs as one COCO document, in parts; photographs without a result are left out.

    `score` is the peak.  `area` counts pixels and so leaves out holes, which the polygon does not show.
    """
    info = {"description": "ReSAD findings", "frame": _FRAME, "intended_use": INTENDED_USE}
    categories = [{"id": 1, "name": "finding", "supercategory": "anomaly"}]
    yield f'{{"info": {_json(info)},\n"categories": {_json(categories)},\n"annotations": ['
    images: list[str] = []
    number = 0
    for outcome in outcomes:
        if outcome.result is None:
            continue
        size, image = outcome.result.photo, len(images) + 1
        named = {
            "id": image, "file_name": outcome.photo, "width": size.width, "height": size.height,
            "index_warnings": _texts(outcome.result),
        }  # fmt: skip
        images.append(_json(named))
        for finding in outcome.result.findings:
            number += 1
            yield ("" if number == 1 else ",") + "\n" + _json(_annotation(number, image, finding))
    yield '],\n"images": [\n' + ",\n".join(images) + "]}\n"


def _feature(photo: str, finding: Finding) -> dict[str, Any]:
    ring = _ring(finding)
    doubled = sum(x * v - u * y for (x, y), (u, v) in zip(ring, [*ring[1:], ring[0]], strict=True))
    if doubled < 0:
        ring.reverse()
    properties = {
        "photo": photo,
        "rank": finding.rank,
        "peak": finding.peak,
        "p_value": finding.p_value,
        "place": finding.place,
        "peak_at": [finding.x + 0.5, finding.y + 0.5],
        "area_px": finding.area_px,
        "area_share": finding.area_share,
    }
    if finding.resembles is not None:
        properties["resembles"] = finding.resembles.kind
    return {
        "type": "Feature",
        "id": finding.rank,
        "bbox": _bounds(finding),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": properties,
    }


def _annotation(number: int, image: int, finding: Finding) -> dict[str, Any]:
    left, top, right, bottom = _bounds(finding)
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": [[number for point in _ring(finding) for number in point]],
        "area": finding.area_px,
        "score": finding.peak,
        "rank": finding.rank,
        "p_value": finding.p_value,
        "place": finding.place,
    }
    if finding.resembles is not None:
        annotation["resembles"] = finding.resembles.kind
    return annotation


def _resemblance(finding: Finding) -> tuple[object, ...]:
    like = finding.resembles
    if like is None:
        return (None,) * 5
    return like.kind, like.votes, like.of, like.distance, like.healthy_distance


def _codes(result: Result) -> str:
    return ";".join(warning.code for warning in result.index.warnings)


def _texts(result: Result) -> list[str]:
    return [warning.text for warning in result.index.warnings]


def _ring(finding: Finding) -> list[list[float]]:
    return [[x + 0.5, y + 0.5] for x, y in finding.contour]


def _bounds(finding: Finding) -> list[int]:
    left, top, right, bottom = finding.box
    return [left, top, right + 1, bottom + 1]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
