"""The parts of the service, put together once and passed along."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from resad.runtime import pick_device
from service.admission import Admission
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.registry import Registry
from service.settings import Settings
from service.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """Everything that lives as long as the service."""

    settings: Settings
    metrics: Metrics
    worker: Worker
    registry: Registry
    admission: Admission
    pool: ThreadPoolExecutor
    pipeline: Pipeline

    def open(self) -> None:
        """Start the threads."""
        self.worker.start()
        self.registry.start()

    def close(self) -> None:
        """Finish what was accepted, within the time for it, and stop."""
        self.registry.stop()
        self.worker.stop(self.settings.drain_s)
        self.pool.shutdown(wait=False, cancel_futures=True)


def build_house(settings: Settings) -> House:
    """The parts, none of them started; raises `SettingError` for a device that is not there."""
    metrics = Metrics()
    worker = Worker(settings.batch_size, settings.batch_wait_ms / 1e3, metrics.batch)
    registry = Registry(
        settings.root, pick_device(settings.device), worker, default=settings.index, poll_s=settings.poll_s
    )
    admission = Admission(settings.queue_size, lambda: worker.seconds_per_photo)
    pool = ThreadPoolExecutor(settings.decode_workers, thread_name_prefix="pool")
    pipeline = Pipeline(worker, pool, admission, metrics, settings.photo_limits, settings.deadline_s)
    metrics.watch(admission, registry)
    return House(settings, metrics, worker, registry, admission, pool, pipeline)
