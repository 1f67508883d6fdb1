"""Which normals calibrate: what the trunk was trained on, outliers, and photographs that are set aside."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from indexer.calibration.lines import outlier_lines, trained_on_line
from indexer.calibration.normals import ENOUGH, Normal, calibrate_normals, far_outliers, normals_to_use
from lab.drawing import write_dataset
from resad import index
from resad.backbone import Backbone, TrainingPhoto, load_backbone, save_backbone
from resad.calibration import Calibration, calibrate, find_outliers, threshold
from resad.config import BackboneConfig, PhotoLimits, PreparationConfig
from resad.false_regions import RegionHeights
from resad.loaded_index import BACKBONE_FILE
from resad.manifest import CALIBRATION_FILE, Manifest, read_manifest, read_records
from resad.memory_bank import MemoryBank
from resad.near_duplicates import perceptual_hash
from resad.preparation import prepare
from tests.conftest import Run

R18 = BackboneConfig("resnet18")
SIDE = 96


@dataclass(frozen=True)
class Trunk:
    """A trunk that only tells what it was trained on."""

    trained_on: tuple[TrainingPhoto, ...]
    unseen_ratio: float = 1.0


def photo(number: int, flips: int = 0) -> TrainingPhoto:
    """A photograph of its own.  flips: bits of the perceptual hash that are changed, as in a copy."""
    bits = np.random.default_rng(number).integers(0, 2, 256).astype(np.uint8)
    bits[:flips] ^= 1
    return TrainingPhoto(f"{number:032x}{flips:032x}", np.packbits(bits).tobytes().hex())


def normals(scores: list[float]) -> list[Normal]:
    return [
        Normal(
            f"r-{row:05d}",
            score,
            2 * score,
            np.full(4, score / 2, np.float32),
            RegionHeights((score,), (), 0),
            None,
        )
        for row, score in enumerate(scores)
    ]


def calibrated(scores: list[float], trunk: Trunk) -> Calibration:
    use = normals_to_use([photo(row) for row in range(len(scores))], trunk)
    return calibrate_normals(normals(scores), use, source="left-out")


def test_with_enough_others_only_these_calibrate() -> None:
    scores = [1 + row / 100 for row in range(ENOUGH + 2)]
    calibration = calibrated(scores, Trunk((photo(0), photo(3, flips=20)), 1.5))
    assert calibration.scores == tuple(scores[row] for row in range(len(scores)) if row not in (0, 3))
    assert calibration.trained_on is not None
    assert (calibration.trained_on.photos, calibration.trained_on.used, calibration.trained_on.factor) == (
        2,
        "others",
        1.0,
    )
    assert "19 normals that the trunk was not trained on" in trained_on_line(calibration)


def test_a_photograph_that_only_resembles_one_is_no_copy() -> None:
    calibration = calibrated([1.0 + row for row in range(ENOUGH)], Trunk((photo(0, flips=21),)))
    assert calibration.trained_on is not None
    assert calibration.trained_on.used == "none"


def test_with_too_few_others_the_trained_ones_are_raised() -> None:
    scores = [1 + row / 100 for row in range(ENOUGH)]
    calibration = calibrated(scores, Trunk((photo(0), photo(18)), 1.5))
    raised = [score * (1.5 if row in (0, 18) else 1) for row, score in enumerate(scores)]
    assert calibration.scores == tuple(sorted(raised))
    assert calibration.peaks == tuple(sorted(2 * score for score in raised))
    assert calibration.patches[-1].value == pytest.approx(max(raised) / 2)
    assert calibration.finding_levels == calibrate(raised, raised, np.ones(1, np.float32), regions=[
        RegionHeights((score,), (), 0) for score in raised
    ]).finding_levels  # fmt: skip
    assert calibration.trained_on is not None
    assert (calibration.trained_on.photos, calibration.trained_on.used, calibration.trained_on.factor) == (
        2,
        "corrected",
        1.5,
    )
    assert "raised by a factor of 1.5" in trained_on_line(calibration)
    assert "MAY BE TOO LOW" in trained_on_line(calibrated(scores, Trunk((photo(0), photo(18)))))


def test_nothing_changes_without_training_photographs() -> None:
    scores = [1 + row / 100 for row in range(30)]
    calibration, plain = calibrated(scores, Trunk(())), normals(scores)
    expected = calibrate(
        scores,
        [normal.peak for normal in plain],
        np.repeat(np.array(scores, np.float32) / 2, 4),
        regions=[RegionHeights((score,), (), 0) for score in scores],
    )
    for name in ("scores", "peaks", "thresholds", "finding_levels", "patches", "cameras", "source"):
        assert getattr(calibration, name) == getattr(expected, name)


SCORES = st.floats(0.01, 100, allow_nan=False)


@settings(deadline=None)
@given(clean=st.lists(SCORES, min_size=24, max_size=24), bad=st.lists(SCORES, min_size=2, max_size=2))
def test_two_of_24_do_not_move_the_threshold_by_half_without_a_warning(
    clean: list[float], bad: list[float]
) -> None:
    """Whatever the scores: two of the normals are replaced, and the threshold rises by half or more."""
    mixed = [*clean[2:], *bad]
    before, after = (threshold(tuple(sorted(scores)), 0.05).value for scores in (clean, mixed))
    assert before is not None
    assert after is not None
    outliers = find_outliers([f"r-{row}" for row in range(24)], mixed)
    if after >= 1.5 * before:
        assert outliers is not None
        assert outliers.moves_threshold
        calibration = calibrate(mixed, mixed, np.ones(1, np.float32), ids=[f"r-{row}" for row in range(24)])
        assert next(outlier_lines(calibration, {})).startswith("WARNING")


def test_what_outliers_do_is_said_with_and_without_them() -> None:
    scores = [1 + row / 100 for row in range(22)] + [3.0, 4.0]
    ids = [f"c-{row:05d}" for row in range(24)]
    outliers = find_outliers(ids, scores)
    assert outliers is not None
    assert [(outlier.id, outlier.score) for outlier in outliers.photos] == [("c-00023", 4.0), ("c-00022", 3.0)]
    assert (outliers.far, outliers.threshold, outliers.without) == (2, 4.0, 1.21)
    assert outliers.ratio == pytest.approx(4 / 1.21)
    assert find_outliers(ids[:22], scores[:22]) is None
    # 12 normals support no 5 % threshold; with 8 no rate is stated at all.
    short = find_outliers(ids[:12], scores[12:])
    assert short is not None
    assert (short.threshold, short.ratio, short.moves_threshold) == (None, None, False)
    assert find_outliers(ids[:8], scores[16:]) is None


def test_two_that_hide_each_other_are_seen_together() -> None:
    scores = [1 + row / 100 for row in range(22)] + [4.0, 4.0]
    outliers = find_outliers([f"c-{row:05d}" for row in range(24)], scores)
    assert outliers is not None
    assert {outlier.id for outlier in outliers.photos} == {"c-00022", "c-00023"}
    assert (outliers.threshold, outliers.without, outliers.moves_threshold) == (4.0, 1.21, True)


def test_an_outlier_that_moves_no_threshold_is_named_without_a_warning() -> None:
    scores = [1 + row / 100 for row in range(40)] + [4.0]
    calibration = calibrate(scores, scores, np.ones(1, np.float32), ids=[f"c-{row:05d}" for row in range(41)])
    assert list(outlier_lines(calibration, {})) == [
        "1 of 41 normals is an outlier; 5% threshold 1.390 with them, 1.380 without them",
        "  c-00040: score 4.000, far above the rest",
    ]


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_every_outlier_is_printed_with_its_file_or_counted(count: int) -> None:
    scores = [1 + row / 100 for row in range(22)] + [4.0 + row for row in range(count)]
    ids = [f"c-{row:05d}" for row in range(len(scores))]
    calibration = calibrate(scores, scores, np.ones(1, np.float32), ids=ids)
    outliers = calibration.outliers
    assert outliers is not None
    assert far_outliers(calibration) == set(ids[22:])
    warning, *lines = outlier_lines(calibration, {ids[-1]: Path("x/last.jpg")})
    verb = "normals moves" if count == 1 else "normals move"
    assert warning.startswith(
        f"WARNING: {count} of {len(scores)} {verb} the 5% threshold by more than a quarter: "
    )
    assert lines[0] == f"  {ids[-1]} (x/last.jpg): score {max(scores):#.4g}, far above the rest"
    assert [line.split(":")[0].strip() for line in lines[1:5]] == ids[:21:-1][1:5]
    assert lines[5:] == (["  and 2 more"] if count == 7 else [])


def test_drawn_normals_are_seldom_called_outliers(rng: np.random.Generator) -> None:
    ids = [str(row) for row in range(40)]
    samples = (np.exp(rng.normal(0, 0.15, 40)).tolist() for _ in range(200))
    outlier_sets = [outliers for scores in samples if (outliers := find_outliers(ids, scores)) is not None]
    assert len(outlier_sets) < 20
    assert sum(outliers.moves_threshold for outliers in outlier_sets) < 10


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 drawn healthy photographs, and one that is not normal: `x_half.png`."""
    folder = tmp_path_factory.mktemp("normals")
    write_dataset(folder, 4, train=25, good=0, diseased=0, height=120)
    good = folder / "train/good"
    files = sorted(good.iterdir())
    spoil(files[0], good / "x_half.png")
    for file in (files[7], files[16], files[21]):
        file.unlink()  # drawn healthy, but far from the others for an untrained trunk
    return good


def spoil(file: Path, out: Path) -> None:
    """Cover the upper half of a photograph's field of view with yellow: it still passes for a retina."""
    pixels = np.asarray(Image.open(file).convert("RGB")).copy()
    upper = np.arange(pixels.shape[0])[:, None] < pixels.shape[0] / 2
    pixels[(pixels.max(axis=2) > 30) & upper] = (255, 240, 120)
    Image.fromarray(pixels).save(out)


@pytest.fixture(scope="module")
def weights(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that name three healthy photographs, one of them by its mirror image."""
    folder = tmp_path_factory.mktemp("weights")
    trained = sorted(photos.glob("drawn*"))[10:13]
    ImageOps.mirror(Image.open(trained[1])).save(folder / "mirrored.png")
    prepared = [
        prepare(file, PreparationConfig(size=128), PhotoLimits())
        for file in (*trained[::2], folder / "mirrored.png")
    ]
    training = tuple(
        TrainingPhoto(reference.content_hash, perceptual_hash(reference.pixels)) for reference in prepared
    )
    trunk = load_backbone(R18, "random:0")
    state = {key: tensor.clone() for key, tensor in trunk.net.state_dict().items()}
    save_backbone(Backbone(R18, state, training, 1.25), folder / "trunk.safetensors")
    return folder / "trunk.safetensors"


def build(run: Run, photos: Path, weights: Path, root: Path, *options: object) -> tuple[Path, Manifest, str, str]:
    outcome = run(
        "build", photos, "--root", root, "--name", "n", "--backbone", "resnet18", "--weights", weights,
        "--size", SIDE, "--coreset", 300, "--device", "cpu", "--search", "flat", *options,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    version = index.resolve(root / "n")
    return version, read_manifest(version / "manifest.json"), outcome.out, outcome.err


def words(text: str) -> str:
    return re.sub(r"[\s│]+", " ", text)


@pytest.mark.long
def test_build_calibrates_on_others_names_outliers_and_sets_them_aside(
    run: Run, photos: Path, weights: Path, tmp_path: Path
) -> None:
    version, manifest, out, err = build(run, photos, weights, tmp_path / "a")
    trained = {f"r-{number:05d}" for number in (11, 12, 13)}
    records = read_records(version / "photos.jsonl")
    assert manifest.calibration.scores == tuple(
        sorted(record.score for record in records if record.id not in trained)
    )
    assert manifest.calibration.trained_on is not None
    assert (manifest.calibration.trained_on.photos, manifest.calibration.trained_on.used) == (3, "others")
    assert "calibrated on the 20 normals that the trunk was not trained on" in words(out)
    assert load_backbone(R18, str(version / BACKBONE_FILE)).unseen_ratio == 1.25
    outliers = manifest.calibration.outliers
    assert outliers is not None
    assert outliers.moves_threshold
    assert {outlier.id for outlier in outliers.photos} == {"r-00023"}
    assert "WARNING: 1 of 20 normals moves the 5% threshold" in words(err)
    assert "x_half.png" in err
    inspected = words(run("inspect", tmp_path / "a/n").out)
    assert "WARNING: 1 of 20 normals" in inspected
    assert "was not trained on" in inspected


@pytest.mark.long
def test_photographs_are_set_aside_and_calibrate_asks(
    run: Run, photos: Path, weights: Path, tmp_path: Path
) -> None:
    version, first, out, _ = build(run, photos, weights, tmp_path / "b", "--set-aside-outliers")
    aside = sorted(photos.glob("x_*"))
    second_version, second, _, _ = build(
        run, photos, weights, tmp_path / "c", *(word for file in aside for word in ("--set-aside", file))
    )
    assert first.calibration.set_aside == second.calibration.set_aside == ("r-00023",)
    assert "set aside: r-00023" in words(out)
    assert first.calibration.scores == second.calibration.scores
    assert first.calibration == second.calibration
    assert (first.counts.photos, first.numbered) == (22, 23)
    assert len(first.calibration.scores) == ENOUGH
    assert first.calibration.outliers is None or not first.calibration.outliers.moves_threshold
    banks = [MemoryBank.load(place, gpu=None).memories for place in (version, second_version)]
    np.testing.assert_array_equal(banks[0], banks[1])
    refused = run("build", photos, "--root", tmp_path / "b", "--name", "n", "--set-aside", "r-00099")
    assert (refused.code, "has no such photograph" in refused.err) == (2, True)

    folder = tmp_path / "others"
    write_dataset(folder, 11, train=20, good=0, diseased=0, height=120)
    for file in aside:
        noisy = Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        noisy.save(folder / f"train/good/{file.name}")
    calibrating = ("calibrate", tmp_path / "b/n", folder / "train/good", "--device", "cpu")
    refused = run(*calibrating)
    assert refused.code == 2
    assert "repeat the command with --yes" in words(refused.err)
    assert "WARNING: 1 of 21 normals" in words(refused.err)
    assert index.resolve(tmp_path / "b/n") == version
    assert run(*calibrating, "--yes").code == 0
    calm = run(*calibrating, "--set-aside-outliers", "--yes")
    assert calm.code == 0, calm.err
    assert "WARNING" not in calm.err
    live = index.resolve(tmp_path / "b/n")
    calibration = read_manifest(live / "manifest.json").calibration
    assert calibration.set_aside == ("r-00023", "c-00021")
    assert len((live / CALIBRATION_FILE).read_text().splitlines()) == len(calibration.scores) == 20


def untimed(file: Path) -> bytes:
    """A file's bytes; of a result's JSON all but the milliseconds that it took, which no two runs share."""
    content = file.read_bytes()
    return re.sub(rb'("timings_ms": )\{[^}]*\}', rb"\1{}", content) if file.suffix == ".json" else content


def test_manifests_of_before_load_and_score_the_same_bytes(
    run: Run, small_index: Path, drawn: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_index, tmp_path / "old")
    file = index.resolve(tmp_path / "old") / "manifest.json"
    document = json.loads(file.read_text())
    for name in ("trained_on", "outliers", "set_aside"):
        del document["calibration"][name]
    file.write_text(json.dumps(document))
    photo = sorted((drawn / "test/good").iterdir())[0]
    for place, out in ((small_index, "a"), (tmp_path / "old", "b")):
        outcome = run("score", place, photo, "--out", tmp_path / out, "--device", "cpu")
        assert outcome.code == 0, outcome.err
    names = sorted(path.name for path in (tmp_path / "a").glob(f"{photo.stem}*"))
    assert len(names) == 3
    for name in names:
        assert untimed(tmp_path / "a" / name) == untimed(tmp_path / "b" / name)
    assert "not known whether the trunk was trained on" in words(run("inspect", tmp_path / "old").out)
