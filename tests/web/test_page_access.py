"""For everybody: by keyboard alone, at every size, in light and dark, and without any fault that axe finds."""

from pathlib import Path

import axe_playwright_python
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from tests.service.running import Served
from tests.web.conftest import DESKTOP, Opener
from tests.web.open_page import OpenPage

SERIOUS = ("serious", "critical")


def serious_faults(page: OpenPage, **options: object) -> list[str]:
    """What axe-core calls serious or critical, with the elements."""
    violations = Axe().run(page.page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:120]}"
        for fault in violations
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


def faults_in_both_schemes(page: OpenPage) -> list[str]:
    """A scheme is colors, so that the second one is looked at for its contrasts alone."""
    faults = serious_faults(page)
    page.page.emulate_media(color_scheme="dark")
    faults += serious_faults(page, runOnly=["color-contrast"])
    page.page.emulate_media(color_scheme="light")
    return faults


def test_axe_finds_no_serious_fault(visit: Opener, web_service: Served, lesion: Path, tmp_path: Path) -> None:
    assert Path(axe_playwright_python.__file__).with_name("axe.min.js").is_file()
    page = visit(web_service, color_scheme="light").ready()
    assert faults_in_both_schemes(page) == []
    (tmp_path / "notes.jpg").write_text("no photograph")
    Image.new("RGB", (240, 192)).save(tmp_path / "black.png")
    page.choose(lesion, tmp_path / "notes.jpg", tmp_path / "black.png")
    page.wait_for_map()
    expect(page[".badge[data-doubtful]"]).to_have_count(1)
    page[".finding"].first.click()
    expect(page[".patches"]).to_be_visible()
    expect(page['.row[data-state="failed"]']).to_have_count(1)
    assert faults_in_both_schemes(page) == []
    page[".row"].nth(1).click()
    expect(page[".failure"]).to_be_visible()
    assert faults_in_both_schemes(page) == []
    page[".row"].nth(2).click()
    expect(page[".verdict .badge[data-doubtful]"]).to_be_visible()
    assert faults_in_both_schemes(page) == []
    page["#help-open"].click()
    assert faults_in_both_schemes(page) == []


def test_axe_finds_a_fault_where_there_is_one(visit: Opener, web_service: Served) -> None:
    page = visit(web_service).ready()
    page["#help-open"].evaluate(
        "(button) => { button.removeAttribute('aria-label'); button.title = ''; button.textContent = ''; }"
    )
    assert [fault.split(":")[0] for fault in serious_faults(page)] == ["button-name"]


def test_the_keyboard_is_enough(visit: Opener, web_service: Served, lesion: Path, healthy: Path) -> None:
    page = visit(web_service).ready()
    press = page.page.keyboard.press

    def tab_to(selector: str) -> None:
        for _ in range(60):
            if page[selector].first.evaluate("(element) => element === document.activeElement"):
                return
            press("Tab")
        raise AssertionError(f"the Tab key does not come to {selector}")

    # Listened for in time: a chooser that opens before the browser knows of it is lost.
    page.page.on("filechooser", lambda chooser: chooser.set_files([healthy, lesion]))
    tab_to("#choose-files")
    press("Enter")
    expect(page['.row[data-state="done"]']).to_have_count(2)
    tab_to("#photos")
    press("ArrowDown")
    expect(page["#open-name"]).to_have_text(lesion.name)
    press("Home")
    expect(page["#open-name"]).to_have_text(healthy.name)
    press("End")
    page.wait_for_map()
    press("Enter")
    expect(page["#stage"]).to_be_focused()

    fit_text = page["#zoom-text"].inner_text()
    press("+")
    expect(page["#zoom-text"]).not_to_have_text(fit_text)
    before = page.box(".pane.mapped .sheet")["x"]
    press("ArrowRight")
    assert page.box(".pane.mapped .sheet")["x"] < before
    press("0")
    expect(page["#zoom-text"]).to_have_text(fit_text)
    press("m")
    expect(page["canvas.map"]).to_be_hidden()
    press("m")
    press("n")
    expect(page['.finding[aria-expanded="true"] .rank']).to_have_text("1")
    press("s")
    expect(page[".pane.plain"]).to_be_visible()
    press("Escape")
    expect(page["#photos"]).to_be_focused()

    tab_to("#level")
    colored = page.map()[2]
    press("End")
    expect(page["#regions"]).to_contain_text("Above this level")
    assert page.map()[2] < colored
    tab_to(".finding")
    press("Enter")
    expect(page['.finding[aria-expanded="true"]']).to_have_count(0)
    press("Space")
    expect(page['.finding[aria-expanded="true"]']).to_have_count(1)


def test_everything_fits_the_screen(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service, viewport={"width": 390, "height": 844}, has_touch=True).ready()
    page.choose(lesion)
    page.wait_for_map()
    assert_fits(page, 390)
    for width, height in ((768, 1024), (1024, 768)):
        page.page.set_viewport_size({"width": width, "height": height})
        assert_fits(page, width)


def test_everything_fits_a_desktop(kept_photo: OpenPage) -> None:
    assert_fits(kept_photo, DESKTOP["width"])


def assert_fits(page: OpenPage, width: int) -> None:
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    stage = page.box("#stage")
    assert min(stage["width"], stage["height"]) >= 250
    notice = page[".bottom strong"]
    expect(notice).to_have_text("Research use only. Not for diagnosis.")
    if width > 560:
        expect(notice).to_be_in_viewport()
        expect(page["#side"]).to_be_in_viewport(ratio=1)


def test_light_and_dark_can_be_chosen(visit: Opener, web_service: Served) -> None:
    page = visit(web_service, color_scheme="dark").ready()

    def background() -> str:
        return str(page.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    dark = background()
    page["#theme"].click()
    light = background()
    assert light != dark
    page.ready()
    assert background() == light
    page["#theme"].click()
    assert background() == dark


def test_two_fingers_zoom_and_one_finger_moves(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service, viewport={"width": 1024, "height": 768}, has_touch=True).ready()
    page.choose(lesion)
    page.wait_for_map()
    stage, sheet = page.box("#stage"), ".pane.mapped .sheet"
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    touch = page.page.context.new_cdp_session(page.page)

    def send(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": x + right, "y": y + down, "id": number} for number, (right, down) in enumerate(fingers)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    width = page.box(sheet)["width"]
    send("touchStart", (-50, 0), (50, 0))
    for distance in (60, 80, 100):
        send("touchMove", (-distance, 0), (distance, 0))
    send("touchEnd")
    zoomed_box = page.box(sheet)
    assert zoomed_box["width"] == pytest.approx(2 * width, rel=0.02)
    send("touchStart", (0, 0))
    send("touchMove", (30, 10))
    send("touchEnd")
    assert page.box(sheet)["x"] == pytest.approx(zoomed_box["x"] + 30, abs=1)
