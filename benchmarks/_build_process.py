"""`resad-indexer build` in a process of its own: seconds, memory and disk, and what it forecast of them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks._own_memory import OwnMemory
from resad.errors import SettingError
from resad.index import MANIFEST, resolve
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
    coreset: str
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
    """Bytes.  own: the most that the process held without pages of mapped files, sampled ten times a second.
    peak: with them.  disk: of all files below the root at the most, sampled once a second.
    """

    seconds: float
    steps: tuple[Step, ...]
    forecast_memory: float
    own: float
    peak: float
    forecast_disk: float
    disk: float
    patches: int
    memories: int
    points_on_disk: bool


def order(photos: Path, root: Path, size: Size) -> list[str]:
    """The command's arguments."""
    line = ["build", str(photos / "train/good"), "--root", str(root), "--name", NAME, "--size", str(size.side)]
    limit = () if size.max_memory is None else ("--max-memory", size.max_memory)
    return [*line, "--coreset", size.coreset, *limit, *size.more]


def start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Begin the command; what it says goes to `log`."""
    line = [sys.executable, "-c", "from indexer.entry import main; main()", *arguments]
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
    with OwnMemory(process.pid, every=0.1) as own:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            disk = max(disk, _held(root))
            time.sleep(1)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text()
    if process.returncode:
        raise _failed(process.returncode, text)
    manifest = read_manifest(resolve(root / NAME) / MANIFEST)
    found = re.search(r"memory ([\d.]+) GB of [\d.]+ GB, disk ([\d.]+) GB", text)
    if found is None:
        raise SettingError(f"no forecast in {text[:500]}")
    return Built(
        seconds, _steps(text, manifest), float(found[1]) * 1e9, own.most, usage.ru_maxrss * 1024,
        float(found[2]) * 1e9, disk, manifest.counts.patches, manifest.counts.memories, "points on disk" in text,
    )  # fmt: skip


def _failed(exit_code: int, text: str) -> SettingError:
    return SettingError(f"the build ended with exit code {exit_code}: {text[-500:]}")


def _steps(text: str, manifest: Manifest) -> tuple[Step, ...]:
    units = {"s": 1, "min": 60, "h": 3600}
    told = {
        name: float(number) * units[unit]
        for name, number, unit in re.findall(r"(encode|coreset|calibrate) ([\d.]+) (s|min|h)\b", text)
    }
    return tuple(Step(one.stage, told[one.stage], one.seconds) for one in manifest.quality.stages)


def _held(folder: Path) -> int:
    """Bytes of all files below; files that go while it looks count as nothing."""
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total
