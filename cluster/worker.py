"""What runs on a worker: a piece's photographs, features, points and left-out scores.  Nothing here knows Ray."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.feature_worker import quietly
from cluster.messages import Chosen
from cluster.point_worker import PointWorker
from indexer.calibration.leave_out import PatchDistances, left_out_distances
from resad import runtime
from resad.memory_bank import MemoryBank, Provenance


class Worker(PointWorker):
    """An actor: features (`feature_worker`), points and the greedy (`point_worker`), and what is left out."""

    def __init__(self) -> None:
        super().__init__()
        self._bank: tuple[str, MemoryBank] | None = None

    def left_out(
        self,
        chosen: Chosen,
        groups: Sequence[frozenset[int]],
        bank: tuple[str, NDArray[np.float32], Provenance],
    ) -> tuple[tuple[PatchDistances, ...], float]:
        """`left_out_distances` of the piece's photographs.  bank: a name for it, and what it is."""
        token, memories, provenance = bank
        if self._bank is None or self._bank[0] != token:
            held = np.array(memories)  # what Ray hands over cannot be written, and lies where it likes
            self._bank = (token, MemoryBank(held, provenance, gpu=runtime.gpu_number(self._device)))
        neighbors = self._task.inputs.config.search.neighbors
        return left_out_distances(self._store(chosen), groups, self._bank[1], neighbors, quietly)
