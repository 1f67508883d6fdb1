"""The open photograph: its map, its findings, and the healthy patches beside them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from resad.pictures.evidence import jpeg
from tests.service.running import Served
from tests.web.conftest import Opener, answered_by
from tests.web.open_page import OpenPage


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
    said = ", mirrored" if near[0]["mirrored"] else ""  # all of a finding are
    expect(shown[".patches tbody tr"]).to_have_count(len(near))
    for row, patch in enumerate(near):
        line = shown[".patches tbody tr"].nth(row)
        expect(line).to_contain_text(f"{patch['distance']:#.4g}")
        expect(line).to_contain_text(patch["photo"])
        expect(line).to_contain_text(f"{patch['y']}, {patch['x']}{said}")
    expect(shown[".told"]).to_contain_text("not kept by this index")
    assert shown[".own canvas"].evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 40)"
    )


def test_evidence_with_crops_shows_them(shown: OpenPage, lesion: Path) -> None:
    def crop(route: Route) -> None:
        assert "version=" in route.request.url
        route.fulfill(body=lesion.read_bytes(), content_type="image/jpeg")

    with answered_by(shown.page, "**/evidence/**", crop):
        shown[".finding"].first.click()
        expect(shown[".comparison img"]).to_have_count(5)
        for place in range(5):
            expect(shown[".comparison img"].nth(place)).to_have_js_property("complete", True)
    assert shown[".comparison img"].first.evaluate("(img) => img.naturalWidth") > 0


def test_a_mirrored_patch_is_shown_turned_and_said_to_be(visit: Opener, web_service: Served, lesion: Path) -> None:
    """Of crops that are red on the left and blue on the right, the second patch's alone is the other way."""

    def answer(route: Route) -> None:
        said = route.fetch().json()
        for place, patch in enumerate(said["findings"][0]["evidence"]):
            patch["mirrored"] = place == 1
        route.fulfill(json=said)

    halves = Image.new("RGB", (192, 192), "red")
    halves.paste("blue", (96, 0, 192, 192))
    page = visit(web_service).go()
    with (
        answered_by(page.page, "**/v1/score*", answer),
        answered_by(
            page.page, "**/evidence/**", lambda r: r.fulfill(body=jpeg(halves), content_type="image/jpeg")
        ),
    ):
        page.choose(lesion)
        page.wait_for_map()
        page[".finding"].first.click()
        expect(page[".comparison img"]).to_have_count(5)
        for place in range(5):
            crop = page[".comparison img"].nth(place)
            expect(crop).to_have_js_property("complete", True)
            seen = np.asarray(Image.open(io.BytesIO(crop.screenshot())).convert("RGB")).astype(int)
            height, width = seen.shape[:2]
            left, right = (seen[height // 2, width * part // 4] for part in (1, 3))
            red, blue = (right, left) if place == 1 else (left, right)
            assert red[0] - red[2] > 150
            assert blue[2] - blue[0] > 150
    figures = page[".comparison figure:not(.own)"]
    expect(figures.filter(has_text="mirrored")).to_have_count(1)
    expect(figures.nth(1)).to_contain_text("mirrored")
    expect(page.page.get_by_role("img", name=", mirrored")).to_have_count(1)
    expect(page[".comparison .note"]).to_contain_text("shown turned left to right")
