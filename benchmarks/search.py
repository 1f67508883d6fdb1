"""Ways to search a large memory bank of real photographs: time, and how far they are from brute force.

Run as `python -m benchmarks.search`; takes RESAD_DATA.  `--cache FOLDER` keeps the bank, which takes minutes.
`--anomalib PYTHON` adds anomalib's PatchCore: a Python of its own where `pip install anomalib` has been.
The floor is the time that the products of a search alone would take at the rate of this machine, measured in the
same run: float32 for flat; int8 for proved, which multiplies every quantized patch with every quantized memory.
"""

import json as jsons
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from benchmarks._idrid import Variant, config_of, data_set, encoder_for, healthy
from indexer.build.feature_store import FeatureStore
from indexer.coreset.selection import select
from resad import runtime
from resad.config import CoresetConfig, MethodConfig, PhotoLimits
from resad.detector import measure
from resad.encoder import Encoder, PatchFeatures
from resad.memory_bank import FAISS_FILE, MemoryBank
from resad.preparation import PreparedPhoto, prepare
from resad.search.plan import SearchPlan

_FLAT: Final = SearchPlan()
_RATE_SIDE: Final = 512
_RATE_TIMES: Final = 20
_PLANS: Final = (
    _FLAT,
    *(SearchPlan("proved", width=width) for width in (96, 128, 160, 192)),
    *(SearchPlan("ivf", probes=probes) for probes in (2, 4, 8, 32)),
)


@dataclass(frozen=True, slots=True, eq=False)
class TestPhoto:
    """A test photograph."""

    name: str
    photo: PreparedPhoto
    patches: PatchFeatures


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """distances: float32 (N,), of each patch the mean to the nearest memories, as the search itself found them."""

    image_score: float
    distances: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to search.  Seconds: of setting it up; medians over the photographs, wall clock and processor.

    floor_cpu_seconds: of the products alone; 0 where they do not say what it takes.
    faster, cpu_faster: median over the photographs of flat's seconds over these, both measured in turn.
    Deviations: the largest, relative to brute force; of the patches' distances, which the map is made of, to the
    largest of the photograph.
    """

    plan: SearchPlan
    set_up_seconds: float
    seconds: float
    cpu_seconds: float
    floor_cpu_seconds: float
    faster: float
    cpu_faster: float
    proved: float
    score_deviation: float
    distance_deviation: float


@dataclass(frozen=True, slots=True)
class Whole:
    """One process that scores from prepared pixels; seconds by the clock and of all processors together."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    scores: tuple[float, ...]


def main(
    quick: Quick = False,
    json: Json = None,
    cache: Annotated[Path | None, typer.Option(help="Keep the memory bank here.")] = None,
    photos: Annotated[int, typer.Option(help="Test photographs.")] = 6,
    repeats: Annotated[int, typer.Option(help="Searches of each photograph.")] = 3,
    anomalib: Annotated[Path | None, typer.Option(help="Python that has anomalib.")] = None,
) -> None:
    """Search with every plan, in turn on each photograph."""
    shared = shared_data()
    runtime.configure("exact")
    side, count, photo_count, repeats = (256, 4, 2, 1) if quick else (784, None, photos, repeats)
    config = config_of(Variant("resad"), side)
    references = healthy(shared, side, count=count)
    encoder = encoder_for(shared, side)
    with tempfile.TemporaryDirectory() as scratch:
        bank = _bank(encoder, references, cache or Path(scratch) / "bank")
    test_photos = list(_test_photos(encoder, shared, photo_count))
    print_header(
        "Search",
        f"preset resad, ResNet-18, {side} px, coreset 0.5 of the healthy training photographs: "
        f"{len(bank):,} memories x {bank.dimension}; {len(test_photos)} test photographs, {repeats} searches of "
        "each, all plans in turn; flat is FAISS's IndexFlatL2.",
    )
    rows = _rows(bank, test_photos, config, repeats)
    _print_rows(rows, config.search.neighbors)
    wholes = _wholes(shared, side, count, photo_count, len(bank), anomalib) if anomalib else []
    if wholes:
        _print_wholes(wholes)
    write_json(json, {"search": rows, "whole": wholes})


def _bank(encoder: Encoder, photos: list[PreparedPhoto], place: Path) -> MemoryBank:
    """Half of all patches, chosen by the greedy; read from `place` if they are there."""
    if (place / FAISS_FILE).exists():
        return MemoryBank.load(place)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        for photo in photos:
            store.append(encoder.encode([photo])[0])
        selection = select(store, CoresetConfig(share=0.5), [torch.device("cpu")], lambda picks: None)
    bank = MemoryBank(selection.memories, selection.provenance)
    bank.save(place)
    return bank


def _test_photos(encoder: Encoder, shared: Path, count: int) -> Iterator[TestPhoto]:
    """Test photographs, healthy and diseased by turns."""
    folders = [sorted((data_set(shared) / "test" / kind).glob("*.jpg")) for kind in ("good", "lesion")]
    paths = [path for pair in zip(*folders, strict=False) for path in pair][:count]
    for path in paths:
        photo = prepare(path, encoder.config.preparation, PhotoLimits())
        yield TestPhoto(path.stem, photo, encoder.encode([photo])[0])


def _rows(bank: MemoryBank, photos: list[TestPhoto], config: MethodConfig, repeats: int) -> list[Row]:
    banks, set_up = {}, {}
    for plan in _PLANS:
        began = time.perf_counter()
        banks[plan] = bank.with_plan(plan)
        set_up[plan] = time.perf_counter() - began
    times: dict[SearchPlan, list[tuple[float, float, float]]] = {plan: [] for plan in _PLANS}
    measured: dict[SearchPlan, list[_Measured]] = {plan: [] for plan in _PLANS}
    for photo in photos:
        for turn in range(repeats):
            for plan, searched in banks.items():
                began, cpu = time.perf_counter(), time.process_time()
                detection = measure(photo.patches, photo.photo.mask, searched, config)
                seconds = time.perf_counter() - began, time.process_time() - cpu
                times[plan].append((*seconds, searched.proved))
                if turn == 0:
                    near = searched.search_fast(photo.patches.features, config.search.neighbors)
                    measured[plan].append(_Measured(detection.image_score, near.distances.mean(axis=1)))
    pairs = median(len(photo.patches.features) for photo in photos) * len(bank)
    rates = _rate(torch.float32), _rate(torch.int8)
    return [
        _row(plan, set_up[plan], times[plan], times[_FLAT], measured[plan], measured[_FLAT],
             _floor(plan, pairs, bank.dimension, rates))
        for plan in _PLANS
    ]  # fmt: skip


def _floor(plan: SearchPlan, pairs: float, dimension: int, rates: tuple[float, float]) -> float:
    """Seconds of a processor for the products of an exhaustive search; 0 for the others."""
    if not plan.exact:
        return 0.0
    return 2 * pairs * (dimension / rates[0] if plan.kind == "flat" else plan.width / rates[1])


def _rate(kind: torch.dtype) -> float:
    """Operations a second of one processor, in products that stay in its cache: the best of some."""
    a = torch.ones((_RATE_SIDE, _RATE_SIDE), dtype=kind)

    def seconds() -> float:
        began = time.process_time()
        for _ in range(_RATE_TIMES):
            torch._int_mm(a, a.T) if kind == torch.int8 else a @ a.T
        return time.process_time() - began

    return float(2 * _RATE_TIMES * _RATE_SIDE**3 / min(seconds() for _ in range(5)))


def _row(
    plan: SearchPlan,
    set_up: float,
    times: list[tuple[float, float, float]],
    flat: list[tuple[float, float, float]],
    measured: list[_Measured],
    brute: list[_Measured],
    floor: float,
) -> Row:
    pairs = list(zip(measured, brute, strict=True))
    return Row(
        plan=plan,
        set_up_seconds=set_up,
        seconds=median(seconds for seconds, _, _ in times),
        cpu_seconds=median(cpu for _, cpu, _ in times),
        floor_cpu_seconds=floor,
        faster=median(exact[0] / approximate[0] for approximate, exact in zip(times, flat, strict=True)),
        cpu_faster=median(exact[1] / approximate[1] for approximate, exact in zip(times, flat, strict=True)),
        proved=min(proved for _, _, proved in times),
        score_deviation=max(abs(approximate.image_score / exact.image_score - 1) for approximate, exact in pairs),
        distance_deviation=max(
            float(np.abs(approximate.distances - exact.distances).max() / exact.distances.max())
            for approximate, exact in pairs
        ),
    )


def _wholes(shared: Path, side: int, count: int | None, photos: int, memories: int, anomalib: Path) -> list[Whole]:
    """Prepared pixels in, score out, each in a process of its own so that its peak is its own."""
    weights = shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors"
    encoder = encoder_for(shared, side, "patchcore")
    references = healthy(shared, side, "patchcore", count)
    parts = [encoder.encode([photo])[0].features for photo in references]
    features = np.concatenate(parts)
    rows = np.random.default_rng(0).choice(len(features), min(memories, len(features)), replace=False)
    script = Path(__file__).with_name("_anomalib.py")
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "bank.npy", features[np.sort(rows)])
        pixels: NDArray[np.uint8] = np.stack(
            [photo.photo.pixels for photo in _test_photos(encoder, shared, photos)]
        )
        np.save(Path(folder) / "photos.npy", pixels)
        shutil.copy(weights, Path(folder) / "trunk.safetensors")
        sides = [("anomalib's PatchCore", [str(anomalib), str(script), "patchcore", "anomalib", folder])]
        command = ["-m", "benchmarks._anomalib", "patchcore"]
        kinds = ("flat", "proved", "ivf")
        sides += [(f"preset patchcore, {kind}", [sys.executable, *command, kind, folder]) for kind in kinds]
        return [_whole(name, line) for name, line in sides]


def _whole(name: str, line: list[str]) -> Whole:
    process = subprocess.run(line, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{name} failed: {process.stderr[-2000:]}")
    said = jsons.loads(process.stdout.splitlines()[-1])
    return Whole(name, said["seconds"], said["cpu_seconds"], said["peak_bytes"], tuple(said["scores"]))


def _print_rows(rows: list[Row], neighbors: int) -> None:
    print_table(
        f"Search, map and score of one photograph, mean of {neighbors} neighbors; medians",
        ("search", "set up, s", "ms", "CPU ms", "its floor", "times faster", "of CPU", "proved", "score off by",
         "distances off by"),
        [
            (
                _name(row.plan), f"{row.set_up_seconds:.1f}", f"{1e3 * row.seconds:.0f}",
                f"{1e3 * row.cpu_seconds:.0f}",
                f"{1e3 * row.floor_cpu_seconds:.0f}" if row.floor_cpu_seconds else "-",
                f"{row.faster:.1f}", f"{row.cpu_faster:.1f}",
                f"{row.proved:.4f}" if row.plan.kind == "proved" else "-",
                f"{row.score_deviation:.1e}", f"{row.distance_deviation:.1e}",
            )
            for row in rows
        ],
    )  # fmt: skip


def _print_wholes(wholes: list[Whole]) -> None:
    first = np.array(wholes[0].scores)
    print_table(
        "PatchCore from prepared pixels to the score: one neighbor, the same trunk and memories (drawn at random)",
        ("who", "ms", "CPU ms", "peak memory, GB", "scores off the first by"),
        [
            (
                whole.name,
                f"{1e3 * whole.seconds:.0f}",
                f"{1e3 * whole.cpu_seconds:.0f}",
                f"{whole.peak_bytes / 1e9:.2f}",
                f"{float(np.abs(np.array(whole.scores) / first - 1).max()):.1e}",
            )
            for whole in wholes
        ],
    )


def _name(plan: SearchPlan) -> str:
    details = {"proved": f", width {plan.width}", "ivf": f", {plan.probes} of {plan.lists} lists"}
    return plan.kind + details.get(plan.kind, "")


if __name__ == "__main__":
    typer.run(main)
