"""A real browser before a real service; a page that notes what it asks for and what goes wrong in it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.settings import method_config
from lab.drawing import write_dataset
from tests.service.running import Served, served
from tests.web.open_page import OpenPage

BROWSER_REASON = "there is no Chromium (apt-get install chromium)"
DESKTOP: ViewportSize = {"width": 1440, "height": 900}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn ones in the MVTec layout: as many healthy ones as a rate of 5 % needs."""
    folder = tmp_path_factory.mktemp("photographs")
    write_dataset(folder, 3, train=20, good=1, diseased=3, height=192)
    return folder


@pytest.fixture(scope="session")
def web_root(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index on the trunk inside the package."""
    root = tmp_path_factory.mktemp("root")
    config = method_config("resad", backbone="bundled", size=192, coreset="0.1", settings=("search.neighbors=2",))
    options = BuildOptions(photographs / "train/good", root, "drawn", config, "bundled", torch.device("cpu"))
    build(options, Stages(Console(quiet=True)))
    return root


@pytest.fixture(scope="session")
def web_service(web_root: Path) -> Iterator[Served]:
    with served(web_root) as service:
        yield service


@pytest.fixture(scope="session")
def lesion(photographs: Path) -> Path:
    return min((photographs / "test/lesion").glob("*.jpg"))


@pytest.fixture(scope="session")
def healthy(photographs: Path) -> Path:
    return min((photographs / "test/good").glob("*.jpg"))


# Not for the session: while it runs there is an event loop in this thread, and other tests start their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip(BROWSER_REASON)
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        # Containers have little shared memory and no user namespaces for the sandbox; it sees our own page alone.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


Opener = Callable[..., OpenPage]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Opener]:
    """Opens the page of a service; in the end nothing may have gone wrong in it or been asked of elsewhere."""
    pages: list[OpenPage] = []

    def call(service: Served, **options: object) -> OpenPage:
        context = browser.new_context(**{"viewport": DESKTOP, **options})  # type: ignore[arg-type]
        context.set_default_timeout(20_000)
        page = OpenPage(context.new_page(), service.url)
        pages.append(page)
        return page

    yield call
    try:
        for page in pages:
            page.check()
    finally:
        for page in pages:
            page.page.context.close()


@pytest.fixture
def open_photo(visit: Opener, web_service: Served, lesion: Path) -> OpenPage:
    """The page with one diseased photograph, scored and open, its map drawn; for this test alone."""
    page = visit(web_service).go()
    page.choose(lesion)
    page.wait_for_map()
    return page


@pytest.fixture(scope="package")
def page_of_all(browser: Browser, web_service: Served, lesion: Path) -> Iterator[OpenPage]:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(20_000)
    page = OpenPage(context.new_page(), web_service.url).go()
    page.choose(lesion)
    page.wait_for_map()
    yield page
    context.close()


@pytest.fixture
def kept_photo(page_of_all: OpenPage) -> Iterator[OpenPage]:
    """The same as it is for other tests too: shown as at first, with nothing chosen."""
    page_of_all.show_as_at_first()
    yield page_of_all
    page_of_all.check()


@contextmanager
def intercept(page: Page, pattern: str, handler: Callable[..., object]) -> Iterator[None]:
    """Requests that fit `pattern` are given to `handler` in here."""
    page.route(pattern, handler)
    try:
        yield
    finally:
        page.unroute(pattern)
