"""Work in background threads, in order and with bounded queues: prefetching, round-robin, writing.

An error in a thread is raised to the caller at its next step, and no thread keeps running.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from types import TracebackType
from typing import Final, TypeVar

_MAX_PENDING: Final = 2
"""Tasks of a background writer: the task at work and one that is ready."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def prefetch(
    items: Iterable[_Item], work: Callable[[_Item], _Result], *, threads: int, most: int
) -> Generator[_Result, None, None]:
    """`work(item)` of each item, in the items' order; at most `most` results are pending or waiting.

    The iterator must be run to its end or closed: then none of its threads is at work any more.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= most:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def round_robin(
    items: Iterable[_Item], workers: list[Callable[[_Item], _Result]]
) -> Generator[tuple[_Item, _Result], None, None]:
    """Each item with its result, in order; items go to the workers in turn, each of which has a thread.

    A single worker works in the caller's own thread.  Close the iterator as that of `prefetch`.
    """
    if len(workers) == 1:
        yield from ((item, workers[0](item)) for item in items)
        return
    pools = [ThreadPoolExecutor(1, thread_name_prefix="round-robin") for _ in workers]
    pending: deque[tuple[_Item, Future[_Result]]] = deque()
    try:
        for item, pool, worker in zip(items, cycle(pools), cycle(workers), strict=False):
            pending.append((item, pool.submit(worker, item)))
            if len(pending) >= 2 * len(workers):
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def delayed(items: Iterable[_Item], delay: bool) -> Iterator[_Item]:
    """Each item after the next one was requested, so that what an item starts continues beside the next one.

    delay: without it the items come at once.
    """
    waiting: list[_Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > delay:
            yield waiting.pop(0)
    yield from waiting


class BackgroundWriter:
    """A thread that does tasks in order, at most two behind; leaving the `with` block waits for it.

    After an error in the block, tasks that have not started are dropped.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: deque[Future[None]] = deque()
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
        """Queue a task; raises the error of an earlier one."""
        while len(self._pending) >= _MAX_PENDING or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, task))

    def wait(self) -> None:
        """Return when every task is done; raises the error of one that failed."""
        while self._pending:
            self._pending.popleft().result()

    def _run(self, task: Callable[[], None]) -> None:
        """Do nothing after a failure: tasks may build on each other."""
        if self._failed:
            return
        try:
            task()
        except BaseException:
            self._failed = True
            raise
