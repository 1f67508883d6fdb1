"""The page as its users go about it: photographs in, maps and findings out, and the states in between."""

import csv
import io
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from resad.pictures.map_files import read_map_tiff
from tests.indexes import without_levels
from tests.service.running import Served, served
from tests.web.conftest import Opener
from tests.web.open_page import OpenPage

JPEG = "image/jpeg"


def test_a_dropped_photo_is_scored_and_shown(visit: Opener, web_service: Served, lesion: Path) -> None:
    page = visit(web_service).ready()
    expect(page["#details"]).to_be_hidden()
    page.drop([(lesion.name, JPEG, lesion.read_bytes())])
    page.wait_for_map()

    answer = web_service.score(lesion.read_bytes(), fpr=0.05, evidence=5).json()
    row = page[".row"]
    expect(row).to_have_count(1)
    word = "abnormal" if answer["abnormal"] else "normal"
    expect(row.locator(".badge")).to_have_text(word)
    expect(row).to_contain_text(f"{answer['image_score']:#.4g}")
    expect(row).to_contain_text(f"p {answer['p_value']:.4f}")
    expect(row.locator(".thumbnail canvas")).to_be_visible()
    expect(page[".verdict .badge"]).to_have_text(word)
    assert answer["findings"], "the drawn photograph is chosen to have some"
    expect(page[".finding"]).to_have_count(len(answer["findings"]))
    expect(page[".pane.mapped .outlines g"]).to_have_count(len(answer["findings"]))
    width, height, colored = page.map()
    assert (width, height) == (answer["photo"]["width"], answer["photo"]["height"])
    assert 0 < colored < width * height


def test_a_doubtful_verdict_is_marked_beside_it_and_counted_by_itself(
    visit: Opener, web_service: Served, lesion: Path, tmp_path: Path
) -> None:
    black = tmp_path / "black.png"
    Image.new("RGB", (240, 192)).save(black)
    answer = web_service.score(black.read_bytes(), fpr=0.05).json()
    assert not answer["quality"]["acceptable"]
    assert web_service.score(lesion.read_bytes(), fpr=0.05).json()["abnormal"], "drawn to be"
    page = visit(web_service).ready()
    page.choose(black, lesion)
    expect(page['.row[data-state="done"]']).to_have_count(2)
    word = "abnormal" if answer["abnormal"] else "normal"
    badge = page[".row .badge"].nth(0)
    expect(badge).to_have_text(re.compile(rf"^{word}\? doubtful: .*no field of view found"))
    expect(badge).to_have_attribute("title", re.compile("no field of view found"))
    expect(badge).to_have_css("outline-style", "dashed")
    expect(page[".row .badge"].nth(1)).to_have_text("abnormal")
    expect(page[".row .badge"].nth(1)).to_have_css("outline-style", "none")
    expect(page["#count"]).to_have_text("2 of 2 photographs scored · 1 abnormal, 1 doubtful")
    page[".row"].nth(0).click()
    expect(page[".verdict .badge"]).to_have_text(re.compile(rf"^{word}\?"))
    expect(page[".verdict .remark"]).to_contain_text("may not be trusted")
    expect(page[".verdict .strip + .facts"]).to_be_visible()
    page["#fpr"].select_option("0.2")
    page[".row"].nth(1).click()
    expect(page[".verdict .badge"]).to_have_text("abnormal")
    expect(page[".verdict .remark"]).to_have_count(0)


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
        answer = web_service.score((photographs / row["photo"]).read_bytes()).json()
        assert float(row["image_score"]) == pytest.approx(answer["image_score"], rel=1e-4)
        assert int(row["findings"]) == len(answer["findings"])
    page["#order"].select_option("score")
    scores = sorted((float(row["image_score"]) for row in rows), reverse=True)
    for place, score in enumerate(scores):
        expect(page[".row"].nth(place)).to_contain_text(f"{score:#.4g}")


def test_a_dropped_folder_is_searched_for_photographs(
    visit: Opener, web_service: Served, healthy: Path, lesion: Path, tmp_path: Path
) -> None:
    eyes = tmp_path / "eyes"
    for name, source in (
        ("b.jpg", healthy),
        ("inner/a.JPG", lesion),
        (".hidden/c.jpg", lesion),
        ("._b.jpg", lesion),
    ):
        (eyes / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, eyes / name)
    (eyes / "notes.txt").write_text("no photograph")
    page = visit(web_service).ready()
    page.drop_paths(eyes)
    expect(page['.row[data-state="done"]']).to_have_count(2)
    expect(page[".row .name"]).to_have_text(["b.jpg", "a.JPG"])
    expect(page[".row"].last).to_have_attribute("title", "eyes/inner/a.JPG")


def test_downloads_are_what_the_service_said(open_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    expected = web_service.score(lesion.read_bytes(), evidence=5).json()

    def save(text: str) -> tuple[str, bytes]:
        with open_photo.page.expect_download() as download:
            open_photo.page.get_by_role("button", name=text).click()
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    name, result = save("Result (JSON)")
    assert name == f"{lesion.stem}.json"
    document = json.loads(result)
    for answer in (document, expected):
        del answer["request_id"], answer["timings_ms"]
    assert document == expected
    name, shapes = save("Findings (GeoJSON)")
    collection = json.loads(shapes)
    assert (name, collection["type"]) == (f"{lesion.stem}.geojson", "FeatureCollection")
    for feature, finding in zip(collection["features"], expected["findings"], strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        centers = [[x + 0.5, y + 0.5] for x, y in finding["contour"]]
        assert ring[:-1] in (centers, centers[::-1])
        assert sum(x * v - u * y for (x, y), (u, v) in pairwise(ring)) > 0
        assert feature["bbox"] == [*finding["box"][:2], *(end + 1 for end in finding["box"][2:])]
        assert feature["properties"]["peak"] == finding["peak"]
    name, picture = save("Overlay (PNG)")
    assert picture.startswith(b"\x89PNG")
    name, tiff = save("Map (TIFF)")
    assert name == f"{lesion.stem}_map.tiff"
    values, _ = read_map_tiff(tiff)
    assert values.shape == (expected["photo"]["height"], expected["photo"]["width"])
    assert np.isfinite(values).all()


def test_other_settings_score_anew(open_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    open_photo["#fpr"].select_option("0.2")
    answer = web_service.score(lesion.read_bytes(), fpr=0.2).json()
    expect(open_photo[".verdict"]).to_contain_text(f"{answer['threshold']:#.4g} (rate 20\u00a0%)")
    expect(open_photo[".finding"]).to_have_count(len(answer["findings"]))
    open_photo["#fpr"].select_option("0.01")
    expect(open_photo[".verdict .badge"]).to_have_text("no verdict")
    expect(open_photo[".verdict"]).not_to_contain_text("false")
    expect(open_photo[".verdict"]).to_contain_text("needs 99 normal photographs")
    with open_photo.page.expect_request("**/v1/score?*eye=left*"):
        open_photo['#open-eye [data-eye="left"]'].click()
    expect(open_photo['#open-eye [data-eye="left"]']).to_have_attribute("aria-pressed", "true")


def test_the_rate_of_findings_is_chosen_among_those_of_the_index(
    open_photo: OpenPage, web_service: Served, lesion: Path
) -> None:
    expect(open_photo["#false-regions option"]).to_have_count(6)
    expect(open_photo["#false-regions"]).to_have_value("0.25")
    default_answer = web_service.score(lesion.read_bytes(), false_regions=0.25).json()
    level = default_answer["normals"]["finding_level"]
    expect(open_photo[".level-meaning"]).to_have_text(
        f"Above {level:#.4g}. A healthy photograph shows 0.25 such regions on average."
    )
    with open_photo.page.expect_request("**/v1/score?*false_regions=2*"):
        open_photo["#false-regions"].select_option("2")
    answer = web_service.score(lesion.read_bytes(), false_regions=2).json()
    assert len(answer["findings"]) > len(default_answer["findings"])
    expect(open_photo[".finding"]).to_have_count(len(answer["findings"]))
    level = answer["normals"]["finding_level"]
    expect(open_photo[".level-meaning"]).to_have_text(
        f"Above {level:#.4g}. A healthy photograph shows 2 such regions on average."
    )
    expect(open_photo["#tick"]).to_have_attribute("title", f"level of findings: {level:#.4g}")
    with open_photo.page.expect_request("**/v1/anomaly-map?*false_regions=2*"), open_photo.page.expect_download():
        open_photo.page.get_by_role("button", name="Overlay (PNG)").click()


def test_an_index_without_levels_by_rate_offers_none(
    visit: Opener, web_root: Path, tmp_path: Path, lesion: Path
) -> None:
    (tmp_path / "drawn").symlink_to(web_root / "drawn", target_is_directory=True)
    without_levels(web_root / "drawn", tmp_path / "older")
    with served(tmp_path) as service:
        page = visit(service).ready()
        page["#index"].select_option("drawn")
        page["#false-regions"].select_option("2")
        page["#index"].select_option("older")
        expect(page["#false-regions"]).to_be_hidden()
        page.choose(lesion)
        expect(page['.row[data-state="done"]']).to_have_count(1)
        expect(page[".level-meaning"]).to_contain_text("The highest point of a healthy photograph exceeds that")


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
