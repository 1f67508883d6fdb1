"""`resad-dicom serve` as a user starts it, on ports that outlive it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


class Node:
    """The node whose queue and log are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, web_port = free_port(), free_port()
        self.web = f"http://127.0.0.1:{web_port}"
        self.log_file = folder / "node.log"
        self._ports = ("--port", str(self.port), "--web-port", str(web_port))
        self._arguments: tuple[str, ...] = ()
        self._process: subprocess.Popen[str] | None = None
        folder.mkdir()

    @property
    def queue(self) -> Path:
        return self.folder / "queue"

    def configure(self, destination: str, service: str, *arguments: str) -> None:
        self._arguments = ("--destination", destination, "--service", service, *arguments)

    def start(self) -> None:
        command = str(Path(sys.executable).with_name("resad-dicom"))
        words = [command, "serve", "--queue", str(self.queue), *self._ports, *self._arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RESAD_")}
        with self.log_file.open("a") as log:
            self._process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("resad-dicom:"), self.log_file.read_text()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextmanager
def node(folder: Path) -> Iterator[Node]:
    """A node that is configured and started by the test."""
    process = Node(folder)
    try:
        yield process
    finally:
        process.kill()
