"""Small trunks of several designs, distilled side by side for a short while, and what each is then worth.

Run as `python -m benchmarks.designs`; takes RESAD_DATA.  Only the choosing half of the test photographs is looked
at.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn

from benchmarks._bench import (
    Json,
    Quick,
    interval,
    median_time,
    print_header,
    print_table,
    shared_data,
    write_json,
)
from benchmarks._color import no_provenance
from benchmarks._designs import DESIGNS, Design, Learned, learn, student_of
from benchmarks._idrid import Scores, Variant, config_of, data_set, reporting_half, scores
from indexer.coreset import greedy_k_center
from indexer.datasets.mvtec import read_mvtec
from indexer.distillation.pool import draw_squares, read_pool
from indexer.distillation.student import folded
from indexer.evaluate import measure_with
from indexer.photos import list_photos
from indexer.progress import Stages
from indexer.shards import shards_of
from resad import runtime
from resad.backbone import Backbone, load_backbone
from resad.bundled import STAGES
from resad.config import BackboneConfig, MethodConfig, PhotoLimits
from resad.detector import Detector
from resad.encoder import Encoder, Trunk, whitening_of
from resad.memory_bank import MemoryBank
from resad.preparation import PreparedPhoto, prepare

_SIZE: Final = 512
_SHARE: Final = 0.02
_TIMED: Final = 784
_STDERR: Final = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Line:
    """seconds: of the trunk alone at 784 px, one photograph; ResNet-18's beside it in the same turns."""

    design: Design
    parameters: int
    milliseconds: float
    teacher_milliseconds: float
    scores: Scores


class _Network(Backbone):
    """Any network where a backbone is taken."""

    def __init__(self, net: nn.Module) -> None:
        nn.Module.__init__(self)
        self.config, self.weights_sha256, self.net = BackboneConfig("bundled", STAGES), "a trial", net


def main(
    steps: Annotated[int, typer.Option(help="Training steps, for every design.")] = 800,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Compare designs."""
    shared = shared_data()
    runtime.configure("exact")
    steps, designs = (2, DESIGNS[-2:]) if quick else (steps, DESIGNS)
    print_header(
        "Designs of a small trunk",
        f"{steps:,} steps of 8 crops, teacher ResNet-18 (ImageNet), all designs on the same crops; size {_SIZE}, "
        f"coreset {_SHARE}, preset resad; the trunk alone timed at {_TIMED} px, in turns with the teacher.",
    )
    teacher = load_backbone(BackboneConfig("resnet18", STAGES), str(_weights(shared)))
    teacher.to(memory_format=torch.channels_last)
    stages = Stages(_STDERR)
    pool = read_pool(list_photos(data_set(shared) / "train" / "good"), _SIZE, PhotoLimits(), lambda _: None)
    pool = replace(pool, drawn=tuple(draw_squares(4 if quick else 160, _SIZE, 0)))
    with stages.stage("distil", steps, "steps") as advance:
        learned = learn(designs, teacher, pool.trained_on, steps, pool.photographed, lambda note: advance(1, note))
    lines = [_line(one, teacher, shared) for one in learned]
    print_table(
        "AUROC with 95 % intervals, the choosing half (19 photographs: 7 normal, 12 with lesions)",
        ("design", "parameters", "trunk, ms", "times faster", "image", "pixel, field of view"),
        [
            (
                line.design.name, f"{line.parameters / 1e6:.2f} M", f"{line.milliseconds:.0f}",
                f"{line.teacher_milliseconds / line.milliseconds:.1f}",
                interval(line.scores.image), interval(line.scores.fov),
            )
            for line in lines
        ],
    )  # fmt: skip
    write_json(json, lines)


def _line(learned: Learned, teacher: Backbone, shared: Path) -> Line:
    # A fresh network, folded as it would be shipped; its weights do not matter to the clock.
    net = folded(student_of(learned.design)).to(memory_format=torch.channels_last)
    image = torch.zeros(1, 3, _TIMED, _TIMED).to(memory_format=torch.channels_last)
    ours, theirs = _in_turns(lambda: net(image), lambda: teacher(image), 9)
    return Line(learned.design, learned.parameters, 1000 * ours, 1000 * theirs, _scores(learned.trunk, shared))


@torch.inference_mode()
def _in_turns(a: Callable[[], object], b: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Best seconds of each: on a shared machine the least disturbed turn tells most."""
    times = [(median_time(a, 1).seconds, median_time(b, 1).seconds) for _ in range(repeats)]
    return min(first for first, _ in times), min(second for _, second in times)


def _scores(trunk: nn.Module, shared: Path) -> Scores:
    config = config_of(Variant("resad"), _SIZE)
    detector = _detector(trunk, config, shared)
    dataset = read_mvtec(data_set(shared))
    choosing = ~reporting_half(dataset)
    dataset = replace(dataset, test=tuple(p for p, taken in zip(dataset.test, choosing, strict=True) if taken))
    measured = measure_with(
        lambda photo: detector.detect([photo])[0], config.preparation, 4.0, dataset, PhotoLimits(), lambda _: None
    )
    return scores(measured, np.ones(len(dataset.test), dtype=bool))


def _detector(trunk: nn.Module, config: MethodConfig, shared: Path) -> Detector:
    """The healthy training photographs' features, thinned without a projection."""
    listed = list_photos(data_set(shared) / "train" / "good")
    network = Trunk(_Network(trunk), config, torch.device("cpu"))
    encoder = Encoder(network, whitening_of(network, (_prepared(p.path, config) for p in listed)))
    features = np.concatenate([encoder.encode([_prepared(p.path, config)])[0].features for p in listed])
    count = round(_SHARE * len(features))
    picks = greedy_k_center(shards_of(torch.from_numpy(features), 16 * 8192), 0, count=count).rows
    return Detector(encoder, MemoryBank(features[np.sort(picks)], no_provenance(count)))


def _prepared(path: Path, config: MethodConfig) -> PreparedPhoto:
    return prepare(path, config.preparation, PhotoLimits())


def _weights(shared: Path) -> Path:
    return shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors"


if __name__ == "__main__":
    typer.run(main)
