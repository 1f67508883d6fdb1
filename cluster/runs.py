"""Whose points are whose: the one order of all patches, in shards of whole blocks, on the workers that made them.

A block of `BLOCK_ROWS` points belongs to the piece in which it begins, so that the blocks, and with them every
product of the greedy, are those of one machine.  The last block of a run of pieces goes on into the next piece:
less than a block of points moves for each run, everything else stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """Points `start` to `stop` of those of a piece."""

    piece: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Run:
    """Neighboring pieces of one worker.  first, stop: global points, a multiple of the block each (or the end).

    own: the worker's points.  tail: what follows from other pieces.
    """

    first: int
    stop: int
    own: tuple[Part, ...]
    tail: tuple[Part, ...]


def runs_of(pieces: Sequence[int], homes: Mapping[int, int], first_points: Sequence[int], block: int) -> list[Run]:
    """The runs that hold every block that begins in one of `pieces`.

    Args:
        pieces: ascending.
        homes: the worker of each.
        first_points: the global point at which each piece of all begins, and the number of points.
    """
    groups: list[list[int]] = []
    for piece in pieces:
        if groups and piece == groups[-1][-1] + 1 and homes[piece] == homes[groups[-1][-1]]:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    runs = (_run(group, first_points, block) for group in groups)
    return [run for run in runs if run.first < run.stop]


def _run(group: Sequence[int], first_points: Sequence[int], block: int) -> Run:
    last = group[-1]
    first = _up(first_points[group[0]], block)
    stop = min(_up(first_points[last + 1], block), first_points[-1])
    own = tuple(_part(piece, first, first_points[last + 1], first_points) for piece in group)
    tail = tuple(
        _part(piece, first_points[last + 1], stop, first_points)
        for piece in range(last + 1, len(first_points) - 1)
    )
    return Run(first, stop, _some(own), _some(tail))


def _part(piece: int, first: int, stop: int, first_points: Sequence[int]) -> Part:
    start, end = first_points[piece], first_points[piece + 1]
    return Part(piece, max(first, start) - start, min(stop, end) - start)


def _some(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(part for part in parts if part.start < part.stop)


def _up(row: int, block: int) -> int:
    return -(-row // block) * block
