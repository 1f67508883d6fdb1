"""What is purged is in no file of the index any more, and cannot come back by any way in."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.lifecycle.archive import export_version, import_version
from indexer.lifecycle.choice import choose
from indexer.lifecycle.merge import MergeOptions, merge
from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.index import PURGED, staging_folder, tombstone, tombstones
from resad.manifest import PHOTOS_FILE
from tests.conftest import Run
from tests.indexer.lifecycle.small import (
    CPU,
    add_photos,
    build_index,
    copy_photos,
    files_with,
    load_on_cpu,
    purge_photos,
    quiet,
    remove_photos,
    traces,
)
from tests.indexer.lifecycle.test_crash import before_every_file_operation

Files = Callable[[str], Path]


@pytest.fixture
def purged_photo(place: Path, more: Path, files: Files, tmp_path: Path) -> tuple[str, list[bytes]]:
    """The second photograph was in two versions and an interrupted build, and was purged: its hash, its traces."""
    loaded = load_on_cpu(add_photos(place, more).derived.version)
    content = loaded.photos[1].content_sha256
    export_version(place, tmp_path / "old.tar")
    needles = traces(loaded, [1], files)
    (place / index.WORK).mkdir()
    (place / index.WORK / "photos.jsonl").write_text(content)
    (place / ".staging-0badcafe").mkdir()
    (place / ".staging-0badcafe/photos.jsonl").write_text(content)
    remove_photos(place, ["r-00002"])
    assert len(files_with(place, needles)) >= 4
    report = purge_photos(place, [content])
    assert report.work
    assert len(report.versions) == 2
    assert (report.removal, report.remaining, report.unknown) == (None, (), ())
    return content, needles


def test_nothing_in_the_folder_tells_of_it(place: Path, purged_photo: tuple[str, list[bytes]]) -> None:
    content, needles = purged_photo
    assert files_with(place, needles) == []
    assert (place / PURGED).read_text() == tombstone(content) + "\n"
    assert len(index.versions(place)) == 1
    assert len(load_on_cpu(place).photos) == 7


def test_it_cannot_come_back(
    place: Path, purged_photo: tuple[str, list[bytes]], photos: list[Path], tmp_path: Path
) -> None:
    _, needles = purged_photo
    live = index.live_version(place)
    with pytest.raises(SettingError, match="it was purged from this index"):
        add_photos(place, copy_photos([photos[1]], tmp_path / "again"))
    with pytest.raises(IndexInvalid, match="purged from eyes"):
        import_version(tmp_path / "old.tar", place.parent)
    assert index.live_version(place) == live
    import_version(tmp_path / "old.tar", tmp_path / "elsewhere")
    with pytest.raises(IndexInvalid, match="were purged from eyes"):
        merge(MergeOptions(place, tmp_path / "elsewhere/eyes", place.parent, "eyes", CPU), quiet())
    copied = shutil.copytree(index.resolve(tmp_path / "elsewhere/eyes"), place / "20200101T000000Z-0000")
    with pytest.raises(IndexInvalid, match="1 photograph purged"):
        index.activate(place, copied.name)
    shutil.rmtree(copied)
    place = build_index(copy_photos(photos[:5], tmp_path / "five"), place.parent)
    assert len(load_on_cpu(place).photos) == 4
    assert files_with(place, needles[:2]) == []


def test_too_few_that_would_be_left_leave_all_as_it_was(plain: Path) -> None:
    contents = [record.content_sha256 for record in load_on_cpu(plain).photos]
    before = index.resolve(plain)
    with pytest.raises(SettingError, match="would be left"):
        purge_photos(plain, contents)
    assert tombstones(plain) == frozenset()
    assert {path.name for path in plain.iterdir()} == {index.LOCK, index.CURRENT, before.name}


def kill_at(place: Path, event: str, suffix: str, command: tuple[str, ...]) -> int:
    """Run `resad-indexer` in a process that kills itself before the first such operation on such a file."""
    script = (
        "import os, signal, sys\n"
        "def hook(event, args):\n"
        f"    if event == {event!r} and str(args[1] if event == 'os.rename' else args[0]).endswith({suffix!r}):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(hook)\n"
        "from indexer.cli import main\n"
        "main()\n"
    )
    return subprocess.run([sys.executable, "-c", script, *command], capture_output=True, check=False).returncode


@pytest.mark.parametrize(("event", "suffix"), [("os.rename", index.CURRENT), ("os.remove", "provenance.npz")])
def test_the_same_command_goes_on_after_a_kill(run: Run, plain: Path, event: str, suffix: str) -> None:
    """A process of its own is killed before the new version is live, and while the old one is deleted."""
    content = load_on_cpu(plain).photos[1].content_sha256
    command = ("remove", str(plain), "--photo", "r-00002", "--purge", "--yes", "--device", "cpu")
    assert kill_at(plain, event, suffix, command) == -signal.SIGKILL
    again = run(*command)
    assert again.code == 0, again.err
    assert files_with(plain, [content.encode()]) == []
    assert tombstones(plain) == {tombstone(content)}
    assert len(load_on_cpu(plain).photos) == 4


def test_a_link_is_not_followed_and_is_told(plain: Path, tmp_path: Path) -> None:
    content = load_on_cpu(plain).photos[0].content_sha256
    elsewhere = tmp_path / "big-disk"
    elsewhere.mkdir()
    (elsewhere / "photos.jsonl").write_text(content)
    (plain / index.WORK).symlink_to(elsewhere)
    report = purge_photos(plain, [content])
    (folder,) = report.remaining
    assert folder.path == plain / index.WORK
    assert f"it is a link to {elsewhere}" in folder.reason
    assert not report.work
    (plain / index.WORK).unlink()
    shutil.rmtree(elsewhere)
    assert purge_photos(plain, [content]).remaining == ()


def test_a_version_that_is_a_link_is_told(plain: Path, more: Path, tmp_path: Path) -> None:
    first = index.resolve(plain)
    content = load_on_cpu(plain).photos[0].content_sha256
    add_photos(plain, more)
    shutil.move(first, tmp_path / "moved")
    first.symlink_to(tmp_path / "moved")
    report = purge_photos(plain, [content])
    assert [place.path for place in report.remaining] == [first]
    assert "it is a link" in report.remaining[0].reason
    assert (tmp_path / "moved" / index.MANIFEST).is_file()


def test_what_cannot_be_deleted_is_told_and_goes_the_next_time(plain: Path, more: Path) -> None:
    content = load_on_cpu(plain).photos[0].content_sha256
    add_photos(plain, more)

    class Denying:
        """Refuses to delete one file, as a disk that is read-only or a file that is protected does."""

        def __call__(self) -> None:
            frame = sys._getframe(2)
            event, args = frame.f_locals["event"], frame.f_locals["args"]
            if event == "os.remove" and str(args[0]).endswith("memory_bank.faiss"):
                raise PermissionError(1, "Operation not permitted", str(args[0]))

    with before_every_file_operation(plain, Denying()):
        report = purge_photos(plain, [content])
    assert report.remaining
    assert all("Operation not permitted" in place.reason for place in report.remaining)
    assert all(place.path.exists() for place in report.remaining)
    assert purge_photos(plain, [content]).remaining == ()
    assert files_with(plain, [content.encode()]) == []


@pytest.mark.parametrize("damage", ["garbage", "shortened", "no manifest"])
def test_a_damaged_version_goes_since_it_may_hold_them(plain: Path, more: Path, damage: str) -> None:
    first = index.resolve(plain)
    contents = [record.content_sha256 for record in load_on_cpu(plain).photos]
    new = add_photos(plain, more).derived.version
    remove_photos(plain, ["r-00001"])
    records = first / PHOTOS_FILE
    if damage == "garbage":
        records.write_bytes(b"{\x1b not json\n" + records.read_bytes())
    elif damage == "shortened":  # at the end of a line: what is left can be read
        records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[1:]))
    else:
        (first / index.MANIFEST).unlink()
    report = purge_photos(plain, [contents[0]])
    assert report.remaining == ()
    assert not first.exists()
    assert not new.exists()
    assert files_with(plain, [contents[0].encode()]) == []


def test_other_indexes_beside_it_are_named(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, plain.parent / "twin")
    damaged = Path(shutil.copytree(plain, plain.parent / "damaged"))
    (index.resolve(damaged) / PHOTOS_FILE).write_text("{}\n")
    (plain / "copy-of-a-version").mkdir()
    report = purge_photos(plain, remove_photos(plain, ["r-00001"]).hashes)
    reasons = {version.path.parent.name: version.reason for version in report.elsewhere}
    assert reasons["twin"] == "holds some of them"
    assert reasons["damaged"].startswith("may hold some of them")
    assert report.unknown == (plain / "copy-of-a-version",)


def test_a_photograph_that_only_older_versions_have_is_still_known_by_its_id(plain: Path) -> None:
    content = remove_photos(plain, ["r-00002"]).hashes[0]
    with pytest.raises(SettingError, match=r"r-00002: .* holds no such photograph; version .* has it"):
        choose(index.resolve(plain), ["r-00002"], [])
    choice = choose(index.resolve(plain), ["r-00002"], [], reach="index")
    assert choice.hashes == {content}
    purge_photos(plain, choice.hashes)
    done = choose(index.resolve(plain), ["r-00002"], [], reach="index")
    assert (done.hashes, len(done.warnings)) == (frozenset(), 1)
    with pytest.raises(SettingError, match="r-00077: no version"):
        choose(index.resolve(plain), ["r-00077"], [], reach="index")


def test_an_id_that_means_several_photographs_is_refused(plain: Path, more: Path, photos: list[Path]) -> None:
    """Two versions that were made from one give the same numbers to different photographs."""
    first = index.resolve(plain)
    add_photos(plain, copy_photos([photos[5]], more / "a"))
    index.activate(plain, first.name)
    add_photos(plain, copy_photos([photos[6]], more / "b"))
    index.activate(plain, first.name)
    with pytest.raises(SettingError, match="r-00006: older versions have different photographs by this id"):
        choose(index.resolve(plain), ["r-00006"], [], reach="index")
    newest = plain / index.versions(plain)[-1]
    assert len(choose(newest, ["r-00006"], [], reach="index").hashes) == 1


def test_no_version_can_be_made_live_while_another_process_writes(plain: Path, more: Path) -> None:
    first = index.resolve(plain).name
    add_photos(plain, more)
    with staging_folder(plain.parent, "eyes"), pytest.raises(SettingError, match="another process is writing"):
        index.activate(plain, first)
    index.activate(plain, first)
    assert index.live_version(plain) == first


def test_the_environment_of_the_kill_is_real(plain: Path) -> None:
    assert kill_at(plain, "os.rename", "no-such-file", ("list", "--root", str(plain.parent))) == os.EX_OK
