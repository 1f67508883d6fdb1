"""Readers against each other and against an index, on drawn photographs and on masks counted the obvious way."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.evaluate.agreement import photo_agreement, ratio, read_export
from resad.errors import SettingError
from resad.marks import Region
from tests.conftest import Run

LABELS = ("drusen", "hemorrhage", "normal-variant")


def region(label: str, left: int, top: int, side: int) -> Region:
    mask = np.zeros((12, 12), np.bool_)
    mask[top : top + side, left : left + side] = True
    return Region(label, mask)


REGIONS = st.lists(
    st.builds(region, st.sampled_from(LABELS), st.integers(0, 9), st.integers(0, 9), st.integers(1, 4)), max_size=4
)


@given(first=REGIONS, second=REGIONS)
@settings(max_examples=80, deadline=None)
def test_counts_are_those_of_pixels_looked_at_one_by_one(first: list[Region], second: list[Region]) -> None:
    places = [(y, x) for y in range(12) for x in range(12)]

    def pixels(part: Region) -> set[tuple[int, int]]:
        return {place for place in places if part.mask[place]}

    sick = [[part for part in regions if part.label != "normal-variant"] for regions in (first, second)]
    areas = [set().union(*(pixels(part) for part in parts)) for parts in sick]
    touching = [(a, b) for a in sick[0] for b in sick[1] if pixels(a) & pixels(b)]
    disputes = sum(
        bool(pixels(part) & areas[1 - number])
        for number, regions in enumerate((first, second))
        for part in regions
        if part.label == "normal-variant"
    )
    assert photo_agreement(first, second) == (
        len(areas[0] & areas[1]),
        len(areas[0]) + len(areas[1]),
        sum(any(a is part for a, _ in touching) for part in sick[0]),
        len(sick[0]),
        sum(any(b is part for _, b in touching) for part in sick[1]),
        len(sick[1]),
        sum(a.label == b.label for a, b in touching),
        len(touching),
        disputes,
    )


def test_a_ratio_of_sums_lies_in_its_interval(rng: np.random.Generator) -> None:
    hits, all_of = rng.integers(0, 5, 30).astype(float), np.full(30, 5.0)
    figure = ratio(hits, all_of)
    assert figure is not None
    assert figure.value == pytest.approx(hits.sum() / 150)
    assert 0 < figure.low < figure.value < figure.high < 1
    assert ratio(hits, np.zeros(30)) is None


def exported(drawn: Path) -> dict[str, Any]:
    """Two readers on the first photograph, one of them on the second, too."""
    photos = sorted((drawn / "test/lesion").glob("*.jpg"))[:2]
    hashes = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]

    def square(label: str, left: int, side: int, **more: Any) -> dict[str, Any]:
        contour = [[left, 60], [left + side, 60], [left + side, 60 + side], [left, 60 + side]]
        return {"id": "m-00000000-1", "label": label, "contour": contour, "patches": 1, "distance": 1.0} | more

    return {
        "photos": [
            {"content_sha256": hashes[0], "reader": "Ada", "marks": [square("drusen", 60, 40)]},
            {"content_sha256": hashes[0], "reader": "Ben", "marks": [
                square("drusen", 80, 40), square("nevus", 60, 40, withdrawn=True),
                square("nevus", 9, 9, contour=[]),
            ]},
            {"content_sha256": hashes[1], "reader": "Ben", "marks": [square("hemorrhage", 60, 40)]},
            {"content_sha256": "0" * 64, "reader": "Ada", "marks": [square("drusen", 60, 40)]},
        ]
    }  # fmt: skip


def test_the_command_prints_and_writes_both_parts(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    (tmp_path / "marks.json").write_text(json.dumps(exported(drawn)))
    options = ("--marks", tmp_path / "marks.json", "--photos", drawn / "test/lesion", "--device", "cpu")
    outcome = run("evaluate", small_index, *options, "--json", tmp_path / "out.json")
    assert outcome.code == 0, outcome.err
    assert "Ada / Ben" in outcome.out
    assert "1 mark of masks left out" in outcome.err
    assert "1 marked photograph is not in" in outcome.err
    result = json.loads((tmp_path / "out.json").read_text())
    (pair,) = result["pairs"]
    assert pair["photos"] == 1
    assert pair["dice"]["value"] == pytest.approx(0.5, abs=0.06)  # half of each square lies in the other
    assert (pair["first_touched"]["value"], pair["same_kind"]["value"], pair["disputes"]) == (1, 1, 0)
    assert {(row["reader"], row["photos"], row["lesions"]) for row in result["readers"]} == {
        ("Ada", 1, 1), ("Ben", 2, 2)
    }  # fmt: skip
    assert result["intended_use"].startswith("Research use only")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{}", "is not what"), ("nonsense", "is not what"), ('{"photos": []}', "has no mark with a contour")],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "marks.json").write_text(content)
    with pytest.raises(SettingError, match=words):
        read_export(tmp_path / "marks.json")


def test_what_does_not_go_together_is_refused(run: Run, small_index: Path, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "marks.json").write_text(json.dumps(exported(drawn)))
    alone = run("evaluate", small_index, "--marks", tmp_path / "marks.json")
    assert alone.code == 2
    assert "belong together" in alone.err
    elsewhere = run("evaluate", small_index, "--marks", tmp_path / "marks.json", "--photos", drawn / "train")
    assert elsewhere.code == 2
    assert "none of the 3 photographs" in elsewhere.err
