"""Everything that lives as long as the service, created once and passed along."""

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from resad.runtime import pick_device
from service.admission import Admission, Bounds, Pace
from service.answering import Drawing, Pipeline, Scorer, Steps
from service.index_cache import Shelf
from service.index_reloader import Succession, Watcher, load_verified
from service.metrics import Metrics
from service.registry import Registry
from service.security import Guard, KeyRing
from service.settings import Settings
from service.tracing import ContentHash
from service.worker import Batch, Worker

MetricsOfAll = Callable[[bytes], Awaitable[bytes]]
"""This process's metrics -> those of all processes that answer at the same address, in Prometheus' text format."""


@dataclass(slots=True)
class Draining:
    """Whether the service was told to stop, and when it must be done (`time.monotonic`)."""

    limit_s: float
    end: float | None = None

    def begin(self) -> None:
        """The time begins to run; told again, it goes on."""
        self.end = self.end or time.monotonic() + self.limit_s

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return self.limit_s if self.end is None else max(0.0, self.end - time.monotonic())


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """Everything that lives as long as the service."""

    settings: Settings
    metrics: Metrics
    guard: Guard
    worker: Worker
    registry: Registry
    succession: Succession
    watcher: Watcher
    shelf: Shelf
    admission: Admission
    pool: ThreadPoolExecutor
    pipeline: Pipeline
    draining: Draining = field(default_factory=lambda: Draining(0.0))
    metrics_of_all: MetricsOfAll | None = None

    async def metrics_text(self) -> bytes:
        """What Prometheus is told."""
        own = self.metrics.text()
        return own if self.metrics_of_all is None else await self.metrics_of_all(own)

    def open(self) -> None:
        """Start the threads."""
        self.worker.start()
        self.watcher.start()

    def close(self) -> None:
        """Finish what was accepted, within what is left of the time for it, and stop."""
        self.watcher.stop()
        self.worker.stop(self.draining.left_s)
        self.pool.shutdown(wait=False, cancel_futures=True)

    def not_ready(self) -> str | None:
        """Why nobody should be sent here; None where all is well."""
        if self.draining.end is not None:
            return "the service is stopping"
        return self.registry.not_ready()


def build_house(settings: Settings, metrics_of_all: MetricsOfAll | None = None) -> House:
    """The parts, none of them started; raises `SettingError` for a device or keys file that is not there."""
    metrics, pace = Metrics(), Pace(settings.decode_workers)
    device = pick_device(settings.device)

    def observe(batch: Batch) -> None:
        metrics.batch(batch)
        if batch.scored:
            pace.scored(batch.scored, batch.seconds)

    worker = Worker(settings.batch_size, settings.batch_wait_ms / 1e3, observe)
    registry = Registry(settings.root, default=settings.index)
    succession = Succession(
        registry,
        lambda version: load_verified(version, device, worker, pace),
        metrics.indexes.loaded,
        hold=settings.hold,
    )
    watcher = Watcher(registry, succession, settings.poll_s)
    shelf = Shelf(registry, succession.bring, settings.hold, settings.deadline_s / 2)
    bounds = Bounds(settings.queue_size, settings.max_held_bytes, settings.deadline_s)
    admission = Admission(bounds, pace, metrics.shed)
    pool = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="pool")
    secret = settings.log_secret.get_secret_value() if settings.log_secret else None
    steps, limits = Steps(pool, metrics), settings.photo_limits
    scorer = Scorer(worker, steps, ContentHash(secret), limits)
    drawing = Drawing(steps, limits, settings.max_overlay_side)
    pipeline = Pipeline(scorer, drawing, shelf, admission, pace)
    metrics.watch(admission, registry, worker, pace)
    ring = KeyRing(settings.keys_file) if settings.keys_file else None
    guard = Guard(ring, settings.local)
    return House(
        settings, metrics, guard, worker, registry, succession, watcher, shelf, admission, pool, pipeline,
        Draining(settings.drain_s), metrics_of_all,
    )  # fmt: skip
