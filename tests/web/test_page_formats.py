"""The page takes every format that the service takes, and says what is wrong with the others."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.service.running import Served
from tests.web.conftest import Opener


def test_formats_that_browsers_do_not_show_are_scored(
    visit: Opener, web_service: Served, lesion: Path, tmp_path: Path
) -> None:
    with Image.open(lesion) as picture:
        for name in ("a.jfif", "b.ppm", "c.jp2", "d.tif"):
            picture.save(tmp_path / name, "JPEG" if name == "a.jfif" else None)
        picture.save(tmp_path / "e.tif", save_all=True, append_images=[picture.rotate(180)])
    page = visit(web_service).ready()
    page.choose(*sorted(tmp_path.iterdir()))
    expect(page['.row[data-state="done"]']).to_have_count(4, timeout=60_000)
    expect(page['.row[data-state="failed"]']).to_have_count(1)
    expect(page[".row"].nth(4)).to_contain_text("e.tif")
    page[".row"].nth(4).click()
    expect(page[".failure"]).to_contain_text("a TIFF of 2 pages")


@pytest.mark.parametrize(
    ("case", "words"),
    [("multipage/two_eyes.tif", "a TIFF of 2 pages"), ("twelve_bits_in_16/rgb12in16.tif", "low 12")],
)
def test_the_cases_that_are_refused(
    visit: Opener, web_service: Served, shared: Path, case: str, words: str
) -> None:
    page = visit(web_service).ready()
    page.choose(shared / "cases" / case)
    expect(page['.row[data-state="failed"]']).to_have_count(1, timeout=60_000)
    page[".row"].nth(0).click()
    expect(page[".failure"]).to_contain_text(words)


def test_the_cases_that_are_scored(visit: Opener, web_service: Served, shared: Path) -> None:
    cases = shared / "cases"
    photos = [*sorted((cases / "other_suffixes").glob("[a-d].*")), cases / "multipage" / "thumb_first.tif"]
    photos += [cases / "planar16" / name for name in ("planar16_be.tif", "planar16_le.tif")]
    page = visit(web_service).ready()
    page.choose(*photos)
    expect(page['.row[data-state="done"]']).to_have_count(len(photos), timeout=60_000)
