"""One thread owns torch and FAISS, and scores waiting photographs in batches.

A GPU index must not be used from two threads, and one batch at a time is as fast as a device gets.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch

from resad import runtime
from resad.detector import Detection, Detector
from resad.preparation import PreparedPhoto
from service.problems import NOT_LIVE, OUT_OF_MEMORY, Refusal, is_out_of_memory

Answer = TypeVar("Answer")

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchStats:
    """One batch, or one cancelled photograph.

    scored: photographs that were scored, those that did not fit into memory included.  dropped: photographs whose
    callers had gone.  without_memory: photographs that did not fit into memory.
    """

    scored: int
    dropped: int
    seconds: float
    without_memory: int


@dataclass(frozen=True, slots=True, eq=False)
class QueuedPhoto:
    """A photograph in the queue.

    begin: called when its batch starts.  finish: turns its detection into the answer.  Both run on the worker's
    thread.
    """

    detector: Detector
    photo: PreparedPhoto
    begin: Callable[[], None]
    finish: Callable[[Detection], Any]
    future: Future[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    run: Callable[[], Any]
    future: Future[Any]


class Worker:
    """The thread and its queue; `Admission` bounds the queue.

    Args:
        batch_size: most photographs in a batch.
        observe: called for every batch on the worker's thread, and for every photograph that is cancelled in the
            queue on the thread that cancelled it.
        set_up: called first on the worker's thread.
    """

    def __init__(
        self,
        batch_size: int,
        observe: Callable[[BatchStats], None],
        set_up: Callable[[], None] = runtime.use_threads,
    ) -> None:
        self._batch_size = batch_size
        self._observe = observe
        self._set_up = set_up
        self._queue: deque[QueuedPhoto | _Task] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Finish the queue, for at most so many seconds; later work is refused."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Photographs and tasks in the queue."""
        return len(self._queue)

    def detect(
        self,
        detector: Detector,
        photo: PreparedPhoto,
        finish: Callable[[Detection], Answer],
        begin: Callable[[], None] = lambda: None,
    ) -> Future[Answer]:
        """Queue a photograph; the future holds `finish(detection)`.  Cancel it to drop the photograph.

        The future fails with `Refusal` if memory is full or the worker has stopped.
        """
        future: Future[Answer] = Future()
        self._put(QueuedPhoto(detector, photo, begin, finish, future))
        future.add_done_callback(self._drop)
        return future

    def run(self, task: Callable[[], Answer]) -> Future[Answer]:
        """Queue a call on the worker's thread; the future holds what it returns."""
        future: Future[Answer] = Future()
        self._put(_Task(task, future))
        return future

    def _put(self, work: QueuedPhoto | _Task) -> None:
        with self._changed:
            if self._closing:
                raise Refusal(NOT_LIVE, "the service is stopping" if self.alive else NOT_LIVE.example)
            self._queue.append(work)
            self._changed.notify_all()

    def _drop(self, future: Future[Any]) -> None:
        """Remove a cancelled photograph from the queue, so that it keeps no index in memory."""
        if not future.cancelled():
            return
        with self._changed:
            remaining = deque(work for work in self._queue if work.future is not future)
            dropped, self._queue = len(self._queue) - len(remaining), remaining
        if dropped:
            self._observe(BatchStats(0, dropped, 0.0, 0))

    def _loop(self) -> None:
        try:
            self._set_up()
            while (batch := self._next_batch()) is not None:
                self._work(batch)
                del batch  # it would keep an index in memory while this thread waits
        except BaseException:
            _log.critical("the thread that scores died", exc_info=True)
        finally:
            self._refuse_all()

    def _next_batch(self) -> list[QueuedPhoto | _Task] | None:
        """The oldest task, or the oldest photograph with others for the same index; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return None
            first = self._queue[0]
            if isinstance(first, _Task):
                return [self._queue.popleft()]
            photos = [
                work for work in self._queue if isinstance(work, QueuedPhoto) and work.detector is first.detector
            ]
            batch = photos[: self._batch_size]
            batched = set(map(id, batch))
            self._queue = deque(work for work in self._queue if id(work) not in batched)
            return list(batch)

    def _work(self, batch: Sequence[QueuedPhoto | _Task]) -> None:
        began = time.perf_counter()
        running = [work for work in batch if work.future.set_running_or_notify_cancel()]
        photos = [work for work in running if isinstance(work, QueuedPhoto)]
        for task in running:
            if isinstance(task, _Task):
                _settle(task.future, task.run)
        without_memory = 0
        if photos:
            runtime.configure(photos[0].detector.encoder.config.precision)
            for photo in photos:
                photo.begin()
            without_memory = _detect_batch(photos)
        seconds = time.perf_counter() - began
        if isinstance(batch[0], QueuedPhoto):
            self._observe(BatchStats(len(photos), len(batch) - len(photos), seconds, without_memory))

    def _refuse_all(self) -> None:
        """Fail every future in the queue: nothing will run any more."""
        with self._changed:
            self._closing = True
            remaining, self._queue = self._queue, deque()
        for work in remaining:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(Refusal(NOT_LIVE, NOT_LIVE.example))


def _detect_batch(photos: Sequence[QueuedPhoto]) -> int:
    """Detect a batch and settle every future; returns how many photographs did not fit into memory.

    A batch that fails is halved until the photograph at fault is alone.
    """
    detections, out_of_memory = None, False
    try:
        detections = photos[0].detector.detect([queued.photo for queued in photos])
    except Exception as error:
        out_of_memory = is_out_of_memory(error)
        if not out_of_memory and len(photos) == 1:
            photos[0].future.set_exception(error)
            return 0
    # Outside of `except`, where the error's frames no longer hold memory.
    if out_of_memory and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if detections is None and len(photos) == 1:
        photos[0].future.set_exception(Refusal(OUT_OF_MEMORY, OUT_OF_MEMORY.example, {"Retry-After": "5"}))
        return 1
    if detections is None:
        half = len(photos) // 2
        return _detect_batch(photos[:half]) + _detect_batch(photos[half:])
    for queued, detection in zip(photos, detections, strict=True):
        _settle(queued.future, lambda queued=queued, detection=detection: queued.finish(detection))  # type: ignore[misc]
    return 0


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    """Put what `work` returns or raises into `future`; raise on what is no `Exception`."""
    try:
        answer = work()
    except Exception as error:
        future.set_exception(error)
    except BaseException:
        future.set_exception(Refusal(NOT_LIVE, NOT_LIVE.example))
        raise
    else:
        future.set_result(answer)
