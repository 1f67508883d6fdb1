"""When to ask again: the service's own Retry-After, and beyond that longer and longer waits that differ."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from resad_client.errors import SettingError

_FIRST_S: Final = 0.25
_LONGEST_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to keep asking.

    retries: repeats after the first attempt, at least 0.  max_wait_s: of all waits together, seconds, at least 0.
    lost: how many of the repeats may follow a lost connection, or a proxy's word of one, at least 0: after so many
    nobody is there.
    Raises `SettingError` for values below that.
    """

    retries: int = 5
    max_wait_s: float = 60.0
    lost: int = 5

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise SettingError(f"retries {self.retries}: must be at least 0")
        if self.lost < 0:
            raise SettingError(f"lost {self.lost}: must be at least 0")
        if not self.max_wait_s >= 0:
            raise SettingError(f"max_wait_s {self.max_wait_s}: must be at least 0")

    def wait(self, repeat: int, asked: float | None, waited: float, rng: random.Random) -> float | None:
        """Seconds to wait before repeat number `repeat` (from 0), or None to give up.

        asked: what the service asked for, never undercut.  waited: seconds waited so far.
        """
        room = self.max_wait_s - waited
        least = asked or 0.0
        if repeat >= self.retries or room <= 0 or least > room:
            return None
        # Clients that were all sent away with "1 second" must not all come back at once, and where many wait for
        # few places, repeats at that pace would be used up before a place falls free: so the spread doubles.
        spread = min(max(least, _FIRST_S) * 2.0 ** min(repeat, 16), _LONGEST_S)
        return min(least + spread * rng.uniform(0.0 if least else 0.5, 1.0), room)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def retry_after(headers: httpx.Headers, now: Callable[[], datetime] = _utc_now) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110: a number, or a date), at least 0; None without one.

    A date is read against the answer's own Date where it has one, so that the two machines' clocks may differ.
    What cannot be read counts as absent.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    until = _date(text)
    if until is None:
        return None
    seconds = (until - (_date(headers.get("Date", "")) or now())).total_seconds()
    return max(0.0, seconds)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
