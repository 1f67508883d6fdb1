"""One thread owns torch and FAISS, and scores waiting photographs in batches.

A GPU index must not be used from two threads, and one batch at a time is as fast as a device gets.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch

from resad import runtime
from resad.detector import Detection, Detector
from resad.preparation import PreparedPhoto
from service.problems import NOT_LIVE, OUT_OF_MEMORY, Refusal, is_out_of_memory


@dataclass(frozen=True, slots=True, eq=False)
class WaitingPhoto:
    """A photograph in the queue.

    begin: called when its turn has come.  finish: makes the answer of its detection.  Both on the worker's thread.
    """

    detector: Detector
    photo: PreparedPhoto
    begin: Callable[[], None]
    finish: Callable[[Detection], Any]
    future: Future[Any]


def score(photos: Sequence[WaitingPhoto]) -> int:
    """Settle every photograph's future; how many of them memory had no room for.

    A batch that fails is halved, until it is clear whose fault it is.
    """
    found, full = None, False
    try:
        found = photos[0].detector.detect([one.photo for one in photos])
    except Exception as error:
        full = is_out_of_memory(error)
        if not full and len(photos) == 1:
            photos[0].future.set_exception(error)
            return 0
    # Out here, where the error is gone and with it what its frames held in memory.
    if full and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if found is None and len(photos) == 1:
        photos[0].future.set_exception(Refusal(OUT_OF_MEMORY, OUT_OF_MEMORY.example, {"Retry-After": "5"}))
        return 1
    if found is None:
        half = len(photos) // 2
        return score(photos[:half]) + score(photos[half:])
    for one, detection in zip(photos, found, strict=True):
        settle(one.future, lambda one=one, detection=detection: one.finish(detection))  # type: ignore[misc]
    return 0


def settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Put what `work` returns or raises into `future`; what is no `Exception` goes on, too."""
    try:
        answer = work()
    except Exception as error:
        future.set_exception(error)
    except BaseException:
        future.set_exception(Refusal(NOT_LIVE, NOT_LIVE.example))
        raise
    else:
        future.set_result(answer)


Answer = TypeVar("Answer")

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was taken from the queue at once.

    dropped: photographs nobody waited for any more.  without_memory: of the scored, those that did not fit.
    """

    scored: int
    dropped: int
    seconds: float
    without_memory: int


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    run: Callable[[], Any]
    future: Future[Any]


class Worker:
    """The thread and its queue, which `Admission` bounds.

    Args:
        batch_size: photographs scored together, at most.
        batch_wait: seconds that a batch that is not full waits for the photographs that are on their way.
        observe: told of every batch, on the worker's thread; of a photograph that was given up in the queue, on
            the thread of who gave it up.
    """

    def __init__(self, batch_size: int, batch_wait: float, observe: Callable[[Batch], None]) -> None:
        self._batch_size = batch_size
        self._batch_wait = batch_wait
        self._observe = observe
        self._queue: deque[WaitingPhoto | _Task] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._coming = 0
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Finish what is queued, for at most so long; what comes later is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether anything will still be scored."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Photographs and tasks that nobody has begun."""
        return len(self._queue)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A photograph is being decoded: a batch may wait for it.  Where none is, a lone one is scored at once."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify_all()

    def detect(
        self,
        detector: Detector,
        photo: PreparedPhoto,
        finish: Callable[[Detection], Answer],
        begin: Callable[[], None] = lambda: None,
    ) -> Future[Answer]:
        """`finish` of the photograph's detection, both on the worker's thread; cancel it to have it dropped.

        `begin` is called when its turn has come.  Fails with `Refusal` where memory is too small, or the worker
        is gone.
        """
        future: Future[Answer] = Future()
        self._put(WaitingPhoto(detector, photo, begin, finish, future))
        future.add_done_callback(self._drop)
        return future

    def run(self, task: Callable[[], Answer]) -> Future[Answer]:
        """What `task` returns, in its turn, on the worker's thread."""
        future: Future[Answer] = Future()
        self._put(_Task(task, future))
        return future

    def _put(self, work: WaitingPhoto | _Task) -> None:
        with self._changed:
            if self._closing:
                raise Refusal(NOT_LIVE, "the service is stopping" if self.alive else NOT_LIVE.example)
            self._queue.append(work)
            self._changed.notify_all()

    def _drop(self, future: Future[Any]) -> None:
        """Out of the queue with a photograph that nobody waits for: its index may be about to leave."""
        if not future.cancelled():
            return
        with self._changed:
            left = deque(one for one in self._queue if one.future is not future)
            dropped, self._queue = len(self._queue) - len(left), left
        if dropped:
            self._observe(Batch(0, dropped, 0.0, 0))

    def _loop(self) -> None:
        try:
            runtime.use_threads()
            while (some := self._next()) is not None:
                self._work(some)
                del some  # while this waits, an index may have to leave
        except BaseException:
            _log.critical("the thread that scores died", exc_info=True)
        finally:
            self._give_up()

    def _next(self) -> list[WaitingPhoto | _Task] | None:
        """The oldest work and, if it is a photograph, others for the same index; None when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            first = self._queue[0]
            if isinstance(first, _Task):
                return [self._queue.popleft()]
            if self._batch_wait:
                self._changed.wait_for(
                    lambda: len(self._queue) >= self._batch_size or self._closing or not self._coming,
                    self._batch_wait,
                )
            alike = [
                one for one in self._queue if isinstance(one, WaitingPhoto) and one.detector is first.detector
            ]
            batch = alike[: self._batch_size]
            taken = set(map(id, batch))
            self._queue = deque(one for one in self._queue if id(one) not in taken)
            return list(batch)

    def _work(self, some: Sequence[WaitingPhoto | _Task]) -> None:
        began = time.perf_counter()
        wanted = [one for one in some if one.future.set_running_or_notify_cancel()]
        photos = [one for one in wanted if isinstance(one, WaitingPhoto)]
        for task in wanted:
            if isinstance(task, _Task):
                settle(task.future, task.run)
        without_memory = 0
        if photos:
            runtime.configure(photos[0].detector.encoder.config.precision)
            for one in photos:
                one.begin()
            without_memory = score(photos)
        seconds = time.perf_counter() - began
        if isinstance(some[0], WaitingPhoto):
            self._observe(Batch(len(photos), len(some) - len(photos), seconds, without_memory))

    def _give_up(self) -> None:
        """Nobody waits for what will never come."""
        with self._changed:
            self._closing = True
            left, self._queue = self._queue, deque()
        for work in left:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(Refusal(NOT_LIVE, NOT_LIVE.example))
