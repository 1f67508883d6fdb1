"""The report is one page that asks nobody for anything."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from lab.datasets.layouts import read_mvtec
from lab.evaluate import Measurement, figures, measure_dataset
from lab.evaluate.figures import Figures
from lab.report import report
from lab.report.charts import Axis, Chart, even_ticks
from lab.report.pictures import usual_scale
from resad.calibration import USUAL_RATE, threshold
from resad.config import PhotoLimits
from resad.loaded_index import LoadedIndex, load_index


@pytest.fixture(scope="module")
def loaded(small_index: Path) -> LoadedIndex:
    return load_index(small_index, torch.device("cpu"))


@pytest.fixture(scope="module")
def measurement(loaded: LoadedIndex, drawn: Path) -> Measurement:
    return measure_dataset(loaded, read_mvtec(drawn), PhotoLimits(), lambda _: None)


@pytest.fixture(scope="module")
def result(measurement: Measurement, loaded: LoadedIndex, drawn: Path) -> Figures:
    return figures(measurement, loaded, read_mvtec(drawn))


@pytest.fixture(scope="module")
def page(result: Figures, measurement: Measurement, loaded: LoadedIndex) -> str:
    return report(result, measurement, loaded, PhotoLimits())


class Tags(HTMLParser):
    """Every element with its attributes; every element that must be is closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(page: str) -> None:
    tags = Tags(page).elements
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset")]
        source = attributes.get("src")
        assert source is None or source.startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://|url\(|@import", page)


def test_it_says_what_it_rests_on(page: str, result: Figures) -> None:
    assert result.image is not None
    assert result.pixel is not None
    text = re.sub(r"<[^>]+>", " ", page)
    for figure in (result.image.auroc, result.pixel.fov.auroc, result.pixel.whole_abnormal_only.aupro):
        assert f"{figure.value:.3f}" in text
        assert f"{figure.low:.3f} to {figure.high:.3f}" in text
    for phrase in (
        result.index.fingerprint, "2 normal and 3 abnormal test photographs", "Research use only. Not for",
        "field of view, abnormal photographs only", "specificity at 99 % sensitivity", "torch", "region_radius",
        "the data set names no patients",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "prefers-color-scheme: dark" in page


def test_its_pictures_are_pictures(page: str) -> None:
    sources = [attributes["src"] for tag, attributes in Tags(page).elements if tag == "img"]
    assert len(sources) == 2 * 5  # 3 abnormal and 2 normal photographs, each with its map; none twice
    assert len(set(sources[::2])) == 5
    for source in sources:
        assert source is not None
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.size == (360, 240)


def test_its_charts_lie_within_their_frames(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 5 + 4  # and the FROC: lesions and photographs, of all sizes and large ones
    for chart in charts:
        root = ElementTree.fromstring(chart)
        width, height = (float(number) for number in str(root.get("viewBox")).split()[2:])
        for shape in root.iter():
            points = [pair.split(",") for pair in str(shape.get("points", "")).split()]
            for x, y in points:
                assert -0.1 <= float(x) <= width + 0.1
                assert -0.1 <= float(y) <= height + 0.1


def test_a_name_cannot_write_into_the_page(result: Figures, measurement: Measurement, loaded: LoadedIndex) -> None:
    evil = replace(result, dataset="<script>alert(1)</script>", deviations=("<img src=x>",))
    page = report(evil, measurement, loaded, PhotoLimits())
    assert "<script>" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;" in page


def test_what_was_not_measured_is_left_out(measurement: Measurement, loaded: LoadedIndex, drawn: Path) -> None:
    """Normal photographs alone: no curve, but their scores and pictures."""
    dataset = read_mvtec(drawn)
    normal = replace(dataset, test=tuple(photo for photo in dataset.test if not photo.abnormal))
    subset = measurement.only(~measurement.labels)
    page = report(figures(subset, loaded, normal), subset, loaded, PhotoLimits())
    Tags(page)
    assert page.count("<svg") == 1
    assert "image figures need normal and abnormal test photographs" in page


def test_points_are_where_they_belong() -> None:
    chart = Chart(Axis("x", 0, 1, (0, 1)), Axis("y", 0, 2, (0, 2)), width=152, height=158)
    line = chart.line(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 2.0]), "curve")
    assert line == '<polyline class="curve" points="52,114 95,64 138,14"/>'


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.62, 2.41), (0.001, 0.0042), (3.0, 5000.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = even_ticks(low, high)
    assert 3 <= len(ticks) <= 13
    assert all(low <= tick <= high for tick in ticks)
    assert all(len(f"{tick:g}") <= 7 for tick in ticks)


def test_maps_are_drawn_with_the_threshold_of_findings(loaded: LoadedIndex) -> None:
    peaks = tuple(np.linspace(3.0, 5.0, 40).tolist())  # the small index has too few for the rate
    calibration = replace(loaded.manifest.calibration, peaks=peaks)
    assert usual_scale(calibration).threshold == threshold(peaks, USUAL_RATE).value
