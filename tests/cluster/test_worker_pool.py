"""The end of a pool whose last workers have not begun."""

import os
import shutil
import time
from pathlib import Path

from cluster.worker_pool import Call, Cluster, WorkerInfo, WorkerPool, WorkerSize

LATE_S = 1.5
"""In which the second worker makes the folder: long after the first has deleted it."""


class SharedFolderWorker:
    """PoolOptions of one folder, of which all but the first are slow to begin."""

    def start(self, place: Path) -> WorkerInfo:
        self._folder = place / "folder"
        try:
            (place / "first").touch(exist_ok=False)
        except FileExistsError:
            (place / "second").touch()
            time.sleep(LATE_S)
            (place / "late").touch()
        self._folder.mkdir(exist_ok=True)
        return WorkerInfo("here", os.getpid(), self._folder)

    def wait(self) -> None:
        time.sleep(0.02)

    def clean_up(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def test_a_worker_that_joins_at_the_end_leaves_no_folder(cluster: Cluster, tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    with WorkerPool(cluster, SharedFolderWorker, tmp_path, WorkerSize(1, 0), 2) as pool:
        pool.wait([])
        while not (tmp_path / "second").exists():
            assert time.monotonic() < deadline
            list(pool.call_all([Call(pool.workers[0], 0, "wait", ())]))
        assert [worker.info.folder for worker in pool.workers] == [tmp_path / "folder"]
    assert (tmp_path / "late").exists()
    assert not (tmp_path / "folder").exists()


def test_a_worker_without_a_place_is_not_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    with WorkerPool(cluster, SharedFolderWorker, tmp_path, WorkerSize(2, 0), 2) as pool:
        pool.wait([])
        start = time.monotonic()
    assert time.monotonic() - start < 10
    time.sleep(LATE_S)
    assert not (tmp_path / "second").exists()
    assert not (tmp_path / "folder").exists()
