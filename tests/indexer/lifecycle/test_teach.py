"""Marks become memories and examples: what an index learns, forgets, and keeps to itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resad_client.records import Mark, MarkedPhoto

from indexer.lifecycle.choice import choose
from indexer.lifecycle.merge import MergeOptions, merge
from indexer.lifecycle.teach import MOST_OF_PHOTO, TeachOptions, TeachReport, learn, teach
from resad import index
from resad.calibration import DecisionRule
from resad.config import PhotoLimits
from resad.detector import Detector
from resad.engine import Engine, ScoredPhoto, ScoreOptions
from resad.errors import IndexInvalid, SettingError
from resad.examples import REACH
from resad.loaded_index import LoadedIndex, check_probe
from resad.marks import (
    MARKS,
    NORMAL_VARIANT,
    MarkedPatches,
    Region,
    mark_photo,
    new_photo_id,
    now,
    polygon_region,
    read_entries,
    spread,
    withdraw,
    write_entry,
)
from resad.memory_bank import MemoryBank
from resad.preparation import prepare
from resad.search.plan import SearchPlan
from tests.conftest import Run
from tests.indexer.lifecycle.small import (
    CONFIG,
    CPU,
    add_photos,
    files_with,
    load_on_cpu,
    purge_photos,
    quiet,
    remove_photos,
)

OPTIONS = ScoreOptions(DecisionRule(false_regions=2.0), evidence=2)


def ill(drawn: Path) -> list[Path]:
    return sorted((drawn / "test/lesion").glob("*.jpg"))


def score(loaded: LoadedIndex, photo: Path) -> ScoredPhoto:
    return Engine(loaded).score(photo, OPTIONS)


def around_peak(scored: ScoredPhoto) -> Region:
    """The cells around the highest point of the map."""
    dense = scored.detection.anomaly_map
    y, x = np.unravel_index(dense.argmax(), dense.shape)
    mask = np.zeros(dense.shape, np.bool_)
    mask[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = True
    return Region(NORMAL_VARIANT, mask & scored.detection.scored)


def mark(place: Path, photo: Path, *regions: Region, reader: str = "Ada") -> MarkedPhoto:
    loaded = load_on_cpu(place)
    scored = score(loaded, photo)
    detection = scored.detection
    return mark_photo(
        place, loaded.manifest, scored.photo, detection.patches, detection.patch_distances, regions, reader
    )


def teach_index(place: Path) -> TeachReport:
    return teach(TeachOptions(place, CPU))


def square(label: str, left: int, top: int, side: int = 24) -> Region:
    mask = np.zeros((CONFIG.preparation.size, CONFIG.preparation.size), np.bool_)
    mask[top : top + side, left : left + side] = True
    return Region(label, mask)


def test_nothing_changes_until_the_index_is_taught(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    before = score(load_on_cpu(plain), photo)
    files = {path: path.read_bytes() for path in index.resolve(plain).rglob("*") if path.is_file()}
    mark(plain, photo, around_peak(before))
    assert {path: path.read_bytes() for path in files} == files
    after = score(load_on_cpu(plain), photo)
    np.testing.assert_array_equal(before.detection.anomaly_map, after.detection.anomaly_map)
    assert after.result.findings == before.result.findings


def test_a_normal_variant_is_near_afterwards_and_says_so(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    before = score(load_on_cpu(plain), photo)
    marked = mark(plain, photo, around_peak(before))
    report = teach_index(plain)
    after_index = load_on_cpu(plain)
    assert report.lesson.added == (marked.marks[0].id,)
    assert after_index.manifest.history[-1].operation == "teach"
    check_probe(after_index, index.resolve(plain))

    after = score(after_index, photo)
    assert (after.detection.patch_distances <= before.detection.patch_distances).all()
    inside = around_peak(before).mask
    assert after.detection.anomaly_map[inside].max() < 0.6 * before.detection.anomaly_map[inside].max()
    # The obvious way: a patch that is much nearer to the variant than to the memories takes its distance.
    examples = after_index.examples.features.astype(np.float64)
    looks = [
        part for part in (after.detection.patches.features, after.detection.patches.mirrored) if part is not None
    ]
    near = np.minimum.reduce(
        [np.linalg.norm(part[:, None] - examples[None], axis=2).min(axis=1) for part in looks]
    )
    was = before.detection.patch_distances
    np.testing.assert_allclose(
        after.detection.patch_distances, np.where(near < REACH * was, near, was), rtol=1e-4, atol=1e-3
    )
    assert after_index.manifest.calibrated == "bound"
    change = report.lesson.changes[0]
    assert change.after < change.before


def test_a_finding_resembles_the_examples_of_its_kind(plain: Path, drawn: Path) -> None:
    first, second, *_ = ill(drawn)
    scored = score(load_on_cpu(plain), first)
    lesion = around_peak(scored)
    mark(plain, first, Region("hard-exudate", lesion.mask), square("nevus", 4, 28, 8))
    teach_index(plain)
    loaded = load_on_cpu(plain)
    # Lesions alone change no distance.
    result = score(loaded, first)
    np.testing.assert_array_equal(result.detection.anomaly_map, scored.detection.anomaly_map)
    assert loaded.manifest.calibrated == "measured"
    finding = result.result.findings[0]
    assert finding.resembles is not None
    assert finding.resembles.kind == "hard-exudate"
    assert finding.resembles.distance == pytest.approx(0, abs=1e-4)
    assert finding.resembles.votes <= finding.resembles.of == 8
    assert {example.label for example in finding.resembles.examples} == {"hard-exudate"}
    assert "like hard exudate: " in str(finding.resembles)
    for other in score(loaded, second).result.findings:
        assert other.resembles is not None
        assert other.resembles.healthy_distance == pytest.approx(other.peak, rel=0.5)


def test_examples_of_lesions_keep_a_variant_from_hiding_them(plain: Path, drawn: Path) -> None:
    first = ill(drawn)[0]
    before = score(load_on_cpu(plain), first)
    region = around_peak(before)
    mark(plain, first, Region("hemorrhage", region.mask))
    copy = plain.parent / "copy.png"
    Image.open(first).save(copy)  # the same lesion in another file
    mark(plain, copy, region)
    teach_index(plain)
    after = score(load_on_cpu(plain), first)
    np.testing.assert_array_equal(before.detection.anomaly_map, after.detection.anomaly_map)


def test_an_approximate_search_gives_the_exact_score(plain: Path, drawn: Path) -> None:
    """Also where a variant makes the highest patches smaller."""
    photo = ill(drawn)[0]
    mark(plain, photo, around_peak(score(load_on_cpu(plain), photo)))
    teach_index(plain)
    loaded = load_on_cpu(plain)
    bank, origin = loaded.detector.bank, loaded.detector.bank.provenance
    rows = np.tile(np.arange(len(bank)), 6)  # few memories have no lists
    prepared = prepare(photo, CONFIG.preparation, PhotoLimits())
    rough, exact = (
        Detector(
            loaded.detector.encoder,
            MemoryBank(bank.memories[rows], origin.subset(rows), plan=plan),
            loaded.examples,
        ).detect([prepared])[0]
        for plan in (SearchPlan(kind="ivf", lists=40, probes=1), SearchPlan())
    )
    assert (rough.patch_distances > exact.patch_distances + 1e-4).any()
    assert rough.image_score == pytest.approx(exact.image_score, rel=1e-5)


def test_what_is_taken_back_is_forgotten(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    before = score(load_on_cpu(plain), photo)
    marked = mark(plain, photo, around_peak(before))
    teach_index(plain)
    with pytest.raises(SettingError, match="has no new marks"):
        teach_index(plain)
    withdraw(plain, [marked.marks[0].id], "Ben")
    with pytest.raises(SettingError, match="has no mark"):
        withdraw(plain, [marked.marks[0].id], "Ben")
    assert teach_index(plain).lesson.removed == (marked.marks[0].id,)
    after = score(load_on_cpu(plain), photo)
    np.testing.assert_array_equal(before.detection.anomaly_map, after.detection.anomaly_map)


def test_readers_who_disagree_teach_nothing_there(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    mark(plain, photo, square("hard-exudate", 24, 24))
    mark(plain, photo, square(NORMAL_VARIANT, 24, 24), reader="Ben")
    lesson = learn(plain, load_on_cpu(plain))
    assert lesson.empty
    assert all("says otherwise of the same place" in entry.reason for entry in lesson.unused)
    assert len(lesson.unused) == 2


def test_many_marks_of_one_photograph_add_no_more_than_their_share(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    regions = [square(NORMAL_VARIANT, x, y, 8) for x in range(16, 48, 4) for y in range(16, 48, 4)]
    mark(plain, photo, *regions)
    mark(plain, photo, *regions)
    examples = learn(plain, load_on_cpu(plain)).examples
    assert 0 < len(examples.features) <= MOST_OF_PHOTO


def test_marks_that_their_surroundings_contradict_are_listed(plain: Path, drawn: Path) -> None:
    first, second, *_ = ill(drawn)
    loaded = load_on_cpu(plain)
    region = around_peak(score(loaded, first))
    mark(plain, first, Region("hemorrhage", region.mask))
    copy = plain.parent / "copy.png"
    Image.open(first).save(copy)  # the same lesion in another file
    mark(plain, copy, Region(NORMAL_VARIANT, region.mask))
    healthy = score(loaded, second).detection
    quiet = np.zeros((CONFIG.preparation.size, CONFIG.preparation.size), np.bool_)
    row = int(healthy.patch_distances.argmin())
    y, x = int(healthy.patches.cells[row, 0]), int(healthy.patches.cells[row, 1])
    cell = len(quiet) // healthy.patches.grid[0]
    quiet[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell] = True
    mark(plain, second, Region("drusen", quiet))
    doubts = {change.label: change.doubt for change in learn(plain, loaded).changes}
    assert "nearer to hemorrhage" in doubts[NORMAL_VARIANT]
    assert "looks healthy" in doubts["drusen"]
    assert doubts["hemorrhage"] == ""


def test_a_purge_leaves_no_byte_of_marks_and_examples(
    plain: Path, drawn: Path, files: Callable[[str], Path]
) -> None:
    photo, other, *_ = ill(drawn)
    region = around_peak(score(load_on_cpu(plain), photo))
    marked = mark(plain, photo, region, square("drusen", 8, 24, 8))
    kept = mark(plain, other, square("drusen", 24, 24, 8))
    teach_index(plain)
    loaded = load_on_cpu(plain)
    kept_entry, entry = sorted(read_entries(plain), key=lambda entry: entry.photo.id == marked.id)
    needles = [marked.content_sha256.encode(), marked.id.encode()]
    kept_patches = {feature.tobytes() for feature in kept_entry.patches().features}
    patches = {feature.tobytes() for feature in entry.patches().features} - kept_patches
    assert patches
    needles += sorted(patches)
    assert files_with(plain, needles)
    report = purge_photos(plain, [marked.content_sha256])
    assert report.marks == 1
    assert not report.remaining
    assert not files_with(plain, needles)
    after = load_on_cpu(plain)
    assert {record.id for record in after.examples.records} == {kept.marks[0].id}
    assert [record.id for record in after.photos] == [record.id for record in loaded.photos]
    with pytest.raises(SettingError, match="was purged"):
        mark(plain, photo, region)


def test_a_photograph_that_is_only_in_the_journal_can_be_purged(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    marked = mark(plain, photo, square("drusen", 24, 24))
    version = index.resolve(plain)
    for name in (marked.id, marked.content_sha256, str(photo)):
        assert choose(version, [name], [], reach="index").hashes == {marked.content_sha256}
    purge_photos(plain, [marked.content_sha256])
    assert not read_entries(plain)
    assert index.resolve(plain) == version


def test_versions_made_later_keep_what_was_learned(keeping: Path, drawn: Path, more: Path) -> None:
    photo = ill(drawn)[0]
    mark(keeping, photo, around_peak(score(load_on_cpu(keeping), photo)), square("drusen", 8, 24, 8))
    teach_index(keeping)
    records = load_on_cpu(keeping).examples.records
    add_photos(keeping, more)
    added = load_on_cpu(keeping)
    assert added.examples.records == records
    assert added.manifest.calibrated == "bound"
    remove_photos(keeping, ["r-00006"])
    removed = load_on_cpu(keeping)
    assert removed.examples.records == records
    check_probe(removed, index.resolve(keeping))
    content = records[0].content_sha256
    remove_photos(keeping, [content])
    assert not load_on_cpu(keeping).examples.records
    assert len(load_on_cpu(keeping).photos) == len(removed.photos)


def test_an_index_that_moved_keeps_what_it_learned_without_its_journal(plain: Path, drawn: Path) -> None:
    first, second, *_ = ill(drawn)
    mark(plain, first, square("drusen", 24, 24))
    teach_index(plain)
    shutil.rmtree(plain / MARKS)
    mark(plain, second, square("nevus", 24, 24))
    teach_index(plain)
    assert load_on_cpu(plain).examples.counts() == {"drusen": 1, "nevus": 1}


def test_an_exported_version_takes_along_what_it_learned(
    plain: Path, drawn: Path, tmp_path: Path, run: Run
) -> None:
    mark(plain, ill(drawn)[0], square("drusen", 24, 24))
    teach_index(plain)
    assert run("export", plain, tmp_path / "eyes.tar").code == 0
    outcome = run("import", tmp_path / "eyes.tar", "--root", tmp_path / "elsewhere", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    there = load_on_cpu(tmp_path / "elsewhere" / plain.name)
    assert there.examples.records == load_on_cpu(plain).examples.records
    assert b"Ada" not in (tmp_path / "eyes.tar").read_bytes()


def test_a_merge_unites_what_both_have_learned(plain: Path, drawn: Path, tmp_path: Path) -> None:
    """And a purged photograph's marks stay out."""
    first, second, *_ = ill(drawn)
    other = Path(shutil.copytree(plain, tmp_path / "other" / plain.name))
    mark(plain, first, square("drusen", 24, 24))
    teach_index(plain)
    gone = mark(other, second, square("nevus", 24, 24))
    teach_index(other)
    report = merge(MergeOptions(plain, other, tmp_path / "root2", "both", CPU), quiet())
    assert load_on_cpu(report.derived.version).examples.counts() == {"drusen": 1, "nevus": 1}
    purge_photos(tmp_path / "root2" / "both", [gone.content_sha256])
    assert load_on_cpu(tmp_path / "root2" / "both").examples.counts() == {"drusen": 1}
    with pytest.raises(IndexInvalid, match="purged"):
        merge(MergeOptions(plain, other, tmp_path / "root2", "both", CPU), quiet())


def test_damaged_journals_and_foreign_files_are_named(plain: Path, drawn: Path) -> None:
    photo = ill(drawn)[0]
    mark(plain, photo, square("drusen", 24, 24))
    (entry,) = read_entries(plain)
    description = json.loads((entry.folder / "marks.json").read_text())
    description["marks"][0]["patches"] = 65
    (entry.folder / "marks.json").write_text(json.dumps(description))
    with pytest.raises(IndexInvalid, match="mark 1 is none that was written"):
        read_entries(plain)
    np.savez(index.resolve(plain) / "examples.npz", features=np.zeros((1, 3), np.float32))
    assert not load_on_cpu(plain).examples.records  # the manifest does not name it


def test_two_writers_lose_nothing(plain: Path) -> None:
    manifest = load_on_cpu(plain).manifest
    for number in range(20):
        name = new_photo_id()
        made = Mark(f"{name}-1", "drusen", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)), 1, 0.5)
        photo = MarkedPhoto(
            name, f"{number:064x}", 9, 9, "Ada", now(), manifest.version, manifest.fingerprint, (made,)
        )
        patches = MarkedPatches(np.ones((1, 3), np.float32), np.zeros(1, np.int32), np.zeros((1, 2), np.int16))
        write_entry(plain, photo, patches)
    assert len(read_entries(plain)) == 20


def test_polygons_are_the_photograph_s_pixels(drawn: Path) -> None:
    photo = prepare(ill(drawn)[0], CONFIG.preparation, PhotoLimits())
    frame = photo.frame
    x, y = frame.to_photo(20.0, 30.0)
    right, bottom = frame.to_photo(40.0, 44.0)
    region = polygon_region("drusen", [(x, y), (right, y), (right, bottom), (x, bottom)], frame)
    rows, columns = np.nonzero(region.mask)
    assert (columns.min(), columns.max()) == pytest.approx((20, 40), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((30, 44), abs=1)
    for points in ([(0, 0), (1, 1)], [(9000, 9000), (9100, 9000), (9100, 9100)]):
        with pytest.raises(SettingError, match="region"):
            polygon_region("drusen", points, frame)
    with pytest.raises(SettingError, match="no label"):
        polygon_region("Hard Exudate", [(x, y), (right, y), (right, bottom)], frame)


def test_the_patches_kept_of_a_mark_cover_the_others_best(rng: np.random.Generator) -> None:
    features = np.concatenate([np.zeros((90, 2)), [[9, 0], [0, 9], [9, 9]]]).astype(np.float32)
    features += rng.normal(0, 0.01, features.shape).astype(np.float32)
    chosen = spread(features, np.zeros(len(features), np.float32), 4)
    assert {90, 91, 92} < set(chosen.tolist())


def test_the_commands_from_a_file_of_marks_to_a_taught_index(
    plain: Path, drawn: Path, tmp_path: Path, run: Run
) -> None:
    photo = ill(drawn)[0]
    scored = score(load_on_cpu(plain), photo)
    points = " ".join(f"{x} {y}" for x, y in scored.result.findings[0].contour)
    table = tmp_path / "marks.csv"
    table.write_text(f"photo,label,points\n{photo.name},normal-variant,{points}\n")
    options = ("--photos", photo.parent, "--reader", "Ada", "--device", "cpu")
    assert "1 mark added" in run("marks", "import", plain, table, *options).out
    preview = run("teach", plain, "--preview", "--photos", photo, "--device", "cpu")
    assert "1 mark to learn" in preview.out
    assert "1 of 1 photograph would change" in preview.out
    assert load_on_cpu(plain).manifest.history[-1].operation == "build"
    assert run("teach", plain, "--device", "cpu").code == 0
    listing = run("marks", "list", plain).out
    name = read_entries(plain)[0].photo.marks[0].id
    assert f"{name}  " in listing
    assert run("marks", "export", plain, "--out", tmp_path / "out.json").code == 0
    exported = json.loads((tmp_path / "out.json").read_text())
    assert exported["photos"][0]["marks"][0]["withdrawn"] is False
    assert f"taken back: {name}" in run("marks", "withdraw", plain, name, "--reader", "Ada").out
    coco = tmp_path / "marks.json"
    coco.write_text(json.dumps({
        "images": [{"id": 7, "file_name": photo.name}],
        "categories": [{"id": 1, "name": "Hard exudate"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [60, 60, 30, 20]}],
    }))  # fmt: skip
    assert "1 mark added" in run("marks", "import", plain, coco, *options).out
    added = run("examples", "add", plain, "--data", drawn, "--device", "cpu")
    assert "added to the journal" in added.out
    lesson = learn(plain, load_on_cpu(plain))
    assert {"hard-exudate"} <= lesson.examples.counts().keys()
    table.write_text("photo,label,points\nnowhere.jpg,drusen,1 1 2 2 3 1\n")
    refused = run("marks", "import", plain, table, *options)
    assert refused.code == 2
    assert "there is no photograph" in refused.err
