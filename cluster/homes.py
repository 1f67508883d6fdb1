"""Which replica is to load an index: where it displaces what is missed least, by what all have in memory."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

UNMISSED_S: Final = 60.0
"""Seconds after which nobody is expected to ask for an index again, so that a busy one may take its place."""


@dataclass(frozen=True)
class Holding:
    """What a replica has in memory.

    unasked_s: for how many seconds nobody has asked it for each of its indexes.
    room: whether another index displaces none of them.
    """

    unasked_s: Mapping[str, float]
    room: bool


def home_of(wanted: str, held: Mapping[str, Holding], holders: Collection[str] = ()) -> str | None:
    """The replica that is to load an index; the same one whoever asks.

    Args:
        held: by the name of each replica.
        holders: those that have the index, or were told to load it, and are busy.  Another one then joins them
            only where what leaves is not missed: two indexes that are asked for more than one replica can answer
            would else drive each other out in turn.

    Returns:
        One that is not among the holders; None where there is none.
    """
    unmissed = unmissed_s(held)
    others = [name for name in held if name not in holders and not (holders and unmissed[name] < UNMISSED_S)]
    return max(others, key=lambda name: (unmissed[name], _lot(name, wanted)), default=None)


def unmissed_s(held: Mapping[str, Holding]) -> dict[str, float]:
    """For how many seconds nobody has asked for what would leave each replica; infinite where nothing is lost.

    That one leaves which was asked for longest ago, as in `shelf`.
    """
    copies = Counter(name for one in held.values() for name in one.unasked_s)
    found = {}
    for replica, one in held.items():
        leaving = max(one.unasked_s, key=one.unasked_s.__getitem__, default=None)
        lost = leaving is not None and not one.room and copies[leaving] == 1
        found[replica] = one.unasked_s[leaving] if leaving is not None and lost else math.inf
    return found


def _lot(replica: str, wanted: str) -> bytes:
    """Spreads indexes over replicas among which nothing else decides."""
    return hashlib.sha256(f"{wanted}@{replica}".encode()).digest()
