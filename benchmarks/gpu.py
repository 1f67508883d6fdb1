"""All that is to be measured on a GPU, in one run: the tests marked `gpu`, then the benchmarks' GPU cases.

Run as `python -m benchmarks.gpu`, or `make gpu-bench`; takes RESAD_DATA.  `--quick --device cpu` shows without a
GPU that it runs.  Everything goes on after a part that fails; the exit code is 1 then.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks._bench import Quick, shared_data

_ROOT: Final = Path(__file__).parents[1]
_MEMORIES: Final = 128_694
"""A tenth of the patches of 134 photographs at 784 px."""


def main(
    quick: Quick = False,
    device: Annotated[str, typer.Option(help="cuda:N; or cpu, with --quick.")] = "cuda:0",
    json: Annotated[Path | None, typer.Option(help="Folder for a JSON file of each benchmark.")] = None,
) -> None:
    """Test, then measure greedy, whole builds and single photographs."""
    shared_data()
    if json is not None:
        json.mkdir(parents=True, exist_ok=True)
    failed = [name for name, line in _lines(device, json, quick=quick) if not _ran(name, line)]
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        raise typer.Exit(1)


def _lines(device: str, json: Path | None, *, quick: bool) -> list[tuple[str, list[str]]]:
    """Name and command of each part."""
    small = ["--quick"] if quick else []
    trunk = ["--trunk", "resnet18" if quick else "wide_resnet50_2"]
    scale = [] if quick else ["--memories", str(_MEMORIES), "--repeats", "20"]
    parts = [("coreset", "coreset", ["--paper"])]
    for precision in ("exact", "half"):
        chosen = ["--precision", precision]
        parts.append((f"indexing-{precision}", "indexing", ["--paper", *chosen]))
        parts.append((f"latency-{precision}", "latency", [*trunk, *scale, *chosen]))
    lines = [("tests", ["-m", "pytest", "-ra", "-m", "gpu", "tests"])]
    for name, module, options in parts:
        output = [] if json is None else ["--json", str(json / f"{name}.json")]
        lines.append((name, ["-m", f"benchmarks.{module}", "--device", device, *options, *small, *output]))
    return lines


def _ran(name: str, line: Sequence[str]) -> bool:
    print(f"# {name}\n", flush=True)
    return subprocess.run([sys.executable, *line], cwd=_ROOT, check=False).returncode == 0


if __name__ == "__main__":
    typer.run(main)
