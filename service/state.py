"""Everything that lives as long as the service, created once and passed along."""

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from resad.decoder_pool import DecoderPool
from resad.runtime import pick_device
from service.admission import Admission, Limits, Throughput
from service.answering import Pipeline, Scorer, TimedPool
from service.fairness import Turns
from service.index_cache import IndexCache
from service.index_reloader import IndexReloader, Loader, Watcher
from service.metrics import Metrics
from service.registry import Registry
from service.security import Guard, KeyRing
from service.settings import Settings
from service.tracing import ContentHash
from service.uploads import BodyReader
from service.worker import BatchStats, Worker

_STALLED_S: Final = 5.0
"""Seconds without a free decoder from which the service is not ready: a sound photograph takes one at most."""
CombinedMetrics = Callable[[bytes], Awaitable[bytes]]
"""This process's metrics -> those of all processes behind the same address, in Prometheus' text format."""


@dataclass(slots=True)
class Draining:
    """Whether the service was told to stop, and by when it must end (`time.monotonic`)."""

    limit_s: float
    end: float | None = None

    def begin(self) -> None:
        """Start the clock; a second call changes nothing."""
        self.end = self.end or time.monotonic() + self.limit_s

    @property
    def left_s(self) -> float:
        """Seconds until the end."""
        return self.limit_s if self.end is None else max(0.0, self.end - time.monotonic())


@dataclass(frozen=True, slots=True, eq=False)
class AppState:
    """The parts of the service."""

    settings: Settings
    metrics: Metrics
    guard: Guard
    worker: Worker
    registry: Registry
    loader: Loader
    reloader: IndexReloader
    watcher: Watcher
    index_cache: IndexCache
    admission: Admission
    body_reader: BodyReader
    decoders: DecoderPool
    threads: tuple[ThreadPoolExecutor, ...]
    pipeline: Pipeline
    draining: Draining
    combined_metrics: CombinedMetrics | None = None

    async def metrics_text(self) -> bytes:
        """The answer of `/metrics`."""
        text = self.metrics.text()
        return text if self.combined_metrics is None else await self.combined_metrics(text)

    def open(self) -> None:
        """Start the threads and the decoders."""
        self.decoders.start()
        self.worker.start()
        self.watcher.start()

    def close(self) -> None:
        """Finish accepted requests within the draining time, and stop the threads and the decoders."""
        self.watcher.stop()
        # The server has ended every request by now: nobody waits for what is still decoded.
        self.decoders.close()
        self.worker.stop(self.draining.left_s)
        for pool in self.threads:
            pool.shutdown(wait=False, cancel_futures=True)

    def not_ready(self) -> str | None:
        """Why no request should be sent here; None if the service is ready."""
        if self.draining.end is not None:
            return "the service is stopping"
        if self.decoders.stalled_s > _STALLED_S:
            return f"no decoder has been free for {self.decoders.stalled_s:.0f} s"
        return self.registry.not_ready()


def create_state(settings: Settings, combined_metrics: CombinedMetrics | None = None) -> AppState:
    """The parts, not yet started.

    Args:
        combined_metrics: the answer of `/metrics` if this is one of several processes behind one address.
    Raises:
        SettingError: the device or the keys file cannot be used.
    """
    metrics, throughput = Metrics(), Throughput(settings.decode_workers)
    device = pick_device(settings.device)

    def observe(batch: BatchStats) -> None:
        metrics.batch(batch)
        if batch.scored:
            throughput.scored(batch.scored, batch.seconds)

    worker = Worker(settings.batch_size, observe)
    registry = Registry(settings.root, default=settings.index)
    loader = Loader(device, worker, throughput)
    reloader = IndexReloader(registry, loader.load, metrics.indexes.loaded, hold=settings.hold)
    index_cache = IndexCache(registry, reloader.load_resting, settings.hold, settings.deadline_s / 2)
    limits = Limits(settings.queue_size, settings.max_held_bytes, settings.deadline_s)
    admission = Admission(limits, throughput, metrics.shed)
    threads = tuple(
        ThreadPoolExecutor(settings.decode_workers, thread_name_prefix=name) for name in ("decode", "draw")
    )
    decoding, drawing = (TimedPool(pool, Turns(settings.decode_workers), metrics) for pool in threads)
    decoders = DecoderPool(settings.decode_workers, settings.decode_s)
    secret = settings.log_secret.get_secret_value() if settings.log_secret else None
    # As many as the worker needs to find a whole batch when it has finished one.
    turns = Turns(2 * settings.batch_size)
    scorer = Scorer(worker, turns, decoders, decoding, drawing, ContentHash(secret), settings.photo_limits)
    metrics.watch(admission, registry, worker, throughput, decoders)
    return AppState(
        settings=settings,
        metrics=metrics,
        guard=Guard(KeyRing(settings.keys_file) if settings.keys_file else None, settings.local),
        worker=worker,
        registry=registry,
        loader=loader,
        reloader=reloader,
        watcher=Watcher(registry, reloader, settings.poll_s),
        index_cache=index_cache,
        admission=admission,
        body_reader=BodyReader(settings),
        decoders=decoders,
        threads=threads,
        pipeline=Pipeline(scorer, index_cache, admission, throughput, settings.max_overlay_side),
        draining=Draining(settings.drain_s),
        combined_metrics=combined_metrics,
    )
