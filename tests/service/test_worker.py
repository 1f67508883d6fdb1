"""One thread, one queue: who is scored with whom, what one failure costs, and what is dropped."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from resad.detector import Detection, Detector
from resad.preparation import PreparedPhoto
from service.admission import Throughput
from service.problems import OUT_OF_MEMORY, Refusal
from service.worker import BatchStats, Worker
from tests.conftest import prepared


@dataclass
class FakeDetector:
    """Answers with the photo's own pixel; a bad one spoils its batch, and memory holds `room`."""

    room: int = 100
    batches: list[list[int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    encoder: Any = field(default_factory=lambda: SimpleNamespace(config=SimpleNamespace(precision="exact")))

    def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
        values = [int(photo.pixels[0, 0, 0]) for photo in photos]
        self.batches.append(values)
        self.threads.add(threading.get_ident())
        if len(photos) > self.room:
            raise torch.OutOfMemoryError("full")
        if 255 in values:
            raise ValueError("bad photo")
        return cast(list[Detection], values)


def photo(value: int) -> PreparedPhoto:
    return prepared(np.full((4, 4, 3), value, np.uint8))


@dataclass
class Bench:
    worker: Worker
    stats: list[BatchStats]
    release: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        started = threading.Event()

        def wait() -> None:
            started.set()
            self.release.wait(10)

        self.worker.run(wait)
        assert started.wait(5)

    def put(self, detector: FakeDetector, value: int) -> Future[Any]:
        return self.worker.detect(cast(Detector, detector), photo(value), lambda detection: detection)


@pytest.fixture
def bench() -> Iterator[Bench]:
    stats: list[BatchStats] = []
    worker = Worker(4, stats.append)
    worker.start()
    bench = Bench(worker, stats)
    yield bench
    bench.release.set()
    worker.stop(5)
    assert not worker.alive


def test_photographs_that_wait_together_are_scored_in_one_batch(bench: Bench) -> None:
    detector = FakeDetector()
    bench.hold()
    futures = [bench.put(detector, value) for value in range(10)]
    bench.release.set()
    assert [future.result(5) for future in futures] == list(range(10))
    assert detector.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(detector.threads) == 1
    assert threading.get_ident() not in detector.threads


def test_photographs_of_different_indexes_are_never_mixed(bench: Bench) -> None:
    even_detector, odd_detector = FakeDetector(), FakeDetector()
    bench.hold()
    futures = [bench.put((even_detector, odd_detector)[value % 2], value) for value in range(6)]
    bench.release.set()
    assert [future.result(5) for future in futures] == list(range(6))
    assert (even_detector.batches, odd_detector.batches) == ([[0, 2, 4]], [[1, 3, 5]])


def test_a_bad_photograph_fails_alone(bench: Bench) -> None:
    detector = FakeDetector()
    bench.hold()
    futures = [bench.put(detector, value) for value in (1, 255, 2, 3)]
    bench.release.set()
    with pytest.raises(ValueError, match="bad photo"):
        futures[1].result(5)
    assert [futures[number].result(5) for number in (0, 2, 3)] == [1, 2, 3]
    assert bench.worker.alive


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_full_memory_halves_the_batch(bench: Bench, room: int) -> None:
    detector = FakeDetector(room)
    bench.hold()
    futures = [bench.put(detector, value) for value in range(4)]
    bench.release.set()
    assert [future.result(5) for future in futures] == list(range(4))
    assert max(map(len, detector.batches[1:])) <= max(room, 2)


def test_a_photograph_that_never_fits_is_refused(bench: Bench) -> None:
    with pytest.raises(Refusal) as refusal:
        bench.put(FakeDetector(0), 1).result(5)
    assert refusal.value.kind is OUT_OF_MEMORY
    assert bench.put(FakeDetector(), 2).result(5) == 2


def test_canceled_photographs_are_dropped(bench: Bench) -> None:
    detector = FakeDetector()
    bench.hold()
    futures = [bench.put(detector, value) for value in range(4)]
    assert futures[1].cancel()
    assert futures[2].cancel()
    assert bench.worker.waiting == 2
    bench.release.set()
    assert futures[3].result(5) == 3
    bench.worker.run(lambda: None).result(5)
    assert detector.batches == [[0, 3]]
    assert [(batch.scored, batch.dropped) for batch in bench.stats] == [(0, 1), (0, 1), (2, 0)]


def test_an_error_in_finish_reaches_the_caller(bench: Bench) -> None:
    future = bench.worker.detect(cast(Detector, FakeDetector()), photo(1), lambda detection: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        future.result(5)
    assert bench.put(FakeDetector(), 2).result(5) == 2


def test_a_stop_finishes_what_is_queued_and_refuses_the_rest() -> None:
    worker, detector = Worker(2, lambda batch: None), FakeDetector()
    worker.start()
    bench = Bench(worker, [])
    bench.hold()
    futures = [bench.put(detector, value) for value in range(5)]
    stopper = threading.Thread(target=worker.stop, args=(5,))
    stopper.start()
    time.sleep(0.05)
    with pytest.raises(Refusal):
        bench.put(detector, 9)
    bench.release.set()
    stopper.join(5)
    assert [future.result(0) for future in futures] == list(range(5))
    assert not worker.alive


def test_a_dead_worker_says_so_and_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(2, lambda batch: None)
    worker.start()
    bench = Bench(worker, [])
    bench.hold()

    def die() -> None:
        raise SystemExit

    dying_future = worker.run(die)
    queued_future = bench.put(FakeDetector(), 1)
    bench.release.set()
    for future in (dying_future, queued_future):
        with pytest.raises(Refusal):
            future.result(5)
    worker.stop(5)
    assert not worker.alive
    with pytest.raises(Refusal):
        bench.put(FakeDetector(), 2)
    assert "died" in caplog.text


def test_a_worker_that_cannot_begin_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("no threads")

    worker = Worker(2, lambda batch: None, set_up=fail)
    queued_future = Bench(worker, []).put(FakeDetector(), 1)
    worker.start()
    with pytest.raises(Refusal):
        queued_future.result(5)
    worker.stop(5)
    assert not worker.alive
    assert "died" in caplog.text


def test_the_rate_follows_what_is_measured() -> None:
    class Slow(FakeDetector):
        def detect(self, photos: Sequence[PreparedPhoto]) -> list[Detection]:
            time.sleep(0.01 * len(photos))
            return super().detect(photos)

    throughput = Throughput(2)
    worker, detector = Worker(4, lambda batch: throughput.scored(batch.scored, batch.seconds)), Slow()
    assert (throughput.measured, throughput.seconds_per_photo) == (False, 1.0)
    worker.start()
    for value in range(40):
        Bench(worker, []).put(detector, value).result(5)
    worker.stop(5)
    assert 0.01 <= throughput.seconds_per_photo < 0.1
    for _ in range(40):
        throughput.pooled(3.0)  # on one of two threads
    assert 1.4 < throughput.seconds_per_photo <= 1.5
