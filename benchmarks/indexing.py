"""A large build in little memory: forecast against truth, and a killed build resumed.

Run as `python -m benchmarks.indexing`; takes RESAD_DATA.  Trunk and number of memories are the default ones, or
with `--resnet` ResNet-18 and a share.  The photographs are drawn.  Each build is a process of its own, so that its
peak is its own.  `--paper` builds what the paper builds instead, on any `--device`: 134 photographs at 784 px,
WideResNet-50 (untrained), a tenth of the patches.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks._bench import Json, OwnMemory, Quick, print_header, print_table, shared_data, write_json
from lab.drawing import write_dataset
from resad.config import Precision
from resad.errors import SettingError
from resad.index import MANIFEST, WORK, resolve
from resad.manifest import Manifest, read_manifest

NAME: Final = "drawn"
HEIGHT: Final = 384
"""px of a drawn photograph; its side of 576 px fills the square of 512."""


@dataclass(frozen=True, slots=True)
class Size:
    """photos: of the large build.  resumed: of the one that is killed.  height: of a drawn photograph, px."""

    photos: int
    resumed: int
    side: int
    coreset: str | None
    max_memory: str | None
    height: int = HEIGHT
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds, forecast after the first few photographs and as they were."""

    step: str
    forecast: float
    truth: float


@dataclass(frozen=True, slots=True)
class Built:
    """Bytes.  own_memory: the most that the process held without pages of mapped files, sampled every 0.1 s.
    peak: with them.  disk: of all files below the root at the most, sampled once a second.
    """

    seconds: float
    steps: tuple[Step, ...]
    forecast_memory: float
    own_memory: float
    peak: float
    forecast_disk: float
    disk: float
    patches: int
    memories: int
    points_on_disk: bool


def order(photos: Path, root: Path, size: Size) -> list[str]:
    """The command's arguments."""
    line = ["build", str(photos / "train/good"), "--root", str(root), "--name", NAME, "--size", str(size.side)]
    coreset = () if size.coreset is None else ("--coreset", size.coreset)
    limit = () if size.max_memory is None else ("--max-memory", size.max_memory)
    return [*line, *coreset, *limit, *size.more]


def start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin the command; what it says goes to `log`."""
    line = [sys.executable, "-c", "from indexer.cli import main; main()", *arguments]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=log.open("wb"))


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for its end; raises `SettingError` with the end of its words where it failed."""
    if process.wait():
        raise _failed(process.returncode, log.read_text())


def build(photos: Path, root: Path, log: Path, size: Size) -> Built:
    """Build once, and watch; raises `SettingError` where it fails or makes no forecast."""
    began = time.perf_counter()
    process = start(order(photos, root, size), log)
    disk = 0
    with OwnMemory(process.pid, interval_s=0.1) as memory:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            disk = max(disk, _disk_bytes(root))
            time.sleep(1)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text()
    if process.returncode:
        raise _failed(process.returncode, text)
    manifest = read_manifest(resolve(root / NAME) / MANIFEST)
    match = re.search(r"memory ([\d.]+) GB of [\d.]+ GB, disk ([\d.]+) GB", text)
    if match is None:
        raise SettingError(f"no forecast in {text[:500]}")
    return Built(
        seconds, _steps(text, manifest), float(match[1]) * 1e9, memory.most, usage.ru_maxrss * 1024,
        float(match[2]) * 1e9, disk, manifest.counts.patches, manifest.counts.memories, "points on disk" in text,
    )  # fmt: skip


def _failed(exit_code: int, text: str) -> SettingError:
    return SettingError(f"the build ended with exit code {exit_code}: {text[-500:]}")


def _steps(text: str, manifest: Manifest) -> tuple[Step, ...]:
    units = {"s": 1, "min": 60, "h": 3600}
    forecast = {
        name: float(number) * units[unit]
        for name, number, unit in re.findall(r"(encode|coreset|calibrate) ([\d.]+) (s|min|h)\b", text)
    }
    return tuple(Step(stage.stage, forecast[stage.stage], stage.seconds) for stage in manifest.quality.stages)


def _disk_bytes(folder: Path) -> int:
    """Bytes of all files below; files that go while it looks count as nothing."""
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


_FULL: Final = Size(1000, 150, 512, None, "6G")
_QUICK: Final = Size(24, 12, 128, "0.05", "6G")
_PAPER: Final = Size(134, 0, 784, "0.1", None, 1424)
_PAPER_QUICK: Final = Size(10, 0, 128, "0.1", None, 356)


@dataclass(frozen=True, slots=True)
class Resumed:
    """after: photographs stored when it was killed."""

    after: int
    of: int
    seconds: float
    whole_seconds: float
    same_bytes: bool


def main(
    quick: Quick = False,
    json: Json = None,
    photos: int | None = None,
    max_memory: str | None = None,
    resnet: Annotated[bool, typer.Option("--resnet", help="ResNet-18 and a share of 0.005.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's build alone.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda:N, for --paper.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="For --paper.")] = "exact",
) -> None:
    """Build from many drawn photographs, then kill a smaller build half way and resume it."""
    shared = shared_data()
    if paper:
        _build_papers(_PAPER_QUICK if quick else _PAPER, device, precision, json)
        return
    base = _QUICK if quick else _FULL
    more: tuple[str, ...] = ("--device", "cpu")
    if resnet:
        weights = shared / "weights" / "resnet18-imagenet1k_v1-trunk.safetensors"
        more, base = (*more, "--backbone", "resnet18", "--weights", str(weights)), replace(base, coreset="0.005")
    limit = max_memory or base.max_memory
    size = replace(base, photos=photos or base.photos, max_memory=limit, more=more)
    trunk = "ResNet-18" if resnet else "the default trunk"
    print_header(
        "Indexing in bounded memory",
        f"{size.photos} drawn photographs of {HEIGHT} px height, {trunk}, "
        f"size {size.side}, coreset {size.coreset or 'of the preset'}, --max-memory {size.max_memory}, CPU.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "many", 0, train=size.photos, good=0, diseased=0, height=HEIGHT)
        write_dataset(folder / "few", 1, train=size.resumed, good=0, diseased=0, height=HEIGHT)
        built = build(folder / "many", folder / "root", folder / "log", size)
        _print_built(built)
        resumed = _killed(folder, size)
    _print_resumed(resumed)
    write_json(json, {"built": built, "resumed": resumed})


def _build_papers(size: Size, device: str, precision: Precision, json: Path | None) -> None:
    print_header(
        "Indexing at the paper's size",
        f"{size.photos} drawn JPEGs of {size.height} px height, WideResNet-50-2 (random weights), "
        f"size {size.side}, coreset {size.coreset}, --precision {precision}, on {device}; "
        "seconds from the start of the process.",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "many", 0, train=size.photos, good=0, diseased=0, height=size.height)
        chosen = ("--backbone", "wide_resnet50_2", "--weights", "random:0", "--device", device)
        size = replace(size, more=(*chosen, "--precision", precision))
        built = build(folder / "many", folder / "root", folder / "log", size)
    _print_built(built)
    steps = sum(step.truth for step in built.steps)
    print(
        f"From JPEG to the published index: {built.seconds:.1f} s, {built.seconds - steps:.1f} s to start, "
        "choose the search and publish.\n"
    )
    write_json(json, built)


def _killed(folder: Path, size: Size) -> Resumed:
    log = folder / "log"
    began = time.perf_counter()
    finish(start(order(folder / "few", folder / "whole", size), log), log)
    whole = time.perf_counter() - began
    line = order(folder / "few", folder / "half", size)
    process = start(line, log)
    journal = folder / "half" / NAME / WORK / "photos.jsonl"
    while process.poll() is None and _lines(journal) < size.resumed // 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    after = _lines(journal)
    began = time.perf_counter()
    finish(start([*line, "--resume"], log), log)
    seconds = time.perf_counter() - began
    undisturbed, resumed = (resolve(folder / root / NAME) for root in ("whole", "half"))
    files = ("memory_bank.faiss", "provenance.npz", "photos.jsonl")
    same = all((undisturbed / name).read_bytes() == (resumed / name).read_bytes() for name in files)
    return Resumed(after, size.resumed, seconds, whole, same)


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def _print_built(built: Built) -> None:
    where = "on disk" if built.points_on_disk else "in memory"
    print_table(
        f"Forecast against truth: {built.patches:,} patches, {built.memories:,} memories, points {where}",
        ("", "forecast", "truth", "truth / forecast"),
        [
            *((f"{step.step}, s", f"{step.forecast:.0f}", f"{step.truth:.1f}", f"{step.truth / step.forecast:.2f}")
              for step in built.steps),
            ("own memory, GB", f"{built.forecast_memory / 1e9:.1f}", f"{built.own_memory / 1e9:.2f}",
             f"{built.own_memory / built.forecast_memory:.2f}"),
            ("with pages of mapped files, GB", "", f"{built.peak / 1e9:.2f}", ""),
            ("disk, GB", f"{built.forecast_disk / 1e9:.1f}", f"{built.disk / 1e9:.2f}",
             f"{built.disk / max(built.forecast_disk, 1e8):.2f}"),
        ],
    )  # fmt: skip


def _print_resumed(resumed: Resumed) -> None:
    print_table(
        "Killed (SIGKILL) and resumed",
        ("photographs", "stored when killed", "uninterrupted, s", "resumed, s", "bank, provenance, photos"),
        [
            (
                f"{resumed.of}",
                f"{resumed.after}",
                f"{resumed.whole_seconds:.1f}",
                f"{resumed.seconds:.1f}",
                "the same bytes" if resumed.same_bytes else "DIFFER",
            )
        ],
    )


if __name__ == "__main__":
    typer.run(main)
