"""The greedy written down while it runs, so that an interrupted build goes on from the round it was in."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from indexer.coreset import Progress

_SECONDS: Final = 20.0
"""Between two writings: a file of 4 bytes a patch, and at most so much to be done again."""


class Checkpoint:
    """A file that holds the last `Progress` that was written, if any.

    Args:
        path: of the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Callable[[], Progress] | None = None
        self._written = time.monotonic()
        self.begun = _read(path)

    def on_round(self, make: Callable[[], Progress]) -> None:
        """Note where the greedy is; written if it is time."""
        self._last = make
        if time.monotonic() - self._written >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was noted last; what was written before is whole until then."""
        if self._last is None:
            return
        progress, part = self._last(), self._path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, rows=progress.rows, squared=progress.squared, candidates=progress.candidates)
        part.replace(self._path)
        self._last, self._written = None, time.monotonic()


def _read(path: Path) -> Progress | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Progress(arrays["rows"], arrays["squared"], int(arrays["candidates"]))
