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
from indexer.lifecycle.choice import choose
from indexer.lifecycle.derive import sample_quantiles
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
    add_photos,
    build_index,
    copy_photos,
    covering_radius,
    encode_photo,
    files_with,
    load_on_cpu,
    quiet,
    remove_photos,
    score,
    traces,
)

Files = Callable[[str], Path]
SLOWLY = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def left_out(loaded: LoadedIndex, group: Sequence[int], photo: Path) -> NDArray[np.float32]:
    """Each patch's mean distance to a bank really made without the group, the smaller one of both images."""
    bank = loaded.detector.bank.without_photos(np.array(group, dtype=np.int32))
    patches, _ = encode_photo(loaded, photo)
    assert patches.mirrored is not None
    plain, mirrored = (
        bank.search(features, CONFIG.search.neighbors).distances.mean(axis=1)
        for features in (patches.features, patches.mirrored)
    )
    distances: NDArray[np.float32] = np.minimum(plain, mirrored)
    return distances


def stored_distances(version: Path, loaded: LoadedIndex) -> list[NDArray[np.float32]]:
    """What the version keeps of that."""
    return [record.distances for record in read_patch_distances(version, [record.id for record in loaded.photos])]


@SLOWLY
@given(data=st.data())
def test_added_and_removed_again_nothing_is_left_of_them(
    place: Path, photos: list[Path], files: Files, drawn: Path, tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("case")
    copy = Path(shutil.copytree(place, folder / "root/eyes"))
    before = load_on_cpu(copy)
    extra = data.draw(st.lists(st.sampled_from(photos[5:]), min_size=1, max_size=3, unique=True))
    grown = load_on_cpu(add_photos(copy, copy_photos(extra, folder / "extra")).derived.version)
    assert [record.id for record in grown.photos] == [f"r-{n:05d}" for n in range(1, 6 + len(extra))]
    assert grown.manifest.calibrated == ("measured" if before.manifest.keeps_features else "bound")
    ids = [record.id for record in grown.photos[5:]]
    report = remove_photos(copy, ids)
    after = load_on_cpu(report.derived.version)
    check_probe(after, report.derived.version)
    np.testing.assert_array_equal(after.detector.bank.memories, before.detector.bank.memories)
    np.testing.assert_array_equal(after.detector.bank.provenance.pick, before.detector.bank.provenance.pick)
    for photo in sorted((drawn / "test").rglob("*.jpg"))[:2]:
        assert score(after, photo) == score(before, photo)
    assert after.manifest.calibration.scores == before.manifest.calibration.scores
    assert after.photos[0].content_sha256 == before.photos[0].content_sha256
    assert set(after.detector.bank.provenance.photo.tolist()) <= set(range(5))
    assert files_with(report.derived.version, traces(grown, range(5, 5 + len(extra)), files)) == []
    # The search finds what is there.
    assert len(files_with(copy / grown.manifest.version, traces(grown, [5], files))) >= 2


@SLOWLY
@given(removed_rows=st.sets(st.integers(0, 4), min_size=1, max_size=3))
def test_removed_photographs_leave_no_trace_and_the_rest_is_covered_again(
    place: Path, photos: list[Path], files: Files, tmp_path_factory: pytest.TempPathFactory, removed_rows: set[int]
) -> None:
    copy = Path(shutil.copytree(place, tmp_path_factory.mktemp("case") / "root/eyes"))
    before = load_on_cpu(copy)
    report = remove_photos(copy, [before.photos[row].id for row in removed_rows])
    after = load_on_cpu(report.derived.version)
    remaining = [photos[row] for row in range(5) if row not in removed_rows]
    assert [record.id for record in after.photos] == [f"r-{n + 1:05d}" for n in range(5) if n not in removed_rows]
    assert files_with(report.derived.version, traces(before, removed_rows, files)) == []
    provenance = after.detector.bank.provenance
    for row, photo in enumerate(remaining):
        patches, _ = encode_photo(after, photo)
        cells = patches.cells.tolist()
        for memory in np.flatnonzero(provenance.photo == row):
            expected = patches.features[cells.index(provenance.cell[memory].tolist())]
            np.testing.assert_allclose(after.detector.bank.memories[memory], expected, atol=1e-6)
    assert sorted(provenance.pick.tolist()) == list(range(len(after.detector.bank)))
    truth, quality = covering_radius(after, remaining), after.manifest.quality
    if before.manifest.keeps_features:
        assert quality.covering_radius == pytest.approx(truth, rel=1e-5)
        assert truth <= before.manifest.quality.covering_radius * (1 + 1e-5)
        assert (quality.covering, after.manifest.calibrated) == ("measured", "measured")
        for row, (photo, distances) in enumerate(
            zip(remaining, stored_distances(report.derived.version, after), strict=True)
        ):
            np.testing.assert_allclose(distances, left_out(after, [row], photo), rtol=1e-5)
    else:
        assert quality.covering_radius >= truth * (1 - 1e-6)
        assert quality.covering == "bound"
        assert after.manifest.calibrated == ("stale" if report.lost else "measured")


def test_only_what_is_not_covered_enters_and_the_radius_is_kept(
    place: Path, photos: list[Path], more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_sizes: list[int] = []
    begin = Encoder.begin

    def counting(self: Encoder, batch: list[object]) -> Encoding:
        batch_sizes.append(len(batch))
        return begin(self, batch)  # type: ignore[arg-type]

    before = load_on_cpu(place)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "begin", counting)
        report = add_photos(place, more)
    assert sum(batch_sizes) == 3 + 1  # the new ones and the probe: no old photograph
    after = load_on_cpu(report.derived.version)
    radius = before.manifest.quality.covering_radius
    truth = covering_radius(after, photos)
    assert truth <= radius * (1 + 1e-5)
    assert after.manifest.quality.kept_radius == radius
    assert after.manifest.quality.covering_radius >= truth * (1 - 1e-6)
    new_memories = after.detector.bank.memories[after.detector.bank.provenance.photo >= 5]
    assert len(new_memories) == report.derived.entered > 0
    assert before.detector.bank.search(new_memories, 1).distances.min() > radius
    for row, (photo, distances) in enumerate(
        zip(photos, stored_distances(report.derived.version, after), strict=True)
    ):
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
    for part in np.split(points.astype(np.float32), 4):
        store.append(PatchFeatures(part, cells, (5, 8)))
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
    rows = [(number - 7) * 40 + places.index(place) for number, place in zip(photo.tolist(), cell, strict=True)]
    assert rows == picks
    assert grown.provenance.photo.tolist() == sorted(grown.provenance.photo.tolist())
    assert extend(grown, store, [7, 8, 9, 10], 2.0, CPU, lambda _: None, tmp_path / "points") is grown


def test_photographs_that_are_given_do_what_kept_features_do(
    plain: Path, keeping: Path, photos: list[Path], tmp_path: Path
) -> None:
    folder = copy_photos(photos, tmp_path / "all")
    from_photos = load_on_cpu(remove_photos(plain, ["r-00002"], folder).derived.version)
    from_features = load_on_cpu(remove_photos(keeping, ["r-00002"]).derived.version)
    np.testing.assert_array_equal(from_photos.detector.bank.memories, from_features.detector.bank.memories)
    assert from_photos.photos == from_features.photos
    assert from_photos.manifest.calibration == from_features.manifest.calibration
    assert from_photos.manifest.quality.covering == "measured"


def test_where_some_are_given_the_others_stay_stale(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    loaded = load_on_cpu(
        remove_photos(plain, ["r-00002"], copy_photos(photos[2:4], tmp_path / "two")).derived.version
    )
    assert [record.standing for record in loaded.photos] == ["stale", "measured", "measured", "stale"]
    assert loaded.manifest.calibrated == "stale"
    assert loaded.manifest.quality.covering_radius >= covering_radius(loaded, [photos[0], *photos[2:5]]) * (
        1 - 1e-6
    )


def test_copies_and_what_cannot_be_used_are_named(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    folder = copy_photos([photos[1], photos[6]], tmp_path / "mixed")
    shutil.copy(photos[6], folder / "zz.jpg")
    (folder / "note.jpg").write_text("call the clinic")
    report = add_photos(plain, folder)
    assert report.added == 1
    assert {(photo.path.name, str(photo.same_as).rpartition("/")[2]) for photo in report.duplicates} == {
        (photos[1].name, "r-00002 of the index"), ("zz.jpg", photos[6].name)
    }  # fmt: skip
    assert [photo.path.name for photo in report.skipped] == ["note.jpg"]
    with pytest.raises(SettingError, match="adds nothing: 2 were not used"):
        add_photos(plain, copy_photos([photos[1], photos[6]], tmp_path / "again"))
    assert len(index.versions(plain)) == 2


def test_mirror_images_are_named(plain: Path, photos: list[Path], tmp_path: Path) -> None:
    folder = copy_photos([photos[6]], tmp_path / "flipped")
    for number in (1, 6):
        ImageOps.mirror(Image.open(photos[number])).save(folder / f"zz{number}.jpg", quality=80)
    report = add_photos(plain, folder)
    pairs = [
        (Path(duplicate.path).name, str(duplicate.like).rpartition("/")[2]) for duplicate in report.near_duplicates
    ]
    assert pairs == [("zz1.jpg", "r-00002 of the index"), ("zz6.jpg", photos[6].name)]
    assert all(duplicate.mirrored for duplicate in report.near_duplicates)


def test_ids_are_never_given_twice(plain: Path, photos: list[Path], more: Path, tmp_path: Path) -> None:
    add_photos(plain, more)
    remove_photos(plain, ["r-00007", "r-00008"])
    loaded = load_on_cpu(add_photos(plain, copy_photos(photos[7:], tmp_path / "last")).derived.version)
    assert [record.id for record in loaded.photos][-2:] == ["r-00006", "r-00009"]


def test_patients_go_on_in_number_and_can_be_named_by_it(photos: list[Path], tmp_path: Path) -> None:
    def listed(name: str, rows: list[tuple[Path, str]]) -> Path:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("path", "patient"), *rows])
        return tmp_path / name

    first = listed("first.csv", [(photos[0], "Ann"), (photos[1], "Ann"), (photos[2], "Bo"), (photos[3], "Cy")])
    place = build_index(first, tmp_path / "root")
    report = add_photos(place, listed("more.csv", [(photos[4], "p-00001"), (photos[5], "Dee")]))
    assert report.strangers == 1
    loaded = load_on_cpu(report.derived.version)
    assert [record.patient for record in loaded.photos] == [
        "p-00001",
        "p-00001",
        "p-00002",
        "p-00003",
        "p-00001",
        "p-00004",
    ]
    distances = stored_distances(report.derived.version, loaded)[4]
    np.testing.assert_allclose(distances, left_out(loaded, [0, 1, 4], photos[4]), rtol=1e-5)
    removal = remove_photos(place, groups=["patient=p-00001"])
    assert removal.removed == ("r-00001", "r-00002", "r-00005")
    with pytest.raises(SettingError, match=r"1 photograph .* would be left"):
        remove_photos(place, ["r-00003", "r-00004"])


def test_a_calibration_on_others_follows(plain: Path, more: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "others", 5, train=10, good=0, diseased=0, height=160)
    version = index.resolve(plain)
    normals = tmp_path / "others/train/good"
    recalibrate(version, load_on_cpu(version), normals, PhotoLimits(), quiet(), live=True, strict=False)
    grown = add_photos(plain, more).derived.after
    assert (grown.calibration.source, grown.calibrated) == ("separate", "bound")
    shrunk = remove_photos(plain, ["r-00001"]).derived.after
    assert (shrunk.calibration.source, shrunk.calibrated) == ("separate", "stale")
    version = index.resolve(plain)
    exact = recalibrate(
        version, load_on_cpu(version), normals, PhotoLimits(), quiet(), live=True, strict=False
    ).after
    assert exact.calibrated == "measured"
    removal = remove_photos(plain, [str(normals / "drawn_0000.jpg")])
    assert removal.removed == ("c-00001",)
    assert len(removal.derived.after.calibration.scores) == 9
    assert files_with(removal.derived.version, [removal.hashes[0].encode()]) == []
    assert add_photos(plain, normals).skipped[0].reason.startswith("the index is calibrated on it")
    fallback = remove_photos(plain, ["c-00002"])
    assert fallback.fell_back
    assert fallback.derived.after.calibration.source == "left-out"


def test_mirror_images_come_and_go_with_their_photographs(
    photos: list[Path], more: Path, files: Files, tmp_path: Path
) -> None:
    folder = copy_photos(photos[:5], tmp_path / "five")
    before = load_on_cpu(build_index(folder, tmp_path / "root", keep_features=True))
    grown = load_on_cpu(add_photos(tmp_path / "root/eyes", more).derived.version)
    assert grown.manifest.calibrated == "measured"
    for row, photo in enumerate(sorted(photos[:5])):
        bank = grown.detector.bank.without_photos(np.array([row], dtype=np.int32))
        patches, mask = encode_photo(grown, photo)
        expected = measure(patches, mask, bank, CONFIG)
        assert grown.photos[row].score == pytest.approx(expected.image_score, rel=1e-5)
    shrunk = remove_photos(tmp_path / "root/eyes", ["r-00006", "r-00007", "r-00008"]).derived.version
    assert sorted(path.name for path in (shrunk / "features").glob("*.mirrored")) == [
        f"r-{number:05d}.mirrored" for number in range(1, 6)
    ]
    assert load_on_cpu(shrunk).manifest.calibration.scores == before.manifest.calibration.scores
    assert files_with(shrunk, traces(grown, [5, 6, 7], files)) == []


def test_pictures_come_and_go_with_their_photographs(photos: list[Path], more: Path, tmp_path: Path) -> None:
    folder = copy_photos(photos[:5], tmp_path / "five")
    first = build(BuildOptions(folder, tmp_path, "eyes", CONFIG, "bundled", CPU, keep_crops=True), quiet()).version
    grown = add_photos(tmp_path / "eyes", more).derived.version
    assert sorted(path.name for path in (grown / "evidence").iterdir()) == [f"r-{n:05d}.jpg" for n in range(1, 9)]
    square = (first / "evidence/r-00002.jpg").read_bytes()
    assert (grown / "evidence/r-00002.jpg").read_bytes() == square
    shrunk = remove_photos(tmp_path / "eyes", ["r-00002", "r-00007"]).derived.version
    names = sorted(path.name for path in (shrunk / "evidence").iterdir())
    assert names == [f"r-{n:05d}.jpg" for n in (1, 3, 4, 5, 6, 8)]
    assert files_with(shrunk, [square, b"r-00002"]) == []


def test_one_file_of_features_that_is_cut_is_noticed(keeping: Path, more: Path) -> None:
    version = index.resolve(keeping)
    file = version / "features/r-00003.features"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IndexInvalid, match=r"features/r-00003\.features was changed"):
        add_photos(keeping, more)
    load_on_cpu(version)  # scoring does not read them
    file.write_bytes(content[:-4])
    with pytest.raises(IndexInvalid, match="bytes, its manifest says"):
        load_on_cpu(version)


def test_quantiles_stand_for_distances(rng: np.random.Generator) -> None:
    distances = rng.gamma(4, size=4000).astype(np.float32)
    quantiles = calibrate([1.0], [1.0], distances).patches
    restored = calibrate([1.0], [1.0], sample_quantiles(quantiles, 4000)).patches
    np.testing.assert_allclose([q.value for q in restored], [q.value for q in quantiles], rtol=2e-2)
    assert restored[-1] == quantiles[-1]


@pytest.mark.parametrize(
    ("photos_", "groups", "message"),
    [([], [], "nothing is named"), (["r-1"], [], "no id"), ([], ["clinic=3"], "expected patient=ID"),
     ([], ["patient="], "expected patient=ID")],
)  # fmt: skip
def test_what_is_meant_must_be_clear(plain: Path, photos_: list[str], groups: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        choose(index.resolve(plain), photos_, groups)


def test_the_search_stays_the_one_that_was_chosen(photos: list[Path], more: Path, tmp_path: Path) -> None:
    order = BuildOptions(
        copy_photos(photos[:5], tmp_path / "five"), tmp_path, "eyes", CONFIG, "bundled", CPU, search="ivf"
    )
    build(order, quiet())
    version = add_photos(tmp_path / "eyes", more).derived.version
    loaded = load_on_cpu(version)
    assert loaded.detector.bank.plan.kind == "ivf"
    check_probe(loaded, version)
    assert len(load_on_cpu(remove_photos(tmp_path / "eyes", ["r-00001"]).derived.version).photos) == 7
