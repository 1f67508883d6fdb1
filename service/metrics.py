"""What Prometheus is told, in a registry of the service's own."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.admission import Admission
from service.registry import Registry
from service.worker import Batch

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters; their methods may be called on any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "resad_requests", "Requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._stages = Histogram(
            "resad_stage_seconds",
            "Decode, queue and score, render; whole requests",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "resad_batch_photos", "Photographs scored together", buckets=_SIZES, registry=self._registry
        )
        self._batch_seconds = Counter("resad_batch_seconds", "Spent scoring", registry=self._registry)
        self._dropped = Counter(
            "resad_dropped_photos", "Given up by their callers before they were scored", registry=self._registry
        )

    def watch(self, admission: Admission, registry: Registry) -> None:
        """Show the queue and the indexes as they are whenever somebody looks."""
        waiting = Gauge("resad_queue_photos", "Accepted and not yet done with", registry=self._registry)
        waiting.set_function(lambda: admission.taken)
        room = Gauge("resad_queue_size", "Places for them", registry=self._registry)
        room.set(admission.size)
        self._registry.register(_Indexes(registry))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self.stage("request", seconds)

    def stage(self, name: str, seconds: float) -> None:
        """A step of a request is over."""
        self._stages.labels(name).observe(seconds)

    def batch(self, batch: Batch) -> None:
        """The worker is done with a batch."""
        self._dropped.inc(batch.dropped)
        if batch.scored:
            self._batches.observe(batch.scored)
            self._batch_seconds.inc(batch.seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _Indexes(Collector):
    """Which version of which index answers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """One line per index that is served."""
        versions = GaugeMetricFamily(
            "resad_index_info", "Versions that answer", labels=("index", "version", "fingerprint")
        )
        faults = GaugeMetricFamily("resad_index_fault", "CURRENT names what cannot be served", labels=("index",))
        for entry in self._registry.served.values():
            if entry.live is not None:
                manifest = entry.live.manifest
                versions.add_metric((entry.name, manifest.version, manifest.fingerprint), 1)
            faults.add_metric((entry.name,), float(entry.fault is not None))
        return (versions, faults)
