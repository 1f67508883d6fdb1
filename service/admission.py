"""How many photographs are in the house, and what is said to those for which there is no room."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.problems import BUSY, Refusal

_LONGEST: Final = 60
"""Seconds after which a caller may always ask again."""


class Admission:
    """The bounded queue's places, from a request's arrival to the end of its work.  Used on the event loop alone.

    Args:
        size: places.
        seconds_per_photo: as measured lately.
    """

    def __init__(self, size: int, seconds_per_photo: Callable[[], float]) -> None:
        self.size = size
        self.taken = 0
        self._seconds_per_photo = seconds_per_photo

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold `count` places, all or none; raises `Refusal` (429 with Retry-After) where there is no room."""
        if self.taken + count > self.size:
            seconds = self.retry_after()
            raise Refusal(
                BUSY,
                f"{self.taken} photographs are waiting, the limit is {self.size}; retry in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    def retry_after(self) -> int:
        """Whole seconds until those that are waiting now have been scored, at the measured rate."""
        return min(max(1, math.ceil(self.taken * self._seconds_per_photo())), _LONGEST)
