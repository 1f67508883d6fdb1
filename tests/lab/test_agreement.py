"""Agreement of readers against sets of pixels, on drawn marks whose answers are known, and as a command."""

import json
import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lab.evaluate.agreement import (
    Comparison,
    DrawnMarks,
    ReaderMark,
    RegionCounts,
    compare,
    draw_marks,
    pair_agreement,
    ratio,
    read_readers_marks,
    reader_froc,
    summarize_marks,
    unmarked_regions,
)
from resad.config import PhotoLimits
from resad.errors import SettingError
from resad.false_regions import FindingLevel
from resad.preparation import Frame
from tests.conftest import Run

Mask = NDArray[np.bool_]
LABELS = ("hemorrhage", "hard-exudate", "normal-variant", "artifact")
LIMITS = PhotoLimits()


def box(x0: int, y0: int, x1: int, y1: int, label: str = "hemorrhage", *, withdrawn: bool = False) -> ReaderMark:
    """A rectangle with both of its ends."""
    return ReaderMark(label, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), withdrawn)


def random_marks(rng: np.random.Generator, count: int, side: int = 16) -> list[ReaderMark]:
    marks = []
    for _ in range(count):
        x, y = rng.integers(0, side - 1, 2).tolist()
        width, height = rng.integers(1, 5, 2).tolist()
        marks.append(box(x, y, min(x + width, side - 1), min(y + height, side - 1), LABELS[rng.integers(4)]))
    return marks


class Twin:
    """The slow twin: sets of pixels, and regions by flooding."""

    def __init__(self, marks: Sequence[ReaderMark]) -> None:
        self.pixels: dict[str, set[tuple[int, int]]] = {label: set() for label in LABELS}
        for mark in marks:
            (x0, y0), _, (x1, y1), _ = mark.contour
            for x in range(int(x0), int(x1) + 1):
                self.pixels[mark.label] |= {(x, y) for y in range(int(y0), int(y1) + 1)}
        self.lesion = self.pixels[LABELS[0]] | self.pixels[LABELS[1]]
        self.healthy = self.pixels[LABELS[2]] | self.pixels[LABELS[3]]

    def regions(self) -> list[tuple[str, set[tuple[int, int]]]]:
        regions = []
        for label in LABELS[:2]:
            left = set(self.pixels[label])
            while left:
                queue, region = [left.pop()], set[tuple[int, int]]()
                while queue:
                    x, y = queue.pop()
                    region.add((x, y))
                    near = {(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
                    left -= near
                    queue += near
                regions.append((label, region))
        return regions

    def against(self, twin: "Twin") -> RegionCounts:
        regions = self.regions()
        touched = [region for _, region in regions if region & twin.lesion]
        same = [region for label, region in regions if region & twin.pixels[label]]
        healthy = [region for _, region in regions if region & twin.healthy and not region & twin.lesion]
        return RegionCounts(len(regions), len(touched), len(same), len(healthy))


@given(seed=st.integers(0, 2**32), counts=st.tuples(st.integers(0, 8), st.integers(0, 8)))
@settings(max_examples=80, deadline=None)
def test_two_readers_are_compared_as_by_sets_of_pixels(seed: int, counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    first, second = (random_marks(rng, count) for count in counts)
    twins = Twin(first), Twin(second)

    comparison = compare(draw_marks(first, 16, 16), draw_marks(second, 16, 16))

    assert comparison.common == len(twins[0].lesion & twins[1].lesion)
    assert comparison.areas == (len(twins[0].lesion), len(twins[1].lesion))
    assert comparison.first == twins[0].against(twins[1])
    assert comparison.second == twins[1].against(twins[0])
    areas = len(twins[0].lesion) + len(twins[1].lesion)
    dice = pair_agreement("Ada", "Ben", [comparison]).dice
    if areas:
        assert dice is not None
        assert dice.value == pytest.approx(2 * len(twins[0].lesion & twins[1].lesion) / areas)
    else:
        assert dice is None


def test_figures_of_a_pair_whose_answers_are_known() -> None:
    ada = [[box(2, 2, 5, 5), box(20, 20, 23, 23)], [box(2, 2, 5, 5, "hard-exudate")]]
    ben = [[box(2, 2, 5, 5), box(20, 20, 21, 21, "artifact")], [box(5, 5, 8, 8)]]
    photos = [compare(draw_marks(a, 32, 32), draw_marks(b, 32, 32)) for a, b in zip(ada, ben, strict=True)]

    pair = pair_agreement("Ada", "Ben", photos)

    assert pair.dice is not None
    assert pair.of_first.touched is not None
    assert pair.of_second.touched is not None
    assert pair.same_kind is not None
    # 16 of 32 and 16 px, then 1 of 16 and 16.
    assert pair.dice.value == pytest.approx((2 * 16 / 48 + 2 * 1 / 32) / 2)
    assert (pair.dice.low, pair.dice.high) == pytest.approx((2 / 32, 32 / 48))
    assert (pair.of_first.regions, pair.of_first.called_healthy) == (3, 1)
    assert pair.of_first.touched.value == pytest.approx(2 / 3)
    assert (pair.of_second.regions, pair.of_second.called_healthy) == (2, 0)
    assert pair.of_second.touched.value == 1
    assert pair.same_kind.value == 0.5  # both of the first photograph, none of the second


def test_readers_without_lesions_have_no_figures() -> None:
    none = draw_marks([box(2, 2, 5, 5, "artifact")], 8, 8)
    pair = pair_agreement("Ada", "Ben", [compare(none, none)])
    assert pair.dice is pair.same_kind is pair.of_first.touched is pair.of_second.touched is None


def test_intervals_are_of_ratios_over_photographs(rng: np.random.Generator) -> None:
    bottom = rng.integers(0, 9, 30).astype(np.float64)
    top = rng.binomial(bottom.astype(int), 0.6).astype(np.float64)

    figure = ratio(top, bottom)

    assert figure is not None
    drawn = rng.integers(0, 30, (4000, 30))
    low, high = np.percentile(top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1), (2.5, 97.5))
    assert figure.value == top.sum() / bottom.sum()
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.02)


def test_a_polygon_covers_its_outline_and_what_is_inside() -> None:
    drawn = draw_marks([ReaderMark("drusen", ((1, 1), (7, 1), (1, 7))), box(40, 40, 50, 50)], 12, 9)
    mask = drawn.kinds["drusen"].mask
    assert mask.shape == (9, 12)
    y, x = np.mgrid[:9, :12]
    np.testing.assert_array_equal(mask, (x >= 1) & (y >= 1) & (x + y <= 8))
    assert drawn.kinds["hemorrhage"].count == 0


def known_map() -> tuple[NDArray[np.float32], Mask, Frame]:
    """Four peaks on a square of 32 px: 4 at (4, 4), 3 at (20, 4), 2 at (4, 20) and 1 at (20, 20)."""
    values = np.zeros((32, 32), np.float32)
    for height, (x, y) in zip((4, 3, 2, 1), ((4, 4), (20, 4), (4, 20), (20, 20)), strict=True):
        values[y : y + 2, x : x + 2] = height
    return values, np.ones((32, 32), np.bool_), Frame(32, 32, 0.0, 0.0, 32.0, 32.0, 32)


def test_the_index_is_compared_with_each_reader_and_with_all() -> None:
    values, scored, frame = known_map()
    drawn: dict[str, DrawnMarks] = {
        "Ada": draw_marks([box(3, 3, 6, 6), box(28, 28, 30, 30)], 32, 32),
        "Ben": draw_marks([box(19, 3, 22, 6, "artifact"), box(4, 20, 5, 21)], 32, 32),
    }
    kinds: Mapping[str, Sequence[str]] = {"Ada": ["hemorrhage"], "Ben": ["hemorrhage"]}

    scored_marks = summarize_marks(values, scored, frame, drawn, kinds)

    levels = [FindingLevel(0.25, 2.5), FindingLevel(1.0, 1.5), FindingLevel(4.0, None)]
    touched = {}
    for reader in drawn:
        points = reader_froc(reader, [scored_marks.readers[reader]], kinds[reader], levels).points
        groups = [point.group() for point in points]
        touched[reader] = [group and group.touched.value for group in groups]
        # Above 2.5 the peaks 4 and 3 are regions, above 1.5 the peak 2, too: Ada's is the 4, Ben's the 2.
        assert [point.unmarked_regions for point in points] == ([1, 2] if reader == "Ada" else [2, 2])
    assert touched == {"Ada": [0.5, 0.5], "Ben": [0, 1]}
    strict, middle, loose = (unmarked_regions([scored_marks], 1.0, level) for level in (2.5, 1.5, 0.5))
    assert [entry.unmarked.value for entry in (strict, middle, loose)] == [0, 0, 1]
    assert [entry.called_healthy.value for entry in (strict, middle, loose)] == [1, 1, 1]


def test_a_reader_of_healthy_regions_alone_has_no_points() -> None:
    values, scored, frame = known_map()
    drawn = {"Ada": draw_marks([box(3, 3, 6, 6, "artifact")], 32, 32)}
    summary = summarize_marks(values, scored, frame, drawn, {"Ada": []}).readers["Ada"]
    assert reader_froc("Ada", [summary], [], [FindingLevel(1.0, 1.5)]).points == ()
    assert reader_froc("Ada", [], [], [FindingLevel(1.0, 1.5)]).points == ()


def entry(content: str, reader: str, *marks: ReaderMark, size: tuple[int, int] = (32, 32)) -> dict[str, Any]:
    """An entry of the journal as `marks export` writes it."""
    return {
        "id": "m-00000001", "content_sha256": content, "width": size[0], "height": size[1], "reader": reader,
        "at": "2026-01-01T00:00:00Z", "version": "v", "fingerprint": "f",
        "marks": [
            {"id": f"m-00000001-{number}", "label": mark.label, "contour": mark.contour, "patches": 1,
             "distance": 1.0, "withdrawn": mark.withdrawn}
            for number, mark in enumerate(marks, start=1)
        ],
    }  # fmt: skip


def one_mark(mark: ReaderMark, content: str = "a" * 64, size: tuple[int, int] = (32, 32)) -> str:
    """A file with one mark of one reader."""
    return json.dumps({"photos": [entry(content, "Ada", mark, size=size)]})


def marks_file(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "marks.json"
    path.write_text(json.dumps({"photos": entries}))
    return path


def test_a_file_of_marks_is_read_by_photograph_and_reader(tmp_path: Path) -> None:
    a, b = "a" * 64, "b" * 64
    whole, gone = box(1, 1, 4, 4), box(5, 5, 9, 9, withdrawn=True)
    path = marks_file(
        tmp_path,
        entry(a, "Ben", whole),
        entry(a, "Ada ", gone, ReaderMark("drusen", ())),
        entry(a, "Ben", box(8, 8, 9, 9, "drusen"), gone),
        entry(b, "", whole),
    )

    marks = read_readers_marks(path, LIMITS)

    assert marks.readers == ("(no name)", "Ben")
    assert marks.without_contour == 1
    assert [photo.content_sha256 for photo in marks.photos] == [a, b]
    assert [dict(photo.readers) for photo in marks.photos] == [
        {"Ben": (whole, box(8, 8, 9, 9, "drusen"))},
        {"(no name)": (whole,)},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no file of `resad-indexer marks export`: Invalid JSON"),
        ('{"images": [], "annotations": []}', "marks export`: photos: Field required"),
        ('{"photos": []}', "no mark with a contour"),
        (one_mark(box(1, 1, 2, 2), content="x"), "photos.0.content_sha256"),
        (one_mark(box(1, 1, 2, 2, withdrawn=True)), "no mark with a contour"),
        (one_mark(ReaderMark("drusen", ())), "(1 mark without a contour"),
        (one_mark(ReaderMark("drusen", ((1, 1),))), "entry 1: a region of"),
        (one_mark(box(1, 1, 2, 2, "No Label")), "entry 1: 'No Label'"),
        (one_mark(box(1, 1, 2, 2), size=(10**5, 10**5)), "at most"),
        (json.dumps({"photos": [entry("a" * 64, "Ada", box(1, 1, 2, 2)),
                                entry("a" * 64, "Ben", box(1, 1, 2, 2), size=(9, 9))]}),
         "entry 2: the photograph is 9 x 9 px, in an entry before it 32 x 32"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        read_readers_marks(path, LIMITS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Marked:
    """The drawn diseased photographs: their folder, hashes, and size."""

    def __init__(self, drawn: Path) -> None:
        self.paths = sorted(
            path for path in (drawn / "test").rglob("*") if path.is_file() and "good" not in path.parts
        )
        self.hashes = [sha256(path.read_bytes()).hexdigest() for path in self.paths]
        with Image.open(self.paths[0]) as image:
            self.size = image.size

    def entry(self, number: int, reader: str, *marks: ReaderMark) -> dict[str, Any]:
        return entry(self.hashes[number], reader, *marks, size=self.size)


@pytest.fixture(scope="module")
def marked(drawn: Path) -> Marked:
    return Marked(drawn)


def test_evaluate_prints_and_writes_the_agreement(
    run: Run, small_index: Path, drawn: Path, marked: Marked, tmp_path: Path
) -> None:
    file = marks_file(
        tmp_path,
        marked.entry(0, "Ada [red]", box(60, 60, 90, 90)),
        marked.entry(0, "Ben", box(60, 60, 90, 90), box(95, 95, 99, 99, "normal-variant")),
        marked.entry(1, "Ada [red]", box(60, 60, 90, 90)),
        marked.entry(1, "Ben", box(60, 60, 90, 90, "drusen"), box(5, 5, 9, 9, withdrawn=True)),
        marked.entry(2, "Ben", box(40, 40, 90, 90), ReaderMark("drusen", ())),
        entry("c" * 64, "Ben", box(1, 1, 4, 4)),
    )
    target, page = tmp_path / "marks_figures.json", tmp_path / "marks.html"

    outcome = run("evaluate", small_index, "--marks", file, "--photos", drawn / "test", "--json", target,
                  "--html", page)  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert "Agreement of readers on the photographs that both marked" in outcome.out
    assert "Ada [red]" in outcome.out
    assert "1 mark without a contour left out" in outcome.err
    assert "1 marked photograph has no file" in outcome.err
    assert "two readers share 2 photographs only" in outcome.err
    figures = json.loads(target.read_text())
    assert figures["painted"] is None
    results = figures["agreement"]["results"]
    assert (results["photos"], results["with_file"], results["taught"]) == (4, 3, 0)
    (pair,) = results["pairs"]
    assert (pair["first"], pair["second"], pair["photos"]) == ("Ada [red]", "Ben", 2)
    assert pair["dice"]["value"] == 1
    assert pair["same_kind"]["value"] == 0.5
    assert [(reader["reader"], reader["photos"]) for reader in results["index"]] == [("Ada [red]", 2), ("Ben", 3)]
    rates = [entry["rate"] for entry in results["unmarked"]]
    assert rates
    assert set(rates) <= {0.25, 1, 4}
    for reader in results["index"]:
        assert [point["rate"] for point in reader["points"]] == rates
        assert reader["points"][0]["lesions"][0]["lesions"] == reader["photos"]
    text = page.read_text()
    assert "on readers&#39; marks" in text
    assert "Agreement of readers" in text
    assert "regions that no reader marked" in text


def test_marks_of_a_journal_are_compared_and_what_the_index_learned_of_them_is_said(
    run: Run, small_index: Path, marked: Marked, tmp_path: Path
) -> None:
    index, file, photo = tmp_path / "drawn", tmp_path / "marks.json", marked.paths[0]
    shutil.copytree(small_index, index, symlinks=True)
    (tmp_path / "marks.csv").write_text(f"photo,label,points\n{photo.name},drusen,60 60 90 60 90 90 60 90\n")
    for reader in ("Ada", "Ben", "Eve"):
        add = ("marks", "import", index, tmp_path / "marks.csv", "--photos", photo.parent, "--reader", reader)
        assert run(*add).code == 0
    *_, of_eve = (line.split()[0] for line in run("marks", "list", index).out.splitlines() if "Eve" in line)
    assert run("marks", "withdraw", index, of_eve, "--reader", "Eve").code == 0
    assert run("marks", "export", index, "--out", file).code == 0
    assert run("teach", index).code == 0
    target = tmp_path / "figures.json"

    outcome = run("evaluate", index, "--marks", file, "--photos", photo.parent, "--json", target)

    assert outcome.code == 0, outcome.err
    assert "this version of the index has learned marks of 1 marked photograph" in " ".join(outcome.err.split())
    results = json.loads(target.read_text())["agreement"]["results"]
    assert (results["readers"], results["taught"]) == (["Ada", "Ben"], 1)
    assert results["pairs"][0]["dice"]["value"] == 1


def test_one_reader_is_compared_with_the_index_alone_beside_a_data_set(
    run: Run, small_index: Path, drawn: Path, marked: Marked, tmp_path: Path
) -> None:
    reference = sorted((drawn / "train/good").iterdir())[0]
    file = marks_file(
        tmp_path,
        marked.entry(0, "Ada", box(60, 60, 90, 90)),
        entry(
            sha256(reference.read_bytes()).hexdigest(), "Ada", box(60, 60, 70, 70, "artifact"), size=marked.size
        ),
    )
    target, page = tmp_path / "figures.json", tmp_path / "report.html"

    outcome = run("evaluate", small_index, "--data", drawn, "--marks", file, "--photos", drawn, "--json", target,
                  "--html", page)  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert "one reader only (Ada)" in outcome.err
    assert "Agreement of readers on" not in outcome.out
    assert "Each reader's lesions touched" in outcome.out
    assert "1 marked photograph is in the index" in outcome.err
    figures = json.loads(target.read_text())
    assert figures["agreement"]["results"]["pairs"] == []
    assert figures["agreement"]["in_the_index"][0]["reference"] == "r-00001"
    assert figures["froc"]["diseased"] == 3
    assert "1 marked photograph is in the index" in page.read_text()


def test_what_cannot_be_compared_is_refused(run: Run, small_index: Path, marked: Marked, tmp_path: Path) -> None:
    file = marks_file(tmp_path, entry("c" * 64, "Ada", box(1, 1, 4, 4)))
    photos = marked.paths[0].parent
    for arguments, message in (
        (("--marks", file), "--marks needs --photos"),
        (("--photos", photos), "--photos needs --marks"),
        (("--marks", file, "--photos", photos), "has the SHA-256 of one in"),
        (("--marks", tmp_path / "none.json", "--photos", photos), "no such file"),
    ):
        outcome = run("evaluate", small_index, *arguments)
        assert outcome.code == 2
        assert message in " ".join(outcome.err.split())
    file = marks_file(tmp_path, entry(marked.hashes[0], "Ada", box(1, 1, 4, 4), size=(9, 9)))
    outcome = run("evaluate", small_index, "--marks", file, "--photos", photos)
    assert outcome.code == 2
    assert "its marks are of 9 x 9" in " ".join(outcome.err.split())


def test_an_index_without_levels_compares_readers_alone(
    run: Run, older_index: Path, marked: Marked, tmp_path: Path
) -> None:
    file = marks_file(tmp_path, *(marked.entry(0, name, box(60, 60, 90, 90)) for name in ("Ada", "Ben")))
    outcome = run("evaluate", older_index, "--marks", file, "--photos", marked.paths[0].parent)
    assert outcome.code == 0, outcome.err
    assert "Agreement of readers" in outcome.out
    assert "Each reader's lesions touched" not in outcome.out
    assert "states no level of findings for 0.25, 1, 4 false regions" in outcome.err


def test_many_photographs_have_narrower_intervals() -> None:
    counts = [RegionCounts(4, touched, touched, 0) for touched in (2, 3, 4)]
    few, many = (
        pair_agreement("Ada", "Ben", [Comparison(1, (2, 2), count, count) for count in counts * repeats])
        for repeats in (1, 20)
    )
    assert few.of_first.touched is not None
    assert many.of_first.touched is not None
    assert few.of_first.touched.value == many.of_first.touched.value == 0.75
    width_few = few.of_first.touched.high - few.of_first.touched.low
    assert many.of_first.touched.high - many.of_first.touched.low < width_few / 2
