"""Readers mark findings and regions on the page, and the taught index says so."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Route, expect
from resad_client.records import Evidence, Result, from_json
from resad_client.report import wording

from indexer.lifecycle.teach import TeachOptions, teach
from tests.service.running import Served, served, until
from tests.web.conftest import Opener, intercept
from tests.web.open_page import OpenPage
from tests.web.test_page_access import serious_faults

TAUGHT = "Nothing changes until the index is taught: resad-indexer teach"
EXAMPLE = {"photo": "m-3f9c12ab", "distance": 0.41, "y": 3, "x": 4, "mirrored": False, "label": "hard-exudate"}
RESEMBLANCE = {
    "kind": "hard-exudate", "share": 0.8, "votes": 7, "of": 8, "distance": 0.41, "healthy_distance": 0.9312,
    "examples": [EXAMPLE],
}  # fmt: skip
LINE = "like hard exudate: 7 of the 8 nearest examples, distance 0.41 against 0.931 to healthy"


@pytest.fixture
def own_root(web_root: Path, tmp_path: Path) -> Path:
    """A root that a test may change."""
    shutil.copytree(web_root, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def service(own_root: Path) -> Iterator[Served]:
    with served(own_root) as service:
        yield service


def opened(page: OpenPage, photo: Path) -> OpenPage:
    page.ready().choose(photo)
    page.wait_for_map()
    return page


def draw_around(page: OpenPage, box: list[int]) -> None:
    """Around a box of the photograph, with the pointer."""
    sheet = page.box(".pane.mapped .sheet")
    zoom = sheet["width"] / page[".pane.mapped .photo"].evaluate("(image) => image.naturalWidth")
    left, top, right, bottom = (value * zoom for value in (box[0] - 2, box[1] - 2, box[2] + 3, box[3] + 3))
    corners = [
        (sheet["x"] + x, sheet["y"] + y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))
    ]
    page.page.mouse.move(*corners[0])
    page.page.mouse.down()
    for corner in corners[1:]:
        page.page.mouse.move(*corner, steps=4)
    page.page.mouse.up()


def send(form: Locator, label: str) -> None:
    form.locator("select").select_option(label)
    form.get_by_role("button", name="Mark", exact=True).click()


def journal(service: Served) -> list[tuple[str, str]]:
    photos = service.client.get("/v1/marks").json()["photos"]
    return [(mark["label"], photo["reader"]) for photo in photos for mark in photo["marks"]]


def test_marks_on_two_pages_teach_the_index(
    visit: Opener, service: Served, own_root: Path, lesion: Path, tmp_path: Path
) -> None:
    before = service.score(lesion.read_bytes(), evidence=5).json()["findings"]
    assert len(before) > 1
    page = opened(visit(service), lesion)
    page["#reader"].fill("Ada")
    page["#reader"].press("Tab")
    page[".finding"].first.click()
    send(page[".evidence .mark-form"], "normal-variant")
    expect(page[".evidence .mark-form"]).to_contain_text(f"Marked normal variant. {TAUGHT}")
    expect(page[".marks-list li"]).to_contain_text("Normal variantwithout a key, Ada")

    page["#region"].click()
    sheet = page.box(".pane.mapped .sheet")
    draw_around(page, before[1]["box"])
    assert page.box(".pane.mapped .sheet") == sheet, "the photograph stays where it is"
    form = page["#region-form form"]
    expect(form.locator("select")).to_be_focused()
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        assert serious_faults(page) == []
    send(form, "hard-exudate")
    expect(page["#region-text"]).to_contain_text(f"Marked hard exudate. {TAUGHT}")
    expect(page[".pane.mapped .regions g"]).to_have_count(2)
    expect(page[".pane.mapped .region-label"]).to_have_text(["normal variant", "hard exudate"])
    page[".marks-list li"].first.hover()
    expect(page[".pane.mapped .regions g.near"]).to_have_count(1)

    # Another page knows the photograph by its file, and marks by keys alone, at the same time as the first one.
    other = opened(visit(service, viewport={"width": 768, "height": 1024}), lesion)
    expect(other[".marks-list li"]).to_have_count(2)
    assert other.page.evaluate("document.documentElement.scrollWidth") == 768
    expect(other["#region"]).to_be_in_viewport(ratio=1)
    keys = other.page.keyboard
    other["#stage"].focus()
    for key in (
        "a",
        "Enter",
        *["ArrowRight", "ArrowDown"] * 4,
        "Escape",
        "Enter",
        *["ArrowLeft", "ArrowUp"] * 4,
        "Enter",
    ):
        keys.press(key)
    expect(other["#region-form select"]).to_be_focused()
    other["#region-form select"].select_option("other")
    keys.type("Cotton-wool Spot")
    draw_around(page, before[1]["box"])
    page["#region-form select"].select_option("artifact")
    keys.press("Enter")
    page["#region-form select"].press("Tab")
    page.page.keyboard.press("Enter")
    expect(other["#region-text"]).to_contain_text("Marked cotton wool spot")
    expect(page["#region-text"]).to_contain_text("Marked artifact")
    keys.press("Escape")
    expect(other["#region-box"]).to_be_hidden()
    assert sorted(journal(service)) == [
        ("artifact", "without a key, Ada"), ("cotton-wool-spot", "without a key"),
        ("hard-exudate", "without a key, Ada"), ("normal-variant", "without a key, Ada"),
    ]  # fmt: skip
    page.page.keyboard.press("Escape")
    for words in ("artifact", "cotton wool spot"):
        page.page.get_by_role("button", name=f"Take back: {words}").click()
        expect(page[".marks-list + p"]).to_contain_text(f"Taken back: {words}")
    expect(page[".pane.mapped .regions g"]).to_have_count(2)
    with page.page.expect_download() as download:
        page.page.get_by_role("button", name="Export all marks").click()
    download.value.save_as(tmp_path / "marks.json")
    assert json.loads((tmp_path / "marks.json").read_text()) == service.client.get("/v1/marks").json()

    version = teach(TeachOptions(own_root / "drawn", torch.device("cpu"))).derived.after.version
    until(lambda: service.client.get("/v1/indexes").json()["indexes"][0]["version"] == version)
    opened(page, lesion)
    expect(page[".marks-list li"]).to_have_count(2)
    after = service.score(lesion.read_bytes()).json()["findings"]
    expect(page[".finding"]).to_have_count(len(after))
    x, y = before[0]["x"], before[0]["y"]
    at_variant = [
        finding
        for finding in after
        if finding["box"][0] <= x <= finding["box"][2] and finding["box"][1] <= y <= finding["box"][3]
    ]
    assert all(finding["peak"] < 0.8 * before[0]["peak"] for finding in at_variant)
    like = page[".finding"].filter(has_text="Like hard exudate: ")
    like.first.click()
    expect(page[".comparison .note"].first).to_contain_text(
        "Examples marked by readers; resemblance, no diagnosis."
    )


def test_what_a_finding_resembles_is_said_and_shown(visit: Opener, web_service: Served, lesion: Path) -> None:
    """In the same words by the page and by the Python client."""

    def answer(route: Route) -> None:
        document = route.fetch().json()
        document["findings"][0]["resembles"] = RESEMBLANCE
        document["findings"][0]["evidence"][1]["label"] = "normal-variant"
        route.fulfill(json=document)

    page = visit(web_service)
    picture = {"body": lesion.read_bytes(), "content_type": "image/jpeg"}
    with (
        intercept(page.page, "**/v1/score*", answer),
        intercept(page.page, "**/evidence/**", lambda route: route.fulfill(**picture)),
    ):
        opened(page, lesion)
        page[".finding"].first.click()
        expect(page[".finding .like"]).to_have_text(LINE.capitalize())
        expect(page[".comparison > .note"]).to_have_text(
            f"{LINE.capitalize()}. Examples marked by readers; resemblance, no diagnosis."
        )
        expect(page.page.get_by_role("img", name="Patch marked hard exudate, of photo m-3f9c12ab")).to_be_visible()
        expect(page.page.get_by_role("img", name="Patch marked normal variant, of photo")).to_be_visible()
        page.page.evaluate("print = () => undefined")
        page.page.get_by_role("button", name="Report").click()
        expect(page["#report .report-findings"]).to_contain_text(f"; {LINE}")
        expect(page["#report .report-photo"]).to_contain_text("a resemblance, no diagnosis")

    document = web_service.score(lesion.read_bytes(), evidence=1).json()
    document["findings"][0] |= {"resembles": RESEMBLANCE, "place": "superior"}
    result = from_json(Result, json.dumps(document))
    finding = result.findings[0]
    assert wording.finding_place(finding).endswith(LINE)
    assert "no diagnosis" in wording.findings_sentence(result)
    assert (
        wording.patch_caption(Evidence("m-1", 0.4, 1, 2, label="normal-variant")) == "marked normal variant: m-1"
    )


def test_marking_is_offered_where_it_is_allowed_alone(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service)
    refusal: dict[str, Any] = {
        "status": 403,
        "json": {"type": "urn:resad:problem:key-scope", "title": "No", "status": 403},
    }
    with intercept(page.page, "**/v1/marks*", lambda route: route.fulfill(**refusal)):
        opened(page, lesion)
        page[".finding"].first.click()
        expect(page[".patches"]).to_be_visible()
        for part in ("#region", ".mark-form", "#reader", "#banner"):
            expect(page[part]).to_be_hidden()
        page["#stage"].press("a")
        expect(page["#region-box"]).to_be_hidden()

    # Not a secure context: the page cannot hash the file, and the answer tells it the hash.
    page.page.add_init_script("Object.defineProperty(crypto, 'subtle', { value: undefined })")
    opened(page, lesion)
    page[".finding"].first.click()
    send(page[".evidence .mark-form"], "drusen")
    expect(page[".marks-list li"]).to_have_count(1)
    page[".marks-list button"].click()
    expect(page[".marks-list li"]).to_have_count(0)
    expect(page[".marks-list + p"]).to_be_focused()
