"""Admission control: a bounded queue, a memory limit for uploads, and 429 with Retry-After beyond them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from service.problems import BUSY, Refusal

_RECENT: Final = 0.2
"""Weight of the newest measurement."""


class Pace:
    """Seconds that a photograph adds to the wait of those behind it: what is slower of scoring and decoding.

    Only photographs that were scored count; any number of unreadable ones says nothing of the others.

    Args:
        pool_threads: that decode and draw side by side.
    """

    def __init__(self, pool_threads: int) -> None:
        self._threads = pool_threads
        self._scoring: float | None = None
        self._pooled: float | None = None

    @property
    def measured(self) -> bool:
        """Whether anything was scored yet."""
        return self._scoring is not None

    @property
    def seconds_per_photo(self) -> float:
        """1 s before anything was measured."""
        scoring = 1.0 if self._scoring is None else self._scoring
        return max(scoring, (self._pooled or 0.0) / self._threads)

    def scored(self, photos: int, seconds: float) -> None:
        """A batch took the worker so long."""
        self._scoring = _blended(self._scoring, seconds / photos)

    def pooled(self, seconds: float) -> None:
        """One photograph that was scored took a thread of the pool so long, decoding and drawing together."""
        self._pooled = _blended(self._pooled, seconds)


def _blended(before: float | None, now: float) -> float:
    return now if before is None else before + _RECENT * (now - before)


Reason = Literal["queue", "deadline", "bytes"]
_LONGEST: Final = 60
"""Seconds after which a caller may always ask again."""
_SURE: Final = 0.8
"""Share of the deadline that may be spoken for: the pace is a mean, and some photographs take longer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """places: photographs.  held_bytes: of all uploads.  deadline_s: to answer in."""

    places: int
    held_bytes: int
    deadline_s: float


class Admission:
    """The bounded queue's places, from a request's arrival to the end of its work.  Used on the event loop alone.

    Args:
        shed: told why, whenever somebody is sent away.
    """

    def __init__(self, bounds: Bounds, pace: Pace, shed: Callable[[Reason], None]) -> None:
        self.bounds = bounds
        self.taken = 0
        self.held_bytes = 0
        self._pace = pace
        self._shed = shed

    @contextmanager
    def places(self, count: int, *, own: int = 0) -> Iterator[None]:
        """Hold `count` places, all or none, beside `own` that the same request has.

        Raises `Refusal` (429 with Retry-After) where there are not so many, or where those before would, at the
        measured pace, take up the deadline.
        """
        if self.taken + count > self.bounds.places:
            raise self._refused(
                "queue", f"{self.taken} photographs are waiting, the limit is {self.bounds.places}", self.taken
            )
        before, room = self.taken - own, self._room()
        # With nobody before it a request is tried, however slow the photographs of late were.
        if before and self.taken + count > room:
            raise self._refused(
                "deadline",
                f"{self.taken} photographs are waiting, and {count} more would not be answered within "
                f"{self.bounds.deadline_s:g} s",
                self.taken + count - room,
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    @contextmanager
    def holding(self) -> Iterator["Held"]:
        """What one request's upload takes of the memory for them all; given back at the end."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held_bytes -= held.bytes

    def too_many_bytes(self, more: int) -> Refusal:
        """What is said to an upload of so many more bytes than there is room for."""
        limit = self.bounds.held_bytes
        return self._refused(
            "bytes",
            f"uploads of {(self.held_bytes + more) / 1e6:.1f} MB at once, the limit is {limit / 1e6:g} MB",
            1,
        )

    def _room(self) -> float:
        """Photographs that can be answered before the deadline."""
        pace = self._pace.seconds_per_photo
        return _SURE * self.bounds.deadline_s / pace if pace else math.inf

    def _refused(self, reason: Reason, why: str, photos_first: float) -> Refusal:
        """Come back when so many photographs are done, at the measured pace."""
        self._shed(reason)
        seconds = min(max(1, math.ceil(photos_first * self._pace.seconds_per_photo)), _LONGEST)
        return Refusal(BUSY, f"{why}; retry in {seconds} s", {"Retry-After": str(seconds)})


class Held:
    """Bytes of one upload, as they were announced or have arrived."""

    def __init__(self, admission: Admission) -> None:
        self.bytes = 0
        self._admission = admission

    def grow_to(self, count: int) -> None:
        """Hold at least so many; raises `Refusal` (429) where all uploads together would be too many."""
        more = count - self.bytes
        if more <= 0:
            return
        if self._admission.held_bytes + more > self._admission.bounds.held_bytes:
            raise self._admission.too_many_bytes(more)
        self._admission.held_bytes += more
        self.bytes += more
