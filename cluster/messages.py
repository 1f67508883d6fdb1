"""What the driver and the workers of a build tell each other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.build.references import Reference
from indexer.build.state import Inputs, PhotoFacts
from indexer.photos.listing import Duplicate, Skipped
from resad.config import CoresetConfig


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What all workers are told.

    inputs: of the build.  backbone: the bytes of its file.  index, run: what the folder is called
    after.  scratch: where it is made; the system's temporary folder unless given.
    threads: cores of each worker.  block_rows: points in one matrix product.
    """

    inputs: Inputs
    backbone: bytes
    index: str
    run: str
    scratch: Path | None
    threads: int
    block_rows: int


@dataclass(frozen=True, slots=True)
class Made:
    """A piece whose features lie with a worker.  stored: what was written down of each of the references.

    dimension: of the features; 0 where there are none.  unseen: a photograph that is not there for the worker.
    """

    references: tuple[Reference, ...]
    left_aside: tuple[Skipped | Duplicate, ...]
    stored: tuple[PhotoFacts, ...]
    dimension: int
    unseen: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Of a piece: the numbers of the photographs that are taken."""

    piece: int
    photos: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Projecting:
    """How a piece's features become points.  sample: int64, the rows that are looked at; None for all.

    target: the points' dimension.
    """

    chosen: Chosen
    config: CoresetConfig
    target: int
    sample: NDArray[np.int64] | None
