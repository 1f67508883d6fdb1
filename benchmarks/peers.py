"""From a photograph's file to its map and score: the default beside other trunks, and beside anomalib's PatchCore.

Run as `python -m benchmarks.peers`; takes RESAD_DATA.  `--anomalib PYTHON` adds anomalib's PatchCore by torch and
from its OpenVINO export: a Python of its own where `pip install 'anomalib[openvino]'` has been.  Every row has the
same photographs, the same side and as many memories, and is a process of its own; the rows take turns.
"""

import json as jsons
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import torch
import typer
from rich.console import Console

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from indexer.build.build import BuildOptions, build
from indexer.build.progress import Stages
from indexer.prefetching import prefetch
from indexer.settings import method_config
from resad import index, runtime
from resad.backbone import default_weights
from resad.decoder_pool import shared_pool
from resad.engine import CheckedPhoto, Engine, ScoreOptions
from resad.loaded_index import load_index

_STDERR: Final = Console(stderr=True)
_MEMORIES: Final = 2000
_ROUNDS: Final = 3
_RESNET: Final = "resnet18-imagenet1k_v1-trunk.safetensors"
_TEXTURE: Final = ("resc.levels=[]", "backbone.stages=[2,3]", "search.mirrored=true")
_READY: Final = 2
"""Photographs that are decoded while one is scored, as `resad-indexer score` does."""


@dataclass(frozen=True, slots=True)
class OurRow:
    """A trunk and its settings.  weights: a file below RESAD_DATA's `weights`."""

    name: str
    backbone: str | None = None
    settings: tuple[str, ...] = ()
    weights: str | None = None


_OURS: Final = (
    OurRow("default"),
    OurRow("texture features alone (the default before)", "bundled", _TEXTURE),
    OurRow("ResNet-18, preset resad", "resnet18", weights=_RESNET),
)
_THEIRS: Final = (
    ("anomalib, ResNet-18, torch", "torch", "resnet18"),
    ("anomalib, ResNet-18, OpenVINO", "openvino", "resnet18"),
    ("anomalib, WideResNet-50-2 (its default), torch", "torch", "wide_resnet50_2"),
    ("anomalib, WideResNet-50-2 (its default), OpenVINO", "openvino", "wide_resnet50_2"),
)


@dataclass(slots=True)
class Row:
    """Medians over the photographs of each round, seconds; of the stages only where they are ours.

    steady: photographs a second, one after the other, decoded while others are scored.
    """

    name: str
    whole: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    steady: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)


def main(
    anomalib: Annotated[Path | None, typer.Option(help="Python that has anomalib.")] = None,
    size: Annotated[int, typer.Option(help="Side of the prepared square, px.")] = 512,
    memories: Annotated[int, typer.Option(help="In every memory bank.")] = _MEMORIES,
    rounds: Annotated[int, typer.Option(help="How often the rows take turns.")] = _ROUNDS,
    camera: Annotated[bool, typer.Option(help="Photographs of camera size instead of 512 px.")] = False,
    quick: Quick = False,
    json: Json = None,
) -> None:
    """Time whole photographs side by side."""
    shared = shared_data()
    runtime.configure("exact")
    size, memories, rounds = (128, 200, 1) if quick else (size, memories, rounds)
    photos = _photos(shared, camera=camera)[: 2 if quick else None]
    kind = "camera size" if camera else "512 px"
    references = sorted((shared / "data/idrid-512/train/good").iterdir())[: 4 if quick else 12]
    print_header(
        "Whole photographs, side by side",
        f"{len(photos)} JPEGs of {kind}, prepared at {size} px, "
        f"{memories:,} memories from {len(references)} healthy photographs; exact; medians of {rounds} rounds, "
        "the rows in turn.  anomalib decodes by Pillow, with its reduced decoding; WideResNet-50-2 is untrained.",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _gather(folder, photos, references, shared)
        for ours in _OURS:
            _build(ours, folder, size, memories, shared)
        commands = {ours.name: _our_command(folder / "indexes" / str(n), folder) for n, ours in enumerate(_OURS)}
        if anomalib is not None:
            script = str(Path(__file__).with_name("_anomalib.py"))
            commands |= {
                name: [str(anomalib), script, "photos", engine, trunk, str(size), str(memories), str(folder)]
                for name, engine, trunk in _THEIRS
            }
        rows = {name: Row(name) for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                _add(rows[name], _ran(name, command))
    _print(list(rows.values()))
    write_json(json, list(rows.values()))


def score_photos(place: Path, folder: Path) -> dict[str, Any]:
    """One process of ours: every photograph once, stage by stage and as a whole; then all one after the other."""
    runtime.wait_passively()
    runtime.configure("exact")
    runtime.use_threads()
    engine = Engine(load_index(place, torch.device("cpu")), decoder=shared_pool())
    paths = sorted((folder / "photos").iterdir())
    engine.score(paths[0])
    stages: dict[str, list[float]] = {}
    whole, cpu, scores = [], [], []
    for path in paths:
        _time_stages(engine, path, stages)
        began, cpu_began = time.perf_counter(), time.process_time()
        scores.append(engine.score(path).result.image_score)
        whole.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    return {
        "seconds": median(whole),
        "cpu_seconds": median(cpu),
        "peak_bytes": runtime.peak_memory_bytes(),
        "stages": {name: median(seconds) for name, seconds in stages.items()},
        "steady": _steady(engine, paths),
        "scores": scores,
    }


def _time_stages(engine: Engine, path: Path, stages: dict[str, list[float]]) -> None:
    detector = engine.loaded.detector

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = call()
        stages.setdefault(name, []).append(time.perf_counter() - began)
        return answer

    photo = timed("decode, prepare", lambda: engine.prepare(path))
    quality = timed("quality", lambda: engine.judge(photo))
    patches = timed("encode", lambda: detector.encoder.encode([photo])[0])
    neighbors = detector.encoder.config.search.neighbors
    for features in (patches.features, patches.mirrored):
        if features is not None:
            timed("search, one look", partial(detector.bank.search_fast, features, neighbors))
    detection = engine.detect([photo])[0]
    checked = CheckedPhoto(photo, quality, time.perf_counter(), 0.0)
    timed("findings, result", lambda: engine.assemble(checked, detection, ScoreOptions()))


def _steady(engine: Engine, paths: list[Path]) -> float:
    many = paths * max(1, 12 // len(paths))
    began = time.perf_counter()
    with closing(
        prefetch(many, lambda path: engine.check(path, ScoreOptions()), threads=1, most=_READY)
    ) as checked:
        for photo in checked:
            engine.score_checked(photo)
    return len(many) / (time.perf_counter() - began)


def _photos(shared: Path, *, camera: bool) -> list[Path]:
    if camera:
        return sorted((shared / "data/idrid-fullres").rglob("*.jpg"))
    test = shared / "data/idrid-512/test"
    return [*sorted((test / "good").iterdir())[:4], *sorted((test / "lesion").iterdir())[:4]]


def _gather(folder: Path, photos: list[Path], references: list[Path], shared: Path) -> None:
    for name, paths in (("photos", photos), ("references", references)):
        (folder / name).mkdir()
        for path in paths:
            shutil.copy(path, folder / name)
    shutil.copy(shared / "weights" / _RESNET, folder / "resnet18.safetensors")


def _build(ours: OurRow, folder: Path, size: int, memories: int, shared: Path) -> None:
    number = _OURS.index(ours)
    config = method_config(
        "resad", backbone=ours.backbone, size=size, coreset=str(memories), settings=ours.settings
    )
    weights = str(shared / "weights" / ours.weights) if ours.weights else default_weights(config.backbone.name)
    root = folder / "indexes"
    build(
        BuildOptions(folder / "references", root, str(number), config, weights, torch.device("cpu")),
        Stages(_STDERR),
    )


def _our_command(place: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers", "--one", str(index.resolve(place)), str(folder)]


def _ran(name: str, command: list[str]) -> dict[str, Any]:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{name} failed: {process.stderr[-2000:]}")
    figures: dict[str, Any] = jsons.loads(process.stdout.splitlines()[-1])
    return figures


def _add(row: Row, figures: dict[str, Any]) -> None:
    row.whole.append(figures["seconds"])
    row.cpu.append(figures["cpu_seconds"])
    row.peak_bytes = max(row.peak_bytes, figures["peak_bytes"])
    if "steady" in figures:
        row.steady.append(figures["steady"])
    for stage, seconds in figures.get("stages", {}).items():
        row.stages.setdefault(stage, []).append(seconds)


def _print(rows: list[Row]) -> None:
    first = median(rows[0].whole)
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stages))
    print_table(
        "One photograph, from its file to map, score and (ours) findings; ms",
        ("row", *stages, "whole", "CPU ms", "times the first", "a second, in turn", "peak memory, GB"),
        [
            (
                row.name,
                *(f"{1e3 * median(row.stages[stage]):.0f}" if stage in row.stages else "-" for stage in stages),
                f"{1e3 * median(row.whole):.0f}",
                f"{1e3 * median(row.cpu):.0f}",
                f"{median(row.whole) / first:.1f}",
                f"{median(row.steady):.1f}" if row.steady else "-",
                f"{row.peak_bytes / 1e9:.1f}",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(jsons.dumps(score_photos(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        typer.run(main)
