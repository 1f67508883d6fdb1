"""The node's metrics for Prometheus.  No label holds anything of a patient, a study or an object."""

from collections.abc import Iterable
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from resad_dicom.queue import Peer, Queue

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)

Way = Literal["c-store", "stow-rs"]
Outcome = Literal["queued", "repeated", "result", "refused", "full"]
"""Of an object that arrived: kept; the same bytes wait already; a result of ReSAD; not taken; no room."""


class Metrics:
    """Counters and gauges; the methods may be called on any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._objects = self._counter("resad_dicom_objects", "Objects that arrived", "way", "outcome")
        self._associations = self._counter(
            "resad_dicom_associations", "Accepted, full (no room), rejected (AE title), aborted", "outcome"
        )
        self._scored = self._counter("resad_dicom_scored_photos", "Photographs that were scored")
        self._sent = self._counter("resad_dicom_sent_results", "Result objects that the PACS took")
        self._refused = self._counter("resad_dicom_refused_photos", "Photographs given up, by who refused", "peer")
        self._retries = self._counter("resad_dicom_retries", "Attempts that failed and are repeated", "peer")
        self._up = Gauge(
            "resad_dicom_peer_up", "0 after an attempt that failed", ("peer",), registry=self._registry
        )
        self._answered = Histogram(
            "resad_dicom_answer_seconds",
            "From a photograph's arrival until the PACS had its results",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for way in ("c-store", "stow-rs"):
            for outcome in ("queued", "repeated", "result", "refused", "full"):
                self._objects.labels(way, outcome)
        for association in ("accepted", "full", "rejected", "aborted"):
            self._associations.labels(association)
        for peer in ("service", "pacs"):
            self._refused.labels(peer)
            self._retries.labels(peer)
            self._up.labels(peer).set(1)
        ProcessCollector(registry=self._registry)

    def watch(self, queue: Queue) -> None:
        """Add gauges that read the queue at each scrape."""
        self._registry.register(_QueueMetrics(queue))

    def arrived(self, way: Way, outcome: Outcome) -> None:
        """Count an object."""
        self._objects.labels(way, outcome).inc()

    def association(self, outcome: Literal["accepted", "full", "rejected", "aborted"]) -> None:
        """Count an association that a caller asked for."""
        self._associations.labels(outcome).inc()

    def scored(self) -> None:
        """Count a scored photograph."""
        self._scored.inc()

    def sent(self) -> None:
        """Count a result object that the PACS took."""
        self._sent.inc()

    def answered(self, seconds: float) -> None:
        """Record a photograph whose results the PACS has."""
        self._answered.observe(seconds)

    def refused(self, peer: Peer) -> None:
        """Count a photograph that is given up."""
        self._refused.labels(peer).inc()

    def retry(self, peer: Peer) -> None:
        """Count a failed attempt."""
        self._retries.labels(peer).inc()

    def reached(self, peer: Peer, up: bool) -> None:
        """Record whether a peer could be reached."""
        self._up.labels(peer).set(float(up))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self._registry)


class _QueueMetrics(Collector):
    """The queue at the moment of a scrape."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def collect(self) -> Iterable[Metric]:
        """Photographs by state, bytes, age and room."""
        state = self._queue.state()
        photos = GaugeMetricFamily("resad_dicom_queue_photos", "Photographs in the queue", labels=("state",))
        for name, count in (("received", state.received), ("scored", state.scored), ("refused", state.refused)):
            photos.add_metric((name,), count)
        yield photos
        yield GaugeMetricFamily("resad_dicom_queue_bytes", "Of photographs and results", value=state.bytes)
        yield GaugeMetricFamily(
            "resad_dicom_queue_oldest_seconds", "Age of the oldest photograph that waits", value=state.oldest_s
        )
        full = float(self._queue.full() is not None)
        yield GaugeMetricFamily("resad_dicom_queue_full", "1 while associations are rejected", value=full)
