"""Writes the two lists that docker/Dockerfile installs, in this order, from pyproject.toml and requirements.lock.

    python docker/requirements.py OUT [--torch VERSION] [--torch-index URL] [--faiss NAME]

OUT/gpu.txt: torch, torchvision and FAISS, which bring CUDA and are nearly all of an image.
OUT/rest.txt: the other dependencies.
OUT/gpu-constraints.txt, OUT/constraints.txt: the lock's versions of what the first list installs, and of all;
those of torch and of CUDA only where the lock's torch is what is asked for.

So the largest layer of an image is made anew only when something in it changes.
"""

import argparse
import re
import tomllib
from pathlib import Path

GPU = ("torch", "torchvision", "faiss-gpu")
OF_TORCH = re.compile(r"torch|torchvision|triton|cuda-.*|nvidia-.*")
"""Distributions whose versions torch prescribes."""
UNDER_GPU = re.compile(
    r"faiss-.*|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|numpy|packaging|pillow|sympy|typing-extensions"
)
"""The others that `GPU` brings along."""


def main() -> None:
    """Read two files, write three."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--torch", default="", help="a version other than the lock's")
    arguments.add_argument("--torch-index", default="", help="where another build of it comes from")
    arguments.add_argument("--faiss", default="faiss-gpu", help="faiss-gpu or faiss-cpu")
    given = arguments.parse_args()
    wanted = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    pins = [
        line for line in Path("requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    gpu = [line for line in wanted if name_of(line) in GPU]
    if given.torch or given.torch_index:
        pins = [line for line in pins if not OF_TORCH.fullmatch(name_of(line))]
    if given.torch:
        pins.append(f"torch=={given.torch}")
    if given.faiss != "faiss-gpu":
        gpu = [line.replace("faiss-gpu", given.faiss) for line in gpu]
    write(given.out / "gpu.txt", gpu)
    write(given.out / "rest.txt", [line for line in wanted if name_of(line) not in GPU])
    write(given.out / "constraints.txt", pins)
    below = [line for line in pins if OF_TORCH.fullmatch(name_of(line)) or UNDER_GPU.fullmatch(name_of(line))]
    write(given.out / "gpu-constraints.txt", below)


def name_of(requirement: str) -> str:
    """Its normalized name, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]).lower()


def write(path: Path, lines: list[str]) -> None:
    """One requirement a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
