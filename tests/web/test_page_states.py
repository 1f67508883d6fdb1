"""What the page says when something is not as it should be, and that it loses no photograph over it."""

import json
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Route, expect

from tests.service.running import Served, served, until
from tests.web.conftest import Opener, intercept

LEAVE = "window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"
PROBLEM = "application/problem+json"
DEADLINE = {"type": "urn:resad:problem:deadline-passed", "title": "Deadline passed", "status": 504, "detail": ""}


def test_bad_files_say_what_is_wrong_with_them(visit: Opener, web_service: Served, healthy: Path) -> None:
    page = visit(web_service).ready()
    damaged_photo = healthy.read_bytes()[:600]
    page.drop(
        [
            ("notes.txt", "text/plain", b"no photograph"),
            ("cut.jpg", "image/jpeg", damaged_photo),
            ("none.png", "", b""),
        ]
    )
    page.choose(healthy)
    expect(page['.row[data-state="failed"]']).to_have_count(3)
    expect(page['.row[data-state="done"]']).to_have_count(1)
    expect(page[".row"].nth(0)).to_contain_text(
        "File type not supported (supported are JPEG, PNG, TIFF, BMP, WebP, JPEG 2000, PNM, DICOM)"
    )
    expect(page[".row"].nth(1)).to_contain_text("Photograph unreadable")
    expect(page[".row"].nth(2)).to_contain_text("The file is empty")
    expect(page["#count"]).to_contain_text("3 failed")
    page[".row"].nth(1).click()
    expect(page[".failure"]).to_contain_text("Photograph unreadable")
    expect(page[".failure"]).to_contain_text("request ")
    page[".failure"].get_by_role("button", name="Remove").click()
    expect(page[".row"]).to_have_count(3)


def test_a_format_that_browsers_cannot_show_is_scored_all_the_same(
    visit: Opener, web_service: Served, lesion: Path, tmp_path: Path
) -> None:
    with Image.open(lesion) as picture:
        picture.save(tmp_path / "camera.tiff")
    page = visit(web_service).ready()
    page.choose(tmp_path / "camera.tiff")
    page.wait_for_map()
    expect(page["#stage-note"]).to_contain_text("cannot show the photograph's format")
    assert page.map()[2] > 0


def test_a_full_queue_is_waited_out(visit: Opener, web_root: Path, healthy: Path, lesion: Path) -> None:
    with served(web_root, queue_size=1) as service:
        page = visit(service)
        page.page.clock.install()
        page.ready()
        with service.busy():
            page.choose(healthy, lesion)
            expect(page['.row[data-state="busy"]']).to_have_count(1)
            expect(page['.row[data-state="busy"]']).to_contain_text("queue full, asking again in")
            expect(page["#count"]).to_contain_text("waiting for the service: 1")
        expect(page['.row[data-state="done"]']).to_have_count(1)
        page.page.clock.fast_forward(60_000)
        expect(page['.row[data-state="done"]']).to_have_count(2)
        expect(page["#count"]).not_to_contain_text("waiting")


def test_a_service_that_runs_out_of_time_is_asked_again_with_patience(
    visit: Opener, web_service: Served, healthy: Path, lesion: Path
) -> None:
    """Both photographs of the page's first round get a 504, the service's own and a proxy's."""
    answers = iter([(PROBLEM, json.dumps(DEADLINE)), ("text/html", "<h1>504 Gateway Time-out</h1>")])

    def late(route: Route) -> None:
        answer = next(answers, None)
        if answer is None:
            route.continue_()
        else:
            route.fulfill(status=504, content_type=answer[0], body=answer[1])

    page = visit(web_service)
    page.page.clock.install()
    page.ready()
    with intercept(page.page, "**/v1/score*", late):
        page.choose(healthy, lesion)
        expect(page['.row[data-state="busy"]']).to_have_count(2)
        expect(page['.row[data-state="busy"]'].first).to_contain_text("ran out of time, asking again in")
        page.page.clock.fast_forward(60_000)
        expect(page['.row[data-state="done"]']).to_have_count(2, timeout=60_000)
    expect(page['.row[data-state="failed"]']).to_have_count(0)


def test_a_service_that_is_not_ready_is_waited_for(
    visit: Opener, web_root: Path, healthy: Path, tmp_path: Path
) -> None:
    (root := tmp_path / "root").mkdir()
    # Beside the root first: an index that is found half copied is read again only half a minute later.
    shutil.copytree(web_root / "drawn", tmp_path / "drawn", symlinks=True)
    with served(root, ready=False) as service:
        page = visit(service)
        page.page.clock.install()
        page.go()
        expect(page["#service"]).to_have_text("Not ready")
        expect(page["#banner"]).to_contain_text("there is no index under the root")
        page.choose(healthy)
        expect(page['.row[data-state="waiting"]']).to_have_count(1)
        expect(page["#stage-note"]).to_have_text("Waiting for the service")
        (tmp_path / "drawn").rename(root / "drawn")
        until(lambda: service.client.get("/readyz").status_code == 200)
        page.page.clock.fast_forward(10_000)
        expect(page['.row[data-state="done"]']).to_have_count(1)
        expect(page["#service"]).to_have_text("Ready")
        expect(page["#banner"]).to_be_hidden()


def test_a_service_that_is_gone_is_asked_again(
    visit: Opener, web_service: Served, healthy: Path, lesion: Path
) -> None:
    page = visit(web_service)
    page.page.clock.install()
    page.ready()
    page.choose(healthy)
    page.wait_for_map()

    def abort(route: Route) -> None:
        route.abort("connectionrefused")

    with intercept(page.page, "**/*", abort):
        page.choose(lesion)
        expect(page["#service"]).to_have_text("No answer")
        expect(page["#banner"]).to_contain_text("does not answer")
        expect(page['.row[data-state="waiting"]']).to_have_count(1)
    page.page.clock.fast_forward(10_000)
    expect(page['.row[data-state="done"]']).to_have_count(2)
    expect(page["#banner"]).to_be_hidden()


def test_a_key_is_asked_for_and_kept_for_the_tab(visit: Opener, web_service: Served, healthy: Path) -> None:
    key = "a-key-of-the-ward"
    page = visit(web_service)

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {key}":
            return route.continue_()
        body = '{"type": "urn:resad:problem:key-needed", "title": "Key needed", "status": 401, "detail": "who?"}'
        return route.fulfill(status=401, content_type=PROBLEM, body=body)

    with intercept(page.page, "**/v1/**", guard):
        page.go()
        dialog = page["#key-dialog"]
        expect(dialog).to_be_visible()
        expect(page["#key"]).to_be_focused()
        page.choose(healthy)
        page["#key"].fill("wrong key")
        page.page.keyboard.press("Enter")
        expect(page["#key-fault"]).to_contain_text("visible ASCII")
        page["#key"].fill("wrong-key")
        page.page.keyboard.press("Enter")
        expect(page["#key-fault"]).to_contain_text("not accepted")
        page["#key"].fill(key)
        page.page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page['.row[data-state="done"]']).to_have_count(1)
        storage = page.page.evaluate("[sessionStorage.getItem('resad-key'), localStorage.length, document.cookie]")
        assert storage == [key, 0, ""]
        page.go()
        expect(page["#service"]).to_have_text("Ready")
        expect(dialog).to_be_hidden()
        page["#forget"].click()
        expect(dialog).to_be_visible()
        dialog.get_by_role("button", name="Not now").click()
        expect(page["#banner"]).to_contain_text("asks for a key")
        page["#banner"].get_by_role("button").click()
        expect(dialog).to_be_visible()
        assert page.page.evaluate("sessionStorage.getItem('resad-key')") is None


def test_a_photograph_can_be_removed_while_it_is_scored(
    visit: Opener, web_service: Served, healthy: Path, lesion: Path
) -> None:
    page = visit(web_service).ready()
    with web_service.busy():
        page.choose(healthy, lesion)
        expect(page['.row[data-state="scoring"]']).to_have_count(2)
        page["#photos"].focus()
        page.page.keyboard.press("Delete")
        expect(page[".row"]).to_have_count(1)
        assert not page.page.evaluate(LEAVE), "nobody is asked before what waits is lost"
    expect(page['.row[data-state="done"]']).to_have_count(1)
    assert page.page.evaluate(LEAVE)
    page["#clear"].click()  # a dialog that nobody answers is dismissed
    expect(page[".row"]).to_have_count(1)
    page.page.once("dialog", lambda dialog: dialog.accept())
    page["#clear"].click()
    expect(page["#empty"]).to_be_visible()
    expect(page["#details"]).to_be_hidden()
