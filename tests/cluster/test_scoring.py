"""Scoring over a cluster: the scores, journal and files of one process, and no photograph that ends the run."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from resad_client.errors import SettingError as JournalError
from resad_client.records import ScoreRow
from resad_client.run_files import RunTables

from cluster.scoring import JournalNote, ScoreTask, ScoreWorker, score_over_workers
from cluster.worker_pool import Cluster, PoolOptions, WorkerSize
from indexer.scoring import (
    OutputFiles,
    RunOptions,
    ScoreFailure,
    ScoreJob,
    list_labeled,
    open_journal,
    plan_jobs,
    score_photos,
)
from resad import index
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.engine import Engine, ScoreOptions
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.manifest import read_manifest
from resad.runtime import pick_device
from tests.cutting_server import serving

OPTIONS = RunOptions(ScoreOptions(DecisionRule(false_regions=2.0), evidence=2))


class FragileWorker(ScoreWorker):
    """Its process dies of one of the photographs, as of a fault in a decoder."""

    def score(self, jobs: Sequence[ScoreJob]) -> list[JournalNote]:
        if any(job.path.name == "deadly.jpg" for job in jobs):
            os._exit(139)
        return super().score(jobs)


def run_local(version: Path, sources: Sequence[Path], out: Path) -> list[ScoreRow | ScoreFailure]:
    outputs = OutputFiles(RunTables(out / "scores.csv"), json=out, maps=out, overlays=out)
    with open_journal(outputs, OPTIONS, read_manifest(version / index.MANIFEST), "resume") as journal:
        jobs = plan_jobs(list_labeled(sources), outputs, OPTIONS, journal, "resume")
        engine = Engine(load_index(version, pick_device("cpu")))
        outcomes = list(score_photos(engine, jobs, OPTIONS, journal))
        outputs.tables.write(journal.outcomes)
    return outcomes


def run_on(
    cluster: Cluster,
    version: Path,
    sources: Sequence[Path],
    out: Path,
    *,
    options: RunOptions = OPTIONS,
    worker_class: type[ScoreWorker] = ScoreWorker,
) -> list[ScoreRow | ScoreFailure]:
    """As `resad-indexer score --cluster --resume`."""
    outputs = OutputFiles(RunTables(out / "scores.csv"), json=out, maps=out, overlays=out)
    with open_journal(outputs, options, read_manifest(version / index.MANIFEST), "resume") as journal:
        jobs = plan_jobs(list_labeled(sources), outputs, options, journal, "resume")
        pool_options = PoolOptions(cluster, WorkerSize(1, 0))
        outcomes = list(
            score_over_workers(
                pool_options, version, jobs, options, journal, chunk_photos=3, tries=1, worker_class=worker_class
            )
        )
        outputs.tables.write(journal.outcomes)
    return outcomes


def failures(outcomes: Sequence[ScoreRow | ScoreFailure]) -> dict[str, str]:
    return {outcome.label: outcome.reason for outcome in outcomes if isinstance(outcome, ScoreFailure)}


def table_rows(path: Path) -> dict[str, dict[str, str]]:
    return {row["photo"]: row for row in csv.DictReader(io.StringIO(path.read_text()))}


def without_times(path: Path) -> object:
    return json.loads(path.read_text()) | {"timings_ms": None}


@pytest.mark.slow
def test_files_and_table_are_those_of_one_process_and_no_photograph_ends_the_run(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path, one_thread: None
) -> None:
    version, photos = index.resolve(small_index), tmp_path / "photos"
    photos.mkdir()
    for path in sorted((drawn / "test").rglob("*.jpg")):
        (photos / f"{path.parent.name}_{path.name}").write_bytes(path.read_bytes())
    good = sorted(photos.iterdir())
    (photos / "two\nlines.jpg").write_bytes(good[1].read_bytes())
    local_out, cluster_out = tmp_path / "here", tmp_path / "there"
    run_local(version, [photos], local_out)
    (photos / "deadly.jpg").write_bytes(good[0].read_bytes())
    (photos / "letter.jpg").write_text("call the clinic")
    outcomes = run_on(cluster, version, [photos], cluster_out, worker_class=FragileWorker)
    assert len(outcomes) == len(good) + 3
    reasons = failures(outcomes)
    assert sorted(reasons) == ["deadly.jpg", "letter.jpg"]
    assert reasons["deadly.jpg"] == "the worker that scored it was lost, each time"
    names = {path.name for path in local_out.iterdir()}
    assert {path.name for path in cluster_out.iterdir()} == names
    for name in names - {"scores.csv", "scores.csv.journal"}:
        if name.endswith(".json"):
            assert without_times(local_out / name) == without_times(cluster_out / name), name
        else:
            assert (local_out / name).read_bytes() == (cluster_out / name).read_bytes(), name
    rows, expected = table_rows(cluster_out / "scores.csv"), table_rows(local_out / "scores.csv")
    assert set(rows) == set(expected) | {"deadly.jpg", "letter.jpg"}
    assert {name: row["image_score"] for name, row in rows.items() if name in expected} == {
        name: row["image_score"] for name, row in expected.items()
    }
    # Again: what failed is tried again, and nothing else.
    (photos / "letter.jpg").unlink()
    retry_outcomes = run_on(cluster, version, [photos], cluster_out)
    assert [outcome.label for outcome in retry_outcomes] == ["deadly.jpg"]
    assert failures(retry_outcomes) == {}
    other_options = RunOptions(ScoreOptions(DecisionRule(0.1, false_regions=2.0), 2))
    with pytest.raises(JournalError, match="fpr"):
        run_on(cluster, version, [photos], cluster_out, options=other_options)


@pytest.mark.slow
def test_photographs_behind_addresses_are_scored_by_workers(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    version, folder = index.resolve(small_index), drawn / "test"
    first = next(folder.rglob("*.jpg"))
    (tmp_path / "list.csv").write_text(f"path\nfile://{first}\nfile://{tmp_path}/gone.jpg\n")
    folder_outcomes = run_on(cluster, version, [folder], tmp_path / "here")
    sources = [Path(f"file://{folder}"), tmp_path / "list.csv"]
    address_outcomes = run_on(cluster, version, sources, tmp_path / "there")
    assert list(failures(address_outcomes).values()) == ["No such file or directory"]
    scores = sorted(row.result.image_score for row in folder_outcomes if isinstance(row, ScoreRow))
    assert set(scores) == {row.result.image_score for row in address_outcomes if isinstance(row, ScoreRow)}


@pytest.mark.slow
def test_a_body_that_is_cut_costs_its_photograph_alone(
    cluster: Cluster, drawn: Path, small_index: Path, tmp_path: Path
) -> None:
    good = next((drawn / "test").rglob("*.jpg")).read_bytes()
    with serving({"a.jpg": good, "split.jpg": good, "b.jpg": good + b"b"}, {"split.jpg": 1000}) as (server, _):
        table = "".join(f"{server}/{name}.jpg\n" for name in ("a", "split", "b"))
        (tmp_path / "list.csv").write_text(f"path\n{table}")
        outcomes = run_on(cluster, index.resolve(small_index), [tmp_path / "list.csv"], tmp_path / "out")
    assert len(outcomes) == 3
    ((label, reason),) = failures(outcomes).items()
    assert label.endswith("split.jpg")
    assert reason.startswith("Input/output error")


def test_a_worker_notes_every_photograph(drawn: Path, small_index: Path, tmp_path: Path, one_thread: None) -> None:
    version = index.resolve(small_index)
    (tmp_path / "letter.jpg").write_text("call the clinic")
    photos = [*sorted((drawn / "test").rglob("*.jpg"))[:2], tmp_path / "letter.jpg"]
    worker = ScoreWorker()
    worker.start(ScoreTask(version, "cpu", 1, OPTIONS, PhotoLimits()))
    notes = worker.score([ScoreJob(path, path.name, path.stem) for path in photos])
    assert [note.outcome.photo for note in notes] == [path.name for path in photos]
    assert [note.outcome.result is None for note in notes] == [False, False, True]
    assert [note.place for note in notes] == [path.stem for path in photos]
    assert notes[0].stamp is not None
    assert notes[0].stamp.size == photos[0].stat().st_size


def test_an_index_that_a_node_does_not_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is not there on the worker"):
        ScoreWorker().start(ScoreTask(tmp_path / "none", "cpu", 1, OPTIONS, PhotoLimits()))
