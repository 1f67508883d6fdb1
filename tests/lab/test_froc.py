"""FROC against labels at every level, and synthetic maps whose answers are known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from lab.drawing import write_dataset
from lab.evaluate import bootstrap
from lab.evaluate.bootstrap import Pool, fresh_generator
from lab.evaluate.froc import (
    ANY_KIND,
    UNKNOWN,
    Froc,
    LesionRegions,
    PhotoSummary,
    froc,
    froc_curves,
    project_mask,
    summarize,
)
from resad.false_regions import RATES, FindingLevel
from resad.findings import find_regions
from resad.preparation import Frame
from tests.conftest import Run

CORNERS = np.ones((3, 3))
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
KINDS = ("bright", "dark")


def full_frame(side: int, width: int | None = None, height: int | None = None) -> Frame:
    """The square over a photograph of the same size, or squeezed over another one."""
    return Frame(width or side, height or side, 0.0, 0.0, float(width or side), float(height or side), side)


def random_map(rng: np.random.Generator, side: int, steps: int) -> tuple[Map, Mask]:
    """Few distinct values, so that there are plateaus and ties; and the field of view."""
    values = (rng.integers(0, steps, (side, side)) / steps).astype(np.float32)
    return values, rng.random((side, side)) > 0.1


def random_photo(rng: np.random.Generator, side: int, kinds: Sequence[str]) -> PhotoSummary:
    values, scored = random_map(rng, side, 30)
    lesions: dict[str | None, Mask] = {kind: rng.random((side, side)) > 0.9 for kind in kinds}
    return summarize(values, scored, full_frame(side), lesions, KINDS)


class Labeled:
    """The slow twin: regions and lesions of one photograph by labels at one level."""

    def __init__(self, values: Map, scored: Mask, marked: Mask, level: float) -> None:
        # In float64, as `find_regions` compares.
        self.labels, self.regions = ndimage.label((values.astype(np.float64) > level) & scored, CORNERS)
        with_marked = set(self.labels[marked & scored].tolist()) - {0}
        self.unmarked = self.regions - len(with_marked)
        lesions, count = ndimage.label(marked & scored, CORNERS)
        self.touched = sum(bool((self.labels[lesions == number] > 0).any()) for number in range(1, count + 1))
        self.lesions = count


@given(seed=st.integers(0, 2**32), steps=st.integers(2, 40), side=st.integers(3, 14))
@settings(max_examples=80, deadline=None)
def test_regions_and_touched_lesions_are_those_of_a_labeled_map(seed: int, steps: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    values, scored = random_map(rng, side, steps)
    marked = rng.random((side, side)) > 0.85
    if not scored.any():
        return

    diseased = summarize(values, scored, full_frame(side), {None: marked}, ())
    healthy = summarize(values, scored, full_frame(side), {}, ())

    for level in [*np.unique(values).tolist(), 0.05, 0.5]:
        twin = Labeled(values, scored, marked, level)
        assert diseased.regions.count(level) == twin.unmarked
        assert healthy.regions.count(level) == twin.regions
        assert diseased.lesions.peak.size == twin.lesions
        assert (diseased.lesions.peak > level).sum() == twin.touched
        assert healthy.lesions.peak.size == 0


def test_healthy_regions_are_the_findings_that_a_caller_gets(rng: np.random.Generator) -> None:
    values = ndimage.gaussian_filter(rng.random((64, 64)), 2).astype(np.float32)
    scored = np.hypot(*np.mgrid[-32:32, -32:32]) < 30
    summary = summarize(values, scored, full_frame(64), {}, ())
    for level in np.quantile(values, (0.5, 0.8, 0.95, 0.99)).tolist():
        assert (
            summary.regions.count(level)
            == len(find_regions(values, scored, full_frame(64), level, limit=1000))
            > 0
        )


def test_kinds_have_their_own_lesions_and_all_masks_together_theirs() -> None:
    values = np.zeros((32, 32), np.float32)
    values[4, 4], values[20, 20] = 3, 5
    bright, dark = np.zeros((2, 32, 32), np.bool_)
    bright[3:6, 3:6] = dark[6:8, 5:8] = dark[18:22, 18:22] = True

    lesions = summarize(values, values >= 0, full_frame(32), {"bright": bright, "dark": dark}, KINDS).lesions

    peaks = {kind: sorted(lesions.peak[lesions.kind == kind].tolist()) for kind in (ANY_KIND, 0, 1)}
    assert peaks == {ANY_KIND: [3.0, 5.0], 0: [3.0], 1: [0.0, 5.0]}
    # 9 and 16 px of a square of 32 px are 256 times as many of one of 512 px.
    assert lesions.area[lesions.kind == 0].tolist() == [9 * 256.0]


@given(seed=st.integers(0, 2**32), width=st.integers(20, 90), height=st.integers(20, 90))
@settings(max_examples=60, deadline=None)
def test_no_lesion_is_lost_on_the_square(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.bool_)
    for _ in range(6):
        y, x, size = rng.integers(0, height), rng.integers(0, width), rng.integers(1, 9)
        mask[y : y + size, x : x + size] = True
    half = 0.4 * max(width, height)
    frame = Frame(width, height, width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half, 24)

    square = project_mask(mask, frame)

    labels, count = ndimage.label(mask, CORNERS)
    ys, xs = np.nonzero(labels)
    across, down = frame.to_prepared(xs + 0.5, ys + 0.5)
    inside = (across >= 0) & (across < 24) & (down >= 0) & (down < 24)
    for number in range(1, count + 1):
        of_lesion = inside & (labels[ys, xs] == number)
        if of_lesion.any():
            assert square[down[of_lesion].astype(int), across[of_lesion].astype(int)].any()
    # And nothing is marked where no marked pixel is near.
    scale = 2 * half / 24
    near = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    for row, column in np.argwhere(square):
        x, y = frame.to_photo(column + 0.5, row + 0.5)
        at = near[min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)]
        assert at <= scale + 1


def test_a_mask_of_the_squares_own_size_stays_as_it_is(rng: np.random.Generator) -> None:
    mask = rng.random((40, 40)) > 0.7
    np.testing.assert_array_equal(project_mask(mask, full_frame(40)), mask)
    doubled = np.kron(mask, np.ones((2, 2), np.bool_))
    np.testing.assert_array_equal(project_mask(mask, full_frame(80, 40, 40)), doubled)
    np.testing.assert_array_equal(project_mask(doubled, full_frame(40, 80, 80)), mask)


def dots(side: int, heights: Sequence[float]) -> Map:
    """A map of 0 with a dot of each height, apart from one another."""
    values = np.zeros((side, side), np.float32)
    places = [(y, x) for y in range(2, side - 2, 6) for x in range(2, side - 2, 6)]
    for (y, x), height in zip(places, heights, strict=False):
        values[y : y + 2, x : x + 2] = height
    return values


def lesion_dots(heights: Sequence[float], marked: Sequence[float], side: int = 64) -> PhotoSummary:
    values = dots(side, heights)
    mask = np.isin(values, np.array(marked, np.float32)) & (values > 0)
    return summarize(values, values >= 0, full_frame(side), {"dot": mask}, ("dot",))


def healthy_dots(heights: Sequence[float], side: int = 64) -> PhotoSummary:
    values = dots(side, heights)
    return summarize(values, values >= 0, full_frame(side), {}, ("dot",))


def example_regions() -> tuple[LesionRegions, NDArray[np.bool_]]:
    """Four healthy photographs with dots of 1 to 8, and two diseased ones.

    Levels for 0.25, 0.5, 1 and 2 regions per healthy photograph: above 7, 6, 4 and 0.
    """
    photos = [
        healthy_dots([8, 4]), healthy_dots([7, 3]), healthy_dots([6, 2]), healthy_dots([5, 1]),
        lesion_dots([9.5, 7.5, 4.5, 0.5, 8.5], [9.5, 7.5, 4.5, 0.5]),
        lesion_dots([5.5, 6.5], [5.5]),
    ]  # fmt: skip
    return LesionRegions(tuple(photos), ("dot",)), np.array([False] * 4 + [True] * 2)


def test_the_known_answer() -> None:
    regions, labels = example_regions()

    result = froc(regions, labels, (FindingLevel(0.25, None), FindingLevel(1.0, 7.0)))

    assert result is not None
    assert (result.levels_from, result.healthy, result.diseased) == ("healthy test photographs", 4, 2)
    assert [point.rate for point in result.points] == list(RATES)
    assert [point.level for point in result.points] == [7, 6, 4, 0, 0, 0]
    expected = {0.25: (2, 1, 0.5), 0.5: (2, 1, 1.0), 1.0: (4, 2, 1.0), 2.0: (5, 2, 1.0), 8.0: (5, 2, 1.0)}
    for rate, (touched, photos, unmarked) in expected.items():
        point = result.at(rate)
        assert point is not None
        group = point.group()
        assert group is not None
        assert (group.lesions, group.photos) == (5, 2)
        assert group.touched.value == pytest.approx(touched / 5)
        assert group.photos_touched.value == photos / 2
        assert point.unmarked_regions == unmarked
        assert point.false_regions is not None
        assert point.false_regions.value == min(rate, 2.0)
    # A single kind has no rows of its own; 4 px of a square of 64 px are 256 of one of 512 px.
    assert [(group.kind, group.smallest_px) for group in result.points[0].lesions] == [("all", 0), ("all", 64)]
    # The index states 1 false region per healthy photograph above 7; a quarter shows one.
    (index_level,) = result.index_levels
    assert index_level.false_regions is not None
    assert (index_level.rate, index_level.level, index_level.false_regions.value) == (1.0, 7.0, 0.25)
    assert index_level.group() == replace(index_level.lesions[0], kind="all", smallest_px=0)
    assert index_level.lesions[0].touched.value == pytest.approx(2 / 5)


def test_without_healthy_photographs_the_indexs_own_levels_are_used() -> None:
    regions, labels = example_regions()
    diseased = regions.only(labels)
    levels = (FindingLevel(0.5, 6.0), FindingLevel(1.0, 4.0))

    result = froc(diseased, labels[labels], levels)

    assert result is not None
    assert (result.levels_from, result.healthy) == ("the index's normals", 0)
    assert [(p.rate, p.level, p.false_regions) for p in result.points] == [(0.5, 6.0, None), (1.0, 4.0, None)]
    assert [p.lesions[0].touched.value for p in result.points] == pytest.approx([2 / 5, 4 / 5])
    (curve, *_) = froc_curves(diseased, labels[labels], levels, np.array(RATES), 20)
    assert curve.rates.tolist() == [0.5, 1.0]
    assert froc(diseased, labels[labels], ()) is None
    assert froc(regions.only(~labels), labels[~labels], levels) is None
    assert froc(LesionRegions((*regions.photos[:4], UNKNOWN), ("dot",)), labels[:5], levels) is None


def lowest_level(healthy: Sequence[tuple[Map, Mask]], rate: float) -> float | None:
    """The slow twin: from the highest value down while no more than `rate` regions a photograph are above.

    Where there are never so many, any value with the most regions above it will do: None.
    """
    level = np.inf
    for candidate in np.unique([0.0, *(v for values, scored in healthy for v in values[scored])])[::-1]:
        count = sum(ndimage.label((values > candidate) & scored, CORNERS)[1] for values, scored in healthy)
        if count > rate * len(healthy):
            return level
        level = float(candidate)
    return None


def count_above(healthy: Sequence[tuple[Map, Mask]], level: float) -> int:
    return sum(ndimage.label((values > level) & scored, CORNERS)[1] for values, scored in healthy)


@given(seed=st.integers(0, 2**32), photos=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_levels_are_those_of_the_slow_twin(seed: int, photos: int) -> None:
    rng = np.random.default_rng(seed)
    healthy = [random_map(rng, 9, 25) for _ in range(photos)]
    summaries = [summarize(values, scored, full_frame(9), {}, KINDS) for values, scored in healthy]
    diseased = random_photo(rng, 9, KINDS)
    if not diseased.lesions.peak.size:
        return
    labels = np.array([False] * photos + [True])

    result = froc(LesionRegions((*summaries, diseased), KINDS), labels, (), resamples=2)

    assert result is not None
    for point in result.points:
        level = lowest_level(healthy, point.rate)
        if level is None:
            values = np.unique(np.concatenate([values[scored] for values, scored in healthy]))
            assert count_above(healthy, point.level) == max(
                count_above(healthy, value) for value in [0.0, *values]
            )
        else:
            assert point.level == level
        assert point.false_regions is not None
        assert point.false_regions.value <= point.rate + 1e-9


def test_intervals_are_those_of_resampled_photographs(rng: np.random.Generator) -> None:
    """Each resample takes its levels from its own healthy photographs."""
    photos = [random_photo(rng, 12, kinds) for kinds in [()] * 5 + [KINDS] * 4 + [KINDS[:1]] * 2]
    regions, labels = LesionRegions(tuple(photos), KINDS), np.array([False] * 5 + [True] * 6)
    resamples = 40

    result = froc(regions, labels, (), resamples)

    assert result is not None
    no_counts = np.zeros((11, 0))
    slow: list[Froc] = []
    for weights in bootstrap.resampled(Pool(no_counts, no_counts, ~labels, labels), fresh_generator(), resamples):
        for row in weights.astype(int):
            drawn = np.repeat(np.arange(11), row)
            part = froc(LesionRegions(tuple(photos[number] for number in drawn), KINDS), labels[drawn], (), 1)
            assert part is not None
            slow.append(part)
    for number, point in enumerate(result.points):
        for group in point.lesions:
            same = [entry.points[number].group(group.kind, group.smallest_px) for entry in slow]
            for name in ("touched", "photos_touched"):
                figure = getattr(group, name)
                values = [getattr(entry, name).value for entry in same if entry is not None]
                assert (figure.low, figure.high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))
    assert {group.kind for group in result.points[0].lesions} == {"all", *KINDS}


def test_more_false_regions_touch_no_fewer_lesions(rng: np.random.Generator) -> None:
    photos = [random_photo(rng, 20, kinds) for kinds in [()] * 6 + [KINDS] * 6]
    labels = np.array([False] * 6 + [True] * 6)
    for curve in froc_curves(LesionRegions(tuple(photos), KINDS), labels, (), np.geomspace(0.25, 8, 21), 100):
        assert (np.diff(curve.share) >= 0).all()
        assert (curve.low <= curve.share + 1e-9).all()
        assert (curve.share <= curve.high + 1e-9).all()


def test_many_regions_are_cut_at_a_limit_that_levels_do_not_pass() -> None:
    noise = np.random.default_rng(0).random((128, 128)).astype(np.float32)
    noisy = summarize(noise, noise >= 0, full_frame(128), {}, ("dot",))
    photos = (noisy, lesion_dots([0.5], [0.5]))

    result = froc(LesionRegions(photos, ("dot",)), np.array([False, True]), ())

    assert 0 < noisy.regions.limit < 1
    assert noisy.regions.heights.size < 5000
    assert noisy.regions.count(noisy.regions.limit) == ndimage.label(noise > noisy.regions.limit, CORNERS)[1]
    assert result is not None
    assert all(point.level >= noisy.regions.limit for point in result.points)


def copy_of_a_reference(drawn: Path, folder: Path) -> Path:
    """A folder with the first reference photo of the small index."""
    target = folder / "known"
    target.mkdir()
    (target / "copy.jpg").write_bytes(min((drawn / "train/good").iterdir()).read_bytes())
    return target


@pytest.fixture(scope="module")
def healthy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn healthy photographs that no index has seen."""
    folder = tmp_path_factory.mktemp("unseen")
    write_dataset(folder, 99, train=2, good=1, diseased=1, height=160)
    return folder / "train/good"


def test_evaluate_measures_lesions_against_false_regions(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    """A photograph of the index is painted as well, loudly."""
    target, table, page = tmp_path / "figures.json", tmp_path / "photos.csv", tmp_path / "report.html"
    reference_folder = copy_of_a_reference(drawn, tmp_path)

    outcome = run("evaluate", small_index, "--data", drawn, "--painted", reference_folder, "--json", target,
                  "--csv", table, "--html", page)  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert "Lesions touched" in outcome.out
    assert "own levels" in outcome.out
    result = json.loads(target.read_text())
    assert (result["froc"]["healthy"], result["froc"]["diseased"]) == (2, 3)
    assert [point["rate"] for point in result["froc"]["points"]] == list(RATES)
    for point in result["froc"]["points"]:
        assert point["false_regions"]["value"] <= point["rate"] + 1e-9
        for group in point["lesions"]:
            for figure in (group["touched"], group["photos_touched"]):
                assert 0 <= figure["low"] <= figure["high"] <= 1
    assert result["froc"]["index_levels"]
    assert "1 painted photograph is in the index" in outcome.err
    assert result["painted"]["in_the_index"][0]["reference"] == "r-00001"
    header, *rows = (line.split(",") for line in table.read_text().splitlines())
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    lesions = sum(int(row["lesions"]) for row in cells)
    assert lesions == result["froc"]["points"][0]["lesions"][0]["lesions"] > 0
    first_level = result["froc"]["index_levels"][0]
    assert first_level["rate"] == 0.25
    touched = sum(int(row["lesions_touched"]) for row in cells)
    assert touched == round(first_level["lesions"][0]["touched"]["value"] * lesions)
    false = sum(int(row["unmarked_regions"]) for row in cells if row["label"] == "normal")
    assert false == pytest.approx(first_level["false_regions"]["value"] * 2)
    text = page.read_text()
    assert text.count("<figcaption>FROC: ") >= 3
    assert "1 painted photograph is in the index, the figures flatter" in text


def test_painted_lesions_are_measured_with_the_index(
    run: Run, small_index: Path, healthy_folder: Path, drawn: Path, tmp_path: Path
) -> None:
    target, page = tmp_path / "painted.json", tmp_path / "painted.html"

    outcome = run("evaluate", small_index, "--painted", healthy_folder, "--json", target, "--html", page)

    assert outcome.code == 0, outcome.err
    assert "Painted lesions found on 2 photographs" in outcome.out
    result = json.loads(target.read_text())
    assert result["painted"]["results"]["photos"] == 2
    assert result["painted"]["in_the_index"] == []
    groups = result["painted"]["results"]["groups"]
    assert {group["kind"] for group in groups} >= {"hemorrhage", "exudate"}
    assert all(0 <= group["found"] <= group["lesions"] for group in groups)
    rates = result["painted"]["results"]["rates"]
    assert [rate["rate"] for rate in rates] == [0.25, 1, 4]
    assert rates[0]["value"] is None  # two photographs support no such rate
    for group in groups:
        assert group["touched"][0] == 0
        assert group["found"] <= group["touched"][1] <= group["touched"][2] <= group["lesions"]
    assert "Painted lesions found on 2 healthy photographs" in page.read_text()

    refused = run("evaluate", small_index, "--painted", copy_of_a_reference(drawn, tmp_path), "--strict")
    assert refused.code != 0
    assert "copy.jpg is in the index as r-00001" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --data, --painted or both"),
        (("--painted", ".", "--csv", "photos.csv"), "give --data, too"),
        (("--painted", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    run: Run, small_index: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run("evaluate", small_index, *arguments)
    assert outcome.code != 0
    assert message in outcome.err
    assert "Traceback" not in outcome.err
