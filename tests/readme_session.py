"""The README's console blocks, run: `python -m tests.readme_session` records their output into the README anew.

A line that begins with `$ ` is typed, the lines after it are what is seen.  All blocks are one session in one
folder.  Port 8000 stands for a free one.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.ports import free_port

README: Final = Path(__file__).parent.parent / "README.md"
_BLOCK: Final = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_MARK: Final = "\x1e"
_PORT: Final = "8000"
_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Step:
    """A command and what it prints, stdout and stderr together."""

    command: str
    seen: str


def steps(block: str) -> list[Step]:
    """A block taken apart; a command goes on after a backslash at its line's end."""
    found: list[Step] = []
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines, start=1) if not line.endswith("\\\n"))
        found.append(Step("".join(lines[:end]), "".join(lines[end:])))
    return found


def blocks(text: str) -> list[list[Step]]:
    """The session as the README has it."""
    return [steps(block) for block in _BLOCK.findall(text)]


def run(session: list[list[Step]], folder: Path) -> list[list[Step]]:
    """The same commands with what they print now, in `folder`."""
    port = str(free_port())
    commands = [step.command for block in session for step in block]
    script = "".join(f"{command}printf '{_MARK}'\n" for command in commands).replace(_PORT, port)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A session of its own, so that whatever it leaves in the background goes with it.
    process = subprocess.Popen(
        ("setsid", "--wait", "bash", "-c", script + "kill 0"),
        cwd=folder, env=os.environ | {"PATH": path, "COLUMNS": "100"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = process.communicate(timeout=_SECONDS)
    seen = iter(printed.replace(port, _PORT).split(_MARK))
    return [[Step(step.command, next(seen)) for step in block] for block in session]


def prepare_folder(folder: Path, shared: Path) -> None:
    """What the session finds where it is typed."""
    (folder / "idrid").symlink_to(shared / "data/idrid-512")
    (folder / "resnet18.safetensors").symlink_to(shared / "weights/resnet18-imagenet1k_v1-trunk.safetensors")


def _record() -> None:
    import tempfile

    text = README.read_text()
    with tempfile.TemporaryDirectory() as folder:
        prepare_folder(Path(folder), Path(os.environ["RESAD_DATA"]))
        ran = iter(run(blocks(text), Path(folder)))
    README.write_text(_BLOCK.sub(lambda _: "".join(f"$ {step.command}{step.seen}" for step in next(ran)), text))


if __name__ == "__main__":
    _record()
