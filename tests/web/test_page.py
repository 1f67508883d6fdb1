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
    expect(page[".verdict .remark"].first).to_contain_text("may not be trusted")
    expect(page[".verdict .strip + .facts"]).to_be_visible()
    page[".row"].nth(1).click()
    expect(page[".verdict .badge"]).to_have_text("abnormal")
    expect(page[".verdict .remark"].filter(has_text="may not be trusted")).to_have_count(0)


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


def test_downloads_are_what_the_service_said(kept_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    expected = web_service.score(lesion.read_bytes(), evidence=5).json()

    def save(text: str) -> tuple[str, bytes]:
        with kept_photo.page.expect_download() as download:
            kept_photo.page.get_by_role("button", name=text).click()
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


def test_another_rate_is_arithmetic_and_sends_nothing(
    open_photo: OpenPage, web_service: Served, lesion: Path, healthy: Path
) -> None:
    """Of 20 normals: 1 and 2 % are not offered; verdict, p, threshold and interval are those of the service."""
    assert open_photo["#fpr option"].all_inner_texts() == ["5\u00a0%", "10\u00a0%", "20\u00a0%"]
    assert (
        open_photo["#fpr"].get_attribute("title") == "1\u00a0% would need 99 healthy photographs; the index has 20"
    )
    open_photo.choose(healthy)
    expect(open_photo['.row[data-state="done"]']).to_have_count(2)
    posts = open_photo.posts()
    for rate in ("0.2", "0.1", "0.05", "0.2"):
        open_photo["#fpr"].select_option(rate)
        for row, photo in enumerate((lesion, healthy)):
            answer = web_service.score(photo.read_bytes(), fpr=float(rate)).json()
            open_photo[".row"].nth(row).click()
            expect(open_photo[".verdict"]).to_contain_text(
                f"{answer['threshold']:#.4g} (rate {float(rate) * 100:g}\u00a0%)"
            )
            expect(open_photo[".verdict"]).to_contain_text(f"p-value{answer['p_value']:.4f}")
            word = "abnormal" if answer["abnormal"] else "normal"
            expect(open_photo[".verdict .badge"]).to_have_text(re.compile(f"^{word}"))
            expect(open_photo[".row .badge"].nth(row)).to_have_text(re.compile(f"^{word}"))
    open_photo.wait_for_map()
    # The healthy one was opened, and its map was fetched, once.
    assert open_photo.posts() == posts + 1


def test_the_eye_is_words_and_sends_nothing(kept_photo: OpenPage, web_service: Served, lesion: Path) -> None:
    posts = kept_photo.posts()
    for eye in ("left", "right"):
        kept_photo[f'#open-eye [data-eye="{eye}"]'].click()
        answer = web_service.score(lesion.read_bytes(), eye=eye).json()
        places = [finding["place"].capitalize() for finding in answer["findings"]]
        assert any("nasal" in place or "temporal" in place for place in places)
        expect(kept_photo[".finding .where"]).to_have_text(places)
    kept_photo['#open-eye [data-eye="right"]'].click()
    expect(kept_photo[".finding .where"].first).not_to_have_text(re.compile("nasal|temporal"))
    assert kept_photo.posts() == posts


def test_the_rate_of_findings_is_chosen_among_those_of_the_index(
    open_photo: OpenPage, web_service: Served, lesion: Path
) -> None:
    """The old findings stay, and say of which rate they are, until another answer is asked for."""
    expect(open_photo["#false-regions option"]).to_have_count(6)
    expect(open_photo["#false-regions"]).to_have_value("0.25")
    default_answer = web_service.score(lesion.read_bytes(), false_regions=0.25).json()
    level = default_answer["normals"]["finding_level"]
    before = f"Above {level:#.4g}. A healthy photograph shows 0.25 such regions on average."
    expect(open_photo[".level-meaning"]).to_have_text(before)
    posts = open_photo.posts()
    open_photo["#false-regions"].select_option("2")
    expect(open_photo[".outdated"]).to_contain_text("with findings at 0.25 false regions per photo")
    expect(open_photo["#rescore"]).to_have_text("Score 1 again")
    expect(open_photo[".level-meaning"]).to_have_text(before)
    assert open_photo.posts() == posts
    with open_photo.page.expect_request("**/v1/score?*false_regions=2*"):
        open_photo["#rescore-one"].click()
    answer = web_service.score(lesion.read_bytes(), false_regions=2).json()
    assert len(answer["findings"]) > len(default_answer["findings"])
    expect(open_photo[".finding"]).to_have_count(len(answer["findings"]))
    level = answer["normals"]["finding_level"]
    expect(open_photo[".level-meaning"]).to_have_text(
        f"Above {level:#.4g}. A healthy photograph shows 2 such regions on average."
    )
    expect(open_photo["#tick"]).to_have_attribute("title", f"level of findings: {level:#.4g}")
    expect(open_photo[".outdated"]).to_have_count(0)
    expect(open_photo["#rescore"]).to_be_hidden()
    open_photo["#false-regions"].select_option("0.25")
    open_photo["#false-regions"].select_option("2")
    expect(open_photo[".outdated"]).to_have_count(0)


def test_photographs_are_sent_once_however_often_they_are_opened(
    visit: Opener, web_service: Served, lesion: Path, tmp_path: Path
) -> None:
    copies = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in copies:
        shutil.copy(lesion, path)
    page = visit(web_service).ready()
    page.choose(*copies)
    expect(page['.row[data-state="done"]']).to_have_count(4)
    for _ in range(2):
        for row in range(4):
            page[".row"].nth(row).click()
            page.wait_for_map()
    assert page.posts() == 8  # a score and a map each


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


def test_another_index_answers_once_it_is_asked(
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
        page.wait_for_map()
        posts = page.posts()
        page["#index"].select_option("drawn")
        expect(page[".row .figures"]).to_contain_text("of index other")
        expect(page[".outdated"]).to_contain_text("of index other")
        expect(page[".verdict"]).to_be_visible()
        assert page.posts() == posts
        with page.page.expect_request("**/v1/score?*index=drawn*"):
            page["#rescore"].click()
        expect(page[".outdated"]).to_have_count(0)
        expect(page[".row .figures"]).not_to_contain_text("of index")
