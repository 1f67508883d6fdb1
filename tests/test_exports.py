"""Exports read by others' tools: csv, pycocotools, and the rules of RFC 7946."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from resad_client.errors import ProtocolError
from resad_client.exports import (
    FINDING_COLUMNS,
    PHOTO_COLUMNS,
    Outcome,
    answer_json,
    coco,
    findings_csv,
    geojson,
    photos_csv,
)
from resad_client.records import Finding, Result, compact_json, read_result, to_json

from service.schemas import example_result

RESULT = example_result()
FAILED = Outcome("b/no, really.jpg", None, 'not an image,\n or "damaged"')
OUTCOMES = [Outcome("a/é 1.jpg", RESULT), FAILED]


def result_with_contours(*contours: tuple[tuple[int, int], ...]) -> Result:
    """A result with these findings."""
    findings = []
    for rank, contour in enumerate(contours, start=1):
        xs, ys = zip(*contour, strict=True)
        box = (min(xs), min(ys), max(xs), max(ys))
        findings.append(
            Finding(rank, 2.0, 0.05, xs[0], ys[0], box, 9, 0.001, "central", contour, RESULT.findings[0].evidence)
        )
    return dataclasses.replace(RESULT, findings=tuple(findings))


def rows(parts: Iterable[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(parts)), strict=True))


def test_every_photograph_has_a_row_and_every_value_comes_back() -> None:
    scored_row, failed_row = rows(photos_csv(OUTCOMES))
    assert tuple(scored_row) == PHOTO_COLUMNS
    assert scored_row["photo"] == "a/é 1.jpg"
    assert float(scored_row["image_score"]) == RESULT.image_score
    assert (scored_row["abnormal"], scored_row["findings"], scored_row["error"]) == ("true", "1", "")
    assert (failed_row["photo"], failed_row["error"]) == (FAILED.photo, FAILED.fault)
    assert set(failed_row.values()) == {FAILED.photo, FAILED.fault, ""}


def test_every_finding_has_a_row() -> None:
    (row,) = rows(findings_csv(OUTCOMES))
    finding = RESULT.findings[0]
    assert tuple(row) == FINDING_COLUMNS
    assert tuple(int(row[side]) for side in ("left", "top", "right", "bottom")) == finding.box
    evidence = finding.evidence[0]
    assert (row["place"], row["nearest"]) == (finding.place, evidence.photo)
    assert (float(row["nearest_distance"]), row["nearest_mirrored"]) == (evidence.distance, "true")
    assert (float(row["peak"]), float(row["area_share"])) == (finding.peak, finding.area_share)


def test_an_older_answer_without_the_field_mirrored_is_read() -> None:
    document = json.loads(compact_json(RESULT))
    del document["findings"][0]["evidence"][0]["mirrored"]
    (row,) = rows(findings_csv([Outcome("a.jpg", read_result(json.dumps(document)))]))
    assert (row["nearest"], row["nearest_mirrored"]) == (RESULT.findings[0].evidence[0].photo, "false")


points = st.tuples(st.integers(0, 199), st.integers(0, 99))


@given(st.lists(points, min_size=3, max_size=3, unique=True))
def test_geojson_rings_are_closed_and_counterclockwise(contour: list[tuple[int, int]]) -> None:
    document = json.loads(geojson("a.jpg", result_with_contours(tuple(contour))))
    (feature,) = document["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert sorted(map(tuple, ring[:-1])) == sorted((x + 0.5, y + 0.5) for x, y in contour)
    doubled_area = sum(x * v - u * y for (x, y), (u, v) in pairwise(ring))
    assert doubled_area >= 0
    left, top, right, bottom = feature["bbox"]
    assert all(left < x < right and top < y < bottom for x, y in ring)
    assert "y down" in document["frame"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_is_read_by_its_own_tool_and_covers_the_findings_pixels(tmp_path: Path) -> None:
    """The mask that pycocotools makes of a polygon, against the polygon filled by Pillow."""
    outline = ((40, 20), (120, 30), (140, 80), (60, 70))
    results = result_with_contours(outline, ((3, 3), (10, 3), (10, 10), (3, 10)))
    file = tmp_path / "coco.json"
    file.write_text("".join(coco([OUTCOMES[0], FAILED, Outcome("b.jpg", results)])))
    dataset = COCO(str(file))
    assert [image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())] == ["a/é 1.jpg", "b.jpg"]
    large, small = dataset.loadAnns(dataset.getAnnIds(imgIds=2))
    assert (large["score"], large["area"], large["place"]) == (2.0, 9, "central")
    assert small["bbox"] == [3, 3, 8, 8]
    polygon_image = Image.new("1", (RESULT.photo.width, RESULT.photo.height))
    ImageDraw.Draw(polygon_image).polygon(outline, fill=1, outline=1)
    polygon_mask, coco_mask = np.asarray(polygon_image), dataset.annToMask(large).astype(bool)
    assert (polygon_mask & coco_mask).sum() / (polygon_mask | coco_mask).sum() > 0.95


def test_exports_without_findings_are_valid_documents(tmp_path: Path) -> None:
    assert json.loads("".join(coco([]))) | {"info": None} == {
        "info": None, "categories": [{"id": 1, "name": "finding", "supercategory": "anomaly"}],
        "annotations": [], "images": [],
    }  # fmt: skip
    assert rows(photos_csv([])) == rows(findings_csv([FAILED])) == []
    assert json.loads(geojson("a.jpg", result_with_contours()))["features"] == []


def test_an_answers_file_names_its_photograph_and_is_an_answer() -> None:
    text = answer_json('ward "b"/Müller.jpg', to_json(RESULT))
    assert next(iter(json.loads(text).items())) == ("file_name", 'ward "b"/Müller.jpg')
    assert read_result(text) == RESULT


def test_a_result_comes_back_from_its_json() -> None:
    assert read_result(compact_json(RESULT)) == RESULT
    with pytest.raises(ProtocolError, match="no request_id"):
        read_result("{}")
