"""The page as its users go about it: photographs in, maps and findings out, and the states in between."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from resad.map_files import read_map_tiff
from tests.service.running import Served, served
from tests.web.conftest import Opener, answered_by
from tests.web.open_page import OpenPage

JPEG = "image/jpeg"


def test_a_dropped_photo_is_scored_and_shown(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service).ready()
    expect(page["#details"]).to_be_hidden()
    page.drop([(lesion.name, JPEG, lesion.read_bytes())])
    page.wait_for_map()

    said = web_service.score(lesion.read_bytes(), fpr=0.05, evidence=5).json()
    row = page[".row"]
    expect(row).to_have_count(1)
    word = "abnormal" if said["abnormal"] else "normal"
    expect(row.locator(".badge")).to_have_text(word)
    expect(row).to_contain_text(f"{said['image_score']:#.4g}")
    expect(row).to_contain_text(f"p {said['p_value']:.4f}")
    expect(row.locator(".thumbnail canvas")).to_be_visible()
    expect(page[".verdict .badge"]).to_have_text(word)
    assert said["findings"], "the drawn photograph is chosen to have some"
    expect(page[".finding"]).to_have_count(len(said["findings"]))
    expect(page[".pane.mapped .outlines g"]).to_have_count(len(said["findings"]))
    width, height, colored = page.map()
    assert (width, height) == (said["photo"]["width"], said["photo"]["height"])
    assert 0 < colored < width * height


def test_a_folder_is_taken_with_all_that_lies_in_it(visit: Opener, web_service: Served, photographs: Path) -> None:
    page = visit(web_service).ready()
    page.page.set_input_files("#folder", str(photographs / "test"))
    count = len(list((photographs / "test").rglob("*.jpg")))
    expect(page['.row[data-state="done"]']).to_have_count(count)
    expect(page["#count"]).to_contain_text(f"{count} of {count} photographs scored")
    with page.page.expect_download() as download:
        page["#table"].click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    names = sorted(str(path.relative_to(photographs)) for path in (photographs / "test").rglob("*.jpg"))
    assert [row["photo"] for row in rows] == names
    for row in rows:
        said = web_service.score((photographs / row["photo"]).read_bytes()).json()
        assert float(row["image_score"]) == pytest.approx(said["image_score"], rel=1e-4)
        assert int(row["findings"]) == len(said["findings"])
    page["#order"].select_option("score")
    scores = sorted((float(row["image_score"]) for row in rows), reverse=True)
    for place, score in enumerate(scores):
        expect(page[".row"].nth(place)).to_contain_text(f"{score:#.4g}")


def test_the_threshold_slider_shows_what_is_above_it(shown: OpenPage) -> None:
    everything = shown.map()[2]
    expect(shown[".edges path"]).to_have_count(0)
    shown["#level-reset"].click()
    at_findings = shown.map()[2]
    expect(shown["#regions"]).to_contain_text("Above this level")
    expect(shown[".edges path"]).to_have_count(1)
    shown.slide("#level", float(shown["#level"].get_attribute("max") or 0))
    expect(shown["#regions"]).to_contain_text("0 regions, 0")
    assert everything > at_findings > shown.map()[2] == 0
    shown["#level-all"].click()
    assert shown.map()[2] == everything


def test_opacity_map_and_panes(shown: OpenPage) -> None:
    canvas = shown["canvas.map"]
    shown.slide("#opacity", 35)
    expect(canvas).to_have_css("opacity", "0.35")
    shown["#map-shown"].click()
    expect(canvas).to_be_hidden()
    shown["#map-shown"].click()
    expect(canvas).to_be_visible()
    shown["#outlines-shown"].click()
    expect(shown[".outlines g"]).to_have_count(0)
    expect(shown[".pane.plain"]).to_be_hidden()
    shown["#side"].click()
    expect(shown[".pane.plain img"]).to_be_visible()
    boxes = [shown.box(f".pane.{name} .sheet") for name in ("plain", "mapped")]
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"])
    assert boxes[1]["x"] > boxes[0]["x"]


def test_zoom_keeps_what_is_under_the_pointer_in_its_place(shown: OpenPage) -> None:
    stage, sheet = shown.box("#stage"), ".pane.mapped .sheet"
    pointer = stage["x"] + 0.4 * stage["width"], stage["y"] + 0.6 * stage["height"]

    def under() -> tuple[float, float]:
        box = shown.box(sheet)
        return (pointer[0] - box["x"]) / box["width"], (pointer[1] - box["y"]) / box["height"]

    before = under()
    shown.page.mouse.move(*pointer)
    shown.page.mouse.wheel(0, -400)
    expect(shown["#zoom-text"]).not_to_have_text("100 %")
    assert under() == pytest.approx(before, abs=1e-3)
    shown.page.mouse.down()
    shown.page.mouse.move(pointer[0] + 40, pointer[1] - 25)
    shown.page.mouse.up()
    width = shown.box(sheet)["width"]
    assert under()[0] * width == pytest.approx(before[0] * width - 40, abs=1)
    shown["#zoom-fit"].click()
    assert under() == pytest.approx(before, abs=1e-3)


def test_findings_and_photograph_point_at_each_other(shown: OpenPage) -> None:
    finding = shown[".finding"].first
    finding.hover()
    expect(shown['.pane.mapped .outlines g[data-rank="1"]']).to_have_class("near")
    finding.click()
    expect(finding).to_have_attribute("aria-expanded", "true")
    expect(shown['.pane.mapped .outlines g[data-rank="1"]']).to_have_class("near chosen")
    finding.click()
    expect(finding).to_have_attribute("aria-expanded", "false")
    outline = shown.box('.pane.mapped .outlines path.touch[data-rank="1"]')
    shown.page.mouse.click(outline["x"] + outline["width"] / 2, outline["y"] + outline["height"] / 2)
    expect(shown['.finding[aria-expanded="true"]']).to_have_count(1)


def test_evidence_without_crops_says_so_and_names_the_patches(
    shown: OpenPage, web_service: Served, lesion: Path
) -> None:
    shown[".finding"].first.click()
    near = web_service.score(lesion.read_bytes(), evidence=5).json()["findings"][0]["evidence"]
    expect(shown[".patches tbody tr"]).to_have_count(len(near))
    for row, patch in enumerate(near):
        line = shown[".patches tbody tr"].nth(row)
        expect(line).to_contain_text(f"{patch['distance']:#.4g}")
        expect(line).to_contain_text(patch["photo"])
        expect(line).to_contain_text(f"{patch['y']}, {patch['x']}")
    expect(shown[".told"]).to_contain_text("not kept by this index")
    assert shown[".own canvas"].evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 40)"
    )


def test_evidence_with_crops_shows_them(shown: OpenPage, lesion: Path) -> None:
    def crop(route: Route) -> None:
        assert "version=" in route.request.url
        route.fulfill(body=lesion.read_bytes(), content_type=JPEG)

    with answered_by(shown.page, "**/evidence/**", crop):
        shown[".finding"].first.click()
        expect(shown[".comparison img"]).to_have_count(5)
        for place in range(5):
            expect(shown[".comparison img"].nth(place)).to_have_js_property("complete", True)
    assert shown[".comparison img"].first.evaluate("(img) => img.naturalWidth") > 0


def test_downloads_are_what_the_service_said(shown: OpenPage, web_service: Served, lesion: Path) -> None:
    said = web_service.score(lesion.read_bytes(), evidence=5).json()

    def saved(text: str) -> tuple[str, bytes]:
        with shown.page.expect_download() as download:
            shown.page.get_by_role("button", name=text).click()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    name, result = saved("Result (JSON)")
    assert name == f"{lesion.stem}.json"
    own = json.loads(result)
    for answer in (own, said):
        del answer["request_id"], answer["timings_ms"]
    assert own == said
    name, shapes = saved("Findings (GeoJSON)")
    collection = json.loads(shapes)
    assert (name, collection["type"]) == (f"{lesion.stem}.geojson", "FeatureCollection")
    for feature, finding in zip(collection["features"], said["findings"], strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        centers = [[x + 0.5, y + 0.5] for x, y in finding["contour"]]
        assert ring[:-1] in (centers, centers[::-1])
        assert sum(x * v - u * y for (x, y), (u, v) in pairwise(ring)) > 0
        assert feature["bbox"] == [*finding["box"][:2], *(end + 1 for end in finding["box"][2:])]
        assert feature["properties"]["peak"] == finding["peak"]
    name, picture = saved("Overlay (PNG)")
    assert picture.startswith(b"\x89PNG")
    name, tiff = saved("Map (TIFF)")
    assert name == f"{lesion.stem}_map.tiff"
    values, _ = read_map_tiff(tiff)
    assert values.shape == (said["photo"]["height"], said["photo"]["width"])
    assert np.isfinite(values).all()


def test_other_settings_score_anew(shown: OpenPage, web_service: Served, lesion: Path) -> None:
    shown["#fpr"].select_option("0.2")
    said = web_service.score(lesion.read_bytes(), fpr=0.2).json()
    expect(shown[".verdict"]).to_contain_text(f"{said['threshold']:#.4g} (rate 20\u00a0%)")
    expect(shown[".finding"]).to_have_count(len(said["findings"]))
    shown["#fpr"].select_option("0.01")
    expect(shown[".verdict .badge"]).to_have_text("no verdict")
    expect(shown[".verdict"]).not_to_contain_text("false")
    expect(shown[".verdict"]).to_contain_text("needs 99 normal photographs")
    with shown.page.expect_request("**/v1/score?*eye=left*"):
        shown['#open-eye [data-eye="left"]'].click()
    expect(shown['#open-eye [data-eye="left"]']).to_have_attribute("aria-pressed", "true")


def test_which_of_several_indexes_answers_is_chosen(
    visit: Opener, web_root: Path, tmp_path: Path, healthy: Path
) -> None:
    for name in ("drawn", "other"):
        (tmp_path / name).symlink_to(web_root / "drawn", target_is_directory=True)
    with served(tmp_path) as service:
        page = visit(service).ready()
        expect(page["#index option"]).to_have_count(2)
        page["#index"].select_option("other")
        with page.page.expect_request("**/v1/score?*index=other*"):
            page.choose(healthy)
        expect(page['.row[data-state="done"]']).to_have_count(1)
