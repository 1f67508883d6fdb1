"""Every reference photo's left-out patch distances, which an index keeps: what scores and the calibration
come from can so be made anew for other photographs without features.

`left_out.safetensors`: by the photo's id float32 (h, w) on the patch grid, NaN where there is no patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from resad.errors import IndexInvalid

FILE: Final = "left_out.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """One photo: per patch the mean distance to its k nearest memories of others, float32 (N,), and where it lies.

    cells: int16 (N, 2), (y, x) on the grid, in reading order.  grid: (h, w).
    """

    distances: NDArray[np.float32]
    cells: NDArray[np.int16]
    grid: tuple[int, int]


def placed_bytes(ids: Sequence[str], placed: Sequence[Placed]) -> bytes:
    """The file of photographs with these ids."""
    grids = {}
    for photo, one in zip(ids, placed, strict=True):
        grids[photo] = np.full(one.grid, np.nan, dtype=np.float32)
        grids[photo][tuple(one.cells.T)] = one.distances
    return safetensors.numpy.save(grids)


def read_placed(version: Path, ids: Sequence[str]) -> list[Placed]:
    """The inverse, for a version's folder; raises `IndexInvalid` where it is missing or of other photographs."""
    path = version / FILE
    try:
        grids = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise IndexInvalid(f"{path} cannot be read: {error}") from error
    if set(grids) != set(ids):
        raise IndexInvalid(f"{path} is of other photographs than the index")
    return [_of(grids[photo]) for photo in ids]


def _of(values: NDArray[np.float32]) -> Placed:
    there = ~np.isnan(values)
    return Placed(values[there], np.argwhere(there).astype(np.int16), (values.shape[0], values.shape[1]))
