"""Two indexes become one with the memories of both, and two versions are told apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from indexer.commands.versions import merge_command
from indexer.lifecycle.merge import MergeOptions, MergeReport, merge
from indexer.lifecycle.versions import diff, diff_json
from resad import index
from resad.errors import IndexInvalid
from resad.loaded_index import check_probe
from tests.indexer.lifecycle.small import (
    CPU,
    add_photos,
    build_index,
    copy_photos,
    covering_radius,
    encode_photo,
    load_on_cpu,
    quiet,
    remove_photos,
)
from tests.indexer.lifecycle.test_add_remove import left_out, stored_distances


@pytest.fixture(params=[False, True], ids=["plain", "keeping"])
def pair(request: pytest.FixtureRequest, photos: list[Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two indexes that have two photographs in common, the fourth and the fifth."""
    keep = request.param
    first = build_index(
        copy_photos(photos[:5], tmp_path / "one"), tmp_path / "root", name="one", keep_features=keep
    )
    second = build_index(
        copy_photos(photos[3:], tmp_path / "two"), tmp_path / "root", name="two", keep_features=keep
    )
    return first, second


def merge_pair(first: Path, second: Path, name: str = "both") -> MergeReport:
    return merge(MergeOptions(first, second, first.parent, name, CPU), quiet())


def test_a_merged_index_has_all_of_both_once(pair: tuple[Path, Path], photos: list[Path]) -> None:
    first, second = map(load_on_cpu, pair)
    report = merge_pair(*pair)
    merged = load_on_cpu(report.derived.version)
    check_probe(merged, report.derived.version)
    assert report.doubles == 2
    assert [record.id for record in merged.photos] == [f"r-{n:05d}" for n in range(1, 9)]
    assert len({record.content_sha256 for record in merged.photos}) == 8
    bank = merged.detector.bank
    where = list(zip(bank.provenance.photo.tolist(), map(tuple, bank.provenance.cell.tolist()), strict=True))
    assert len(set(where)) == len(where)
    for memories in (first.detector.bank.memories, second.detector.bank.memories):
        assert bank.search(memories, 1).distances.max() < 1e-6
    for (row, cell), memory in zip(where, bank.memories, strict=True):
        patches, _ = encode_photo(merged, photos[row])
        np.testing.assert_allclose(patches.features[patches.cells.tolist().index(list(cell))], memory, atol=1e-6)
    truth = covering_radius(merged, photos)
    assert merged.manifest.quality.covering_radius >= truth * (1 - 1e-6)
    for row, (photo, distances) in enumerate(
        zip(photos, stored_distances(report.derived.version, merged), strict=True)
    ):
        exact = left_out(merged, [row], photo)
        if first.manifest.keeps_features:
            np.testing.assert_allclose(distances, exact, rtol=1e-5)
        else:
            assert (distances >= exact * (1 - 1e-5)).all()
    assert merged.manifest.calibrated == ("measured" if first.manifest.keeps_features else "bound")
    entry = merged.manifest.history[-1]
    assert (entry.operation, entry.from_version, entry.also_from) == (
        "merge", first.manifest.version, f"two/{second.manifest.version}"
    )  # fmt: skip


def test_mirror_images_in_the_other_index_are_named(
    photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build_index(copy_photos(photos[:4], tmp_path / "one"), tmp_path / "root", name="one")
    folder = copy_photos(photos[4:6], tmp_path / "two")
    ImageOps.mirror(Image.open(photos[2])).save(folder / "zz.jpg", quality=80)
    merge_command(first, build_index(folder, tmp_path / "root", name="two"), name="both", device="cpu")
    assert "kept r-00007, though it is a mirror image of r-00003 (" in capsys.readouterr().err


def test_a_merged_index_can_be_taken_apart(pair: tuple[Path, Path]) -> None:
    report = merge_pair(*pair)
    after = load_on_cpu(remove_photos(pair[0].parent / "both", ["r-00006", "r-00007", "r-00008"]).derived.version)
    assert len(after.photos) == 5
    assert report.derived.after.keeps_features == after.manifest.keeps_features


def test_other_settings_are_refused(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    version = index.resolve(plain)
    second = Path(shutil.copytree(plain, tmp_path / "root/other"))
    manifest = (second / version.name / "manifest.json").read_text()
    changed = manifest.replace('"neighbors": 2', '"neighbors": 1')
    assert changed != manifest
    (second / version.name / "manifest.json").write_text(changed)
    with pytest.raises(IndexInvalid, match="fingerprint"):
        merge_pair(plain, second)
    elsewhere = build_index(copy_photos(photos[:2], tmp_path / "few"), tmp_path / "root", name="few")
    (elsewhere / "CURRENT").write_text("20990101T000000Z-0000\n")
    with pytest.raises(IndexInvalid, match="is not a version of this index"):
        merge_pair(plain, elsewhere)
    assert not (plain.parent / "both").exists()


def test_a_version_is_compared_with_the_one_before(place: Path, more: Path) -> None:
    first = index.resolve(place)
    report = add_photos(place, more)
    comparison = diff(first, place)
    assert (comparison.same, comparison.left, comparison.entered) == (5, (), ("r-00006", "r-00007", "r-00008"))
    assert (comparison.memories_left, comparison.memories_entered) == (0, report.derived.entered)
    before, after = load_on_cpu(first), load_on_cpu(place)
    by_id = {record.id: record.score for record in before.photos}
    assert {change.id: change.before for change in comparison.scores} == by_id
    assert [abs(change.after - change.before) for change in comparison.scores] == sorted(
        (abs(record.score - by_id[record.id]) for record in after.photos[:5]), reverse=True
    )
    reverse = diff(place, first)
    assert (reverse.left, reverse.entered, reverse.memories_left) == (
        comparison.entered,
        (),
        comparison.memories_entered,
    )
    assert json.loads(diff_json(comparison))["intended_use"].startswith("Research use only")
