"""The table of scores for programs: what the rows say, with types, and nothing half-written."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.parquet import write_parquet
from cluster.score_rows import Row
from tests.cluster.conftest import RAY_REASON
from tests.conftest import Run

pq = pytest.importorskip("pyarrow.parquet", reason=RAY_REASON)  # of the same extra


@settings(max_examples=50)
@given(cells=st.tuples(*(st.none() | st.floats(0, 1e6) for _ in range(5))), name=st.text() | st.just("\udcff.jpg"))
def test_parquet_says_what_the_rows_say(cells: tuple[float | None, ...], name: str) -> None:
    told = ["" if cell is None else f"{cell!r}" for cell in cells]
    fpr, limit, score, p_value, threshold = told
    row = Row(name, 7, 2**60, "v", fpr, limit, score, p_value, threshold, "true", "3", "blurred;too-dark")
    with TemporaryDirectory() as folder:
        write_parquet([row, Row("b", 0, 0, "v", "", "", image_score="1.5")], Path(folder) / "scores.parquet")
        first, second = pq.read_table(Path(folder) / "scores.parquet").to_pylist()
        assert [path.name for path in Path(folder).iterdir()] == ["scores.parquet"]
    assert (first["fpr"], first["limit"], first["image_score"], first["p_value"], first["threshold"]) == cells
    assert (first["modified_ns"], first["abnormal"], first["findings"]) == (2**60, True, 3)
    assert first["reasons"] == ["blurred", "too-dark"]
    assert first["photo"] == name.encode(errors="backslashreplace").decode()
    assert (second["abnormal"], second["findings"], second["reasons"], second["fault"]) == (None, None, [], None)


def test_without_pyarrow_parquet_is_refused_before_anything_is_scored(
    drawn: Path, small_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    asked = ("score", small_index, drawn / "test", "--out", tmp_path / "out")
    ended = run(*asked, "--cluster", "auto", "--format", "parquet")
    assert (ended.code, "pip install 'resad[cluster]'" in ended.err) == (2, True)
    assert "--csv FILE" in run(*asked, "--format", "parquet").err
    assert not (tmp_path / "out").exists()
