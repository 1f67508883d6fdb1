"""The audit: planted diseased photographs come first, and what it writes says so."""

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from indexer import cli
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.lifecycle.remove import reference_files
from indexer.settings import method_config
from lab.audit import Audit, audit, audit_csv, audit_json, audit_page, audit_picture
from lab.drawing import draw_photo
from lab.drawing.lesions import LESION_KINDS
from resad import index
from resad.backbone import default_weights
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.loaded_index import LoadedIndex, load_index

CPU: Final = torch.device("cpu")
NORMALS: Final = 24
SIZE: Final = 128


def draw(folder: Path, name: str, seed: int, *, diseased: bool) -> None:
    lesions = LESION_KINDS if diseased else ()
    photo = draw_photo(np.random.default_rng(seed), height=SIZE, eye="left", lesions=lesions)
    Image.fromarray(photo.pixels).save(folder / name)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn normals and, in the middle of them, a diseased photograph."""
    folder = tmp_path_factory.mktemp("planted")
    for number in range(NORMALS):
        draw(folder, f"{number:02d}0.png", number, diseased=False)
    draw(folder, "111_ill.png", 500, diseased=True)
    return folder


@pytest.fixture(scope="module")
def version(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = method_config("resad", backbone="bundled", size=SIZE, coreset="0.1")
    root = tmp_path_factory.mktemp("audited")
    order = BuildOptions(planted, root, "eyes", config, default_weights("bundled"), CPU)
    return build(order, Stages(Console(quiet=True))).version


@pytest.fixture(scope="module")
def loaded(version: Path) -> LoadedIndex:
    return load_index(version, CPU)


@pytest.fixture(scope="module")
def places(loaded: LoadedIndex, planted: Path) -> dict[str, Path]:
    return reference_files(planted, loaded.photos, PhotoLimits())


@pytest.fixture(scope="module")
def report(loaded: LoadedIndex, places: dict[str, Path]) -> Audit:
    return audit(loaded.manifest, loaded.photos, places)


def test_a_planted_diseased_photograph_comes_first(report: Audit) -> None:
    assert Path(str(report.photos[0].place)).name == "111_ill.png"
    assert report.matched == NORMALS + 1


def test_ranks_follow_the_left_out_scores(report: Audit, loaded: LoadedIndex) -> None:
    scores = [photo.score for photo in report.photos]
    assert scores == sorted((record.score for record in loaded.photos), reverse=True)
    assert [photo.rank for photo in report.photos] == list(range(1, NORMALS + 2))
    for photo in report.photos:
        higher_or_equal = [score for score in scores if score >= photo.score]
        assert photo.p == len(higher_or_equal) / (NORMALS + 1)
    middle = float(np.median(scores))
    deviation = 1.4826 * float(np.median(np.abs(np.array(scores) - middle)))
    assert [photo.spreads for photo in report.photos] == pytest.approx([(s - middle) / deviation for s in scores])


def test_a_picture_is_drawn_against_the_others_memories(
    loaded: LoadedIndex, places: dict[str, Path], report: Audit
) -> None:
    rows = {record.id: row for row, record in enumerate(loaded.photos)}
    row = rows[report.photos[0].id]
    url = audit_picture(loaded, {row}, places[loaded.photos[row].content_sha256], PhotoLimits())
    assert url.startswith("data:image/jpeg;base64,")
    # Where every other photograph is left out, too, nothing is left to be compared with.
    all_rows = range(len(loaded.photos))
    with pytest.raises(Exception, match="0 memories"):
        audit_picture(loaded, all_rows, places[loaded.photos[row].content_sha256], PhotoLimits())


class Links(HTMLParser):
    """Everything that a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_beside_it_and_escapes_names(report: Audit) -> None:
    nasty = replace(report.photos[0], place="<script>alert(1)</script>.png", camera='"><img src=x>')
    picture = "data:image/jpeg;base64,AAAA"
    page = audit_page(replace(report, photos=(nasty, *report.photos[1:])), {nasty.id: picture})
    links = Links()
    links.feed(page)
    assert links.addresses == [picture]
    assert "<script>" not in page
    assert "<script>alert(1)</script>.png" in links.text
    assert "Research use only" in links.text
    assert re.findall(r"r-\d{5}", links.text)[1:] == [photo.id for photo in report.photos]


def test_json_and_csv_say_the_same(report: Audit) -> None:
    document = json.loads(audit_json(report))
    rows = list(csv.DictReader(io.StringIO(audit_csv(report))))
    assert len(rows) == len(document["photos"]) == NORMALS + 1
    for row, entry in zip(rows, document["photos"], strict=True):
        assert (int(row["rank"]), row["id"], float(row["score"])) == (entry["rank"], entry["id"], entry["score"])
        assert (float(row["p"]), row["place"]) == (entry["p"], entry["place"])


def test_other_photographs_match_none(loaded: LoadedIndex, drawn: Path) -> None:
    places = reference_files(drawn / "test", loaded.photos, PhotoLimits())
    assert places == {}
    with pytest.raises(SettingError, match="none of the given photographs is in the index"):
        audit(loaded.manifest, loaded.photos, places)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["resad-indexer", "audit", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_the_command_writes_all_three(
    version: Path,
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / f"audit.{kind}" for kind in ("html", "json", "csv")]
    options = [word for file in files for word in (f"--{file.suffix[1:]}", file)]
    assert run(monkeypatch, version, "--photos", planted, "--top", 3, "--device", "cpu", *options) == 0
    assert capsys.readouterr().out.index("_ill.png") > 0
    page = files[0].read_text()
    assert page.count("<img ") == 3
    assert page.index("_ill.png") < page.index("<img ")
    assert json.loads(files[1].read_text())["matched"] == NORMALS + 1


def test_without_photographs_there_are_ids_alone(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    # The records are enough: no trunk and no bank are read.
    for name in ("manifest.json", "photos.jsonl"):
        shutil.copy(version / name, lone)
    assert run(monkeypatch, lone, "--html", tmp_path / "audit.html") == 0
    assert "r-000" in capsys.readouterr().out
    page = (tmp_path / "audit.html").read_text()
    assert "<img" not in page
    assert "were not given" in page
    assert index.resolve(lone) == lone


def test_a_folder_that_is_not_there_is_refused_before_any_work(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, version, "--html", tmp_path / "no/audit.html") == 2
    assert "is no folder" in capsys.readouterr().err
