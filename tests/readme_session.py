"""The console blocks of the README and of docs/http.md, run as one session in one folder.

A line that begins with `$ ` is a command, the lines after it are its output.  Port 8000 stands for a free port.
`python -m tests.readme_session` writes the present output into both pages.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ports import free_port

_ROOT: Final = Path(__file__).parent.parent
README: Final = _ROOT / "README.md"
PAGES: Final = (README, _ROOT / "docs/http.md")
"""In the order of the session."""
_BLOCK: Final = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_MARK: Final = "\x1e"
_PORT: Final = "8000"
_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Step:
    """A command and its output, stdout and stderr together."""

    command: str
    output: str


def steps(block: str) -> list[Step]:
    """A block's steps; a backslash at the end of a line continues the command."""
    parsed: list[Step] = []
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines, start=1) if not line.endswith("\\\n"))
        parsed.append(Step("".join(lines[:end]), "".join(lines[end:])))
    return parsed


def session() -> list[list[Step]]:
    """All blocks of all pages."""
    return [steps(block) for page in PAGES for block in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def run(blocks: list[list[Step]], folder: Path) -> list[list[Step]]:
    """The same commands with their present output, in `folder`."""
    port = str(free_port())
    commands = [step.command for block in blocks for step in block]
    script = "".join(f"{command}printf '{_MARK}'\n" for command in commands).replace(_PORT, port)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A session of its own, so that `kill 0` ends whatever it leaves in the background.
    process = subprocess.Popen(
        ("setsid", "--wait", "bash", "-c", script + "kill 0"),
        cwd=folder, env=os.environ | {"PATH": path, "COLUMNS": "100"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = process.communicate(timeout=_SECONDS)
    outputs = iter(output.replace(port, _PORT).split(_MARK))
    return [[Step(step.command, next(outputs)) for step in block] for block in blocks]


def prepare_folder(folder: Path, shared: Path) -> None:
    """The files that the session expects in its folder."""
    (folder / "idrid").symlink_to(shared / "data/idrid-512")
    (folder / "resnet18.safetensors").symlink_to(shared / "weights/resnet18-imagenet1k_v1-trunk.safetensors")


def _record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Path(folder), Path(os.environ["RESAD_DATA"]))
        blocks = iter(run(session(), Path(folder)))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(
            _BLOCK.sub(lambda _: "".join(f"$ {step.command}{step.output}" for step in next(blocks)), text),
            encoding="utf-8",
        )


if __name__ == "__main__":
    _record()
