"""What is purged is in no file of the index any more, and cannot come back by any way in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.lifecycle.archive import export_version, import_version
from indexer.lifecycle.merge import MergeOptions, merge
from indexer.lifecycle.remove import hashes_to_purge, purge
from resad import index
from resad.errors import IndexInvalid, SettingError
from resad.index import PURGED, tombstone, tombstones
from tests.indexer.lifecycle.small import (
    CPU,
    add_photos,
    build_index,
    copy_photos,
    files_with,
    load_on_cpu,
    quiet,
    remove_photos,
    traces,
    with_ids,
)

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
    remove_photos(place, with_ids(["r-00002"]))
    assert len(files_with(place, needles)) >= 4
    report = purge(place, [content])
    assert report.work
    assert len(report.versions) == 2
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
    with pytest.raises(IndexInvalid, match="were purged from eyes"):
        import_version(tmp_path / "old.tar", place.parent)
    assert index.live_version(place) == live
    import_version(tmp_path / "old.tar", tmp_path / "elsewhere")
    with pytest.raises(IndexInvalid, match="were purged from eyes"):
        merge(MergeOptions(place, tmp_path / "elsewhere/eyes", place.parent, "eyes", CPU), quiet())
    copied = shutil.copytree(index.resolve(tmp_path / "elsewhere/eyes"), place / "20200101T000000Z-0000")
    with pytest.raises(IndexInvalid, match="1 photographs that were purged"):
        index.activate(place, copied.name)
    shutil.rmtree(copied)
    place = build_index(copy_photos(photos[:5], tmp_path / "five"), place.parent)
    assert len(load_on_cpu(place).photos) == 4
    assert files_with(place, needles[:2]) == []


def test_what_is_live_must_be_rid_of_it_first(plain: Path) -> None:
    content = load_on_cpu(plain).photos[0].content_sha256
    with pytest.raises(IndexInvalid, match="is live and holds"):
        purge(plain, [content])
    assert tombstones(plain) == frozenset()


def test_stopped_half_way_it_is_gone_on_with(plain: Path, more: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_on_cpu(add_photos(plain, more).derived.version).photos[1].content_sha256
    remove_photos(plain, with_ids(["r-00002"]))

    def interrupted(place: Path, version: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("indexer.lifecycle.remove.delete_version", interrupted)
        with pytest.raises(KeyboardInterrupt):
            purge(plain, [content])
    assert len(index.versions(plain)) == 3
    with pytest.raises(IndexInvalid, match="purged"):
        index.activate(plain, index.versions(plain)[0])
    assert hashes_to_purge(plain, frozenset([content, "0" * 64])) == {content}
    assert len(purge(plain, [content]).versions) == 2
    assert files_with(plain, [content.encode()]) == []


def test_other_indexes_beside_it_are_named(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, plain.parent / "twin")
    content = remove_photos(plain, with_ids(["r-00001"])).hashes
    assert purge(plain, content).elsewhere == (plain.parent / "twin" / index.versions(plain.parent / "twin")[0],)
