"""Scoring over a cluster: the scores of one process, and no photograph that ends the run."""

import csv
import importlib
import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from PIL import Image

from cluster import scorer, scoring
from cluster.score_rows import Row, Rows
from cluster.scorer import Scorer, ScoreTask
from cluster.scoring import TABLE, listed, score_on
from cluster.worker_pool import Cluster, PoolOptions, WorkerSize
from indexer.commands.score import _tell_rows
from resad import index
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.detector import Detector
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.preparation import PreparedPhoto, prepare
from resad.quality import PhotoQuality, judge
from resad.runtime import pick_device
from tests.conftest import Run
from tests.cutting_server import serving

RULE = DecisionRule(None, None, None)


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

    monkeypatch.setattr("cluster.commands.connected", here)
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
    workers = PoolOptions(cluster, WorkerSize(1, 0))
    again = score_on(
        workers, small_index, listed([photos]), out, device="cpu", rule=RULE, on_rows=lambda new: told.extend(new)
    )
    assert [Path(row.photo).name for row in told] == ["letter.jpg"]
    assert not any(row.fault for row in again.values())
    assert len(again) == len(good) + 2
    with pytest.raises(SettingError, match=r"was made with fpr none, now it is 0\.1"):
        score_on(workers, small_index, listed([photos]), out, device="cpu", rule=DecisionRule(0.1, None, None))


@pytest.mark.slow
def test_photographs_behind_addresses_are_scored_by_workers(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    folder, workers = drawn / "test", PoolOptions(cluster, WorkerSize(1, 0))
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


@pytest.mark.slow
def test_a_body_that_is_cut_costs_its_photograph_alone(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    good = next((drawn / "test").rglob("*.jpg")).read_bytes()
    with serving({"a.jpg": good, "split.jpg": good, "b.jpg": good + b"b"}, {"split.jpg": 1000}) as (server, _):
        table = "".join(f"{server}/{name}.jpg\n" for name in ("a", "split", "b"))
        (tmp_path / "list.csv").write_text(f"path\n{table}")
        workers, photos = PoolOptions(cluster, WorkerSize(1, 0)), listed([tmp_path / "list.csv"])
        rows = score_on(workers, small_index, photos, tmp_path / "out", device="cpu", rule=RULE)
    assert {name: row.fault.partition(" (")[0] for name, row in rows.items()} == {
        f"{server}/a.jpg": "", f"{server}/b.jpg": "",
        f"{server}/split.jpg": "Input/output error",
    }  # fmt: skip
    assert rows[f"{server}/a.jpg"].image_score


def test_a_worker_has_a_row_for_each_photograph_whatever_is_raised(
    drawn: Path, small_index: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    photos = sorted((drawn / "test").rglob("*.jpg"))[:4]
    alone = Scorer()
    version = index.resolve(small_index)
    alone.start(ScoreTask(version, "cpu", 1, RULE, False, PhotoLimits()))
    expected = alone.score(photos)

    def failing(path: Path, *_: object) -> PreparedPhoto:
        if path == photos[1]:
            raise MemoryError("in key-of-somebody")
        return prepare(path, *_)  # type: ignore[arg-type]

    judged: list[PreparedPhoto] = []

    def breaking(photo: PreparedPhoto, *_: object) -> PhotoQuality:
        judged.append(photo)
        if len(judged) == 2:
            raise RuntimeError("key-of-somebody\nand more")
        return judge(photo, *_)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer, "prepare", failing)
    monkeypatch.setattr(scorer, "judge", breaking)
    rows = alone.score(photos)
    assert [row.fault for row in rows] == [
        "", "it could not be scored (MemoryError)", "it could not be scored (RuntimeError)", "",
    ]  # fmt: skip
    assert [rows[0], rows[3]] == [expected[0], expected[3]]

    def refusing(*_: object) -> PreparedPhoto:
        raise SettingError("s3fs is not installed here")

    monkeypatch.setattr(scorer, "prepare", refusing)
    with pytest.raises(SettingError, match="not installed"):
        alone.score(photos)


def _row(photo: str, score: str = "1.5") -> Row:
    return Row(photo, 0, 0, "v", "", "", image_score=score)


def test_what_is_in_doubt_is_counted_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {name: replace(_row(name), abnormal="true") for name in ("/a.jpg", "/b.jpg")}
    _tell_rows(rows, tmp_path, "csv")
    assert "2 photographs, 2 abnormal, scores in" in capsys.readouterr().out
    rows["/dark.jpg"] = replace(rows["/a.jpg"], reasons="too-dark;blurred")
    _tell_rows(rows, tmp_path, "csv")
    assert "3 photographs, 2 abnormal, 1 doubtful, scores in" in capsys.readouterr().out


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


def test_faults_are_lines_and_a_table_with_others_is_taken_up_whole(tmp_path: Path) -> None:
    path, asked = tmp_path / "scores.csv", ("v", "", "")
    faulty = Row("/c.jpg", 1, 2, "v", "", "", fault='it,\r\nsaid "no"\nand\rmore')
    with Rows(path, asked) as rows:
        rows.add([_row("/a.jpg"), faulty, _row("/b.jpg")])
        assert rows.known["/c.jpg"].fault == 'it, said "no" and more'
    assert len(path.read_bytes().splitlines()) == 4
    before = path.read_bytes()
    with Rows(path, asked) as again:
        assert again.known == rows.known
    assert path.read_bytes() == before
    # As tables were once written: a row over several lines, split anywhere.
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [
                before.decode().splitlines()[0].split(","),
                astuple(_row("/a.jpg")),
                astuple(faulty),
                astuple(_row("/b.jpg")),
            ]
        )
    whole = path.read_bytes()
    ends = [whole.index(b"\n", whole.index(name)) + 1 for name in (b"photo", b"/a.jpg", b"more", b"/b.jpg")]
    for kept in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:kept])
        with Rows(path, asked) as rows:
            assert len(rows.known) == sum(kept >= end for end in ends[1:])
            rows.add([_row("/d.jpg")])
        assert path.read_bytes().startswith(whole[: max(end for end in ends if end <= kept)])


@pytest.mark.parametrize("damage", [b'"a"b\n', b"only,three,cells\n", b"\n", b"/x.jpg,one,2,v,,,,,,,,,\n"])
def test_a_damaged_table_is_refused_and_nothing_of_it_is_lost(tmp_path: Path, damage: bytes) -> None:
    path, asked = tmp_path / "scores.csv", ("v", "", "")
    with Rows(path, asked) as rows:
        rows.add([_row("/a.jpg"), _row("/b.jpg")])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage, lines[2]]))
    before = path.read_bytes()
    with pytest.raises(SettingError, match="is a damaged table"):
        Rows(path, asked)
    assert path.read_bytes() == before


def test_a_table_of_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with Rows(path, ("v", "", "")) as rows:
        rows.add([_row("/a.jpg")])
    before = path.read_bytes()
    with pytest.raises(SettingError, match="was made with version v, now it is w"):
        Rows(path, ("w", "", ""))
    assert path.read_bytes() == before
