"""Killed between any two operations on files, an index is live and whole, and `gc` takes what is left.

An audit hook sees every operation of Python's on files before it happens.  Each time the folder is copied, as a
killed process would leave it, and the copy is looked at.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.lifecycle.archive import export_version, import_version
from indexer.lifecycle.choice import choose
from indexer.lifecycle.merge import MergeOptions, merge
from indexer.lifecycle.versions import collect
from resad import index
from resad.index import PURGED, check_files, staging_folder
from resad.loaded_index import check_probe
from tests.indexer.lifecycle.small import (
    CPU,
    add_photos,
    copy_photos,
    files_with,
    load_on_cpu,
    purge_photos,
    quiet,
    remove_photos,
)

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
_hooks: list[Callable[[str, tuple[object, ...]], None]] = []
sys.addaudithook(lambda event, args: _hooks[-1](event, args) if _hooks and event in _EVENTS else None)


def _paths(event: str, args: tuple[object, ...]) -> list[str]:
    """Which files it is about; `shutil.rmtree` names them in folders that it has open."""
    if event in ("os.remove", "os.rmdir") and isinstance(args[1], int) and args[1] != -1:
        return [f"{Path(f'/proc/self/fd/{args[1]}').readlink()}/{args[0]}"]
    return [str(argument) for argument in args[:2] if isinstance(argument, str | os.PathLike)]


@contextmanager
def before_every_file_operation(root: Path, check: Callable[[], None]) -> Iterator[list[str]]:
    """Call `check` before each operation that changes something below `root`; yields the list of what was seen."""
    events: list[str] = []

    def on_event(event: str, args: tuple[object, ...]) -> None:
        reads = event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
        if reads or not any(path.startswith(str(root)) for path in _paths(event, args)):
            return
        _hooks.append(lambda event, args: None)  # what the check itself does is not watched
        try:
            events.append(event)
            check()
        finally:
            _hooks.pop()

    _hooks.append(on_event)
    try:
        yield events
    finally:
        _hooks.pop()


class Watch:
    """Copies of the root, each looked at as after a restart.

    lives: the versions that were live in some of them.
    """

    def __init__(self, root: Path, copy: Path) -> None:
        self._root, self._copy = root, copy
        self.lives: list[str] = []

    def __call__(self) -> None:
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._root, self._copy)
        for place in sorted(path for path in self._copy.iterdir() if (path / index.CURRENT).exists()):
            live = index.resolve(place)
            check_files(live)
            if live.name not in self.lives:
                check_probe(load_on_cpu(live), live)
                self.lives.append(live.name)
            collect(place, 99)
            rest = {path.name for path in place.iterdir()} - set(index.versions(place))
            assert rest <= {index.CURRENT, ".lock", PURGED}
            for version in index.versions(place):
                check_files(place / version)


def run_watched(root: Path, tmp_path: Path, work: Callable[[], object]) -> Watch:
    watch = Watch(root, tmp_path / "copy")
    with before_every_file_operation(root, watch) as events:
        work()
    watch()
    assert len(events) > 5
    return watch


@pytest.mark.long
def test_while_photographs_are_added(place: Path, more: Path, tmp_path: Path) -> None:
    before = index.resolve(place).name
    watch = run_watched(place.parent, tmp_path, lambda: add_photos(place, more))
    assert watch.lives == [before, index.resolve(place).name]


@pytest.mark.long
def test_while_photographs_are_removed_and_purged(place: Path, tmp_path: Path) -> None:
    """The same command, by the same id, brings a purge to its end wherever it was killed."""
    before = index.resolve(place).name
    content = load_on_cpu(place).photos[1].content_sha256
    finished: list[tuple[bool, bool, int]] = []

    def finish_purge() -> None:
        watch()
        copy = tmp_path / "copy/eyes"
        state = (index.resolve(copy).name == before, (copy / PURGED).exists(), len(index.versions(copy)))
        if state != (True, False, 1) and (state not in finished or not index.versions(copy)):
            command(copy)
            assert files_with(copy, [content.encode()]) == []
            finished.append(state)

    def command(copy: Path) -> None:
        choice = choose(index.resolve(copy), ["r-00002"], [], reach="index")
        report = purge_photos(copy, choice.hashes)
        assert report.remaining == ()

    watch = Watch(place.parent, tmp_path / "copy")
    with before_every_file_operation(place.parent, finish_purge):
        command(place)
    assert watch.lives == [before, index.resolve(place).name]
    assert files_with(place, [content.encode()]) == []
    # Killed before it was barred, before the new version was live, and before the old one was gone.
    assert set(finished) >= {(True, False, 2), (True, True, 2), (False, True, 2), (False, True, 1)}


@pytest.mark.long
def test_while_versions_are_collected_merged_and_imported(plain: Path, more: Path, tmp_path: Path) -> None:
    add_photos(plain, more)
    live = index.resolve(plain).name
    export_version(plain, tmp_path / "eyes.tar")
    root = tmp_path / "far"
    root.mkdir()
    assert run_watched(plain.parent, tmp_path, lambda: collect(plain, 1)).lives == [live]
    assert run_watched(root, tmp_path, lambda: import_version(tmp_path / "eyes.tar", root)).lives == [live]
    order = MergeOptions(plain, root / "eyes", plain.parent, "eyes", CPU)
    assert len(run_watched(plain.parent, tmp_path, lambda: merge(order, quiet())).lives) == 2


@pytest.mark.long
def test_killed_for_good_it_is_as_it_was(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    before = index.resolve(plain).name
    folder = copy_photos(photos[5:], tmp_path / "many")
    for copy in range(40):
        (folder / f"{copy}.jpg").write_bytes(photos[5].read_bytes() + bytes([copy]))
    command = (sys.executable, "-c", "from indexer.cli import main; main()", "add", str(plain), str(folder))
    process = subprocess.Popen((*command, "--device", "cpu"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(plain.glob(".staging-*/**/*.features")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(plain.glob(".staging-*"))
    assert index.resolve(plain).name == before
    check_probe(load_on_cpu(plain), plain)
    collect(plain, 9)
    assert {path.name for path in plain.iterdir()} == {".lock", index.CURRENT, before}


def test_two_writers_at_once_are_refused(plain: Path, more: Path) -> None:
    with staging_folder(plain.parent, "eyes"):
        for write in (
            lambda: add_photos(plain, more),
            lambda: remove_photos(plain, ["r-00001"]),
            lambda: purge_photos(plain, []),
            lambda: index.activate(plain, index.versions(plain)[0]),
            lambda: collect(plain, 1),
        ):
            with pytest.raises(Exception, match="another process is writing"):
                write()
