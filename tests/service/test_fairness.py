"""Shares and turns: nobody keeps all of it, and nobody waits for more than their part."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admission import Admission, Limits, Reason, Throughput
from service.fairness import Account, Shares, Turns
from service.problems import Refusal

ACCOUNTS = st.sampled_from(["a", "b", "c", None])


def admission(photos: int = 64, held_bytes: int = 1000) -> tuple[Admission, list[Reason]]:
    reasons: list[Reason] = []
    throughput = Throughput(1)
    throughput.scored(1, 0.001)
    return Admission(Limits(photos, held_bytes, 30.0), throughput, reasons.append), reasons


def fill(subject: Admission, account: Account, stack: ExitStack) -> int:
    """Places that the account gets, one after another."""
    count = 0
    while True:
        try:
            stack.enter_context(subject.admit(1, account))
        except Refusal:
            return count
        count += 1


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True), st.integers(8, 200))
def test_an_account_without_places_always_gets_some(names: list[str], places: int) -> None:
    subject, _ = admission(places)
    with ExitStack() as stack:
        free = places
        for name in names:
            places_of_name = fill(subject, name, stack)
            assert places_of_name == math.ceil(free / 2)
            free -= places_of_name
    assert subject.queued == 0


def test_without_keys_all_places_are_for_all() -> None:
    subject, reasons = admission()
    with ExitStack() as stack:
        assert fill(subject, None, stack) == 64
    assert reasons == ["queue"]


def test_one_place_is_enough_for_one_account() -> None:
    subject, reasons = admission(1)
    with ExitStack() as stack:
        assert fill(subject, "a", stack) == 1
        with pytest.raises(Refusal):
            stack.enter_context(subject.admit(1, "b"))
    assert reasons == ["queue", "queue"]


def test_the_share_is_named_and_counted() -> None:
    subject, reasons = admission(8)
    with ExitStack() as stack:
        fill(subject, "a", stack)
        with pytest.raises(Refusal, match="4 photographs of this key are waiting, its share is 4; retry in 1 s"):
            stack.enter_context(subject.admit(1, "a"))
    assert reasons == ["share", "share"]


def test_who_waits_behind_one_account_is_promised_their_own_part_of_the_time() -> None:
    """32 photographs of another key, a second each, would be 32 s; in turns the first of a new one takes 2 s."""
    reasons: list[Reason] = []
    throughput = Throughput(1)
    throughput.scored(1, 1.0)
    subject = Admission(Limits(64, 1000, 10.0), throughput, reasons.append)
    with ExitStack() as stack:
        assert fill(subject, "busy", stack) == 8  # 0.8 of the deadline
        assert fill(subject, "new", stack) == 4  # each of them after one of the other's
    assert reasons == ["deadline", "deadline"]


@given(st.lists(st.tuples(ACCOUNTS, st.integers(0, 600)), max_size=12))
def test_bytes_are_shared_and_come_back(requests: list[tuple[Account, int]]) -> None:
    subject, _ = admission()
    granted: Counter[Account] = Counter()
    with ExitStack() as stack:
        for account, count in requests:
            reservation = stack.enter_context(subject.reserve_bytes(account))
            elsewhere = subject.held_bytes - granted[account]
            try:
                reservation.grow_to(count)
            except Refusal:
                alone = granted[account] == 0 or account is None
                room = 1000 - elsewhere if alone else math.ceil((1000 - elsewhere) / 2)
                assert granted[account] + count > room
            else:
                granted[account] += count
            assert subject.held_bytes == sum(granted.values()) <= 1000
    assert subject.held_bytes == 0


def test_an_answer_that_never_fits_is_not_to_be_asked_for_again() -> None:
    subject, reasons = admission()
    with subject.reserve_bytes("a") as reservation:
        reservation.add(600)
        with pytest.raises(Refusal) as refusal:
            reservation.add(600)
    assert (refusal.value.kind.status, reasons) == (422, [])
    assert "Retry-After" not in refusal.value.headers


def order_of(arrivals: Sequence[Account], size: int) -> list[Account]:
    """Accounts in the order in which they got a turn, when all arrive at once and each turn lasts a moment."""
    order: list[Account] = []

    async def run() -> None:
        turns = Turns(size)

        async def take(account: Account) -> None:
            async with turns.turn(account):
                order.append(account)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for account in arrivals:
                group.create_task(take(account))

    asyncio.run(run())
    return order


def test_accounts_take_turns() -> None:
    assert order_of(["a"] * 5 + ["b"] * 2 + ["c"], 1) == ["a", "a", "b", "c", "a", "b", "a", "a"]


@given(st.lists(ACCOUNTS, max_size=30), st.integers(1, 4))
def test_nobody_is_forgotten_and_nobody_waits_for_more_than_their_part(arrivals: list[Account], size: int) -> None:
    order = order_of(arrivals, size)
    assert Counter(order) == Counter(arrivals)
    waiting = order[size:]
    for account in set(waiting):
        first = waiting.index(account)
        assert first < len(set(arrivals))


@given(st.lists(st.tuples(ACCOUNTS, st.booleans()), min_size=1, max_size=20), st.integers(1, 3))
def test_those_who_give_up_leave_no_turn_behind(arrivals: list[tuple[Account, bool]], size: int) -> None:
    async def run() -> None:
        turns, entered = Turns(size), 0
        release = asyncio.Event()

        async def take(account: Account) -> None:
            nonlocal entered
            async with turns.turn(account):
                entered += 1
                await release.wait()

        tasks = [asyncio.create_task(take(account)) for account, _ in arrivals]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks, arrivals, strict=True):
            if leaves:
                task.cancel()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(size):  # every turn is free again
            await asyncio.wait_for(turns._enter(None), 1)

    asyncio.run(run())


def test_a_share_is_half_of_what_the_others_leave() -> None:
    shares = Shares(100)
    shares.take("a", 30)
    assert (shares.share("a"), shares.share("b"), shares.share(None)) == (50, 35, 100)
    shares.release("a", 30)
    assert (shares.used, shares.of("a"), shares.ahead("b", 7)) == (0, 0, 7)
