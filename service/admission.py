"""Admission control: a bounded queue, a limit on bytes in memory, shares of both, and 429 beyond them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, get_args

from resad_client.text import counted

from service.fairness import Account, Shares
from service.problems import ANSWER_TOO_LARGE, BUSY, Refusal

Reason = Literal["queue", "deadline", "bytes", "share"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
_NEWEST_WEIGHT: Final = 0.2
"""Weight of the newest measurement in the moving average."""
_LONGEST_RETRY_S: Final = 60
_SMALLER: Final = "send fewer photographs at once, or ask for smaller pictures (size=)"
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
    """photos: in the queue.  held_bytes: uploads and answers in memory.  deadline_s: seconds to answer in."""

    photos: int
    held_bytes: int
    deadline_s: float


class Admission:
    """Counts the photographs and bytes of all requests and accounts.  Used on the event loop only.

    Args:
        shed: called with the reason whenever a request is refused with 429.
    """

    def __init__(self, limits: Limits, throughput: Throughput, shed: Callable[[Reason], None]) -> None:
        self.limits = limits
        self._places = Shares(limits.photos)
        self._bytes = Shares(limits.held_bytes)
        self._throughput = throughput
        self._shed = shed

    @property
    def queued(self) -> int:
        """Photographs in the queue."""
        return self._places.used

    @property
    def held_bytes(self) -> int:
        """Bytes of uploads and answers in memory."""
        return self._bytes.used

    @contextmanager
    def admit(self, count: int, account: Account = None, *, already: int = 0) -> Iterator[None]:
        """Take `count` queue slots, all or none, until the end of the `with` block.

        Args:
            already: slots that the same request has.
        Raises:
            Refusal: 429 with Retry-After if the queue or the account's share is full, or if it would not be
                answered before the deadline.
        """
        places, limits = self._places, self.limits
        if places.used + count > limits.photos:
            raise self._refuse("queue", f"{_waiting(places.used)}, the limit is {limits.photos}", places.used)
        after, share = places.of(account) + count, places.share(account)
        if after > share:
            raise self._refuse(
                "share",
                f"{_waiting(places.of(account), ' of this key')}, its share is {share}",
                after - share,
            )
        ahead, answerable = places.ahead(account, after), self._answerable()
        # An empty queue always admits, however slow the last photographs were.
        if places.used > already and ahead > answerable:
            raise self._refuse(
                "deadline",
                f"{_waiting(places.used)}, and {count} more would not be answered within {limits.deadline_s:g} s",
                ahead - answerable,
            )
        places.take(account, count)
        try:
            yield
        finally:
            places.release(account, count)

    @contextmanager
    def reserve_bytes(self, account: Account = None) -> Iterator["ByteReservation"]:
        """A reservation for one upload or answer, released at the end of the `with` block."""
        reservation = ByteReservation(self, account)
        try:
            yield reservation
        finally:
            self._bytes.release(account, reservation.bytes)

    def take_bytes(self, account: Account, bytes_before: int, more: int) -> None:
        """Count `more` bytes of a request that has `bytes_before` already.

        Raises:
            Refusal: 422 if nothing that is released makes room for them; 429 if all requests together, or those of
                the account, are too many bytes.
        """
        used, limit = self._bytes.used, self.limits.held_bytes
        if bytes_before + more > limit:
            detail = (
                f"the answer has {_megabytes(bytes_before + more)}, the limit is {_megabytes(limit)}; {_SMALLER}"
            )
            raise Refusal(ANSWER_TOO_LARGE, detail)
        if used + more > limit:
            detail = f"{_megabytes(used + more)} of uploads and answers, the limit is {_megabytes(limit)}"
            raise self._refuse("bytes", detail, 1)
        after, share = self._bytes.of(account) + more, self._bytes.share(account)
        # The only request of an account may use what there is: otherwise the largest would never be taken.
        if after > share and self._bytes.of(account) > bytes_before:
            detail = f"{_megabytes(after)} of uploads and answers of this key, its share is {_megabytes(share)}"
            raise self._refuse("share", detail, 1)
        self._bytes.take(account, more)

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
    """Bytes in memory for one upload, announced or arrived, or for one answer until it is sent."""

    def __init__(self, admission: Admission, account: Account) -> None:
        self.bytes = 0
        self._admission = admission
        self._account = account

    def grow_to(self, count: int) -> None:
        """Reserve at least `count` bytes; raises `Refusal` (422, 429) as `Admission.take_bytes`."""
        if count > self.bytes:
            self.add(count - self.bytes)

    def add(self, more: int) -> None:
        """Reserve `more` bytes; raises as `grow_to`."""
        self._admission.take_bytes(self._account, self.bytes, more)
        self.bytes += more


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"


def _waiting(photos: int, suffix: str = "") -> str:
    return counted(photos, f"photograph{suffix} is waiting", f"photographs{suffix} are waiting")
