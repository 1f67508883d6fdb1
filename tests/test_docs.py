"""Links and anchors of every Markdown page resolve, and every page of docs/ is linked from the README's pages."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
_CODE: Final = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _pages() -> list[Path]:
    """Every Markdown page of the repository, without those of installed packages."""
    skipped = {".venv", "node_modules", ".git", ".pytest_cache", "demo"}
    return sorted(page for page in ROOT.rglob("*.md") if not skipped.intersection(page.relative_to(ROOT).parts))


def _prose(page: Path) -> str:
    return _CODE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(_prose(page)):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (unique := f"{anchor}-{number}" if number else anchor) in anchors:
            number += 1
        anchors.add(unique)
    return anchors


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    """Target and anchor ("" for none) of each link within the repository."""
    for link in _LINK.findall(_prose(page)):
        if "://" not in link and not link.startswith("mailto:"):
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target, anchor in _links(page):
        assert target.exists(), f"{page.name}: {target} does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{page.name}: {target.name} has no heading #{anchor}"


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    visited, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page not in visited and page.suffix == ".md" and page.is_file():
            visited.add(page)
            queue += [target for target, _ in _links(page)]
    assert set((ROOT / "docs").rglob("*.md")) <= visited


def test_every_benchmark_is_listed_and_every_listed_benchmark_exists() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    page_scripts = set(
        re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "docs/evaluation.md").read_text("utf-8"))
    )
    assert page_scripts == scripts


def test_the_make_targets_are_listed() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert targets == set(re.findall(r"^\| `make ([a-z-]+)", text, re.MULTILINE))


def test_pages_name_python_modules_that_exist() -> None:
    """Paths such as `resad/config.py`, in the pages that describe the code as it is."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    modules = {*files, *(str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*.py"))}
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md"):
        for path in re.findall(r"`([\w/]+/[\w/]+\.py)`", (ROOT / page).read_text("utf-8")):
            assert path in modules, f"{page}: {path} does not exist"
