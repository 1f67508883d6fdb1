"""The open photograph: its map, its findings, and the healthy patches beside them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Route, expect

from resad.pictures.evidence import jpeg
from tests.service.running import Served
from tests.web.conftest import Opener, intercept
from tests.web.open_page import OpenPage


def test_the_threshold_slider_shows_what_is_above_it(kept_photo: OpenPage) -> None:
    all_pixels = kept_photo.map()[2]
    lines = kept_photo[".edges path.edge"].count()
    kept_photo["#level-reset"].click()
    pixels_at_level = kept_photo.map()[2]
    expect(kept_photo["#regions"]).to_contain_text("Above this level")
    expect(kept_photo[".edges path.edge"]).to_have_count(lines + 1)
    kept_photo.slide("#level", float(kept_photo["#level"].get_attribute("max") or 0))
    expect(kept_photo["#regions"]).to_contain_text("0 regions, 0")
    assert all_pixels > pixels_at_level > kept_photo.map()[2] == 0
    kept_photo["#level-all"].click()
    assert kept_photo.map()[2] == all_pixels


def test_opacity_map_and_panes(kept_photo: OpenPage) -> None:
    canvas = kept_photo["canvas.map"]
    kept_photo.slide("#opacity", 35)
    expect(canvas).to_have_css("opacity", "0.35")
    kept_photo["#map-shown"].click()
    expect(canvas).to_be_hidden()
    kept_photo["#map-shown"].click()
    expect(canvas).to_be_visible()
    kept_photo["#outlines-shown"].click()
    expect(kept_photo[".outlines g"]).to_have_count(0)
    expect(kept_photo[".pane.plain"]).to_be_hidden()
    kept_photo["#side"].click()
    expect(kept_photo[".pane.plain img"]).to_be_visible()
    boxes = [kept_photo.box(f".pane.{name} .sheet") for name in ("plain", "mapped")]
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"])
    assert boxes[1]["x"] > boxes[0]["x"]


def test_zoom_keeps_what_is_under_the_pointer_in_its_place(kept_photo: OpenPage) -> None:
    stage, sheet = kept_photo.box("#stage"), ".pane.mapped .sheet"
    pointer = round(stage["x"] + 0.4 * stage["width"]), round(stage["y"] + 0.6 * stage["height"])

    def pointer_in_photo() -> tuple[float, float]:
        box = kept_photo.box(sheet)
        return (pointer[0] - box["x"]) / box["width"], (pointer[1] - box["y"]) / box["height"]

    before = pointer_in_photo()
    kept_photo.page.mouse.move(*pointer)
    kept_photo.page.mouse.wheel(0, -400)
    expect(kept_photo["#zoom-text"]).not_to_have_text("100 %")
    assert pointer_in_photo() == pytest.approx(before, abs=1e-3)
    kept_photo.page.mouse.down()
    kept_photo.page.mouse.move(pointer[0] + 40, pointer[1] - 25)
    kept_photo.page.mouse.up()
    width = kept_photo.box(sheet)["width"]
    assert pointer_in_photo()[0] * width == pytest.approx(before[0] * width - 40, abs=1)
    kept_photo["#zoom-fit"].click()
    assert pointer_in_photo() == pytest.approx(before, abs=1e-3)


def test_findings_and_photograph_point_at_each_other(kept_photo: OpenPage) -> None:
    finding = kept_photo[".finding"].first
    finding.hover()
    expect(kept_photo['.pane.mapped .outlines g[data-rank="1"]']).to_have_class("near")
    finding.click()
    expect(finding).to_have_attribute("aria-expanded", "true")
    expect(kept_photo['.pane.mapped .outlines g[data-rank="1"]']).to_have_class("near chosen")
    finding.click()
    expect(finding).to_have_attribute("aria-expanded", "false")
    outline = kept_photo.box('.pane.mapped .outlines path.touch[data-rank="1"]')
    kept_photo.page.mouse.click(outline["x"] + outline["width"] / 2, outline["y"] + outline["height"] / 2)
    expect(kept_photo['.finding[aria-expanded="true"]']).to_have_count(1)


def test_evidence_without_crops_says_so_and_names_the_patches(
    kept_photo: OpenPage, web_service: Served, lesion: Path
) -> None:
    kept_photo[".finding"].first.click()
    evidence = web_service.score(lesion.read_bytes(), evidence=5).json()["findings"][0]["evidence"]
    mirror_note = ", mirrored" if evidence[0]["mirrored"] else ""  # all of a finding are
    expect(kept_photo[".patches tbody tr"]).to_have_count(len(evidence))
    for row, patch in enumerate(evidence):
        line = kept_photo[".patches tbody tr"].nth(row)
        expect(line).to_contain_text(f"{patch['distance']:#.4g}")
        expect(line).to_contain_text(patch["photo"])
        expect(line).to_contain_text(f"{patch['y']}, {patch['x']}{mirror_note}")
    expect(kept_photo[".told"]).to_contain_text("not kept by this index")
    assert kept_photo[".own canvas"].evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 < 3 && v > 40)"
    )


def test_evidence_with_crops_shows_them(open_photo: OpenPage, lesion: Path) -> None:
    def crop(route: Route) -> None:
        assert "version=" in route.request.url
        route.fulfill(body=lesion.read_bytes(), content_type="image/jpeg")

    with intercept(open_photo.page, "**/evidence/**", crop):
        open_photo[".finding"].first.click()
        expect(open_photo[".comparison img"]).to_have_count(5)
        for place in range(5):
            expect(open_photo[".comparison img"].nth(place)).to_have_js_property("complete", True)
    assert open_photo[".comparison img"].first.evaluate("(img) => img.naturalWidth") > 0


def test_a_mirrored_patch_is_shown_turned_and_said_to_be(visit: Opener, web_service: Served, lesion: Path) -> None:
    """Of crops that are red on the left and blue on the right, the second patch's alone is the other way."""

    def answer(route: Route) -> None:
        document = route.fetch().json()
        for place, patch in enumerate(document["findings"][0]["evidence"]):
            patch["mirrored"] = place == 1
        route.fulfill(json=document)

    halves = Image.new("RGB", (192, 192), "red")
    halves.paste("blue", (96, 0, 192, 192))
    page = visit(web_service).go()
    with (
        intercept(page.page, "**/v1/score*", answer),
        intercept(
            page.page, "**/evidence/**", lambda route: route.fulfill(body=jpeg(halves), content_type="image/jpeg")
        ),
    ):
        page.choose(lesion)
        page.wait_for_map()
        page[".finding"].first.click()
        expect(page[".comparison img"]).to_have_count(5)
        for place in range(5):
            crop = page[".comparison img"].nth(place)
            expect(crop).to_have_js_property("complete", True)
            pixels = np.asarray(Image.open(io.BytesIO(crop.screenshot())).convert("RGB")).astype(int)
            height, width = pixels.shape[:2]
            left, right = (pixels[height // 2, width * part // 4] for part in (1, 3))
            red, blue = (right, left) if place == 1 else (left, right)
            assert red[0] - red[2] > 150
            assert blue[2] - blue[0] > 150
    figures = page[".comparison figure:not(.own)"]
    expect(figures.filter(has_text="mirrored")).to_have_count(1)
    expect(figures.nth(1)).to_contain_text("mirrored")
    expect(page.page.get_by_role("img", name=", mirrored")).to_have_count(1)
    expect(page[".comparison .note"]).to_contain_text("shown turned left to right")


def shown_pixels(page: OpenPage) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """The middle of the mapped pane as it is on the screen, without map, outlines and numbers."""
    box = page.box(".pane.mapped .sheet")
    clip = {"x": box["x"] + box["width"] * 0.3, "y": box["y"] + box["height"] * 0.4, "width": 120, "height": 60}
    data = page.page.screenshot(clip=clip)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_red_free_brightness_contrast_and_clahe(kept_photo: OpenPage) -> None:
    for control in ("#map-shown", "#outlines-shown"):
        kept_photo[control].click()
    plain = shown_pixels(kept_photo)
    assert np.abs(plain[..., 0] - plain[..., 1]).mean() > 10, "the drawn photograph has colors"
    kept_photo["#stage"].press("r")
    expect(kept_photo["#red-free"]).to_have_attribute("aria-pressed", "true")
    green = shown_pixels(kept_photo)
    assert np.abs(green[..., 0] - green[..., 2]).max() <= 2
    assert np.abs(green[..., 1] - plain[..., 1]).mean() < 3
    kept_photo["#stage"].press("]")
    assert shown_pixels(kept_photo).mean() > 1.05 * green.mean()
    kept_photo["#look-reset"].click()
    expect(kept_photo["#red-free"]).to_have_attribute("aria-pressed", "false")
    assert np.abs(shown_pixels(kept_photo) - plain).mean() < 1
    kept_photo["#stage"].press("}")
    assert shown_pixels(kept_photo).std() > plain.std()
    kept_photo["#look-reset"].click()
    kept_photo["#stage"].press("c")
    expect(kept_photo[".pane.mapped .enhanced"]).to_be_visible()
    assert np.abs(shown_pixels(kept_photo) - plain).mean() > 3
    kept_photo["#stage"].press("c")
    expect(kept_photo[".pane.mapped .enhanced"]).to_be_hidden()


def test_lengths_are_measured_in_disc_diameters_by_pointer_and_by_keys(kept_photo: OpenPage) -> None:
    kept_photo["#measure"].click()
    box = kept_photo.box(".pane.mapped .sheet")
    zoom = box["width"] / kept_photo[".pane.mapped .photo"].evaluate("(image) => image.naturalWidth")
    x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)

    def drag(right: int) -> None:
        kept_photo.page.mouse.move(x, y)
        kept_photo.page.mouse.down()
        kept_photo.page.mouse.move(x + right, y)
        kept_photo.page.mouse.up()

    drag(100)
    expect(kept_photo["#measure-text"]).to_contain_text(f"{100 / zoom:.0f} px")
    assert kept_photo.box(".pane.mapped .sheet") == box, "the photograph stays where it is"
    kept_photo["#measure-disc"].click()
    drag(150)
    expect(kept_photo["#measure-text"]).to_contain_text("= 1.50 disc diameters")
    expect(kept_photo[".pane.mapped .ruler path"]).to_have_count(2)
    stage = kept_photo["#stage"]
    stage.press("d")
    expect(kept_photo[".ruler path"]).to_have_count(0)
    stage.press("d")
    stage.press("Enter")
    for _ in range(5):
        stage.press("ArrowRight")
    expect(kept_photo["#measure-text"]).to_contain_text("= 0.50 disc diameters")
    stage.press("Shift+ArrowLeft")
    expect(kept_photo["#measure-text"]).to_contain_text("= 0.49 disc diameters")
    stage.press("Escape")
    expect(kept_photo["#measure-text"]).to_have_text("")


def test_another_photograph_lies_beside_and_moves_alike(open_photo: OpenPage, healthy: Path) -> None:
    open_photo.choose(healthy)
    expect(open_photo['.row[data-state="done"]']).to_have_count(2)
    address = open_photo[".pane.mapped .photo"].get_attribute("src")
    open_photo["#side"].click()
    expect(open_photo[".pane.plain .photo"]).to_have_attribute("src", address or "")
    open_photo["#beside"].select_option(label=healthy.name)
    expect(open_photo[".pane.plain .photo"]).not_to_have_attribute("src", address or "")
    expect(open_photo[".pane.mapped .photo"]).to_have_attribute("src", address or "")
    for key in ("+", "+", "ArrowRight"):
        open_photo["#stage"].press(key)
    plain, mapped = (open_photo.box(f".pane.{name} .sheet") for name in ("plain", "mapped"))
    panes = [open_photo.box(f".pane.{name}") for name in ("plain", "mapped")]
    assert plain["width"] == pytest.approx(mapped["width"])
    assert plain["x"] - panes[0]["x"] == pytest.approx(mapped["x"] - panes[1]["x"], abs=1)


def test_the_photograph_beside_has_its_own_findings(
    visit: Opener, web_service: Served, lesion: Path, healthy: Path
) -> None:
    """They come with its answer, go with the outlines, and are not chosen with those of the open photograph."""
    page = visit(web_service).ready()
    requests: list[Route] = []
    page.choose(lesion)
    page.wait_for_map()
    count = page[".pane.mapped .outlines g"].count()
    with intercept(page.page, "**/v1/score*", lambda route: requests.append(route)):
        page.choose(healthy)
        expect(page['.row[data-state="scoring"]']).to_have_count(1)
        page["#side"].click()
        page["#beside"].select_option(label=healthy.name)
        expect(page[".pane.plain .outlines g"]).to_have_count(0)
        answer = web_service.score(lesion.read_bytes(), evidence=5).json()
        requests[0].fulfill(json=answer)
        expect(page[".pane.plain .outlines g"]).to_have_count(count)
    page[".finding"].first.click()
    expect(page[".pane.mapped .outlines g.chosen"]).to_have_count(1)
    expect(page[".pane.plain .chosen"]).to_have_count(0)
    expect(page[".pane.plain [data-rank]"]).to_have_count(0)
    page["#outlines-shown"].click()
    expect(page[".pane .outlines g"]).to_have_count(0)
