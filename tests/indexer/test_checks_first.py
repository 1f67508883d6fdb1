"""A wrong option is told before anything slow is done: before lists are read, weights fetched, indexes loaded."""

from pathlib import Path

import pytest

from tests.conftest import Run

BROKEN_LIST = "path\nnowhere.jpg\n"
"""A CSV that is refused as soon as it is read."""


@pytest.fixture
def places(small_index: Path, tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "list.csv").write_text(BROKEN_LIST)
    (tmp_path / "file").write_text("no folder")
    return {
        "list": tmp_path / "list.csv", "file": tmp_path / "file", "root": tmp_path / "root", "here": tmp_path,
        "nowhere": tmp_path / "nowhere", "index": small_index,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("build {list} --root {root} --name Eyes", "cannot name an index"),
        ("build {list} --root {file} --name eyes", "is a file, and a folder is to be made there"),
        ("build {list} --root {root} --name eyes --device gpu", "unknown device 'gpu'"),
        ("build {list} --root {root} --name eyes --weights {nowhere}.safetensors", "no such file"),
        ("build {list} --root {root} --name eyes --weights random:x", "the seed is a whole number"),
        ("build {list} --root {root} --name eyes --backbone alexnet", "no trunk of this name"),
        ("build {nowhere} --root {root} --name eyes --backbone wide_resnet50_2", "no such file or folder"),
        ("calibrate {nowhere} {list}", "is not an index"),
        ("calibrate {index} {nowhere}", "no such file or folder"),
        ("calibrate {index} {list} --device gpu", "unknown device 'gpu'"),
        ("add {index} {nowhere}", "no such file or folder"),
        ("add {index} {list} --device tpu:0", "unknown device 'tpu:0'"),
        ("merge {index} {index} --name No", "cannot name an index"),
        ("merge {index} {index} --name both --root {file}", "is a file, and a folder is to be made there"),
        ("remove {index} --photo r-00001 --photos {nowhere}", "no such file or folder"),
        ("remove {index} --photo r-00001 --device gpu", "unknown device 'gpu'"),
        ("score {index} {list} --csv {here}/s.csv --device gpu", "unknown device 'gpu'"),
        ("score {index} {list} --csv {here}/s.csv --false-regions 3", "false_regions 3"),
        ("verify {index} --device gpu", "unknown device 'gpu'"),
        ("import {nowhere} --root {root}", "no such file"),
        ("import {file} --root {root} --verify {nowhere}", "no such file"),
        ("import {file} --root {root} --device gpu", "unknown device 'gpu'"),
        ("export {index} {here}/eyes.tar --sign {nowhere}", "no such file"),
        ("audit {index} --photos {nowhere}", "no such file or folder"),
        ("audit {index} --photos {list} --html {nowhere}/a.html", "is no folder"),
        ("evaluate {nowhere} --painted {list}", "is not an index"),
        ("evaluate {index} --data {nowhere}", "no such file or folder"),
        ("evaluate {index} --painted {list} --json {nowhere}/a.json", "is no folder"),
        ("evaluate {index} --painted {list} --device gpu", "unknown device 'gpu'"),
        ("ablation --data {list} --weights {nowhere}.pth", "no such file"),
        ("ablation --data {list} --backbone alexnet", "no trunk of this name"),
        ("train --photos {nowhere} --out {here}/t.safetensors", "no such file or folder"),
        ("train --photos {list} --out {nowhere}/t.safetensors", "is no folder"),
        ("train --photos {list} --out {here}/t.safetensors --start {nowhere}.safetensors", "no such file"),
        ("train --photos {list} --out {here}/t.safetensors --resume", "nothing to resume"),
    ],
)
def test_the_options_come_first(run: Run, places: dict[str, Path], line: str, words: str) -> None:
    outcome = run(*(word.format_map(places) for word in line.split()))
    assert outcome.code == 2
    assert words in " ".join(outcome.err.split())
    assert "list.csv line" not in outcome.err
    assert not places["root"].exists()


def test_a_run_that_never_was_is_not_resumed_silently(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    photo = min((drawn / "test/good").iterdir())
    outcome = run("score", small_index, photo, "--csv", tmp_path / "s.csv", "--resume", "--device", "cpu")
    assert outcome.code == 0
    assert f"Nothing to resume: {tmp_path / 's.csv.journal'} is not there. Starting." in outcome.err
    again = run("score", small_index, photo, "--csv", tmp_path / "s.csv", "--resume", "--device", "cpu")
    assert "Nothing to resume" not in again.err
    assert "1 photograph" in outcome.out
    assert "1 photographs" not in outcome.out + again.out
