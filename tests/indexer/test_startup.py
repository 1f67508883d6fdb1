"""Start-up of `resad-indexer`: help, lists and refusals import nothing that computes, and take little time."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.cli import COMMANDS, load_command
from resad.runtime import package_version

SECONDS = 0.75
"""CPU time of a command, user and system; about 0.3 s on the machine it was written on."""
HEAVY = ("torch", "torchvision", "faiss", "scipy.stats", "sklearn", "skimage", "ray")
CODE = f"""
import sys
from indexer.cli import main
try:
    main()
finally:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    print("LOADED", *loaded, file=sys.stderr)
"""


def call(*arguments: str | Path) -> tuple[int, str, str, float]:
    """Exit code, output, errors and CPU seconds of a command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-c", CODE, *map(str, arguments)]
    wide = os.environ | {"COLUMNS": "300"}  # no word is cut
    process = subprocess.run(line, capture_output=True, text=True, check=False, env=wide)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return process.returncode, process.stdout, process.stderr, seconds


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--help",), 0, "Research use only"),
        (("--version",), 0, package_version()),
        (("build", "--help"), 0, "PATIENT DATA"),
        (("bild",), 2, "Did you mean 'build'"),
        (("build", "--sise", "3"), 2, "--sise"),
        (("build", "{nowhere}", "--root", "{nowhere}", "--name", "eyes"), 2, "no such file or folder"),
        (
            ("build", "{photos}", "--root", "{nowhere}", "--name", "eyes", "--coreset", "few"),
            2,
            "expected a share",
        ),
        (
            ("build", "{photos}", "--root", "{nowhere}", "--name", "eyes", "--max-memory", "x"),
            2,
            "expected a size",
        ),
        (("list", "--root", "{root}"), 0, "live"),
        (("list", "--root", "{nowhere}"), 2, "is no folder"),
        (("inspect", "{nowhere}"), 2, "is not an index"),
        (("score", "{nowhere}", "{photos}", "--csv", "{nowhere}/scores.csv"), 2, "is not an index"),
        (("score", "{index}", "{photos}"), 2, "nothing would be written"),
        (("score", "{index}", "{nowhere}", "--csv", "{nowhere}/scores.csv"), 2, "no such file or folder"),
        (
            ("score", "{index}", "s3://user:secret@bucket/a.jpg", "--csv", "{nowhere}/s.csv"),
            2,
            "user's name or password",
        ),
    ],
)
def test_a_command_that_computes_nothing_is_quick(
    arguments: tuple[str, ...], code: int, words: str, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    places = {
        "nowhere": tmp_path / "nowhere", "photos": drawn / "train/good", "root": small_index.parent,
        "index": small_index,
    }  # fmt: skip
    line = [argument.format_map(places) for argument in arguments]
    runs = [call(*line)]
    if runs[0][3] >= SECONDS:  # the first one may have compiled modules
        runs.append(call(*line))
    status, output, errors, seconds = min(runs, key=lambda run: run[3])
    assert status == code
    assert words in " ".join((output + errors).split())
    assert errors.splitlines()[-1] == "LOADED"
    assert seconds < SECONDS


def test_the_table_and_the_commands_agree() -> None:
    for name, (_, help_line) in COMMANDS.items():
        command = load_command(name)
        assert command.name == name
        first = (command.help or "").strip().split("\n\n")[0]
        if name != "datasets":
            assert " ".join(first.split()) == help_line, name
