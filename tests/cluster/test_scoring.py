"""Scoring over a cluster: the scores of one process, and no photograph that ends the run."""

import importlib
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from indexer.cluster import scoring
from indexer.cluster.connection import Cluster, WorkerSize
from indexer.cluster.orders import Workers
from indexer.cluster.score_rows import Row, Rows
from indexer.cluster.scorer import Scorer
from indexer.cluster.scoring import TABLE, listed, score_on
from resad import index
from resad.config import PhotoLimits
from resad.detector import Detector
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.preparation import prepare
from resad.runtime import pick_device
from resad.verdict import Rule
from tests.conftest import Run

RULE = Rule(None, None, None)


class Fragile(Scorer):
    """Its process dies of one of the photographs, as of a fault in a decoder."""

    def score(self, photos: Sequence[Path]) -> list[Row]:
        if any(photo.name == "deadly.jpg" for photo in photos):
            os._exit(139)
        return super().score(photos)


@pytest.mark.slow
def test_scores_are_those_of_one_process_and_no_photograph_ends_the_run(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted((drawn / "test").rglob("*.jpg")):
        (photos / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    good = sorted(photos.iterdir())
    (photos / "deadly.jpg").write_bytes(good[0].read_bytes())
    (photos / "letter.jpg").write_text("call the clinic")
    (photos / "two\nlines.jpg").write_bytes(good[1].read_bytes())
    monkeypatch.setattr(scoring, "Scorer", Fragile)
    monkeypatch.setattr(scoring, "_A_PIECE", 3)
    monkeypatch.setattr(scoring, "_TRIES", 1)

    @contextmanager
    def here(address: str):  # type: ignore[no-untyped-def]
        yield cluster

    monkeypatch.setattr("indexer.commands.clustering.connected", here)
    out = tmp_path / "out"
    ended = run(
        "score", small_index, photos, "--out", out, "--cluster", "auto", "--worker-cpus", 1, "--device", "cpu",
        "--format", "parquet",
    )  # fmt: skip
    assert ended.code == 2
    assert f"2 of {len(good) + 3} photographs could not be scored" in " ".join(ended.err.split())
    assert "deadly.jpg: the worker that scored it was lost, each time" in " ".join(ended.err.split())
    loaded = load_index(small_index, pick_device("cpu"))
    detector: Detector = loaded.detector
    version = index.resolve(small_index).name
    with Rows(out / TABLE, (version, "", "")) as rows:
        known = dict(rows.known)
    assert len(known) == len(good) + 3
    assert "two\\nlines.jpg" in " ".join(known)
    for path in good:
        prepared = prepare(path, loaded.manifest.config.preparation, PhotoLimits())
        score = detector.detect([prepared])[0].image_score
        assert float(known[str(path)].image_score) == pytest.approx(score, rel=1e-4)
    table = importlib.import_module("pyarrow.parquet").read_table(out / "scores.parquet")
    assert table.schema.metadata[b"intended_use"] == b"Research use only. Not for diagnosis."
    for row in table.to_pylist():
        line = known[row["photo"]]
        assert (row["image_score"] is None) == bool(line.fault)
        assert row["fault"] == (line.fault or None)
        assert row["image_score"] == (float(line.image_score) if line.image_score else None)
        assert (row["bytes"], row["modified_ns"], row["version"]) == (line.bytes, line.modified_ns, line.version)
    assert sorted(row["photo"] for row in table.to_pylist()) == sorted(known)
    # Again: what failed is tried again and nothing else.
    (photos / "deadly.jpg").unlink()
    Image.open(good[0]).save(photos / "letter.jpg")
    told: list[Row] = []
    workers = Workers(cluster, WorkerSize(1, 0))
    again = score_on(
        workers, small_index, listed([photos]), out, device="cpu", rule=RULE, on_rows=lambda new: told.extend(new)
    )
    assert [Path(row.photo).name for row in told] == ["letter.jpg"]
    assert not any(row.fault for row in again.values())
    assert len(again) == len(good) + 2
    with pytest.raises(SettingError, match=r"was made with fpr none, now it is 0\.1"):
        score_on(workers, small_index, listed([photos]), out, device="cpu", rule=Rule(0.1, None, None))


@pytest.mark.slow
def test_photographs_behind_addresses_are_scored_by_workers(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    folder, workers = drawn / "test", Workers(cluster, WorkerSize(1, 0))
    first = next(folder.rglob("*.jpg"))
    (tmp_path / "list.csv").write_text(f"path\nfile://{first}\nfile://{tmp_path}/gone.jpg\n")
    here = score_on(workers, small_index, listed([folder]), tmp_path / "here", device="cpu", rule=RULE)
    sources = [Path(f"file://{folder}"), tmp_path / "list.csv"]
    there = score_on(workers, small_index, listed(sources), tmp_path / "there", device="cpu", rule=RULE)
    gone = there.pop(f"file://{tmp_path}/gone.jpg")
    assert gone.fault == "No such file or directory"
    assert {name.removeprefix("file://"): row.image_score for name, row in there.items()} == {
        name: row.image_score for name, row in here.items()
    }
    assert all(row.bytes == here[name.removeprefix("file://")].bytes for name, row in there.items())
    told: list[Row] = []
    score_on(
        workers,
        small_index,
        listed(sources),
        tmp_path / "there",
        device="cpu",
        rule=RULE,
        on_rows=lambda new: told.extend(new),
    )
    assert [row.photo for row in told] == [gone.photo]


def _row(photo: str, score: str = "1.5") -> Row:
    return Row(photo, 0, 0, "v", "", "", image_score=score)


def test_a_table_cut_anywhere_keeps_its_whole_rows(tmp_path: Path) -> None:
    path, asked = tmp_path / "scores.csv", ("v", "", "")
    with Rows(path, asked) as rows:
        rows.add([_row("/a,b.jpg"), _row('/"c".jpg')])
    whole = path.read_bytes()
    first, second = (len(b"".join(whole.splitlines(keepends=True)[:lines])) for lines in (2, 3))
    for kept in range(len(whole) + 1):
        path.write_bytes(whole[:kept])
        header = kept >= whole.index(b"\n") + 1
        if not header and kept >= whole.index(b"\n"):
            continue  # the header is whole, only its end is missing
        if not header and kept:
            with pytest.raises(SettingError, match="no table of scores"):
                Rows(path, asked)
            continue
        with Rows(path, asked) as rows:
            assert len(rows.known) == (kept >= first) + (kept >= second)
            rows.add([_row("/d.jpg")])
        with Rows(path, asked) as rows:
            assert "/d.jpg" in rows.known


def test_a_table_of_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Rows(path, ("v", "", "")) as rows:
        rows.add([_row("/a.jpg")])
    before = path.read_bytes()
    with pytest.raises(SettingError, match="was made with version v, now it is w"):
        Rows(path, ("w", "", ""))
    assert path.read_bytes() == before
