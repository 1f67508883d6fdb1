"""Distillation: what it trains on, that it learns, and that a run that was stopped ends as if it had not been."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

from indexer.distill import DistillOrder, distill
from indexer.distillation.damage import damage
from indexer.distillation.pool import draw_squares
from indexer.distillation.student import folded, new_student
from indexer.distillation.targets import distance, fit_projection, targets
from indexer.distillation.training import Training, TrainingConfig, train_step
from indexer.distillation.views import Square, Views, draw_views, whole_view
from indexer.progress import Stages
from resad.backbone import load_backbone
from resad.bundled import BundledTrunk
from resad.config import BackboneConfig
from resad.errors import SettingError, WeightsUnavailable

CPU = torch.device("cpu")
STEPS = TrainingConfig(steps=4, seed=3, batch=2)


@pytest.fixture(scope="module")
def square() -> Square:
    return next(draw_squares(1, 160, 0))


def order(photos: Path, out: Path, *, resume: bool = False, training: TrainingConfig = STEPS) -> DistillOrder:
    return DistillOrder(
        photos, "resnet18", "random:0", out, training, CPU, 128, drawn=1, resume=resume, checkpoint_every=2
    )


def quiet() -> Stages:
    return Stages(Console(quiet=True))


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:

    def until(run: Training, *arguments: object) -> float:
        if len(run.losses) == steps:
            raise KeyboardInterrupt
        return train_step(run, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("indexer.distill.train_step", until)


def test_a_stopped_run_ends_as_one_that_was_not(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = drawn / "train/good"
    whole = distill(order(photos, tmp_path / "whole.safetensors"), quiet())
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            distill(order(photos, tmp_path / "parts.safetensors"), quiet())
    checkpoint = tmp_path / "parts.checkpoint.safetensors"
    assert checkpoint.is_file()
    other = TrainingConfig(steps=5, seed=3, batch=2)
    with pytest.raises(SettingError, match="begun with steps 4"):
        distill(order(photos, tmp_path / "parts.safetensors", resume=True, training=other), quiet())
    with pytest.raises(SettingError, match="other photographs"):
        distill(order(drawn / "test/good", tmp_path / "parts.safetensors", resume=True), quiet())
    parts = distill(order(photos, tmp_path / "parts.safetensors", resume=True), quiet())
    assert not checkpoint.exists()
    for one, other_file in zip(whole.files, parts.files, strict=True):
        assert one.read_bytes() == other_file.read_bytes(), one.suffix
    assert parts.agreements == whole.agreements


def test_what_is_written_is_a_trunk_its_curve_and_its_agreement(drawn: Path, tmp_path: Path) -> None:
    report = distill(order(drawn / "train/good", tmp_path / "own.safetensors"), quiet())
    weights, table, picture, figures = report.files
    trunk = load_backbone(BackboneConfig("bundled"), str(weights))
    assert trunk(torch.zeros(1, 3, 64, 64))[0].shape == (1, 64, 8, 8)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert all(0 < float(row["loss"]) < 9 for row in rows)
    with Image.open(picture) as image:
        assert image.size == (640, 360)
    assert {(one["photos"], one["stage"]) for one in json.loads(figures.read_text())} == {
        (name, stage) for name in ("as they are", "damaged") for stage in (2, 3)
    }
    assert (len(report.pool.held_out), len(report.pool.photographed)) == (1, 7)


def test_steps_bring_the_student_nearer_to_its_teacher(square: Square) -> None:
    teacher = load_backbone(BackboneConfig("resnet18"), "random:0")
    view = whole_view(square)
    student = new_student(0)
    projection = fit_projection(teacher, [view], (64, 128))
    wanted = targets(teacher(view.normalized()), projection)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = distance(student(view.normalized()), wanted, view)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_folding_changes_nothing_but_the_form() -> None:
    student = new_student(1)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    student(images)  # moves the running statistics away from their start
    student.eval()
    plain = folded(student)
    assert plain.state_dict().keys() == BundledTrunk().state_dict().keys()
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), student(images), rtol=1e-4, atol=1e-4)


def test_a_projection_to_all_channels_keeps_every_distance(square: Square) -> None:
    teacher = load_backbone(BackboneConfig("resnet18"), "random:0")
    view = whole_view(square)
    stages = teacher(view.normalized())
    full = fit_projection(teacher, [view], (128, 256))
    assert full.kept == pytest.approx((1.0, 1.0))
    for target, stage in zip(targets(stages, full), stages, strict=True):
        unit = torch.nn.functional.normalize(stage, dim=1).flatten(2)[0].T
        ours = target.flatten(2)[0].T
        torch.testing.assert_close(torch.cdist(ours, ours), torch.cdist(unit, unit), rtol=1e-3, atol=2e-3)
    few = fit_projection(teacher, [view], (4, 8))
    assert few.kept[0] < full.kept[0]


def test_views_depend_on_their_generator_alone(square: Square) -> None:
    torch.manual_seed(1)
    first = draw_views([square], np.random.default_rng([5, 6]), batch=3, side=64)
    torch.manual_seed(2)
    again = draw_views([square], np.random.default_rng([5, 6]), batch=3, side=64)
    torch.testing.assert_close(first.images, again.images, rtol=0, atol=0)
    assert first.images.shape == (3, 3, 64, 64)
    assert set(first.mask.flatten().tolist()) <= {0.0, 1.0}
    assert float(first.images.min()) >= 0
    assert float(first.images.max()) <= 1
    assert not (first.images * (1 - first.mask)).any()


def test_damage_leaves_the_input_and_some_images_alone() -> None:
    images = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    damaged = damage(images, np.random.default_rng(0))
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    same = sum(bool((one == other).all()) for one, other in zip(images, damaged, strict=True))
    assert 0 < same < 25
    assert bool((damaged >= 0).all())
    assert bool((damaged <= 1).all())


def test_positions_outside_the_field_of_view_cost_nothing() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    view = Views(torch.zeros(1, 3, 64, 64), mask)
    wanted = torch.nn.functional.normalize(torch.randn(1, 5, 8, 8), dim=1)
    far = wanted.clone()
    far[..., 4:] *= -1
    assert float(distance((far,), (wanted,), view)) == pytest.approx(0.0, abs=1e-6)
    assert float(distance((-far,), (wanted,), view)) == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"out": Path("trunk.pth")}, "ends in .safetensors"),
        ({"out": Path("no/where.safetensors")}, "no folder no"),
        ({"training": TrainingConfig(0, 0, 8)}, "--steps 0: at least 1"),
        ({"training": TrainingConfig(1, 0, 1)}, "--batch 1: at least 2"),
        ({"drawn": -1}, "--drawn -1"),
    ],
)
def test_orders_that_cannot_be_are_refused(
    drawn: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    made: Callable[..., DistillOrder] = replace
    base = order(drawn / "train/good", tmp_path / "own.safetensors")
    with pytest.raises(SettingError, match=named):
        distill(made(base, **change), quiet())


def test_nothing_to_resume_and_no_teacher_are_named(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.safetensors"
    with pytest.raises(SettingError, match="nothing to resume"):
        distill(order(drawn / "train/good", out, resume=True), quiet())
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "own.checkpoint.safetensors")
    with pytest.raises(SettingError, match="is no checkpoint"):
        distill(order(drawn / "train/good", out, resume=True), quiet())
    lost = DistillOrder(drawn / "train/good", "resnet18", str(tmp_path / "none.pth"), out, STEPS, CPU)
    with pytest.raises(WeightsUnavailable, match=r"none\.pth"):
        distill(lost, quiet())


def test_one_photograph_is_not_enough(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    photo = min((drawn / "train/good").iterdir())
    (tmp_path / "one" / photo.name).write_bytes(photo.read_bytes())
    with pytest.raises(SettingError, match="at least 2"):
        distill(order(tmp_path / "one", tmp_path / "own.safetensors"), quiet())
