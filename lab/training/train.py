"""A folder of healthy photographs -> a trunk that has learned from painted lesions: `resad-indexer train`."""

import csv
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
import torch.nn.functional as nnf
from PIL import Image, ImageDraw
from pydantic import TypeAdapter
from resad_client.files import write_atomically
from resad_client.text import counted
from rich.console import Console

from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.build.references import LoadedPhoto, load_photos
from indexer.photos.listing import PhotoRow, Skipped, list_references, rows_csv
from lab.evaluate.painted import Map, PaintedResults, measure_painted
from lab.training.crops import HealthyPhoto
from lab.training.networks import folded
from lab.training.teacher import Teacher, fit_teacher
from lab.training.training import (
    Training,
    TrainingConfig,
    batches,
    load_checkpoint,
    new_training,
    one_thread,
    save_checkpoint,
    train_step,
)
from resad import bundled
from resad.backbone import Backbone, TrainingPhoto, load_backbone, save_backbone
from resad.bundled import BundledTrunk, locally_normalized
from resad.config import BackboneConfig, PhotoLimits, PreparationConfig, preset
from resad.errors import SettingError
from resad.loaded_index import load_index
from resad.near_duplicates import perceptual_hash
from resad.preparation import PreparedPhoto

_TEXTURE_STAGES: Final = (2, 3)
_PROJECTION_BATCHES: Final = 24
_PROJECTION_SEED_SHIFT: Final = 1_000_003
"""Crops for the projection are others than those that are trained on."""
_TIMED_STEPS: Final = 6
_RESULTS: Final = TypeAdapter(PaintedResults)
_FEWEST_UNSEEN: Final = 3
"""Photographs held out, at least, for a ratio of medians."""


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """What is to be trained.

    start: weights of a bundled trunk, as for `load_backbone`.  teacher: name of a ResNet whose texture features
    are distilled into the coarser stages; None leaves these as they are.  out: a .safetensors file; loss curve,
    results and checkpoint lie beside it.  minutes: time for the steps, in place of their number.  held_out: every
    so many photographs one is kept for the results; 0 keeps none.  size: side of the prepared photographs, px.
    """

    photos: Path
    out: Path
    training: TrainingConfig
    device: torch.device
    start: str = bundled.NAME
    teacher: str | None = None
    teacher_weights: str | None = None
    minutes: float | None = None
    held_out: int = 6
    size: int = 512
    workers: int = 1
    resume: bool = False
    checkpoint_every: int = 200
    limits: PhotoLimits = PhotoLimits()

    @property
    def checkpoint(self) -> Path:
        """Where the run is stored while it lasts."""
        return self.out.with_suffix(".checkpoint.safetensors")


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What came of it.

    loss: mean over the last twentieth of the steps.  results: painted lesions found on the photographs that were
    held out, by the network's own output; None where none were.  unseen_ratio: as of the function of that name.
    """

    files: tuple[Path, ...]
    trained_on: int
    held_out: int
    skipped: tuple[Skipped, ...]
    steps: int
    loss: float
    results: PaintedResults | None
    unseen_ratio: float


def train(order: TrainOrder, stages: Stages, on_forecast: Callable[[int, float], None]) -> TrainReport:
    """Train a trunk and write it in float16, with its loss curve and its results on photographs held out.

    The same order gives the same file on a CPU, interrupted and resumed or not, unless `minutes` is set.

    Args:
        on_forecast: is told the number of steps and the seconds they will take.
    Raises:
        SettingError: impossible settings, too few photographs, or a checkpoint of another run.
        ArtifactError: weights that cannot be had or do not fit.
    """
    _check(order)
    start = _start(order)
    photos, skipped = _load(order, stages)
    held_out = photos[:: order.held_out] if order.held_out else []
    trained_on = [photo for photo in photos if photo not in held_out]
    if not trained_on:
        raise SettingError(
            f"{order.photos}: {counted(len(photos), 'usable photograph')}, all held out; give more of them"
        )
    with one_thread(order.device):
        run = _run(order, start, trained_on, stages, on_forecast)
    trunk = _rounded(folded(run.averaged_trunk()))
    set_scales(trunk, [photo.photo for photo in trained_on])
    results = None
    if held_out:
        with stages.stage("measure painted lesions", len(held_out), "photos") as advance:
            results = measure_painted([photo.photo for photo in held_out], abnormality(trunk))
            advance(len(held_out))
    files, ratio = _write(order, run, trunk, trained_on, held_out, results)
    last = run.losses[-max(1, len(run.losses) // 20) :]
    return TrainReport(
        files, len(trained_on), len(held_out), skipped, len(run.losses), sum(last) / len(last), results, ratio
    )


@torch.inference_mode()
def set_scales(trunk: BundledTrunk, photos: Sequence[PreparedPhoto]) -> None:
    """Set the lesion network's constants: root mean square lengths over the healthy patches of `photos`."""
    trunk.lesion.feature_scale.fill_(1)
    trunk.lesion.logit_scale.fill_(1)
    squares, patches = torch.zeros(2, dtype=torch.float64), 0
    channels = trunk.lesion.out.in_channels
    for photo in photos:
        pixels, mask = _tensors(photo)
        features = trunk.lesion.features(locally_normalized(pixels, mask))[0]
        inside = nnf.adaptive_max_pool2d(mask[:, None].float(), features.shape[-2:])[0, 0] > 0
        values = features[:, inside].double().square()
        squares += torch.stack([values[:channels].sum(), values[channels:].sum()])
        patches += int(inside.sum())
    feature_scale, logit_scale = (squares / patches).sqrt().clamp(min=1e-6).float()
    trunk.lesion.feature_scale.copy_(feature_scale)
    trunk.lesion.logit_scale.copy_(logit_scale)


def unseen_ratio(
    weights: Path, trained_on: Sequence[LoadedPhoto], held_out: Sequence[LoadedPhoto], size: int
) -> float:
    """How much higher healthy photographs score that were held out than those that were trained on; at least 1.

    An index of the photographs that were trained on is built in a temporary folder.  The ratio is that of two
    medians: of the scores of the photographs held out, and of the left-out scores of the others.  1 if fewer than
    three were held out, or fewer than three trained on.

    Args:
        weights: the trunk's file.
        size: side of the prepared photographs, px.
    """
    if min(len(held_out), len(trained_on)) < _FEWEST_UNSEEN:
        return 1.0
    with TemporaryDirectory() as folder:
        listed = Path(folder) / "trained-on.csv"
        rows = [PhotoRow(photo.source.path, patient=photo.source.patient) for photo in trained_on]
        listed.write_bytes(rows_csv(rows))
        config = replace(preset("resad"), preparation=PreparationConfig(size=size))
        options = BuildOptions(listed, Path(folder), "trained-on", config, str(weights), torch.device("cpu"))
        version = build(options, Stages(Console(quiet=True))).version
        loaded = load_index(version, torch.device("cpu"))
        trained_median = float(np.median([record.score for record in loaded.photos]))
        scores = [loaded.detector.detect([photo.photo])[0].image_score for photo in held_out]
    return max(1.0, float(np.median(scores)) / trained_median) if trained_median > 0 else 1.0


def abnormality(trunk: BundledTrunk) -> Callable[[PreparedPhoto], Map]:
    """The lesion network's own opinion: a function from a photograph to float32 (S, S), 0 to 1."""

    @torch.inference_mode()
    def marked(photo: PreparedPhoto) -> Map:
        pixels, mask = _tensors(photo)
        _, logits = trunk.lesion(locally_normalized(pixels, mask))
        chance = nnf.interpolate(
            torch.sigmoid(logits[:, :1]), mask.shape[-2:], mode="bilinear", align_corners=False
        )
        values: Map = (chance[0, 0] * mask[0]).numpy()
        return values

    return marked


def _tensors(photo: PreparedPhoto) -> tuple[torch.Tensor, torch.Tensor]:
    """The photograph as a trunk takes it: images (1, 3, S, S) and masks (1, S, S)."""
    mean, std = torch.tensor(bundled.IMAGENET_MEAN), torch.tensor(bundled.IMAGENET_STD)
    pixels = ((torch.from_numpy(photo.pixels.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None]
    return pixels.contiguous(memory_format=torch.channels_last), torch.from_numpy(photo.mask.copy())[None]


def _rounded(trunk: BundledTrunk) -> BundledTrunk:
    """The trunk as a reader of the file computes: weights rounded to float16, arithmetic in float32."""
    return trunk.half().float().requires_grad_(False)


def _check(order: TrainOrder) -> None:
    if order.out.suffix != ".safetensors":
        raise SettingError(f"--out {order.out}: the name must end in .safetensors")
    if not order.out.parent.is_dir():
        raise SettingError(f"--out {order.out}: there is no folder {order.out.parent}")
    if order.resume and not order.checkpoint.is_file():
        raise SettingError(f"no checkpoint at {order.checkpoint}: nothing to resume")
    for name, value, least in (
        ("steps", order.training.steps, 1),
        ("batch", order.training.batch, 2),
        ("seed", order.training.seed, 0),
        ("held-out", order.held_out, 0),
        ("workers", order.workers, 0),
    ):
        if value < least:
            raise SettingError(f"--{name} {value}: at least {least}")
    if order.held_out == 1:
        raise SettingError("--held-out 1 would keep every photograph; give 2 or more, or 0 to keep none")


def _start(order: TrainOrder) -> BundledTrunk:
    backbone = load_backbone(BackboneConfig(bundled.NAME, bundled.STAGES), order.start)
    assert isinstance(backbone.net, BundledTrunk)
    return backbone.net


def _load(order: TrainOrder, stages: Stages) -> tuple[list[LoadedPhoto], tuple[Skipped, ...]]:
    listed = list_references(order.photos)
    loaded, skipped = [], []
    with stages.stage("prepare", len(listed), "photos") as advance:
        for outcome in load_photos(listed, PreparationConfig(size=order.size), order.limits, strict=False):
            if isinstance(outcome, LoadedPhoto):
                loaded.append(outcome)
            elif isinstance(outcome, Skipped):
                skipped.append(outcome)
            advance(1)
    if len(loaded) < 2:
        raise SettingError(
            f"{order.photos}: {counted(len(loaded), 'usable photograph')}, training needs at least 2"
        )
    return loaded, tuple(skipped)


def _run(
    order: TrainOrder,
    start: BundledTrunk,
    photos: Sequence[LoadedPhoto],
    stages: Stages,
    on_forecast: Callable[[int, float], None],
) -> Training:
    healthy = [HealthyPhoto(photo.photo.pixels, photo.photo.mask) for photo in photos]
    teacher = _teacher(order, healthy)
    inputs = _fingerprint(order, start, photos, teacher)
    if order.resume:
        run = load_checkpoint(order.checkpoint, inputs, order.training, start, teacher, order.device)
    else:
        config = order.training
        seconds = _seconds_per_step(order, start, teacher, healthy)
        if order.minutes is not None:
            config = replace(config, steps=max(1, int(60 * order.minutes / seconds)))
        on_forecast(config.steps, seconds * config.steps)
        run = new_training(config, start, teacher, order.device)
    with stages.stage("train", run.config.steps, "steps") as advance:
        advance(len(run.losses))
        for batch in batches(healthy, run.config, len(run.losses), order.device, order.workers):
            loss = train_step(run, batch, order.size)
            if len(run.losses) % order.checkpoint_every == 0:
                save_checkpoint(run, inputs, order.checkpoint)
            advance(1, f"loss {loss:.4f}")
    return run


def _teacher(order: TrainOrder, photos: Sequence[HealthyPhoto]) -> Teacher | None:
    if order.teacher is None:
        return None
    net = load_backbone(BackboneConfig(order.teacher, _TEXTURE_STAGES), order.teacher_weights or order.teacher)
    net.to(order.device).to(memory_format=torch.channels_last)
    config = replace(order.training, seed=order.training.seed + _PROJECTION_SEED_SHIFT)
    crops = islice(batches(photos, config, 0, order.device, 0), _PROJECTION_BATCHES)
    return fit_teacher(net, ((batch.images(), batch.masks) for batch in crops), bundled.Widths().outputs)


def _seconds_per_step(
    order: TrainOrder, start: BundledTrunk, teacher: Teacher | None, photos: Sequence[HealthyPhoto]
) -> float:
    """Measured on a few steps of a run that is thrown away; the first one, which warms up, does not count."""
    config = replace(order.training, steps=_TIMED_STEPS + 1)
    run = new_training(config, start, teacher, order.device)
    begin = 0.0
    for batch in batches(photos, config, 0, order.device, order.workers):
        train_step(run, batch, order.size)
        if len(run.losses) == 1:
            begin = time.perf_counter()
    return (time.perf_counter() - begin) / _TIMED_STEPS


def _fingerprint(
    order: TrainOrder, start: BundledTrunk, photos: Sequence[LoadedPhoto], teacher: Teacher | None
) -> str:
    """Of everything else that the steps depend on."""
    sha = hashlib.sha256(f"{order.size} {teacher and teacher.net.weights_sha256}".encode())
    for tensor in start.state_dict().values():
        sha.update(tensor.numpy().tobytes())
    for photo in photos:
        sha.update(photo.photo.pixels.tobytes())
    return sha.hexdigest()


def _write(
    order: TrainOrder,
    run: Training,
    trunk: BundledTrunk,
    photos: Sequence[LoadedPhoto],
    held_out: Sequence[LoadedPhoto],
    results: PaintedResults | None,
) -> tuple[tuple[Path, ...], float]:
    """Write weights, loss curve and results; delete the checkpoint.  Returns the files and the unseen ratio."""
    weights, table, picture, results_file = (
        order.out.with_suffix(suffix) for suffix in (".safetensors", ".csv", ".png", ".json")
    )
    trained_on = tuple(
        TrainingPhoto(photo.photo.content_hash, perceptual_hash(photo.photo.pixels)) for photo in photos
    )
    state = {key: tensor.contiguous() for key, tensor in trunk.state_dict().items()}
    config = BackboneConfig(bundled.NAME, bundled.STAGES)
    with TemporaryDirectory() as folder:
        plain = Path(folder) / weights.name
        save_backbone(Backbone(config, state, trained_on), plain, half=True)
        ratio = unseen_ratio(plain, photos, held_out, order.size)
    save_backbone(Backbone(config, state, trained_on, ratio), weights, half=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "loss"))
        writer.writerows(enumerate(run.losses, start=1))
    _curve(run.losses).save(picture)
    files = [weights, table, picture]
    if results is not None:
        write_atomically(results_file, _RESULTS.dump_json(results, indent=2) + b"\n")
        files.append(results_file)
    order.checkpoint.unlink(missing_ok=True)
    return tuple(files), ratio


_WIDTH, _HEIGHT, _MARGIN = 640, 360, 40
_POINTS: Final = 200


def _curve(losses: Sequence[float]) -> Image.Image:
    """The loss, as means over stretches of steps, on a logarithmic scale."""
    means = np.array([part.mean() for part in np.array_split(np.asarray(losses), min(_POINTS, len(losses)))])
    low, high = float(means.min()), float(means.max())
    spread = max(np.log(high / low), 1e-9)
    across = np.linspace(_MARGIN, _WIDTH - _MARGIN, len(means))
    down = _MARGIN + np.log(high / means) / spread * (_HEIGHT - 2 * _MARGIN)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.line(
        [(_MARGIN, _MARGIN), (_MARGIN, _HEIGHT - _MARGIN), (_WIDTH - _MARGIN, _HEIGHT - _MARGIN)], fill="gray"
    )
    pen.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill="black", width=2)
    for text, y in ((f"{high:.4g}", _MARGIN), (f"{low:.4g}", _HEIGHT - _MARGIN)):
        pen.text((2, y - 6), text, fill="black")
    pen.text((_WIDTH - _MARGIN - 60, _HEIGHT - _MARGIN + 8), counted(len(losses), "step"), fill="black")
    return image
