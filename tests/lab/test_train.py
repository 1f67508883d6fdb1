"""Training: its crops, that it learns, that a stopped run ends as one that was not, and what the file says."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from rich.console import Console

from indexer.build.progress import Advance, Stages
from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import list_references
from lab.training.crops import CELL, HealthyPhoto, draw_crop
from lab.training.networks import folded, trainable_trunk
from lab.training.teacher import fit_teacher, texture_loss
from lab.training.train import TrainOrder, TrainReport, abnormality, set_scales, train, unseen_ratio
from lab.training.training import TrainingConfig, batches, lesion_loss, new_training, train_step
from resad.backbone import load_backbone, save_backbone, training_photos
from resad.bundled import BundledTrunk, locally_normalized
from resad.config import BackboneConfig, PhotoLimits, PreparationConfig
from resad.errors import SettingError, WeightsMismatch
from resad.near_duplicates import perceptual_hash
from resad.preparation import PreparedPhoto, prepare
from tests.conftest import Run

CPU = torch.device("cpu")
STEPS = TrainingConfig(steps=4, seed=3, batch=2)
BUNDLED = BackboneConfig("bundled", (1, 2, 3))
SMALL = PreparationConfig(size=128)


class Stopped(Stages):
    """Stops a run as Ctrl-C does, after so many steps of training."""

    def __init__(self, after: int) -> None:
        super().__init__(Console(quiet=True))
        self._after = after

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """As `Stages.stage`."""
        with super().stage(name, total, unit) as advance:
            done = 0

            def count(steps: int, note: str = "") -> None:
                nonlocal done
                done += steps
                if name == "train" and done >= self._after:
                    raise KeyboardInterrupt
                advance(steps, note)

            yield count


@pytest.fixture(scope="module")
def photos(drawn: Path) -> list[PreparedPhoto]:
    files = sorted((drawn / "train/good").glob("*"))[:3]
    return [prepare(file, PreparationConfig(size=256), PhotoLimits()) for file in files]


@pytest.fixture(scope="module")
def healthy(photos: list[PreparedPhoto]) -> list[HealthyPhoto]:
    return [HealthyPhoto(photo.pixels, photo.mask) for photo in photos]


@pytest.fixture(scope="module")
def trunk() -> BundledTrunk:
    net = load_backbone(BUNDLED, "random:0").net
    assert isinstance(net, BundledTrunk)
    return net


@pytest.fixture(scope="module")
def whole(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    """The weights and the report of a run that was not stopped."""
    out = tmp_path_factory.mktemp("whole") / "trunk.safetensors"
    return out, train(order(drawn, out), quiet(), say_nothing)


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trunk") / "trunk.safetensors"
    save_backbone(load_backbone(BUNDLED, "random:0"), file)
    return file


def order(drawn: Path, out: Path, *, resume: bool = False, training: TrainingConfig = STEPS) -> TrainOrder:
    return TrainOrder(
        drawn / "train/good", out, training, CPU,
        start="random:0", held_out=4, size=128, workers=0, resume=resume, checkpoint_every=2,
    )  # fmt: skip


def quiet() -> Stages:
    return Stages(Console(quiet=True))


def say_nothing(steps: int, seconds: float) -> None:
    """A forecast that nobody reads."""


def test_a_crop_has_lesions_where_its_targets_say(healthy: list[HealthyPhoto]) -> None:
    painted = 0
    for seed in range(20):
        crop = draw_crop(np.random.default_rng(seed), healthy, 64)
        assert crop.pixels.shape == (64, 64, 3)
        assert crop.targets.shape == (4, 64 // CELL, 64 // CELL)
        # Dark, bright and other lesions are all abnormal, and nothing else is.
        np.testing.assert_array_equal(crop.targets[0], crop.targets[1:].max(axis=0))
        assert not crop.pixels[~crop.mask].any()
        cells = crop.mask.reshape(16, CELL, 16, CELL).any(axis=(1, 3))
        assert not crop.weight[~cells].any()
        assert crop.weight[crop.targets[0] > 0].all()
        painted += bool(crop.targets.any())
    assert painted > 5


def test_crops_are_the_same_by_any_number_of_workers(healthy: list[HealthyPhoto]) -> None:
    in_process = list(batches(healthy, STEPS, 1, CPU, 0))
    by_worker = list(batches(healthy, STEPS, 1, CPU, 1))

    assert len(in_process) == len(by_worker) == 3
    for first, second in zip(in_process, by_worker, strict=True):
        torch.testing.assert_close(first.pixels, second.pixels, rtol=0, atol=0)
        torch.testing.assert_close(first.targets, second.targets, rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("fresh", [True, False])
def test_it_learns_and_leaves_the_texture_stages_alone(
    healthy: list[HealthyPhoto], trunk: BundledTrunk, fresh: bool
) -> None:
    config = TrainingConfig(steps=8, seed=0, batch=2, fresh=fresh)
    run = new_training(config, trunk, None, CPU)
    batch = next(iter(batches(healthy, config, 0, CPU, 0)))
    for _ in range(8):
        train_step(run, batch, 256)

    assert np.mean(run.losses[-3:]) < np.mean(run.losses[:3])
    for name in ("stem", "fine", "coarse_out"):
        for before, after in zip(
            trunk.get_submodule(name).parameters(), run.trunk.get_submodule(name).parameters(), strict=True
        ):
            torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.long
def test_a_teacher_is_followed(healthy: list[HealthyPhoto], trunk: BundledTrunk) -> None:
    config = TrainingConfig(steps=8, seed=0, batch=2, fresh=True)
    batch = next(iter(batches(healthy, config, 0, CPU, 0)))
    net = load_backbone(BackboneConfig("resnet18", (2, 3)), "random:1")
    teacher = fit_teacher(net, [(batch.images(), batch.masks)], (64, 128))
    run = new_training(config, trunk, teacher, CPU)

    def distance() -> float:
        images = batch.images()
        with torch.no_grad():
            fine = run.trunk.fine(run.trunk.stem(images))
            outputs = run.trunk.fine_out(fine), run.trunk.coarse_out(run.trunk.coarse(fine))
            return float(texture_loss(outputs, teacher.targets(images, batch.masks), batch.masks))

    before = distance()
    for _ in range(8):
        train_step(run, batch, 256)

    assert distance() < before
    assert all(0 < share <= 1 + 1e-6 for share in teacher.kept)
    for basis in teacher.bases:
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), rtol=0, atol=1e-4)


def test_a_perfect_answer_costs_almost_nothing() -> None:
    targets = (torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    weights = torch.ones(2, 8, 8)

    assert lesion_loss(40 * targets - 20, targets, weights) < 1e-2
    assert lesion_loss(20 - 40 * targets, targets, weights) > 10
    # Cells without weight do not count.
    weights[:, :4] = 0
    wrong = torch.cat([20 - 40 * targets[:, :, :4], 40 * targets[:, :, 4:] - 20], dim=2)
    assert lesion_loss(wrong, targets, weights) < 1e-2


def test_folding_changes_nothing(photos: list[PreparedPhoto], trunk: BundledTrunk) -> None:
    training = trainable_trunk(trunk, 1, fresh=True, texture=True)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = torch.ones(2, 64, 64, dtype=torch.bool)
    with torch.no_grad():
        training(pixels, masks)  # moves the statistics of the normalization
        expected = training.eval()(pixels, masks)
        maps = folded(training)(pixels, masks)

    for first, second in zip(expected, maps, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    assert folded(training).state_dict().keys() == trunk.state_dict().keys()


def test_scales_make_healthy_features_as_long_as_one(photos: list[PreparedPhoto], trunk: BundledTrunk) -> None:
    set_scales(trunk, photos)

    squares = []
    for photo in photos:
        pixels = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None].float() / 255
        mask = torch.from_numpy(photo.mask)[None]
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = (pixels - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            features = trunk.lesion.features(locally_normalized(images, mask))[0]
        inside = torch.nn.functional.adaptive_max_pool2d(mask[:, None].float(), features.shape[-2:])[0, 0] > 0
        squares.append(features[:32, inside].square().sum(dim=0))
    assert torch.cat(squares).mean().sqrt() == pytest.approx(1, rel=1e-3)


def test_its_own_opinion_lies_between_0_and_1(photos: list[PreparedPhoto], trunk: BundledTrunk) -> None:
    values = abnormality(trunk)(photos[0])

    assert values.shape == photos[0].mask.shape
    assert 0 <= values.min() <= values.max() <= 1
    assert not values[~photos[0].mask].any()


@pytest.mark.long
def test_a_stopped_run_ends_as_one_that_was_not(
    whole: tuple[Path, TrainReport], drawn: Path, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(order(drawn, stopped), Stopped(3), say_nothing)
    assert (tmp_path / "stopped.checkpoint.safetensors").is_file()

    report = train(order(drawn, stopped, resume=True), quiet(), say_nothing)

    assert stopped.read_bytes() == whole[0].read_bytes()
    assert stopped.with_suffix(".csv").read_bytes() == whole[0].with_suffix(".csv").read_bytes()
    assert not (tmp_path / "stopped.checkpoint.safetensors").exists()
    assert report.steps == 4


@pytest.mark.long
def test_the_file_is_a_trunk_that_names_its_photographs(whole: tuple[Path, TrainReport], drawn: Path) -> None:
    out, report = whole

    backbone = load_backbone(BUNDLED, str(out))
    assert out.stat().st_size < 4_000_000
    assert {str(tensor.dtype) for tensor in safetensors.torch.load_file(out).values()} == {"torch.float16"}
    assert len(backbone.trained_on) == report.trained_on
    files = sorted((drawn / "train/good").glob("*"))
    prepared = [prepare(file, SMALL, PhotoLimits()) for file in files]
    hashes = {photo.content_hash: perceptual_hash(photo.pixels) for photo in prepared}
    held_out = {photo.content_hash for photo in prepared[::4]}
    assert {photo.content_sha256 for photo in backbone.trained_on} == hashes.keys() - held_out
    assert all(hashes[photo.content_sha256] == photo.perceptual_hash for photo in backbone.trained_on)
    assert training_photos(out) == backbone.trained_on
    assert backbone.unseen_ratio == report.unseen_ratio >= 1
    with out.with_suffix(".csv").open() as file:
        assert len(list(csv.reader(file))) == 5
    results = json.loads(out.with_suffix(".json").read_text())
    assert results["photos"] == len(held_out)
    assert out.with_suffix(".png").is_file()


@pytest.mark.long
def test_unseen_photographs_that_look_strange_score_higher(drawn: Path, trunk_file: Path) -> None:
    listing = list_references(drawn / "train/good")
    loaded = load_photos(listing, SMALL, PhotoLimits(), strict=True)
    healthy = [photo for photo in loaded if isinstance(photo, LoadedPhoto)]
    rng = np.random.default_rng(0)
    strange = [
        replace(
            photo,
            photo=replace(
                photo.photo,
                pixels=rng.integers(0, 256, photo.photo.pixels.shape, dtype=np.uint8)
                * photo.photo.mask[..., None],
            ),
        )
        for photo in healthy[:3]
    ]

    assert unseen_ratio(trunk_file, healthy, strange, 128) > 1.05
    assert unseen_ratio(trunk_file, healthy, healthy[:3], 128) == 1, "photographs of the index itself"
    assert unseen_ratio(trunk_file, healthy, strange[:2], 128) == 1, "too few for a median"


def test_another_run_is_not_resumed(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "trunk.safetensors"
    with pytest.raises(SettingError, match="no checkpoint"):
        train(order(drawn, out, resume=True), quiet(), say_nothing)
    with pytest.raises(KeyboardInterrupt):
        train(order(drawn, out), Stopped(3), say_nothing)

    with pytest.raises(SettingError, match="was begun with"):
        train(order(drawn, out, resume=True, training=replace(STEPS, batch=3)), quiet(), say_nothing)
    with pytest.raises(SettingError, match="other photographs"):
        train(replace(order(drawn, out, resume=True), size=96), quiet(), say_nothing)


def test_minutes_are_turned_into_steps(drawn: Path, tmp_path: Path) -> None:
    forecasts: list[tuple[int, float]] = []
    short = replace(order(drawn, tmp_path / "trunk.safetensors"), minutes=0.01, held_out=0)

    report = train(short, quiet(), lambda steps, seconds: forecasts.append((steps, seconds)))

    [(steps, seconds)] = forecasts
    assert report.steps == steps
    assert seconds <= 0.6 or steps == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("trunk.pt")}, "must end in .safetensors"),
        ({"out": Path("missing/trunk.safetensors")}, "there is no folder"),
        ({"held_out": 1}, "would keep every photograph"),
        ({"training": replace(STEPS, steps=0)}, "--steps 0: at least 1"),
        ({"training": replace(STEPS, batch=1)}, "--batch 1: at least 2"),
    ],
)
def test_impossible_orders_are_refused(
    drawn: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    impossible = replace(order(drawn, tmp_path / "trunk.safetensors"), **change)  # type: ignore[arg-type]

    with pytest.raises(SettingError, match=message):
        train(impossible, quiet(), say_nothing)


def test_weights_without_lesion_features_are_refused_by_name(tmp_path: Path) -> None:
    texture = load_backbone(BackboneConfig("bundled", (2, 3)), "random:0")
    file = tmp_path / "texture.safetensors"
    safetensors.torch.save_file(dict(texture.net.state_dict()), file)

    with pytest.raises(WeightsMismatch, match=r"missing lesion\."):
        load_backbone(BUNDLED, str(file))


@pytest.mark.long
def test_the_command_writes_weights_that_build_takes(run: Run, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "trunk.safetensors"
    trained = run(
        "train", "--photos", drawn / "train/good", "--out", out, "--start", "random:0", "--steps", 2, "--batch", 2,
        "--size", 128, "--held-out", 4, "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    assert trained.code == 0
    assert "2 steps on 6 photographs" in trained.out
    built = run(
        "build", drawn / "train/good", "--root", tmp_path / "root", "--name", "eyes", "--size", 128,
        "--coreset", "0.1", "--backbone", "bundled", "--weights", out,
    )  # fmt: skip
    assert built.code == 0
