"""Photographs come and go: coverage and scores are what they should be, and nothing of the gone remains."""

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from indexer.build.build import BuildOptions, build
from indexer.build.feature_store import FeatureStore
from indexer.calibration.calibrate import recalibrate
from indexer.calibration.leave_out import read_patch_distances
from indexer.coreset.selection import extend
from indexer.lifecycle.derive import sample_quantiles
from indexer.lifecycle.remove import choose
from lab.drawing import write_dataset
from resad import index
from resad.calibration import calibrate
from resad.config import PhotoLimits
from resad.detector import measure
from resad.encoder import Encoder, Encoding, PatchFeatures
from resad.errors import IndexInvalid, SettingError
from resad.loaded_index import LoadedIndex, check_probe
from resad.memory_bank import MemoryBank, Provenance
from tests.indexer.lifecycle.small import (
    CONFIG,
    CPU,
    added,
    built,
    covering_radius,
    encoded,
    holding,
    loaded,
    quiet,
    removed,
    score,
    some,
    traces,
    with_ids,
)

Files = Callable[[str], Path]
SLOWLY = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def left_out(now: LoadedIndex, group: Sequence[int], photo: Path) -> NDArray[np.float32]:
    """Each patch's mean distance to a bank really made without the group, the smaller one of both images."""
    others = now.detector.bank.without_photos(np.array(group, dtype=np.int32))
    patches, _ = encoded(now, photo)
    assert patches.mirrored is not None
    one, other = (
        others.search(features, CONFIG.search.neighbors).distances.mean(axis=1)
        for features in (patches.features, patches.mirrored)
    )
    distances: NDArray[np.float32] = np.minimum(one, other)
    return distances


def stated(version: Path, now: LoadedIndex) -> list[NDArray[np.float32]]:
    """What the version keeps of that."""
    return [one.distances for one in read_patch_distances(version, [record.id for record in now.photos])]


@SLOWLY
@given(data=st.data())
def test_added_and_removed_again_nothing_is_left_of_them(
    place: Path, photos: list[Path], files: Files, drawn: Path, tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("case")
    here = Path(shutil.copytree(place, folder / "root/eyes"))
    before = loaded(here)
    extra = data.draw(st.lists(st.sampled_from(photos[5:]), min_size=1, max_size=3, unique=True))
    with_them = loaded(added(here, some(extra, folder / "extra")).derived.version)
    assert [record.id for record in with_them.photos] == [f"r-{n:05d}" for n in range(1, 6 + len(extra))]
    assert with_them.manifest.calibrated == ("measured" if before.manifest.keeps_features else "bound")
    ids = [record.id for record in with_them.photos[5:]]
    report = removed(here, with_ids(ids))
    after = loaded(report.derived.version)
    check_probe(after, report.derived.version)
    np.testing.assert_array_equal(after.detector.bank.memories, before.detector.bank.memories)
    np.testing.assert_array_equal(after.detector.bank.provenance.pick, before.detector.bank.provenance.pick)
    for photo in sorted((drawn / "test").rglob("*.jpg"))[:2]:
        assert score(after, photo) == score(before, photo)
    assert after.manifest.calibration.scores == before.manifest.calibration.scores
    assert after.photos[0].content_sha256 == before.photos[0].content_sha256
    assert set(after.detector.bank.provenance.photo.tolist()) <= set(range(5))
    assert holding(report.derived.version, traces(with_them, range(5, 5 + len(extra)), files)) == []
    # The search finds what is there.
    assert len(holding(here / with_them.manifest.version, traces(with_them, [5], files))) >= 2


@SLOWLY
@given(gone=st.sets(st.integers(0, 4), min_size=1, max_size=3))
def test_removed_photographs_leave_no_trace_and_the_rest_is_covered_again(
    place: Path, photos: list[Path], files: Files, tmp_path_factory: pytest.TempPathFactory, gone: set[int]
) -> None:
    here = Path(shutil.copytree(place, tmp_path_factory.mktemp("case") / "root/eyes"))
    before = loaded(here)
    report = removed(here, with_ids(before.photos[row].id for row in gone))
    after = loaded(report.derived.version)
    stay = [photos[row] for row in range(5) if row not in gone]
    assert [record.id for record in after.photos] == [f"r-{n + 1:05d}" for n in range(5) if n not in gone]
    assert holding(report.derived.version, traces(before, gone, files)) == []
    provenance = after.detector.bank.provenance
    for row, photo in enumerate(stay):
        patches, _ = encoded(after, photo)
        cells = patches.cells.tolist()
        for memory in np.flatnonzero(provenance.photo == row):
            own = patches.features[cells.index(provenance.cell[memory].tolist())]
            np.testing.assert_allclose(after.detector.bank.memories[memory], own, atol=1e-6)
    assert sorted(provenance.pick.tolist()) == list(range(len(after.detector.bank)))
    truth, quality = covering_radius(after, stay), after.manifest.quality
    if before.manifest.keeps_features:
        assert quality.covering_radius == pytest.approx(truth, rel=1e-5)
        assert truth <= before.manifest.quality.covering_radius * (1 + 1e-5)
        assert (quality.covering, after.manifest.calibrated) == ("measured", "measured")
        for row, (photo, kept) in enumerate(zip(stay, stated(report.derived.version, after), strict=True)):
            np.testing.assert_allclose(kept, left_out(after, [row], photo), rtol=1e-5)
    else:
        assert quality.covering_radius >= truth * (1 - 1e-6)
        assert quality.covering == "bound"
        assert after.manifest.calibrated == ("stale" if report.lost else "measured")


def test_only_what_is_not_covered_enters_and_the_radius_is_kept(
    place: Path, photos: list[Path], more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    begin = Encoder.begin

    def counting(self: Encoder, seen: list[object]) -> Encoding:
        counted.append(len(seen))
        return begin(self, seen)  # type: ignore[arg-type]

    before = loaded(place)
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "begin", counting)
        report = added(place, more)
    assert sum(counted) == 3 + 1  # the new ones and the probe: no old photograph
    after = loaded(report.derived.version)
    kept = before.manifest.quality.covering_radius
    truth = covering_radius(after, photos)
    assert truth <= kept * (1 + 1e-5)
    assert after.manifest.quality.kept_radius == kept
    assert after.manifest.quality.covering_radius >= truth * (1 - 1e-6)
    new = after.detector.bank.memories[after.detector.bank.provenance.photo >= 5]
    assert len(new) == report.derived.entered > 0
    assert before.detector.bank.search(new, 1).distances.min() > kept
    for row, (photo, distances) in enumerate(zip(photos, stated(report.derived.version, after), strict=True)):
        exact = left_out(after, [row], photo)
        if after.photos[row].standing == "measured":
            np.testing.assert_allclose(distances, exact, rtol=1e-5)
        else:
            assert (distances >= exact * (1 - 1e-5)).all()
    assert [entry.operation for entry in after.manifest.history] == ["build", "add"]
    assert after.manifest.history[-1].from_version == before.manifest.version


def test_the_greedy_goes_on_as_the_textbook_would(tmp_path: Path, rng: np.random.Generator) -> None:
    centers, points = rng.normal(size=(4, 6)), rng.normal(size=(160, 6))
    cells = np.stack(np.divmod(np.arange(40), 8), -1).astype(np.int16)
    store = FeatureStore(tmp_path / "features")
    for some_points in np.split(points.astype(np.float32), 4):
        store.append(PatchFeatures(some_points, cells, (5, 8)))
    start = Provenance(np.arange(4, dtype=np.int32), np.zeros((4, 2), np.int16), np.arange(4, dtype=np.int32))
    bank = MemoryBank(centers.astype(np.float32), start)
    grown = extend(bank, store, [7, 8, 9, 10], 2.0, CPU, lambda _: None, tmp_path / "points")
    nearest = np.linalg.norm(points[:, None] - centers[None], axis=2).min(axis=1)
    picks = []
    while nearest.max() > 2.0:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[picks[-1]], axis=1))
    order = np.argsort(grown.provenance.pick)[4:]
    places = cells.tolist()
    photo, cell = grown.provenance.photo[order], grown.provenance.cell[order].tolist()
    found = [(number - 7) * 40 + places.index(one) for number, one in zip(photo.tolist(), cell, strict=True)]
    assert found == picks
    assert grown.provenance.photo.tolist() == sorted(grown.provenance.photo.tolist())
    assert extend(grown, store, [7, 8, 9, 10], 2.0, CPU, lambda _: None, tmp_path / "points") is grown


def test_photographs_that_are_given_do_what_kept_features_do(
    plain: Path, keeping: Path, photos: list[Path], tmp_path: Path
) -> None:
    folder = some(photos, tmp_path / "all")
    ours = loaded(removed(plain, with_ids(["r-00002"]), folder).derived.version)
    theirs = loaded(removed(keeping, with_ids(["r-00002"])).derived.version)
    np.testing.assert_array_equal(ours.detector.bank.memories, theirs.detector.bank.memories)
    assert ours.photos == theirs.photos
    assert ours.manifest.calibration == theirs.manifest.calibration
    assert ours.manifest.quality.covering == "measured"


def test_where_some_are_given_the_others_stay_stale(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    now = loaded(removed(plain, with_ids(["r-00002"]), some(photos[2:4], tmp_path / "two")).derived.version)
    assert [one.standing for one in now.photos] == ["stale", "measured", "measured", "stale"]
    assert now.manifest.calibrated == "stale"
    assert now.manifest.quality.covering_radius >= covering_radius(now, [photos[0], *photos[2:5]]) * (1 - 1e-6)


def test_copies_and_what_cannot_be_used_are_named(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    folder = some([photos[1], photos[6]], tmp_path / "mixed")
    shutil.copy(photos[6], folder / "zz.jpg")
    (folder / "note.jpg").write_text("call the clinic")
    report = added(plain, folder)
    assert report.added == 1
    assert {(one.path.name, str(one.same_as).rpartition("/")[2]) for one in report.duplicates} == {
        (photos[1].name, "r-00002 of the index"), ("zz.jpg", photos[6].name)
    }  # fmt: skip
    assert [one.path.name for one in report.skipped] == ["note.jpg"]
    with pytest.raises(SettingError, match="adds nothing: 2 were not used"):
        added(plain, some([photos[1], photos[6]], tmp_path / "again"))
    assert len(index.versions(plain)) == 2


def test_mirror_images_are_named(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    folder = some([photos[6]], tmp_path / "flipped")
    for number in (1, 6):
        ImageOps.mirror(Image.open(photos[number])).save(folder / f"zz{number}.jpg", quality=80)
    report = added(plain, folder)
    named = [(Path(one.path).name, str(one.like).rpartition("/")[2]) for one in report.near_duplicates]
    assert named == [("zz1.jpg", "r-00002 of the index"), ("zz6.jpg", photos[6].name)]
    assert all(one.mirrored for one in report.near_duplicates)


def test_ids_are_never_given_twice(plain: Path, photos: list[Path], more: Path, tmp_path: Path) -> None:
    added(plain, more)
    removed(plain, with_ids(["r-00007", "r-00008"]))
    again = loaded(added(plain, some(photos[7:], tmp_path / "last")).derived.version)
    assert [record.id for record in again.photos][-2:] == ["r-00006", "r-00009"]


def test_patients_go_on_in_number_and_can_be_named_by_it(photos: list[Path], tmp_path: Path) -> None:
    def listed(name: str, rows: list[tuple[Path, str]]) -> Path:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("path", "patient"), *rows])
        return tmp_path / name

    first = listed("first.csv", [(photos[0], "Ann"), (photos[1], "Ann"), (photos[2], "Bo"), (photos[3], "Cy")])
    place = built(first, tmp_path / "root")
    report = added(place, listed("more.csv", [(photos[4], "p-00001"), (photos[5], "Dee")]))
    assert report.strangers == 1
    now = loaded(report.derived.version)
    assert [one.patient for one in now.photos] == [
        "p-00001",
        "p-00001",
        "p-00002",
        "p-00003",
        "p-00001",
        "p-00004",
    ]
    distances = stated(report.derived.version, now)[4]
    np.testing.assert_allclose(distances, left_out(now, [0, 1, 4], photos[4]), rtol=1e-5)
    gone = removed(place, choose([], ["patient=p-00001"]))
    assert gone.removed == ("r-00001", "r-00002", "r-00005")
    with pytest.raises(SettingError, match=r"1 photographs .* would be left"):
        removed(place, choose(["r-00003", "r-00004"], []))


def test_a_calibration_on_others_follows(plain: Path, more: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "others", 5, train=10, good=0, diseased=0, height=160)
    here = index.resolve(plain)
    others = tmp_path / "others/train/good"
    recalibrate(here, loaded(here), others, PhotoLimits(), quiet(), live=True, strict=False)
    grown = added(plain, more).derived.after
    assert (grown.calibration.source, grown.calibrated) == ("separate", "bound")
    shrunk = removed(plain, with_ids(["r-00001"])).derived.after
    assert (shrunk.calibration.source, shrunk.calibrated) == ("separate", "stale")
    anew = index.resolve(plain)
    exact = recalibrate(anew, loaded(anew), others, PhotoLimits(), quiet(), live=True, strict=False).after
    assert exact.calibrated == "measured"
    one_less = removed(plain, choose([str(others / "drawn_0000.jpg")], []))
    assert one_less.removed == ("c-00001",)
    assert len(one_less.derived.after.calibration.scores) == 9
    assert holding(one_less.derived.version, [one_less.hashes[0].encode()]) == []
    assert added(plain, others).skipped[0].reason.startswith("the index is calibrated on it")
    fallen = removed(plain, with_ids(["c-00002"]))
    assert fallen.fell_back
    assert fallen.derived.after.calibration.source == "left-out"


def test_mirror_images_come_and_go_with_their_photographs(
    photos: list[Path], more: Path, files: Files, tmp_path: Path
) -> None:
    five = some(photos[:5], tmp_path / "five")
    before = loaded(built(five, tmp_path / "root", keep_features=True))
    grown = loaded(added(tmp_path / "root/eyes", more).derived.version)
    assert grown.manifest.calibrated == "measured"
    for row, photo in enumerate(sorted(photos[:5])):
        others = grown.detector.bank.without_photos(np.array([row], dtype=np.int32))
        patches, mask = encoded(grown, photo)
        alone = measure(patches, mask, others, CONFIG)
        assert grown.photos[row].score == pytest.approx(alone.image_score, rel=1e-5)
    shrunk = removed(tmp_path / "root/eyes", with_ids(["r-00006", "r-00007", "r-00008"])).derived.version
    assert sorted(path.name for path in (shrunk / "features").glob("*.mirrored")) == [
        f"r-{number:05d}.mirrored" for number in range(1, 6)
    ]
    assert loaded(shrunk).manifest.calibration.scores == before.manifest.calibration.scores
    assert holding(shrunk, traces(grown, [5, 6, 7], files)) == []


def test_pictures_come_and_go_with_their_photographs(photos: list[Path], more: Path, tmp_path: Path) -> None:
    five = some(photos[:5], tmp_path / "five")
    first = build(BuildOptions(five, tmp_path, "eyes", CONFIG, "bundled", CPU, keep_crops=True), quiet()).version
    grown = added(tmp_path / "eyes", more).derived.version
    assert sorted(path.name for path in (grown / "evidence").iterdir()) == [f"r-{n:05d}.jpg" for n in range(1, 9)]
    square = (first / "evidence/r-00002.jpg").read_bytes()
    assert (grown / "evidence/r-00002.jpg").read_bytes() == square
    shrunk = removed(tmp_path / "eyes", with_ids(["r-00002", "r-00007"])).derived.version
    left = sorted(path.name for path in (shrunk / "evidence").iterdir())
    assert left == [f"r-{n:05d}.jpg" for n in (1, 3, 4, 5, 6, 8)]
    assert holding(shrunk, [square, b"r-00002"]) == []


def test_one_file_of_features_that_is_cut_is_noticed(keeping: Path, more: Path) -> None:
    version = index.resolve(keeping)
    file = version / "features/r-00003.features"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IndexInvalid, match=r"features/r-00003\.features was changed"):
        added(keeping, more)
    loaded(version)  # scoring does not read them
    file.write_bytes(content[:-4])
    with pytest.raises(IndexInvalid, match="bytes, its manifest says"):
        loaded(version)


def test_quantiles_stand_for_distances(rng: np.random.Generator) -> None:
    distances = rng.gamma(4, size=4000).astype(np.float32)
    stated = calibrate([1.0], [1.0], distances).patches
    again = calibrate([1.0], [1.0], sample_quantiles(stated, 4000)).patches
    np.testing.assert_allclose([q.value for q in again], [q.value for q in stated], rtol=2e-2)
    assert again[-1] == stated[-1]


@pytest.mark.parametrize(
    ("photos_", "groups", "told"),
    [([], [], "nothing is named"), (["r-1"], [], "no id"), ([], ["clinic=3"], "expected patient=ID"),
     ([], ["patient="], "expected patient=ID")],
)  # fmt: skip
def test_what_is_meant_must_be_clear(photos_: list[str], groups: list[str], told: str) -> None:
    with pytest.raises(SettingError, match=told):
        choose(photos_, groups)


def test_the_search_stays_the_one_that_was_chosen(photos: list[Path], more: Path, tmp_path: Path) -> None:
    order = BuildOptions(
        some(photos[:5], tmp_path / "five"), tmp_path, "eyes", CONFIG, "bundled", CPU, search="ivf"
    )
    build(order, quiet())
    version = added(tmp_path / "eyes", more).derived.version
    now = loaded(version)
    assert now.detector.bank.plan.kind == "ivf"
    check_probe(now, version)
    assert len(loaded(removed(tmp_path / "eyes", with_ids(["r-00001"])).derived.version).photos) == 7
