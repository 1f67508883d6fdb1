"""Work done in threads beside the caller, in order and never far ahead or behind.

An error in a thread is raised to the caller at the next step, and nothing is left running.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from types import TracebackType
from typing import Final, TypeVar

_MAX_PENDING: Final = 2
"""Tasks that may wait for the writer: one that it works on, one that is ready."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def prefetch(
    items: Iterable[_Item], work: Callable[[_Item], _Result], *, threads: int, most: int
) -> Generator[_Result, None, None]:
    """`work(item)` of each item, in the items' order, at most `most` of them begun and not yet taken.

    The iterator must be run to its end or closed: then no thread of it is at work any more.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    begun: deque[Future[_Result]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def round_robin(
    items: Iterable[_Item], workers: list[Callable[[_Item], _Result]]
) -> Generator[tuple[_Item, _Result], None, None]:
    """Each item with its result, dealt to the workers in turn, each of which has a thread; in the items' order.

    One worker works in the caller's own thread.  Close it as `prefetch`.
    """
    if len(workers) == 1:
        yield from ((item, workers[0](item)) for item in items)
        return
    pools = [ThreadPoolExecutor(1, thread_name_prefix="in-turn") for _ in workers]
    begun: deque[tuple[_Item, Future[_Result]]] = deque()
    try:
        for item, pool, worker in zip(items, cycle(pools), cycle(workers), strict=False):
            begun.append((item, pool.submit(worker, item)))
            if len(begun) >= 2 * len(workers):
                done, future = begun.popleft()
                yield done, future.result()
        while begun:
            done, future = begun.popleft()
            yield done, future.result()
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def delayed(items: Iterable[_Item], wanted: bool) -> Iterator[_Item]:
    """Each item once the one after it was asked for, so that what an item begins goes on beside the next one."""
    held: list[_Item] = []
    for item in items:
        held.append(item)
        if len(held) > wanted:
            yield held.pop(0)
    yield from held


class BackgroundWriter:
    """One thread that does what it is given in order, at most two tasks behind; leaving waits for it.

    On an error in the block what has not begun is dropped.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._begun: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            self.wait()

    def do(self, task: Callable[[], None]) -> None:
        """Have `task` done; raises what an earlier one raised."""
        while len(self._begun) >= _MAX_PENDING or (self._begun and self._begun[0].done()):
            self._begun.popleft().result()
        self._begun.append(self._pool.submit(self._run, task))

    def wait(self) -> None:
        """Return when everything is done; raises what was raised."""
        while self._begun:
            self._begun.popleft().result()

    def _run(self, task: Callable[[], None]) -> None:
        """Nothing is done after a failure: tasks may build on each other."""
        if self._failed:
            return
        try:
            task()
        except BaseException:
            self._failed = True
            raise
