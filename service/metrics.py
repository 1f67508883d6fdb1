"""What Prometheus is told, in a registry of the service's own; docs/operations.md lists it all."""

from typing import Final

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from resad.result import Result
from service.account import Stage
from service.admission import Admission, Reason
from service.index_metrics import IndexMetrics
from service.pace import Pace
from service.registry import Registry
from service.worker import Batch, Worker

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters; their methods may be called on any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("resad_requests", "Requests answered", "method", "route", "status")
        self._stages = Histogram(
            "resad_stage_seconds",
            "Of each step of a photograph, and of whole requests",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "resad_batch_photos", "Photographs scored together", buckets=_SIZES, registry=self._registry
        )
        self._batch_seconds = self._counter("resad_batch_seconds", "Spent scoring")
        self._dropped = self._counter("resad_dropped_photos", "Given up by their callers before they were scored")
        self._shed = self._counter("resad_shed_requests", "Sent away with 429, by what was full", "reason")
        self._late = self._counter("resad_timed_out_requests", "408 (upload) and 504 (deadline)", "limit")
        self._full = self._counter("resad_out_of_memory_photos", "Refused because memory was full")
        self.indexes = IndexMetrics(self._registry)
        for reason in ("queue", "deadline", "bytes"):
            self._shed.labels(reason)
        for limit in ("upload", "deadline"):
            self._late.labels(limit)
        ProcessCollector(registry=self._registry)

    def watch(self, admission: Admission, registry: Registry, worker: Worker, pace: Pace) -> None:
        """Show the queue, the worker and the indexes as they are whenever somebody looks."""
        bounds = admission.bounds
        self._gauge("resad_queue_photos", "Accepted and not yet done with").set_function(lambda: admission.taken)
        self._gauge("resad_queue_size", "Places for them").set(bounds.places)
        self._gauge("resad_held_bytes", "Of uploads in memory").set_function(lambda: admission.held_bytes)
        self._gauge("resad_held_bytes_limit", "Most that they may be").set(bounds.held_bytes)
        self._gauge("resad_worker_waiting", "Photographs and tasks before the worker").set_function(
            lambda: worker.waiting
        )
        self._gauge("resad_worker_alive", "1 while the thread that scores lives").set_function(
            lambda: float(worker.alive)
        )
        self._gauge("resad_seconds_per_photo", "Measured pace, by which callers are sent away").set_function(
            lambda: pace.seconds_per_photo
        )
        self._gauge("resad_ready", "1 while every index answers").set_function(
            lambda: float(registry.not_ready() is None)
        )
        if torch.cuda.is_available():
            self._gauge("resad_gpu_memory_bytes", "Held by torch").set_function(torch.cuda.memory_reserved)
        self.indexes.watch(registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._stages.labels("request").observe(seconds)
        if status in (408, 504):
            self._late.labels("upload" if status == 408 else "deadline").inc()

    def stage(self, name: Stage, seconds: float) -> None:
        """A step of a photograph is over."""
        self._stages.labels(name).observe(seconds)

    def scored(self, result: Result) -> None:
        """A photograph was scored."""
        self.indexes.scored(result)

    def batch(self, batch: Batch) -> None:
        """The worker is done with a batch."""
        self._dropped.inc(batch.dropped)
        self._full.inc(batch.without_memory)
        if batch.scored:
            self._batches.observe(batch.scored)
            self._batch_seconds.inc(batch.seconds)

    def shed(self, reason: Reason) -> None:
        """A request was sent away with 429."""
        self._shed.labels(reason).inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self._registry)

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(name, help_, registry=self._registry)
