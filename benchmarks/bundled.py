"""The trunk inside the package on IDRiD, beside its teacher, an untrained trunk and plain colors; and its speed.

Run as `python -m benchmarks.bundled`; takes RESAD_DATA.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import typer

from benchmarks._bench import (
    Json,
    Quick,
    median_time,
    print_header,
    print_table,
    shared_data,
    write_json,
)
from benchmarks._color import measure_color, no_provenance
from benchmarks._comparison import print_comparison
from benchmarks._idrid import (
    CORESET,
    Row,
    Variant,
    config_of,
    data_set,
    measure,
    reporting_half,
)
from indexer.datasets.mvtec import read_mvtec
from indexer.photos import list_photos
from resad import detector, resc, runtime
from resad.backbone import load_backbone
from resad.config import PhotoLimits
from resad.encoder import Encoder, Trunk, whitening_of
from resad.memory_bank import MemoryBank
from resad.preparation import PreparedPhoto, prepare

_TEACHER: Final = Variant("resad")
_BUNDLED: Final = Variant("resad", backbone="bundled", weights="bundled")
_UNTRAINED: Final = Variant("resad", backbone="resnet18", weights="random:0")
_COLOR: Final = Variant("resad", backbone="color", weights="none")
_SIZE: Final = 784
_MEMORIES: Final = 5000
"""Of the bank that is searched where time is taken."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds of each step for one photograph; `whole` was timed by itself."""

    trunk: float
    region: float
    attention: float
    search: float
    whole: float


def main(quick: Quick = False, json: Json = None) -> None:
    """Measure the bundled trunk."""
    shared = shared_data()
    runtime.configure("exact")
    size = 256 if quick else 512
    variants = (_TEACHER, _BUNDLED) if quick else (_TEACHER, _BUNDLED, _UNTRAINED)
    timed = 256 if quick else _SIZE
    print_header(
        "The bundled trunk on IDRiD",
        f"preset resad, size {size}, coreset {CORESET}, exact; times at {timed} px. The first row is the teacher, "
        "ResNet-18 (ImageNet). color: mean and spread of RGB in 8 and 24 px around each cell, no ReSC.",
    )
    rows = []
    for variant in variants:
        with tempfile.TemporaryDirectory() as root:
            rows.append(measure(variant, size, shared, Path(root)))
    began = time.perf_counter()
    color = measure_color(data_set(shared), config_of(_TEACHER, size))
    rows.append(Row(_COLOR, color, 0, 0.0, time.perf_counter() - began))
    reporting = reporting_half(read_mvtec(data_set(shared)))
    lines = print_comparison("the reporting half", rows, reporting, "teacher")
    lines += print_comparison("all test photographs", rows, np.ones_like(reporting), "teacher")
    _print_times(shared, timed, repeats=1 if quick else 7)
    write_json(json, lines)


def _print_times(shared: Path, size: int, repeats: int) -> None:
    path = list_photos(shared / "data" / "idrid-fullres")[0].path
    photo = prepare(path, config_of(_TEACHER, size).preparation, PhotoLimits())
    prepared = median_time(lambda: prepare(path, config_of(_TEACHER, size).preparation, PhotoLimits()), repeats)
    teacher, ours = (_steps(variant, photo, shared, repeats) for variant in (_TEACHER, _BUNDLED))
    rows = []
    for name in Steps.__dataclass_fields__:
        theirs, own = getattr(teacher, name), getattr(ours, name)
        rows.append((name, f"{1000 * theirs:.0f}", f"{1000 * own:.0f}", f"{theirs / own:.1f}"))
    print_table(
        f"Milliseconds for one photograph at {size} px, {_MEMORIES:,} memories, medians of {repeats}",
        ("step", "ResNet-18", "bundled", "times faster"),
        [*rows, ("prepare (before)", *(f"{1000 * prepared.seconds:.0f}",) * 2, "1.0")],
    )


def _steps(variant: Variant, photo: PreparedPhoto, shared: Path, repeats: int) -> Steps:
    config = config_of(variant, int(photo.pixels.shape[0]))
    weights = variant.weights or str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors")
    trunk = load_backbone(config.backbone, weights).to(memory_format=torch.channels_last)
    network = Trunk(trunk, config, torch.device("cpu"))
    encoder = Encoder(network, whitening_of(network, [photo]))
    features = encoder.encode([photo])[0].features
    rows = np.random.default_rng(0).integers(len(features), size=_MEMORIES)
    noise = np.random.default_rng(1).normal(0, 0.02, size=(_MEMORIES, features.shape[1])).astype(np.float32)
    bank = MemoryBank(features[rows] + noise, no_provenance(_MEMORIES))
    images = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None].float() / 255
    images = images.contiguous(memory_format=torch.channels_last)

    def seconds(call: Callable[[], object]) -> float:
        call()  # the first run also plans
        return median_time(call, repeats).seconds

    with torch.inference_mode():
        stages = trunk(images)
        mask = torch.from_numpy(photo.mask)[None, None].float()
        valid = torch.nn.functional.adaptive_max_pool2d(mask, stages[0].shape[-2:])[:, 0] > 0
        whole = torch.cat(resc.on_one_grid(stages, config.resc), dim=1) * valid[:, None]
        radius = resc.grid_radius(config.resc.region_radius, valid.shape[-1])
        return Steps(
            trunk=seconds(lambda: trunk(images)),
            region=seconds(lambda: resc.region_filter(whole, valid, radius)),
            attention=seconds(lambda: resc.spatial_filter(whole[0], valid[0], config.resc)),
            search=seconds(lambda: bank.search(features, config.search.neighbors)),
            whole=seconds(lambda: detector.Detector(encoder, bank).detect([photo])),
        )


if __name__ == "__main__":
    typer.run(main)
