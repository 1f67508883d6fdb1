"""Work beside the caller: in order, never far ahead or behind, and no error lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import pytest

from indexer.prefetching import BackgroundWriter, delayed, prefetch, round_robin


def test_results_come_in_order_however_long_each_takes() -> None:
    naps = np.random.default_rng(0).uniform(0, 0.01, 40)

    def work(number: int) -> int:
        time.sleep(naps[number])
        return number

    assert list(prefetch(range(40), work, threads=4, most=7)) == list(range(40))
    dealt = list(round_robin(range(40), [work, lambda number: work(number) + 100]))
    assert dealt == [(number, number + 100 * (number % 2)) for number in range(40)]
    assert list(round_robin(range(5), [work])) == [(number, number) for number in range(5)]


def test_an_item_comes_late_once_the_next_one_is_begun() -> None:
    starts: list[int] = []

    def source(count: int) -> Iterator[int]:
        for number in range(count):
            starts.append(number)
            yield number

    for number in delayed(source(5), True):
        assert starts == list(range(min(number + 2, 5)))
    starts.clear()
    for number in delayed(source(5), False):
        assert starts == list(range(number + 1))
    assert list(delayed([], True)) == []


def test_no_more_than_asked_is_begun() -> None:
    starts: list[int] = []
    with closing(prefetch(range(100), starts.append, threads=3, most=5)) as results:
        for count, _ in enumerate(results, start=1):
            assert len(starts) <= count + 5
            if count == 20:
                break
    assert len(starts) <= 25


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_surfaces_at_its_place_and_nothing_runs_on(threads: int) -> None:
    before = threading.active_count()

    def work(number: int) -> int:
        if number == 6:
            raise OSError("disk full")
        return number

    numbers: list[int] = []
    results = prefetch(range(1000), work, threads=threads, most=threads + 2)
    with pytest.raises(OSError, match="disk full"):
        numbers.extend(results)
    assert numbers == list(range(6))
    assert threading.active_count() == before
    with pytest.raises(OSError, match="disk full"):
        list(round_robin(range(1000), [work] * threads))
    assert threading.active_count() == before


def test_what_is_written_behind_keeps_its_order_and_is_awaited() -> None:
    done: list[int] = []

    def slowly(number: int) -> None:
        time.sleep(0.001)
        done.append(number)

    with BackgroundWriter() as writer:
        for number in range(20):
            writer.do(partial(slowly, number))
            assert len(done) >= number - 2
    assert done == list(range(20))


def test_after_a_failed_task_no_later_one_is_done() -> None:
    done: list[int] = []
    gate = threading.Event()

    def fail() -> None:
        gate.wait(10)
        raise OSError("disk full")

    def run() -> None:
        with BackgroundWriter() as writer:
            writer.do(fail)
            writer.do(lambda: done.append(1))
            gate.set()
            for _ in range(3):
                writer.do(lambda: done.append(2))

    with pytest.raises(OSError, match="disk full"):
        run()
    assert done == []


def test_an_error_of_the_caller_drops_what_has_not_begun() -> None:
    done: list[int] = []
    gate = threading.Event()

    def run() -> None:
        with BackgroundWriter() as writer:
            writer.do(lambda: done.append(int(gate.wait(10))))
            writer.do(lambda: done.append(2))
            gate.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done in ([1], [1, 2])
