"""Time and memory of the whole path on camera-size photographs: WideResNet-50-2 at 784 px, untrained.

Run as `python -m benchmarks.memory`; takes RESAD_DATA.  Each command of `resad-indexer` is a process of its own,
so that its peak is its own.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from benchmarks._bench import Json, Quick, print_header, print_table, shared_data, write_json
from indexer.photos import list_photos
from resad.errors import SettingError
from resad.index import MANIFEST, resolve
from resad.manifest import Manifest, read_manifest

_BACKBONE: Final = "wide_resnet50_2"
_SIZE: Final = 784
_LIMIT_GB: Final = 12.0
_NAME: Final = "camera"


@dataclass(frozen=True, slots=True)
class Ran:
    """One command.  peak_gb: largest resident memory of its process, 10^9 bytes."""

    command: str
    seconds: float
    peak_gb: float


def main(quick: Quick = False, json: Json = None) -> None:
    """Build an index from camera-size photographs and score them with it."""
    photos = shared_data() / "data" / "idrid-fullres"
    count = len(list_photos(photos))
    backbone, size = ("resnet18", 256) if quick else (_BACKBONE, _SIZE)
    print_header(
        "The whole path on camera-size photographs",
        f"{backbone}, random:0 weights, size {size}, coreset 0.02, preset resad, {count} photographs of "
        "4288 x 2848 px; the same are built from and scored, so the scores mean nothing.",
    )
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "root", Path(folder) / "out"
        order = ["build", str(photos), "--root", str(root), "--name", _NAME, "--backbone", backbone]
        order += ["--weights", "random:0", "--size", str(size), "--coreset", "0.02"]
        ran = [_run(order), _run(["score", str(root / _NAME), str(photos), "--out", str(out)])]
        manifest = read_manifest(resolve(root / _NAME) / MANIFEST)
        on_disk = sum(file.stat().st_size for file in out.iterdir())
    _print_commands(ran, count)
    _print_stages(manifest)
    print(f"Files written by score: {on_disk / 1e6:.1f} MB.\n")
    write_json(json, ran)


def _run(arguments: list[str]) -> Ran:
    """Run `resad-indexer` with its output on stderr, and wait for what the kernel says of it."""
    line = [sys.executable, "-c", "from indexer.entry import main; main()", *arguments]
    began = time.perf_counter()
    process = subprocess.Popen(line, stdout=sys.stderr)
    # Not getrusage(RUSAGE_CHILDREN): that is the largest of all children so far.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SettingError(f"resad-indexer {arguments[0]} ended with exit code {process.returncode}")
    return Ran(f"resad-indexer {arguments[0]}", seconds, usage.ru_maxrss * 1024 / 1e9)


def _print_commands(ran: list[Ran], photos: int) -> None:
    print_table(
        f"Per command, one run each; the limit is {_LIMIT_GB:g} GB",
        ("command", "seconds", "seconds a photograph", "peak resident memory, GB", "within the limit"),
        [
            (
                one.command,
                f"{one.seconds:.1f}",
                f"{one.seconds / photos:.1f}",
                f"{one.peak_gb:.2f}",
                "yes" if one.peak_gb <= _LIMIT_GB else "NO",
            )
            for one in ran
        ],
    )


def _print_stages(manifest: Manifest) -> None:
    counts = manifest.counts
    print_table(
        f"Per stage of the build: {counts.patches:,} patches of {counts.dimension} dimensions on "
        f"{counts.grid[0]} x {counts.grid[1]} grids, {counts.memories:,} memories",
        ("stage", "seconds"),
        [(stage.stage, f"{stage.seconds:.1f}") for stage in manifest.quality.stages],
    )


if __name__ == "__main__":
    typer.run(main)
