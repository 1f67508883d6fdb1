"""The service's wish is never undercut, the limits are never passed."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resad_client import SettingError
from resad_client.http import RetryPolicy, retry_after

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def read(now: datetime = NOON, **headers: str) -> float | None:
    return retry_after(
        httpx.Headers({name.replace("_", "-"): text for name, text in headers.items()}), lambda: now
    )


@given(st.integers(0, 10**6))
def test_seconds(seconds: int) -> None:
    assert read(Retry_After=str(seconds)) == seconds


@given(st.integers(-(10**6), 10**6), st.integers(-(10**5), 10**5))
def test_a_date_is_read_against_the_servers_clock_if_it_says_it(ahead: int, skew: int) -> None:
    until = format_datetime(NOON + timedelta(seconds=ahead), usegmt=True)
    assert read(Retry_After=until) == max(0, ahead)
    skewed = NOON + timedelta(seconds=skew)
    assert read(now=skewed, Retry_After=until, Date=format_datetime(NOON, usegmt=True)) == max(0, ahead)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255)))
def test_what_cannot_be_read_never_raises(text: str) -> None:
    seconds = retry_after(httpx.Headers([(b"Retry-After", text.encode("latin-1"))]), lambda: NOON)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("text", ["", "soon", "-3", "1.5", "\u00b2", "Thu, 99 Foo 2026 10:00:00 GMT"])
def test_what_cannot_be_read_counts_as_absent(text: str) -> None:
    assert retry_after(httpx.Headers([(b"Retry-After", text.encode("latin-1"))]), lambda: NOON) is None


@given(
    st.integers(0, 30),
    st.floats(0, 200),
    st.lists(st.none() | st.floats(0, 100), min_size=31, max_size=31),
    st.integers(),
)
def test_waits_keep_every_limit(retries: int, max_wait_s: float, asked: list[float | None], seed: int) -> None:
    policy, rng, waited, waits = RetryPolicy(retries, max_wait_s), random.Random(seed), 0.0, []
    for repeat, wish in enumerate(asked):
        wait = policy.wait(repeat, wish, waited, rng)
        if wait is None:
            assert repeat == retries or waited + (wish or 0) > max_wait_s or waited >= max_wait_s
            break
        assert wait >= (wish or 0)
        assert wait <= (wish or 0) + 8
        waited += wait
        waits.append(wait)
    assert len(waits) <= retries
    assert waited <= max_wait_s * (1 + 1e-12)


def test_waits_grow_and_differ_between_clients() -> None:
    policy = RetryPolicy(8, 1000)
    first, second = ([policy.wait(n, None, 0, rng) or 0 for n in range(8)] for rng in map(random.Random, (1, 2)))
    assert first != second
    for n, wait in enumerate(first):
        assert 0.5 * min(0.25 * 2**n, 8) <= wait <= min(0.25 * 2**n, 8)
    # Sent away with the same wish, clients do not come back together.
    assert policy.wait(0, 1, 0, random.Random(1)) != policy.wait(0, 1, 0, random.Random(2))


@given(st.integers(0, 9), st.floats(0.25, 60), st.integers())
def test_the_spread_over_a_wish_doubles(repeat: int, wish: float, seed: int) -> None:
    wait = RetryPolicy(10, 1000).wait(repeat, wish, 0, random.Random(seed))
    assert wait is not None
    assert wish <= wait <= wish + min(wish * 2**repeat, 8)


def test_a_wish_that_just_fits_is_granted() -> None:
    assert RetryPolicy(5, 60).wait(0, 60, 0, random.Random(0)) == 60


@pytest.mark.parametrize(("retries", "max_wait_s"), [(-1, 60), (5, -1), (5, float("nan"))])
def test_impossible_policies_are_refused(retries: int, max_wait_s: float) -> None:
    with pytest.raises(SettingError, match="must be at least 0"):
        RetryPolicy(retries, max_wait_s)
