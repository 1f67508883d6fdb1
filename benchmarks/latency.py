"""From JPEG bytes to the encoded map, stage by stage, each beside the time that its arithmetic alone would take.

Run as `python -m benchmarks.latency`; takes RESAD_DATA.  The floor is a stage's operations over the rate at which
one processor multiplies float32 matrices, measured in the same run; decoding and pictures have none.  The time of
all processors together is set against it: others who use the machine disturb that less.  With `--device cuda` the
rate is the GPU's, the time by the clock is set against it, and FAISS and torch search side by side.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import log2, prod
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._bench import (
    Json,
    Quick,
    finish,
    placeholder_provenance,
    print_header,
    print_table,
    product_rate,
    shared_data,
    write_json,
)
from benchmarks._idrid import Variant, config_of, data_set
from indexer.prefetching import prefetch
from resad import anomaly_map, resc, runtime
from resad.backbone import Backbone, load_backbone
from resad.config import PhotoLimits, Precision
from resad.detector import Detector
from resad.encoder import Encoder, PatchFeatures, Trunk
from resad.memory_bank import MemoryBank
from resad.neighbors import Neighbors, nearest_with_mirror
from resad.photo import read_bytes, read_photo
from resad.pictures.map_files import map_png16
from resad.pictures.overlay import MapScale, draw_overlay, picture_file
from resad.preparation import PreparedPhoto, prepare
from resad.search.flat import FaissOnGpu, RowSearch, TorchSearch, flat_index, memories_on
from resad.search.plan import SearchPlan

_LIMITS: Final = PhotoLimits()
_CPU: Final = torch.device("cpu")
_MEMORIES: Final = 25_000
_SIDE: Final = 2048
"""Of the square matrices that the rate is measured with."""


@dataclass(frozen=True, slots=True)
class Stage:
    """seconds, cpu_seconds: medians, by the clock and of all processors together.

    operations: multiplications and additions; 0 where they do not say what it takes.
    """

    name: str
    seconds: float
    cpu_seconds: float
    operations: float


@dataclass(frozen=True, slots=True)
class Latency:
    """The stages of one trunk.

    rate: float32 operations a second of a matrix product, of one processor or of the GPU.
    steady: photographs a second, from JPEG to map, where one comes after the other; 0 where not measured.
    """

    trunk: str
    device: str
    stages: tuple[Stage, ...]
    rate: float
    steady: float


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """A photograph half-way: what each stage is given."""

    images: Tensor
    masks: Tensor
    stages: list[Tensor]
    valid: Tensor
    whole: Tensor


def main(
    quick: Quick = False,
    json: Json = None,
    photo: Annotated[Path | None, typer.Option(help="A camera's JPEG; else one that is here.")] = None,
    memories: Annotated[int, typer.Option(help="In the memory bank.")] = _MEMORIES,
    repeats: Annotated[int, typer.Option(help="Runs of each stage.")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="Of the whole path; the stages are float32.")] = "exact",
    trunks: Annotated[list[str] | None, typer.Option("--trunk", help="This one alone; may be repeated.")] = None,
) -> None:
    """Time every stage on one photograph, alone, after one run that is not counted."""
    shared = shared_data()
    runtime.configure(precision)
    where = runtime.pick_device(device)
    size, memories, repeats = (256, 500, 1) if quick else (784, memories, repeats)
    source = photo or _camera_photo(shared)
    print_header(
        "Latency",
        f"preset resad, {size} px, --precision {precision}, on {where}, "
        f"one {source.suffix} of {source.stat().st_size / 1e6:.1f} MB, "
        f"{memories:,} memories drawn from the photograph's own patches and a little noise; medians of {repeats}; "
        "ResNet-18 and bundled with their weights, WideResNet-50-2 untrained; overlays with no findings.  "
        "The photograph and its mirror image are looked at, unless a row says one look.",
    )
    weights_of = {
        "resnet18": str(shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors"),
        "wide_resnet50_2": "random:0",
        "bundled": "bundled",
    }
    chosen = trunks or [name for name in weights_of if not (quick and name == "wide_resnet50_2")]
    paths = [
        _measured(Variant("resad", settings=(f"precision={precision}",), backbone=name), source, size, memories,
                  repeats, weights_of.get(name, "random:0"), where, steady=quick or where.type != "cpu")
        for name in chosen
    ]  # fmt: skip
    for path in paths:
        _print(path)
    write_json(json, paths)


def _camera_photo(shared: Path) -> Path:
    """The first camera-size photograph that lies here, or else a small one."""
    large = sorted((shared / "data" / "idrid-fullres").rglob("*.jpg"))
    return (large or sorted((data_set(shared) / "test" / "lesion").glob("*.jpg")))[0]


def _measured(
    variant: Variant,
    source: Path,
    size: int,
    memories: int,
    repeats: int,
    weights: str,
    device: torch.device,
    *,
    steady: bool,
) -> Latency:
    config = config_of(variant, size)
    data = read_bytes(source, _LIMITS)
    photo = prepare(data, config.preparation, _LIMITS)
    backbone = load_backbone(config.backbone, weights)
    network = Trunk(backbone, config, device)
    encoder = Encoder(network)
    backbone = backbone.to(device)
    parts = _parts(backbone, photo, encoder)
    patches = encoder.encode([photo])[0]
    banks = _banks(patches.features, memories, runtime.gpu_number(device))
    k, (n, d), looks = config.search.neighbors, patches.features.shape, 1 if patches.mirrored is None else 2
    detection = Detector(encoder, banks["flat"]).detect([photo])[0]
    proved = Detector(encoder, banks["proved"])
    valid = parts.valid[0].cpu().numpy()
    grid = np.zeros(valid.shape, dtype=np.float32)
    grid[valid] = detection.patch_distances
    height, width = photo.frame.height, photo.frame.width
    whole_photo, in_photo = read_photo(data, _LIMITS).pixels, photo.frame.map_to_photo(detection.anomaly_map)
    picture = _overlay(whole_photo, in_photo, detection.peak)

    def timed(name: str, call: Callable[[], object], operations: float = 0.0) -> Stage:
        call()
        finish(device)
        times = [_time_once(call, device) for _ in range(repeats)]
        return Stage(name, median(wall for wall, _ in times), median(cpu for _, cpu in times), operations)

    radius = resc.grid_radius(config.resc.region_radius, valid.shape[-1])
    with torch.inference_mode():
        if config.resc.levels:  # each level is combined on its own grid
            combine = partial(resc.combine, parts.stages, parts.valid, config.resc)
            combining: tuple[Stage, ...] = (timed("combine levels, one look", combine),)
        else:
            combining = (
                timed("combine stages, one look", lambda: _combined(parts.stages, encoder)),
                timed(
                    "region, one look",
                    lambda: resc.region_filter(parts.whole, parts.valid, radius),
                    _region_operations(parts.whole, radius),
                ),
                timed(
                    "attention, one look",
                    lambda: resc.spatial_filter(parts.whole[0], parts.valid[0], config.resc),
                    4.0 * n * n * d,
                ),
            )
        stages = (
            timed("decode (whole)", lambda: read_photo(data, _LIMITS)),
            timed("decode and prepare", lambda: prepare(data, config.preparation, _LIMITS)),
            timed("backbone, one look", lambda: backbone(parts.images, parts.masks),
                  _operations(backbone, parts.images, parts.masks)),
            timed("encode", lambda: encoder.encode([photo])),
            *combining,
            *(timed(f"search, {name}", partial(_search, bank, patches, k), looks * 2.0 * n * memories * d)
              for name, bank in banks.items()),
            *(timed(f"search, {name} alone, one look", partial(search.rows, patches.features, k),
                    2.0 * n * memories * d)
              for name, search in flat_searches(banks["flat"]).items()),
            timed("map and score", lambda: anomaly_map.image_score(
                anomaly_map.anomaly_map(grid, valid, photo.mask), detection.scored, config.score)),
            timed("map as PNG", lambda: map_png16(
                photo.frame.map_to_photo(detection.anomaly_map, width, height), 2 * detection.peak, "")),
            timed("overlay", lambda: _overlay(whole_photo, in_photo, detection.peak)),
            timed("overlay as PNG", lambda: picture_file(picture, "png")),
            timed("whole, flat", lambda: Detector(encoder, banks["flat"]).detect([photo])),
            timed("JPEG in, map out, proved", lambda: proved.detect([prepare(data, config.preparation, _LIMITS)])),
        )  # fmt: skip
        rate = _rate(repeats) if device.type == "cpu" else product_rate(device)
        by_the_row = steady_rate(proved, data) if steady else 0.0
    return Latency(variant.backbone, str(device), stages, rate, by_the_row)


def _parts(backbone: Backbone, photo: PreparedPhoto, encoder: Encoder) -> _Parts:
    images = torch.from_numpy(photo.pixels).permute(2, 0, 1)[None].float() / 255
    device = encoder.device
    images = images.contiguous(memory_format=torch.channels_last).to(device)
    masks = torch.from_numpy(photo.mask)[None].to(device)
    with torch.inference_mode():
        stages = backbone.to(memory_format=torch.channels_last)(images, masks)
        valid = torch.nn.functional.adaptive_max_pool2d(masks[:, None].float(), stages[0].shape[-2:])[:, 0] > 0
        return _Parts(images, masks, stages, valid, _combined(stages, encoder) * valid[:, None])


def _overlay(pixels: NDArray[np.uint8], in_photo: NDArray[np.float32], peak: float) -> Image.Image:
    return draw_overlay(pixels, in_photo, MapScale(0.0, peak / 2, 2 * peak), [])


def _combined(stages: Sequence[Tensor], encoder: Encoder) -> Tensor:
    """F of equation 2: (1, D, h, w)."""
    return torch.cat(resc.on_one_grid(stages, encoder.config.resc), dim=1)


def _search(bank: MemoryBank, patches: PatchFeatures, k: int) -> Neighbors:
    return nearest_with_mirror(bank.search, patches.features, patches.mirrored, k)


def _banks(features: np.ndarray, memories: int, gpu: int | None) -> dict[str, MemoryBank]:
    rng = np.random.default_rng(0)
    rows = features[rng.integers(len(features), size=memories)]
    noise = rng.normal(0, 0.02, size=rows.shape).astype(np.float32)
    flat = MemoryBank(rows + noise, placeholder_provenance(memories), gpu=gpu)
    return {"flat": flat, "proved": flat.with_plan(SearchPlan("proved", width=160))}


def _operations(backbone: Backbone, images: Tensor, masks: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        backbone(images, masks)
    return float(counter.get_total_flops())


def _region_operations(features: Tensor, radius: int) -> float:
    """Two real transforms of every channel, 2.5 n log2 n operations each, and the product between them."""
    n = prod(side + radius for side in features.shape[-2:])
    return features.shape[1] * (2 * 2.5 * n * log2(n) + 6 * n / 2)


def _rate(repeats: int) -> float:
    """The best of some: a floor is what the machine can do when nothing disturbs it."""
    a = torch.rand(_SIDE, _SIDE)
    return 2.0 * _SIDE**3 / min(_time_once(lambda: a @ a)[1] for _ in range(4 * repeats))


def _time_once(call: Callable[[], object], device: torch.device = _CPU) -> tuple[float, float]:
    """Seconds by the clock, until `device` has done it, and of all processors together."""
    began, cpu = time.perf_counter(), time.process_time()
    call()
    finish(device)
    return time.perf_counter() - began, time.process_time() - cpu


def _print(path: Latency) -> None:
    here = path.device == "cpu"
    of = "GFLOP/s and processor" if here else "GFLOP/s on the GPU"
    print_table(
        f"{path.trunk}; matrix products at {path.rate / 1e9:,.0f} {of}",
        ("stage", "ms", "CPU ms", "floor, CPU ms" if here else "floor, ms", "times the floor"),
        [
            (
                stage.name,
                f"{1e3 * stage.seconds:.{0 if here else 1}f}",
                f"{1e3 * stage.cpu_seconds:.0f}",
                f"{1e3 * stage.operations / path.rate:.{0 if here else 1}f}" if stage.operations else "-",
                f"{(stage.cpu_seconds if here else stage.seconds) * path.rate / stage.operations:.1f}"
                if stage.operations
                else "-",
            )
            for stage in path.stages
        ],
    )
    if path.steady:
        print(f"Steady state, JPEG in, map out, proved search, {BATCH} at a time: {path.steady:.1f} a second.\n")


BATCH: Final = 4
"""Photographs that are scored together."""


def flat_searches(bank: MemoryBank) -> dict[str, RowSearch]:
    """FAISS's and torch's, of a bank on a GPU, which keeps the faster of them."""
    if bank.gpu is None:
        return {}
    on_device = memories_on(bank.memories, torch.device("cuda", bank.gpu))
    return {"FAISS": FaissOnGpu(flat_index(bank.memories), bank.gpu), "torch": TorchSearch(on_device)}


def steady_rate(detector: Detector, data: bytes, clock: Callable[[], float] = time.perf_counter) -> float:
    """Photographs a second, four at a time, decoded by threads while the GPU is at work."""
    threads = max(len(os.sched_getaffinity(0)) - 1, 1)
    preparation, count = detector.encoder.config.preparation, 12 * BATCH
    prepare_photo = partial(prepare, config=preparation, limits=PhotoLimits())
    with closing(prefetch([data] * count, prepare_photo, threads=threads, most=threads + BATCH)) as photos:
        detector.detect(list(islice(photos, BATCH)))
        began = clock()
        while batch := list(islice(photos, BATCH)):
            detector.detect(batch)
        return (count - BATCH) / (clock() - began)


if __name__ == "__main__":
    typer.run(main)
