"""Writes the two lists that docker/Dockerfile installs, in this order, from pyproject.toml and requirements.lock.

    python docker/requirements.py OUT [--torch VERSION] [--torch-index URL] [--faiss NAME]

OUT/gpu.txt: torch, torchvision and FAISS, which bring CUDA and are nearly all of an image.
OUT/rest.txt: the other dependencies, those of resad-client included, which is installed from clients/python.
OUT/gpu-constraints.txt, OUT/constraints.txt: the lock's versions of what the first list installs, and of all;
those of torch and of CUDA only where the lock's torch is what is asked for.

So the largest layer of an image is made anew only when something in it changes.
"""

import argparse
import re
import tomllib
from pathlib import Path

GPU = ("torch", "torchvision", "faiss-gpu")
CLIENT_FOLDERS = ("clients/python", "clients/dicom")
CLIENT = "resad-client"
"""In this repository, as `resad` itself."""
EXTRA = "dicom"
"""The extra that the images have, too."""
OF_TORCH = re.compile(r"torch|torchvision|triton|cuda-.*|nvidia-.*")
"""Distributions whose versions torch prescribes."""
UNDER_GPU = re.compile(
    r"faiss-.*|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|numpy|packaging|pillow|sympy|typing-extensions"
)
"""The others that `GPU` brings along."""


def main() -> None:
    """Read the requirements and the lock, write four lists."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--torch", default="", help="a version other than the lock's")
    parser.add_argument("--torch-index", default="", help="where another build of it comes from")
    parser.add_argument("--faiss", default="faiss-gpu", help="faiss-gpu or faiss-cpu")
    arguments = parser.parse_args()
    requirements = dependencies(Path("pyproject.toml"), EXTRA)
    names = {name_of(line) for line in requirements}
    clients = {
        name_of(line): line
        for folder in CLIENT_FOLDERS
        for line in dependencies(Path(folder, "pyproject.toml"))
        if name_of(line) not in names
    }
    requirements = [*(line for line in requirements if name_of(line) != CLIENT), *clients.values()]
    pins = [
        line for line in Path("requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    gpu = [line for line in requirements if name_of(line) in GPU]
    if arguments.torch or arguments.torch_index:
        pins = [line for line in pins if not OF_TORCH.fullmatch(name_of(line))]
    if arguments.torch:
        pins.append(f"torch=={arguments.torch}")
    if arguments.faiss != "faiss-gpu":
        gpu = [line.replace("faiss-gpu", arguments.faiss) for line in gpu]
    write(arguments.out / "gpu.txt", gpu)
    write(arguments.out / "rest.txt", [line for line in requirements if name_of(line) not in GPU])
    write(arguments.out / "constraints.txt", pins)
    below = [line for line in pins if OF_TORCH.fullmatch(name_of(line)) or UNDER_GPU.fullmatch(name_of(line))]
    write(arguments.out / "gpu-constraints.txt", below)


def dependencies(path: Path, extra: str = "") -> list[str]:
    """The requirements of a project and of one of its extras, one string each."""
    project = tomllib.loads(path.read_text())["project"]
    requirements: list[str] = project["dependencies"]
    return [*requirements, *(project["optional-dependencies"][extra] if extra else ())]


def name_of(requirement: str) -> str:
    """Its normalized name, as in PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]).lower()


def write(path: Path, lines: list[str]) -> None:
    """One requirement a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
