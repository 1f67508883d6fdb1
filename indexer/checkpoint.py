"""The greedy written down while it runs, so that an interrupted build goes on from the round it was in."""

import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexer.shards import Progress

_SECONDS: Final = 20.0
"""Between two writings: a file of 4 bytes a patch, and at most so much to be done again."""

_UNREADABLE: Final = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
"""What NumPy raises, by what is wrong with a file; zip files have two more."""


class Checkpoint:
    """A file that holds the last `Progress` that was written, if any.

    Args:
        path: of the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Callable[[], Progress] | None = None
        self._written = time.monotonic()

    def begun(self, points: int, first: int) -> Progress | None:
        """What was written last, if it can be read and is of a greedy over so many points that began at `first`.

        It is read anew and not held: it has 4 bytes a patch.
        """
        progress = _read(self._path)
        return progress if progress is not None and _fits(progress, points, first) else None

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
            rows, rounds = progress.rows, np.array(progress.rounds, dtype=np.int64)
            if progress.squared is None:
                np.savez(file, rows=rows, rounds=rounds, candidates=progress.candidates)
            else:
                np.savez(file, rows=rows, rounds=rounds, candidates=progress.candidates, squared=progress.squared)
        part.replace(self._path)
        self._last, self._written = None, time.monotonic()


def _read(path: Path) -> Progress | None:
    """None for whatever cannot be read: the greedy then begins again, which costs time alone."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            squared = arrays.get("squared")
            return Progress(arrays["rows"], squared, int(arrays["candidates"]), tuple(arrays["rounds"].tolist()))
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error):
        return None


def _fits(progress: Progress, points: int, first: int) -> bool:
    rows, squared = progress.rows, progress.squared
    if squared is None or progress.rounds:
        told = sum(progress.rounds) == len(rows) and min(progress.rounds, default=0) > 0
        if not told:
            return False
    if squared is not None and not _are_distances(squared, points):
        return False
    return bool(
        rows.ndim == 1
        and np.issubdtype(rows.dtype, np.integer)
        and 0 < len(rows) <= points
        and rows[0] == first
        and rows.min() >= 0
        and rows.max() < points
        and progress.candidates > 0
    )


def _are_distances(squared: NDArray[np.floating], points: int) -> bool:
    """Of so many points; false for NaN."""
    return bool(squared.shape == (points,) and np.issubdtype(squared.dtype, np.floating) and squared.min() >= 0)
