"""The page's files: whole, small, nothing inline or from elsewhere; its arithmetic beside slow twins."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from resad_client.records import INTENDED_USE
from scipy import ndimage
from skimage.measure import find_contours

import service.routes
from resad.calibration import DecisionRule, calibrate, criterion
from resad.pictures.overlay import MapScale, colorize
from tests.service.running import Served
from tests.web.conftest import Opener
from tests.web.open_page import OpenPage

WEB = Path(service.routes.__file__).with_name("web")
SOURCES = sorted(path for path in WEB.rglob("*") if path.suffix in (".js", ".css", ".html"))


def test_every_file_that_is_named_is_there() -> None:
    page = (WEB / "index.html").read_text()
    paths = re.findall(r'(?:href|src)="(web/[^"]+)"', page)
    assert len(paths) > 5
    assert all((WEB.parent / name).is_file() for name in paths)
    for script in WEB.rglob("*.js"):
        for name in re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)";', script.read_text(), re.MULTILINE):
            assert name.startswith("."), f"{script.name}: {name}"
            assert (script.parent / name).is_file(), f"{script.name}: {name}"


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    page = (WEB / "index.html").read_text()
    assert INTENDED_USE in page
    assert re.findall(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=", page) == []
    for path in SOURCES:
        addresses = re.findall(
            r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", re.sub(r"(?m)^\s*(//|\*|/\*).*$", "", path.read_text())
        )
        assert set(addresses) <= {"http://www.w3.org"}, path.name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 200


def test_the_page_s_headers(web_service: Served) -> None:
    for address in ("/", "/web/app/main.js", "/web/styles/base.css", "/web/client/index.js"):
        answer = web_service.client.get(address)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if address != "/":
            headers = {"If-None-Match": answer.headers["etag"]}
            assert web_service.client.get(address, headers=headers).status_code == 304
    assert web_service.client.get("/web/app/main.js").headers["content-type"].startswith("text/javascript")
    for address in ("/web/", "/web/app", "/web/none.js", "/web/..%2Fapp.py", "/web/%2e%2e/app.py"):
        refusal = web_service.client.get(address)
        assert (refusal.status_code, refusal.json()["type"]) == (404, "urn:resad:problem:not-found")


def test_the_page_works_below_a_path(visit: Opener, web_service: Served, lesion: Path) -> None:
    """As behind a proxy that serves several things: no address of the page begins at the root."""
    page = visit(web_service)
    proxy_url = f"{web_service.url}/below/"

    def forward(route: Any) -> None:
        request = route.request
        answer = httpx.request(
            request.method,
            request.url.replace("/below/", "/"),
            content=request.post_data_buffer,
            headers={name: value for name, value in request.headers.items() if name != "host"},
            timeout=30,
        )
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    page.page.route(f"{proxy_url}**", forward)
    page.page.goto(proxy_url)
    page.choose(lesion)
    page.wait_for_map()
    assert [address for address in page.requests if not address.startswith((proxy_url, "blob:"))] == []


@pytest.fixture
def modules(kept_photo: OpenPage) -> OpenPage:
    """Any page, whose modules are imported again."""
    return kept_photo


def test_colors_are_those_of_the_service_s_pictures(modules: OpenPage, rng: np.random.Generator) -> None:
    scale = MapScale(0.71, 1.2, 1.94)
    values = np.concatenate(
        [rng.uniform(0, 2.5, 20_000), np.linspace(scale.low, scale.high, 5_000), [0, scale.low, scale.high]]
    ).astype(np.float32)
    body = "[...module.colorize(new Float32Array(argument), {low: 0.71, high: 1.94}, 0)]"
    colors = np.array(modules.module("colors.js", body, values.tolist()), np.uint8).reshape(-1, 4)
    np.testing.assert_array_equal(colors, colorize(values[None], scale)[0])
    hidden = modules.module("colors.js", body.replace(", 0)", ", 1.2)"), values.tolist())
    np.testing.assert_array_equal(np.array(hidden).reshape(-1, 4)[values <= np.float32(1.2), 3], 0)


def test_regions_are_those_that_scipy_counts(modules: OpenPage) -> None:
    body = "module.regionsAbove({...argument, values: new Float32Array(argument.values)}, argument.level)"

    @settings(max_examples=40, deadline=None, database=None)
    @given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 17), width=st.integers(1, 17))
    def probe(seed: int, height: int, width: int) -> None:
        values = np.random.default_rng(seed).integers(0, 5, (height, width)).astype(np.float32)
        regions = modules.module("regions.js", body, _field_argument(values, 2.0))
        above = values > 2
        assert regions == {"count": int(ndimage.label(above, np.ones((3, 3)))[1]), "pixels": int(above.sum())}

    probe()


def test_region_outlines_are_those_of_scikit_image(modules: OpenPage, rng: np.random.Generator) -> None:
    """As long, part by part: the same crossings, and saddles read the same way."""
    body = "module.outline({...argument, values: new Float32Array(argument.values)}, argument.level)"
    for _ in range(5):
        values = rng.uniform(0, 1, (23, 31)).astype(np.float32)
        path = modules.module("regions.js", body, _field_argument(values, 0.6))
        ends = np.array(re.findall(r"M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)", path), float)
        lengths = np.hypot(ends[:, 0] - ends[:, 2], ends[:, 1] - ends[:, 3])
        contours = find_contours(values.astype(float), 0.6, fully_connected="high")  # type: ignore[no-untyped-call]
        expected_lengths = np.concatenate([np.hypot(*np.diff(contour, axis=0).T) for contour in contours])
        expected_lengths = expected_lengths[expected_lengths > 0]
        assert len(lengths) == pytest.approx(len(expected_lengths), abs=2)
        assert lengths.sum() == pytest.approx(expected_lengths.sum(), rel=2e-3)


def test_verdicts_at_other_rates_are_those_of_the_service(modules: OpenPage) -> None:
    """Threshold, p, interval, verdict and reason; also where few photographs support no rate."""
    body = "argument.map(([answer, rate, calibration]) => module.judged(answer, rate, calibration))"
    generator = np.random.default_rng(3)
    cases, expected = [], []
    for count in (1, 3, 4, 9, 19, 20, 36, 99, 137, 3000):
        scores = sorted(generator.integers(1, 60, count).astype(float).tolist())
        calibration = calibrate(scores, scores, np.arange(50.0, dtype=np.float32))
        document = {"scores": list(calibration.scores), "cameras": []}
        for rate in (0.01, 0.02, 0.05, 0.1, 0.2):
            for score in (scores[-1], scores[-1] + 1, 30.0, 0.5):
                decision = criterion(calibration, DecisionRule(fpr=rate)).limit
                answer = {"image_score": score, "fpr": 0.5, "normals": {"camera": None, "photos": count}}
                cases.append([answer, rate, document])
                expected.append((decision, calibration.p_value(score), score))
    results = modules.module("judgement.js", body, cases)
    for result, (decision, p_value, score) in zip(results, expected, strict=True):
        assert result["fpr"] == decision.fpr
        assert result["threshold"] == decision.value
        assert result["reason"] == decision.reason
        if decision.value is None:
            assert (result["p_value"], result["abnormal"], result["normals"]["rate"]) == (None, None, None)
            continue
        assert result["p_value"] == pytest.approx(p_value, rel=1e-12)
        assert result["abnormal"] == (score > decision.value)
        assert decision.interval is not None
        rate = result["normals"]["rate"]
        assert (rate["low"], rate["high"]) == pytest.approx(
            (decision.interval.low, decision.interval.high), abs=1e-9
        )


def test_equalization_is_that_of_its_slow_twin(modules: OpenPage) -> None:
    """Pixel by pixel: running sums of the four nearest tiles' clipped histograms, weighed by nearness."""
    height, width, tiles = 48, 64, 8
    gray = np.random.default_rng(5).integers(0, 256, (height, width)) ** 2 // 256
    body = "[...module.equalized(new Uint8Array(argument.values), argument.width, argument.height)]"
    argument = {"values": gray.ravel().tolist(), "width": width, "height": height}
    made = np.array(modules.module("enhance.js", body, argument)).reshape(height, width)

    def mapped(row: int, column: int, value: int) -> float:
        tile = gray[row * height // tiles : (row + 1) * height // tiles]
        tile = tile[:, column * width // tiles : (column + 1) * width // tiles]
        counts = np.bincount(tile.ravel(), minlength=256).astype(float)
        limit = max(1.0, 2.5 * tile.size / 256)
        excess = np.maximum(counts - limit, 0).sum() / 256
        return float(255 * (np.minimum(counts, limit) + excess)[: value + 1].sum() / tile.size)

    def nearest(place: int, length: int) -> list[tuple[int, float]]:
        at = min(max((place + 0.5) * tiles / length - 0.5, 0.0), tiles - 1.0)
        first = min(int(at), tiles - 2)
        return [(first, 1 - (at - first)), (first + 1, at - first)]

    for y, x in np.random.default_rng(6).integers(0, (height, width), (60, 2)).tolist():
        expected = sum(
            down * across * mapped(row, column, int(gray[y, x]))
            for row, down in nearest(y, height)
            for column, across in nearest(x, width)
        )
        assert made[y, x] == pytest.approx(expected, abs=0.51)


def test_tables_survive_every_name(modules: OpenPage) -> None:
    names = ["plain.jpg", 'a,b "c".jpg', "two\nlines.jpg", "ärger 眼.jpg"]
    photos = [{"name": name, "eye": "", "state": "failed", "error": {"message": "no"}} for name in names]
    text = modules.module("exports.js", "module.table(argument)", photos)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in rows[1:]] == names
    assert {len(row) for row in rows} == {len(rows[0])}


def _field_argument(values: NDArray[np.float32], level: float) -> dict[str, Any]:
    height, width = values.shape
    document: dict[str, Any] = json.loads(json.dumps({"values": values.ravel().tolist(), "level": level}))
    return document | {"width": width, "height": height}
