"""The benchmarks run, and their tables, halves and medians are right."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from scipy.sparse import csr_array

import benchmarks
from benchmarks import _bench, _idrid, gpu
from benchmarks._idrid import Variant
from benchmarks._service import memory_of, stages
from benchmarks.coreset import textbook
from benchmarks.latency import steady_rate
from indexer.coreset.k_center import greedy_k_center, shards_of
from lab.datasets import Dataset, LabeledPhoto
from lab.datasets.layouts import read_mvtec
from lab.evaluate import Measurement
from lab.evaluate.bootstrap import Figure
from lab.evaluate.froc import UNKNOWN, LesionRegions
from lab.evaluate.metrics import ScoreHistogram, SparseCounts
from resad.config import preset, without
from resad.loaded_index import load_index
from service.metrics import Metrics
from service.tracing import Stage

_HOME = Path(benchmarks.__file__).parent
_MODULES = sorted(path.stem for path in _HOME.glob("[a-z]*.py"))


@pytest.mark.long
def test_coreset_runs_as_a_module_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "coreset.json"
    line = [sys.executable, "-m", "benchmarks.coreset", "--quick", "--json", str(file)]
    process = subprocess.run(line, cwd=_HOME.parent, capture_output=True, text=True, timeout=120, check=True)
    assert "| points" in process.stdout
    report = json.loads(file.read_text())
    assert report["machine"] in process.stdout
    (figures,) = report["figures"]
    assert figures["blocks_radius"] == pytest.approx(figures["textbook_radius"], rel=1e-4)


@pytest.mark.parametrize("name", [name for name in _MODULES if name not in ("cluster", "coreset")])
def test_benchmarks_without_data_say_so_and_end(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RESAD_DATA", raising=False)
    main: Callable[[], None] = importlib.import_module(f"benchmarks.{name}").main
    with pytest.raises(typer.Exit) as caught:
        main()
    assert caught.value.exit_code == 0
    assert "RESAD_DATA" in capsys.readouterr().out


def test_the_papers_size_runs_on_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("benchmarks.coreset").main(quick=True, paper=True, device="cpu")
    assert re.search(r"\| 20,000 x 64 -> 2,000 \| +cpu \|", capsys.readouterr().out)


@pytest.mark.parametrize("quick", [True, False])
def test_every_command_of_the_gpu_run_is_valid(quick: bool, tmp_path: Path) -> None:
    lines = gpu._lines("cuda:0", tmp_path, quick=quick)
    assert [name for name, _ in lines] == [
        "tests", "coreset", "indexing-exact", "latency-exact", "indexing-half", "latency-half",
    ]  # fmt: skip
    for name, (_, module, *options) in lines[1:]:
        app = typer.Typer()
        app.command()(importlib.import_module(module).main)
        parameters = typer.main.get_command(app).make_context(name, options).params
        assert (parameters["device"], parameters["quick"], parameters["json"]) == (
            "cuda:0",
            quick,
            tmp_path / f"{name}.json",
        )
        assert parameters.get("precision", "exact") in name or name == "coreset"


def test_the_steady_rate_is_over_all_photographs_but_the_first_batch(
    small_index: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, clock = load_index(small_index, torch.device("cpu")).detector, iter([10.0, 12.0])
    batches: list[int] = []
    monkeypatch.setattr(detector, "detect", lambda photos: batches.append(len(photos)))
    assert steady_rate(detector, (drawn / "test/good/drawn_0000.jpg").read_bytes(), lambda: next(clock)) == 44 / 2
    assert batches == [4] * 12


def test_the_textbook_loop_and_the_blocks_make_the_same_picks() -> None:
    points = torch.randn(400, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 9
    blocks = greedy_k_center(shards_of(points, 150), 3, count=80)
    loop = textbook(points, 3, 80)
    assert loop.rows.tolist() == blocks.rows.tolist()
    assert loop.radius == pytest.approx(blocks.radius)


def test_a_table_is_markdown_with_columns_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    _bench.print_table("Title", ("a", "long heading"), [("first row", "1"), ("x", "22")])
    title, _, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert title == "**Title**"
    assert lines[1] == "| --------- | -----------: |"
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["x", "22"]


def test_the_median_is_that_of_all_repeats() -> None:
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
    results = iter("abc")
    assert _bench.median_time(lambda: next(results), 3, lambda: next(ticks)) == (2.0, "c")


def test_an_interval_has_its_sign_where_asked() -> None:
    figure = Figure(0.5, -0.1, 0.25)
    assert _bench.interval(figure) == "0.500 (-0.100 to 0.250)"
    assert _bench.interval(figure, signed=True).endswith("(-0.100 to +0.250)")


def test_a_photo_keeps_its_half_whatever_the_others(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(f"photo {number}".encode())
    photos = tuple(LabeledPhoto(tmp_path / f"{number}.jpg", False, "good") for number in range(40))
    half = _idrid.reporting_half(Dataset("some", (), photos))
    assert 8 < half.sum() < 32
    backward = _idrid.reporting_half(Dataset("some", (), photos[::-1][:17]))
    np.testing.assert_array_equal(backward, half[::-1][:17])


def test_figures_of_a_part_are_those_of_its_photographs(rng: np.random.Generator) -> None:
    whole, selection = _random_measurement(rng, 30), rng.random(30) < 0.5
    part = _measurement(
        tuple(photo for photo, selected in zip(whole.photos, selection, strict=True) if selected),
        whole.scores[selection],
        whole.fov.only(selection),
    )
    all_photos = np.ones(int(selection.sum()), dtype=bool)
    assert _idrid.scores(whole, selection) == _idrid.scores(part, all_photos)
    zero = _idrid.difference(whole, whole, selection)
    assert zero.image == zero.fov == Figure(0.0, 0.0, 0.0)


def test_a_row_is_named_and_set_as_on_the_command_line() -> None:
    variant = Variant("paper", ("region",), ("search.neighbors=2",))
    assert variant.name == "paper --without region --set search.neighbors=2"
    config = _idrid.config_of(variant, 512)
    assert config.resc == without(preset("paper"), "region").resc
    assert (config.search.neighbors, config.preparation.size, config.coreset.share) == (2, 512, 0.02)


def test_both_halves_of_idrid_hold_both_kinds(shared: Path) -> None:
    dataset = read_mvtec(_idrid.data_set(shared))
    reporting = _idrid.reporting_half(dataset)
    abnormal = np.array([photo.abnormal for photo in dataset.test])
    for half in (reporting, ~reporting):
        assert min(abnormal[half].sum(), (~abnormal[half]).sum()) >= 5


def test_stages_are_read_as_the_service_writes_them() -> None:
    metrics = Metrics()
    times: tuple[tuple[Stage, float], ...] = (("decode", 0.25), ("decode", 0.5), ("score", 2.0))
    for stage, seconds in times:
        metrics.stage(stage, seconds)
    metrics.request("GET", "/readyz", 200, 0.125)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=metrics.text()))
    with httpx.Client(base_url="http://service", transport=transport) as http:
        durations = stages(http)
    assert durations == {"decode": (0.75, 2), "score": (2.0, 1), "request": (0.125, 1)}


def test_memory_is_what_the_kernel_says_of_this_process() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = memory_of(os.getpid())
    assert memory.now_mb == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, rel=0.05)
    assert memory.now_mb <= 1.01 * memory.peak_mb  # the kernel sums its counters roughly


def _random_measurement(rng: np.random.Generator, count: int) -> Measurement:
    photos = tuple(LabeledPhoto(Path(f"{number}.jpg"), number % 2 == 1, "some") for number in range(count))
    labels = np.array([photo.abnormal for photo in photos])
    normal, abnormal = (rng.integers(0, 9, (count, 16)) for _ in range(2))
    histogram = ScoreHistogram(SparseCounts.of(normal), SparseCounts.of(abnormal * labels[:, None]))
    return _measurement(photos, rng.random(count) + 0.3 * labels, histogram)


def _measurement(
    photos: tuple[LabeledPhoto, ...], scores: NDArray[np.float64], histogram: ScoreHistogram
) -> Measurement:
    labels = np.array([photo.abnormal for photo in photos])
    regions = SparseCounts(csr_array(histogram.abnormal.matrix / 7))
    edges = np.arange(17, dtype=np.float32)
    lesions = LesionRegions((UNKNOWN,) * len(photos), ())
    return Measurement(photos, scores, labels, (), histogram, histogram, regions, regions, (), edges, lesions)


def test_another_trunk_is_named_in_its_row() -> None:
    variant = Variant("resad", backbone="bundled", weights="bundled")
    assert variant.name == "resad --backbone bundled --weights bundled"
    assert _idrid.config_of(variant, 512).backbone.name == "bundled"
