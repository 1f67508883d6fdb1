"""The listed photographs in pieces, and which worker makes which of them."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from indexer.photos.listing import ReferencePhoto

_A_WORKER: Final = 16
"""Pieces for each worker: the last one to end keeps the others waiting for one piece at most."""
_MOST: Final = 64
"""Photographs of a piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Photographs that are made together.  number: in the order of the list."""

    number: int
    photos: tuple[ReferencePhoto, ...]


def cut(listed: Sequence[ReferencePhoto], workers: int, batch: int) -> list[Piece]:
    """`listed` in pieces of whole batches, so that a photograph is encoded with the same ones as elsewhere.

    (That holds on a GPU as long as none is left aside; a CPU encodes one at a time.)
    """
    wanted = min(ceil(len(listed) / (workers * _A_WORKER)), _MOST)
    size = ceil(wanted / batch) * batch
    starts = range(0, len(listed), size)
    return [Piece(number, tuple(listed[start : start + size])) for number, start in enumerate(starts)]


class Dealer:
    """Deals pieces so that each worker gets neighbors: its own stretch, then from the end of the longest left.

    Args:
        pieces: their numbers, ascending.
        workers: how many there will be about.
    """

    def __init__(self, pieces: Sequence[int], workers: int) -> None:
        size = ceil(len(pieces) / max(workers, 1)) or 1
        self._stretches = [deque(pieces[start : start + size]) for start in range(0, len(pieces), size)]
        self._whose: dict[int, deque[int]] = {}

    def next(self, worker: int) -> int | None:
        """The piece that `worker` makes next; None where nothing is left."""
        own = self._whose.get(worker)
        if not own:
            free = [
                one for one in self._stretches if one and not any(one is other for other in self._whose.values())
            ]
            if free:
                own = self._whose[worker] = free[0]
        if own:
            return own.popleft()
        longest = max(self._stretches, key=len, default=None)
        return longest.pop() if longest else None

    def give_back(self, pieces: Iterable[int], worker: int) -> None:
        """`worker` is lost, and with it these pieces."""
        self._whose.pop(worker, None)
        self._stretches = [one for one in self._stretches if one]
        again = deque(sorted(pieces))
        if again:
            self._stretches.append(again)
