"""How an answer is read: near the threshold, doubtful findings and indexes, the eye; reports and pictures."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from resad_client.records import INTENDED_USE

from tests.service.running import Served
from tests.web.conftest import Opener, intercept
from tests.web.open_page import OpenPage


@contextmanager
def answers(page: Page, **changes: Any) -> Iterator[None]:
    """The service's answers with other values; those of `index`, `photo` and `normals` are merged."""

    def answer(route: Route) -> None:
        document = route.fetch().json()
        for name, value in changes.items():
            merged = isinstance(value, dict) and isinstance(document.get(name), dict)
            document[name] = document[name] | value if merged else value
        route.fulfill(json=document)

    with intercept(page, "**/v1/score*", answer):
        yield


def test_a_normal_near_the_threshold_is_no_all_clear(visit: Opener, web_service: Served, healthy: Path) -> None:
    page = visit(web_service).ready()
    with answers(
        page.page, image_score=1.0, p_value=2 / 37, threshold=1.05, abnormal=False, normals={"photos": 36}
    ):
        page.choose(healthy)
        expect(page['.row[data-state="done"]']).to_have_count(1)
    for badge in (page[".row .badge"], page[".verdict .badge"]):
        expect(badge).to_have_text("normal, close (just below the threshold)")
        red, green, blue = (
            int(part) for part in badge.evaluate("(b) => getComputedStyle(b).color.match(/[0-9]+/g).slice(0, 3)")
        )
        assert not green > max(red, blue), "no green for what is as good as undecided"
    expect(page[".verdict .remark"].first).to_have_text("Just below the threshold: as good as undecided.")
    expect(page[".verdict .facts"]).to_contain_text(
        "0.0541 2 of 37: 1 healthy photograph scores as high or higher"
    )
    expect(page["#count"]).to_contain_text("1 close to the threshold")


def test_the_lowest_p_says_that_it_is(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service).ready()
    page.choose(lesion)
    expect(page[".verdict .facts"]).to_contain_text(
        "1 of 21: the lowest p that 20 healthy photographs allow; none scores as high"
    )


def test_what_must_be_known_before_an_answer_is_read(visit: Opener, web_service: Served, lesion: Path) -> None:
    """The index's warnings, a photograph of the index, an eye against the disc; and none of them without."""
    photo = web_service.score(lesion.read_bytes()).json()["photo"]
    disc = {"cx": 0.9 * photo["width"], "cy": photo["height"] / 2, "radius": 12.0}
    page = visit(web_service).ready()
    warnings = [{"code": "stale", "text": "photographs have left the index"}]
    with answers(
        page.page,
        index={"warnings": warnings},
        photo={"optic_disc": disc},
        same_as={"photo": "r-00007", "bits": None, "mirrored": False},
    ):
        page.choose(lesion)
        expect(page[".verdict"]).to_contain_text("The index: photographs have left the index.")
        expect(page[".questioned"]).to_have_text(
            "This is the same file as r-00007, a photograph of the index: compared with itself, its score may be "
            "too low."
        )
    page['#open-eye [data-eye="left"]'].click()
    expect(page[".questioned"].last).to_contain_text("its optic disc lies as in a right one")
    page['#open-eye [data-eye="right"]'].click()
    expect(page[".questioned"]).to_have_count(1)
    page["#photos"].focus()
    page.page.keyboard.press("Delete")
    with answers(page.page, index={"warnings": []}, photo={"optic_disc": None}):
        page.choose(lesion)
        expect(page['.row[data-state="done"]']).to_have_count(1)
    page['#open-eye [data-eye="left"]'].click()
    expect(page[".questioned"]).to_have_count(0)
    expect(page[".verdict"]).not_to_contain_text("The index:")


def test_a_doubtful_index_is_told_above_everything(visit: Opener, web_service: Served) -> None:
    page = visit(web_service)

    def answer(route: Route) -> None:
        document = route.fetch().json()
        document["indexes"][0]["warnings"] = [
            {"code": "outliers", "text": "2 of the 20 normals move the threshold"}
        ]
        route.fulfill(json=document)

    with intercept(page.page, "**/v1/indexes", answer):
        page.ready()
        expect(page["#index-warnings"]).to_have_text("Index drawn: 2 of the 20 normals move the threshold")


def test_doubtful_findings_stand_apart(visit: Opener, web_service: Served, lesion: Path) -> None:
    findings = web_service.score(lesion.read_bytes()).json()["findings"]
    assert len(findings) > 1
    findings = [finding | {"doubts": []} for finding in findings]
    findings[0]["doubts"] = ["at-edge", "few-pixels"]
    page = visit(web_service).ready()
    with answers(page.page, findings=findings):
        page.choose(lesion)
        page.wait_for_map()
    expect(page[".doubtful .finding"]).to_have_count(1)
    expect(page[".doubtful .finding"]).to_contain_text("along the edge, very few pixels")
    expect(page[".finding-lists > .findings .finding"]).to_have_count(len(findings) - 1)
    expect(page[".pane.mapped .outlines g.doubtful"]).to_have_count(1)
    expect(page[".pane.mapped .outlines g.doubtful .over"]).to_have_css("stroke-dasharray", "4px, 4px")


def test_outlines_have_the_colors_of_their_peaks(kept_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    peaks = [finding["peak"] for finding in web_service.score(lesion.read_bytes()).json()["findings"]]
    colors = [path.get_attribute("stroke") for path in kept_photo[".pane.mapped .outlines .over"].all()]
    assert len(colors) == len(peaks)
    assert all(color and color.startswith("rgb(") for color in colors)
    if max(peaks) > 1.5 * min(peaks):
        assert len(set(colors)) > 1


def test_a_saved_picture_stands_alone(kept_photo: OpenPage, lesion: Path) -> None:
    """Drawn by the page: nothing is sent; the notice is inside, and words stand above and below the photograph."""
    posts = kept_photo.posts()
    with kept_photo.page.expect_download() as download:
        kept_photo.page.get_by_role("button", name="Overlay (PNG)").click()
    with Image.open(download.value.path()) as picture:
        assert picture.info["resad:intended_use"] == INTENDED_USE
        pixels = np.asarray(picture.convert("RGB"))
    assert kept_photo.posts() == posts
    ground = (pixels == 17).all(axis=2)
    rows = np.flatnonzero(~ground[:, :40].all(axis=1))
    assert rows[0] < 40
    assert rows[-1] > len(pixels) - 40
    with Image.open(lesion) as photo:
        assert pixels.shape[1] > 1024 * photo.width / max(photo.size)


def test_the_caption_says_all_that_a_picture_must(kept_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    result = web_service.score(lesion.read_bytes()).json()
    result["index"]["warnings"] = [{"code": "stale", "text": "left"}]
    lines = kept_photo.module("picture.js", "module.caption('eye.jpg', argument)", result)
    text = "\n".join(lines)
    parts = [
        "eye.jpg", "abnormal", f"{result['image_score']:#.4g}", f"p {result['p_value']:.4f}", "index: left",
        result["index"]["name"], result["index"]["version"], f"{len(result['findings'])} finding",
    ]  # fmt: skip
    for part in parts:
        assert part in text


def test_a_report_is_printed_with_both_eyes(
    visit: Opener, web_service: Served, lesion: Path, healthy: Path, tmp_path: Path
) -> None:
    page = visit(web_service)
    page.page.add_init_script("window.print = () => { document.title = 'printed'; };")
    page.ready()
    for name, source in (("P5_OS.jpg", lesion), ("P5_OD.jpg", healthy), ("P6_OD.jpg", healthy)):
        (tmp_path / name).write_bytes(source.read_bytes())
    page.choose(*(tmp_path / name for name in ("P5_OS.jpg", "P5_OD.jpg", "P6_OD.jpg")))
    expect(page['.row[data-state="done"]']).to_have_count(3)
    page.wait_for_map()
    result = web_service.score(lesion.read_bytes()).json()
    page.page.get_by_role("button", name="Report").click()
    expect(page.page).to_have_title("printed")
    page.page.emulate_media(media="print")
    report = page["#report"]
    expect(report).to_be_visible()
    expect(page["#work"]).to_be_hidden()
    expect(report.locator("h2:has-text('P5')")).to_have_count(2)
    expect(report.locator("h2").first).to_have_text("P5_OD.jpg (right eye by its name)")
    expect(report).not_to_contain_text("P6_OD")
    expect(report.locator(".report-pictures canvas")).to_have_count(4)
    left = report.locator(".report-photo").nth(1)
    expect(left).to_contain_text(f"image score {result['image_score']:#.4g}")
    expect(left).to_contain_text("1 of 21: the lowest p that 20 healthy photographs allow")
    expect(left.locator(".report-findings tbody tr")).to_have_count(min(25, len(result["findings"])))
    expect(left).to_contain_text(result["findings"][0]["evidence"][0]["photo"])
    for part in ("Photo quality", "Brightness", result["index"]["version"], "bundled"):
        expect(left).to_contain_text(part)
    assert report.inner_text().count(INTENDED_USE) == 2
    assert page.page.pdf().startswith(b"%PDF")
    page.page.emulate_media(media="screen")
    page.page.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(report).to_be_hidden()
    expect(page["#work"]).to_be_visible()


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["P5_OD.jpg", "P5_OS.jpg", "P55_OD.jpg"], [[0, 1], [2]]),
        (["a/left.png", "a/right.png", "b/left.png"], [[1, 0], [2]]),
        (["P5_R_2024-01-03.jpg", "P5_R_20230101.jpg", "P5_L_01.01.2023.jpg"], [[1, 2, 0]]),
        (["x_visit1.jpg", "x_visit2.jpg"], [[0, 1]]),
        (["IDRiD_07.jpg", "IDRiD_08.jpg"], [[0], [1]]),
        (["OS.jpg", "OD.jpg"], [[1, 0]]),
        (["P5_v2_OD.jpg", "P5_v1_OD.jpg", "P5v1_OD.jpg"], [[1, 0], [2]]),
    ],
)
def test_names_tell_what_belongs_together(kept_photo: OpenPage, names: list[str], groups: list[list[int]]) -> None:
    photos = [{"id": number, "name": name, "eye": ""} for number, name in enumerate(names)]
    for group in groups:
        for member in group:
            body = f"module.together(argument[{member}], argument).map(({{id}}) => id)"
            assert kept_photo.module("groups.js", body, photos) == group


def test_a_text_in_a_png_is_read_by_any_reader(kept_photo: OpenPage) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "PNG")
    body = "[...new Uint8Array(await module.withText(Uint8Array.from(argument), 'key', 'a text').arrayBuffer())]"
    data = bytes(kept_photo.module("exports.js", body, list(file.getvalue())))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.info == {"key": "a text"}
    assert json.dumps(list(file.getvalue()[:33])) == json.dumps(list(data[:33]))
