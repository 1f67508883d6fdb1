"""What the README shows is what happens."""

import re
import shutil
from pathlib import Path

import pytest

from tests.readme_session import README, blocks, prepare_folder, run

TEXT = README.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_session_prints_what_the_readme_says(shared: Path, tmp_path: Path) -> None:
    session = blocks(TEXT)
    assert sum(map(len, session)) > 10
    prepare_folder(tmp_path, shared)
    for expected, seen in zip(session, run(session, tmp_path), strict=True):
        assert seen == expected


def test_every_call_of_the_service_is_in_the_walk() -> None:
    commands = "".join(step.command for block in blocks(TEXT) for step in block)
    calls = (
        "/v1/score",
        "/v1/anomaly-map",
        "/v1/indexes",
        "/v1/indexes/idrid/current",
        "/livez",
        "/readyz",
        "/metrics",
    )
    for call in (*calls, "/openapi.json"):
        assert f"127.0.0.1:8000{call}" in commands, call


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
