"""The commands as they are typed, and what they say."""

import json
import re
from pathlib import Path

import pytest

from indexer.settings import method_config
from resad import index
from tests.conftest import Run
from tests.indexer.lifecycle.small import build_index, copy_photos, load_on_cpu


def words(text: str) -> str:
    return re.sub(r"[\s│┃]+", " ", text)


def test_a_year_in_the_life_of_an_index(
    run: Run, plain: Path, more: Path, photos: list[Path], tmp_path: Path
) -> None:
    first = index.live_version(plain)
    grown = run("add", plain, more)
    assert grown.code == 0
    assert "3 photographs added" in grown.out
    assert "scores measured anew 3 of 8 photographs" in words(grown.out)
    assert "calibration left-out, measured left-out, bound" in words(grown.out)
    assert "some are scored in a smaller bank" in words(run("inspect", plain).out)
    compared = run("diff", plain / str(first), plain, "--json", tmp_path / "diff.json")
    assert "photographs: 5 in both, 0 left, 3 entered" in compared.out
    assert json.loads((tmp_path / "diff.json").read_text())["entered"] == ["r-00006", "r-00007", "r-00008"]
    assert run("rollback", plain).code == 0
    assert index.live_version(plain) == first
    assert "is the oldest version" in run("rollback", plain).err
    newest = index.versions(plain)[-1]
    assert run("rollback", plain, "--to", newest).code == 0
    exported = run("export", plain, tmp_path / "eyes.tar")
    assert "purge does not reach it" in exported.out + exported.err
    assert "it is not signed" in run("import", tmp_path / "eyes.tar", "--root", tmp_path / "far").err
    merged = run("merge", plain, tmp_path / "far/eyes", "--name", "both")
    assert "8 photographs are in both" in merged.out
    assert run("verify", plain.parent / "both").code == 0
    preview = run("gc", plain, "--keep", "1", "--dry-run")
    assert f"would delete {first}" in preview.out
    assert f"deleted {first}" in run("gc", plain, "--keep", "1").out
    assert index.versions(plain) == [newest]
    removal = run("remove", plain, "--photo", photos[1], "--photo", "r-00007", "--purge", "--yes")
    assert removal.code == 0
    assert "2 photographs removed" in removal.out
    assert "STALE" in removal.err
    assert "purged: 2 photographs are barred" in removal.out
    assert removal.err.count("out of reach: ") == 4
    assert "NOT PURGED" in removal.err
    second_removal = run("remove", plain, "--photo", photos[1], "--purge", "--yes")
    assert second_removal.code == 0
    assert "purged: 1 photograph is barred, 0 versions" in words(second_removal.out)
    assert "purged from this index" in run("add", plain, copy_photos([photos[1]], tmp_path / "one")).err


def test_features_stay_where_they_are_asked_for(run: Run, photos: list[Path], tmp_path: Path) -> None:
    outcome = run("build", copy_photos(photos[:3], tmp_path / "three"), "--root", tmp_path / "root",
                  "--name", "eyes", "--backbone", "bundled", "--size", "64", "--coreset", "0.3", "--keep-features",
                  "--set", "search.mirrored=true")  # fmt: skip
    assert outcome.code == 0
    assert load_on_cpu(tmp_path / "root/eyes").manifest.keeps_features
    removal = run("remove", tmp_path / "root/eyes", "--photo", "r-00001")
    assert "calibration left-out, measured left-out, measured" in words(removal.out)
    version = index.resolve(tmp_path / "root/eyes")
    names = sorted(path.name for path in (version / "features").iterdir())
    assert names == [f"r-0000{n}.{kind}" for n in (2, 3) for kind in ("cells", "features", "mirrored")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--photo", "r-00099"), "holds no such photograph"), ((), "nothing is named"),
        (("--photo", "nowhere.jpg"), "no id"), (("--group", "clinic=3"), "patient=ID"),
        (("--photo", "r-00001", "--purge", "--no-activate"), "--no-activate"),
    ],
)  # fmt: skip
def test_what_cannot_be_removed_is_said(run: Run, plain: Path, arguments: tuple[str, ...], message: str) -> None:
    outcome = run("remove", plain, *arguments)
    assert outcome.code == 2
    assert message in words(outcome.err)
    assert len(index.versions(plain)) == 1


def test_indexes_of_other_features_are_compared_by_their_photographs_alone(
    run: Run, plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    """The other one has three of the five photographs, and one that goes by an id that is in both."""
    config = method_config("resad", backbone="bundled", size=128, coreset="0.1", settings=["search.neighbors=2"])
    folder = copy_photos([*photos[:3], photos[6]], tmp_path / "other")
    second_index = build_index(folder, plain.parent, name="other", config=config)
    compared = run("diff", plain, second_index, "--json", tmp_path / "diff.json")
    assert compared.code == 0
    assert "photographs: 3 in both, 2 left, 1 entered" in compared.out
    assert "left, by their ids before: r-00004, r-00005" in compared.out
    assert "entered, by their ids after: r-00004\n" in compared.out
    assert "fingerprints differ: memories, distances and scores of the two are not to be compared" in compared.out
    for word in ("memories: ", "median change", "covering radius", "threshold", " -> "):
        assert word not in compared.out
    document = json.loads((tmp_path / "diff.json").read_text())
    assert [document[f"memories_{word}"] for word in ("left", "entered", "same")] == [None] * 3
    assert (document["scores"], document["same"]) == ([], 3)
    assert "Research use only" in compared.out
    self_comparison = run("diff", second_index, second_index)
    for word in ("memories: ", "median change", "covering radius", "threshold 10%"):
        assert word in self_comparison.out


def test_what_adds_nothing_is_named(run: Run, plain: Path, photos: list[Path], tmp_path: Path) -> None:
    folder = copy_photos(photos[1:3], tmp_path / "again")
    (folder / "note.jpg").write_text("call the clinic")
    outcome = run("add", plain, folder)
    assert outcome.code == 2
    for number in (1, 2):
        assert (
            f"dropped {folder / photos[number].name}: same file as r-0000{number + 1} of the index" in outcome.err
        )
    assert f"skipped {folder / 'note.jpg'}: " in outcome.err
    assert "adds nothing: 3 were not used" in outcome.err


def test_a_version_that_is_left_to_lie(run: Run, plain: Path, more: Path) -> None:
    before = index.live_version(plain)
    assert "activate it to use it" in run("add", plain, more, "--no-activate").out
    assert index.live_version(plain) == before
