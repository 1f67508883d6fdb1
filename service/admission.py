"""Admission control: a bounded queue, a memory limit for uploads, and 429 with Retry-After beyond them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from service.problems import BUSY, Refusal

Reason = Literal["queue", "deadline", "bytes"]
_NEWEST_WEIGHT: Final = 0.2
"""Weight of the newest measurement in the moving average."""
_LONGEST_RETRY_S: Final = 60
_DEADLINE_SHARE: Final = 0.8
"""Share of the deadline that the queue may use up: the average is a mean, and some photographs take longer."""


class Throughput:
    """Moving average of the seconds a photograph adds to the wait of the next: the slower of worker and pool.

    Only scored photographs count, because unreadable ones say nothing about the others.

    Args:
        pool_threads: threads that decode and draw.
    """

    def __init__(self, pool_threads: int) -> None:
        self._threads = pool_threads
        self._worker_s: float | None = None
        self._pool_s: float | None = None

    @property
    def measured(self) -> bool:
        """Whether the worker has scored anything yet."""
        return self._worker_s is not None

    @property
    def seconds_per_photo(self) -> float:
        """Seconds; 1 before the first measurement."""
        worker_s = 1.0 if self._worker_s is None else self._worker_s
        return max(worker_s, (self._pool_s or 0.0) / self._threads)

    def scored(self, photos: int, seconds: float) -> None:
        """Record a batch of the worker."""
        self._worker_s = _moving_average(self._worker_s, seconds / photos)

    def pooled(self, seconds: float) -> None:
        """Record one scored photograph's time on the pool, decoding and drawing together."""
        self._pool_s = _moving_average(self._pool_s, seconds)


def _moving_average(average: float | None, newest: float) -> float:
    return newest if average is None else average + _NEWEST_WEIGHT * (newest - average)


@dataclass(frozen=True, slots=True)
class Limits:
    """photos: in the queue.  upload_bytes: of all uploads in memory.  deadline_s: seconds to answer in."""

    photos: int
    upload_bytes: int
    deadline_s: float


class Admission:
    """Counts the photographs and upload bytes of all requests.  Used on the event loop only.

    Args:
        shed: called with the reason whenever a request is refused with 429.
    """

    def __init__(self, limits: Limits, throughput: Throughput, shed: Callable[[Reason], None]) -> None:
        self.limits = limits
        self.queued = 0
        self.upload_bytes = 0
        self._throughput = throughput
        self._shed = shed

    @contextmanager
    def admit(self, count: int, *, already: int = 0) -> Iterator[None]:
        """Take `count` queue slots, all or none, until the end of the `with` block.

        Args:
            already: slots that the same request has.
        Raises:
            Refusal: 429 with Retry-After if the queue is full, or if it would not be answered before the deadline.
        """
        limits = self.limits
        if self.queued + count > limits.photos:
            raise self._refuse(
                "queue", f"{self.queued} photographs are waiting, the limit is {limits.photos}", self.queued
            )
        ahead, answerable = self.queued - already, self._answerable()
        # An empty queue always admits, however slow the last photographs were.
        if ahead and self.queued + count > answerable:
            raise self._refuse(
                "deadline",
                f"{self.queued} photographs are waiting, and {count} more would not be answered within "
                f"{limits.deadline_s:g} s",
                self.queued + count - answerable,
            )
        self.queued += count
        try:
            yield
        finally:
            self.queued -= count

    @contextmanager
    def reserve_bytes(self) -> Iterator["ByteReservation"]:
        """A reservation for one request's upload, released at the end of the `with` block."""
        reservation = ByteReservation(self)
        try:
            yield reservation
        finally:
            self.upload_bytes -= reservation.bytes

    def too_many_bytes(self, more: int) -> Refusal:
        """The refusal of an upload that needs `more` bytes than are free."""
        limit = self.limits.upload_bytes
        return self._refuse(
            "bytes",
            f"uploads of {(self.upload_bytes + more) / 1e6:.1f} MB at once, the limit is {limit / 1e6:g} MB",
            1,
        )

    def _answerable(self) -> float:
        """Photographs that can be answered before the deadline."""
        seconds = self._throughput.seconds_per_photo
        return _DEADLINE_SHARE * self.limits.deadline_s / seconds if seconds else math.inf

    def _refuse(self, reason: Reason, detail: str, photos_ahead: float) -> Refusal:
        """429; Retry-After is the time that `photos_ahead` photographs take."""
        self._shed(reason)
        wait_s = math.ceil(photos_ahead * self._throughput.seconds_per_photo)
        retry_s = min(max(1, wait_s), _LONGEST_RETRY_S)
        return Refusal(BUSY, f"{detail}; retry in {retry_s} s", {"Retry-After": str(retry_s)})


class ByteReservation:
    """Bytes that one upload takes, announced or arrived."""

    def __init__(self, admission: Admission) -> None:
        self.bytes = 0
        self._admission = admission

    def grow_to(self, count: int) -> None:
        """Reserve at least `count` bytes; raises `Refusal` (429) if all uploads together exceed the limit."""
        more = count - self.bytes
        if more <= 0:
            return
        if self._admission.upload_bytes + more > self._admission.limits.upload_bytes:
            raise self._admission.too_many_bytes(more)
        self._admission.upload_bytes += more
        self.bytes += more
