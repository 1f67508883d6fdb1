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


def read_header(now: datetime = NOON, **headers: str) -> float | None:
    return retry_after(
        httpx.Headers({name.replace("_", "-"): text for name, text in headers.items()}), lambda: now
    )


@given(st.integers(0, 10**6))
def test_seconds(seconds: int) -> None:
    assert read_header(Retry_After=str(seconds)) == seconds


@given(st.integers(-(10**6), 10**6), st.integers(-(10**5), 10**5))
def test_a_date_is_read_against_the_servers_clock_if_it_says_it(offset: int, skew: int) -> None:
    date = format_datetime(NOON + timedelta(seconds=offset), usegmt=True)
    assert read_header(Retry_After=date) == max(0, offset)
    client_now = NOON + timedelta(seconds=skew)
    assert read_header(now=client_now, Retry_After=date, Date=format_datetime(NOON, usegmt=True)) == max(0, offset)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255)))
def test_an_unreadable_header_never_raises(text: str) -> None:
    seconds = retry_after(httpx.Headers([(b"Retry-After", text.encode("latin-1"))]), lambda: NOON)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("text", ["", "soon", "-3", "1.5", "\u00b2", "Thu, 99 Foo 2026 10:00:00 GMT"])
def test_an_unreadable_header_counts_as_absent(text: str) -> None:
    assert retry_after(httpx.Headers([(b"Retry-After", text.encode("latin-1"))]), lambda: NOON) is None


@given(
    st.integers(0, 30),
    st.floats(0, 200),
    st.lists(st.none() | st.floats(0, 100), min_size=31, max_size=31),
    st.integers(),
)
def test_waits_keep_every_limit(
    retries: int, max_wait_s: float, server_waits: list[float | None], seed: int
) -> None:
    policy, rng, total_wait, waits = RetryPolicy(retries, max_wait_s), random.Random(seed), 0.0, []
    for repeat, server_wait in enumerate(server_waits):
        wait = policy.wait(repeat, server_wait, total_wait, rng)
        if wait is None:
            assert repeat == retries or total_wait + (server_wait or 0) > max_wait_s or total_wait >= max_wait_s
            break
        assert wait >= (server_wait or 0)
        assert wait <= (server_wait or 0) + 8
        total_wait += wait
        waits.append(wait)
    assert len(waits) <= retries
    assert total_wait <= max_wait_s * (1 + 1e-12)


def test_waits_grow_and_differ_between_clients() -> None:
    policy = RetryPolicy(8, 1000)
    first, second = ([policy.wait(n, None, 0, rng) or 0 for n in range(8)] for rng in map(random.Random, (1, 2)))
    assert first != second
    for n, wait in enumerate(first):
        assert 0.5 * min(0.25 * 2**n, 8) <= wait <= min(0.25 * 2**n, 8)
    # Sent away with the same wish, clients do not come back together.
    assert policy.wait(0, 1, 0, random.Random(1)) != policy.wait(0, 1, 0, random.Random(2))


@given(st.integers(0, 9), st.floats(0.25, 60), st.integers())
def test_the_spread_over_the_servers_wait_doubles(repeat: int, server_wait: float, seed: int) -> None:
    wait = RetryPolicy(10, 1000).wait(repeat, server_wait, 0, random.Random(seed))
    assert wait is not None
    assert server_wait <= wait <= server_wait + min(server_wait * 2**repeat, 8)


def test_a_server_wait_that_just_fits_is_granted() -> None:
    assert RetryPolicy(5, 60).wait(0, 60, 0, random.Random(0)) == 60


@pytest.mark.parametrize(("retries", "max_wait_s"), [(-1, 60), (5, -1), (5, float("nan"))])
def test_impossible_policies_are_refused(retries: int, max_wait_s: float) -> None:
    with pytest.raises(SettingError, match="must be at least 0"):
        RetryPolicy(retries, max_wait_s)
