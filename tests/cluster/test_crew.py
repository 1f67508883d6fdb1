"""The end of a crew whose last worker has not begun."""

import os
import shutil
import time
from pathlib import Path

from indexer.cluster.connection import Cluster, WorkerSize
from indexer.cluster.crew import Crew, Hello


class Shares:
    """Workers of one folder.  The second one begins when the first has left, while that one is still at it."""

    def begin(self, place: Path) -> Hello:
        self._place = place
        try:
            (place / "first").touch(exist_ok=False)
        except FileExistsError:
            (place / "second").touch()
            while not (place / "left").exists():
                time.sleep(0.02)
        (place / "folder").mkdir(exist_ok=True)
        return Hello("here", os.getpid(), place / "folder")

    def leave(self) -> None:
        shutil.rmtree(self._place / "folder")
        (self._place / "left").touch()
        time.sleep(1)


def test_a_worker_that_joins_at_the_end_makes_no_folder(cluster: Cluster, tmp_path: Path) -> None:
    with Crew(cluster, Shares, tmp_path, WorkerSize(1, 0), 2) as crew:
        crew.ended([])
        assert [member.hello.folder for member in crew.members] == [tmp_path / "folder"]
        deadline = time.monotonic() + 60
        while not (tmp_path / "second").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (tmp_path / "left").exists()
    assert not (tmp_path / "folder").exists()
