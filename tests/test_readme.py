"""The README's session prints what the README shows, and the README stays short."""

import shutil
from pathlib import Path

import pytest

from tests.readme_session import README, prepare_folder, run, session

MOST_LINES = 160


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_session_prints_what_the_pages_show(shared: Path, tmp_path: Path) -> None:
    blocks = session()
    assert sum(map(len, blocks)) > 10
    prepare_folder(tmp_path, shared)
    for expected, actual in zip(blocks, run(blocks, tmp_path), strict=True):
        assert actual == expected


def test_the_session_has_every_call_of_the_service() -> None:
    commands = "".join(step.command for block in session() for step in block)
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


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
