"""The bytes that a build takes: on disk, in memory, on a GPU.

Memory is an upper bound of what the steps hold at one time; it grows with the patches by at most 32 bytes each,
with the greedy's points where they fit into memory (else they lie on disk), and with the memories, of which there
are two copies while they move into FAISS.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

from indexer.room import Room

_VALUE: Final = 4
"""Bytes of a float32."""
_SLACK: Final = 320 * 10**6
"""Bytes of what does not grow: blocks of products, the candidates' distances, buffers of FAISS and the maps."""
_PER_PATCH: Final = 32
"""Bytes per patch, at most: its cell, read twice while memories are gathered (8); the greedy's distances and norms
(8), what looks for the farthest (6), the checkpoint (4); later all patch distances, twice."""
_ON_GPU: Final = 4
"""Copies of the memories on a GPU at a time: the bank, the one without a photograph that searches are tried on,
and what two of them hold while the faster is looked for."""
_GPU_SCRATCH: Final = 2 * 10**9
"""Bytes on a GPU beside points, memories and what encoding takes: FAISS's own and blocks of products."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done.

    photos: all of them.  to_encode: those that have no features yet.  patches: of all photographs.
    sampled: the patches the greedy looks at.  dimension: of the features, D.  projected: of where the greedy
    measures, d.  memories: M.  guessed: M is a guess, a radius decides.  weights: bytes of the trunk.
    views: of each photograph, 2 where its mirror image is looked at, too.
    """

    photos: int
    to_encode: int
    patches: int
    sampled: int
    dimension: int
    projected: int
    memories: int
    guessed: bool
    weights: int
    views: int = 1


def points_bytes(task: Task) -> int:
    """Of what the greedy measures between, projected."""
    return task.sampled * task.projected * _VALUE


def bank_bytes(task: Task) -> int:
    """Of the memory bank's vectors."""
    return task.memories * task.dimension * _VALUE


def disk_bytes(task: Task, points: int) -> int:
    """What is written where the index goes, `points` of it by the greedy."""
    patch = (task.views * task.dimension + 1) * _VALUE
    features = task.to_encode * ceil(task.patches / max(task.photos, 1)) * patch
    bank = task.memories * (task.dimension + 4) * _VALUE
    return features + points + bank + task.sampled * _VALUE + task.weights


def memory_bytes(task: Task, room: Room, points: int) -> int:
    """What this process holds at most, `points` of it for the greedy."""
    bank = bank_bytes(task)
    grows = task.patches * _PER_PATCH + _SLACK
    return max(room.peak, room.resident + grows + max(points + bank, 2 * bank))


def gpu_bytes(task: Task, room: Room, points: int) -> int:
    """What the GPU holds at most, `points` of it for the greedy; 0 without a GPU."""
    if not room.gpu:
        return 0
    return room.gpu_peak + points + task.sampled * _PER_PATCH + _ON_GPU * bank_bytes(task) + _GPU_SCRATCH
