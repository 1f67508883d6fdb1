"""Prometheus metrics of the service, in a registry of its own; docs/operations.md lists them all."""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from resad.decoder_pool import DecoderPool
from resad.manifest import Manifest
from service.admission import REASONS, Admission, Reason, Throughput
from service.registry import Registry
from service.tracing import Stage
from service.worker import BatchStats, Worker

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
WINDOW: Final = 200
"""Photographs that drift is measured over."""
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_P_VALUES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RATIOS: Final = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0)
_INDEX: Final = ("index",)


class Metrics:
    """Counters and gauges; the methods may be called on any thread."""

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
        self._out_of_memory = self._counter("resad_out_of_memory_photos", "Refused because memory was full")
        self.indexes = IndexMetrics(self._registry)
        for reason in REASONS:
            self._shed.labels(reason)
        for limit in ("upload", "deadline"):
            self._late.labels(limit)
        ProcessCollector(registry=self._registry)

    def watch(
        self,
        admission: Admission,
        registry: Registry,
        worker: Worker,
        throughput: Throughput,
        decoders: DecoderPool,
    ) -> None:
        """Add gauges that read the queue, the worker, the decoders and the indexes at each scrape."""
        limits = admission.limits
        self._gauge("resad_queue_photos", "Accepted and not yet done with").set_function(lambda: admission.queued)
        self._gauge("resad_queue_size", "Places for them").set(limits.photos)
        self._gauge("resad_held_bytes", "Of uploads and answers in memory").set_function(
            lambda: admission.held_bytes
        )
        self._gauge("resad_held_bytes_limit", "Most that they may be").set(limits.held_bytes)
        self._gauge("resad_worker_waiting", "Photographs and tasks before the worker").set_function(
            lambda: worker.waiting
        )
        self._gauge("resad_worker_alive", "1 while the thread that scores lives").set_function(
            lambda: float(worker.alive)
        )
        self._gauge("resad_decoders_free", "Processes that wait for a photograph to decode").set_function(
            lambda: decoders.free
        )
        self._gauge("resad_seconds_per_photo", "Measured pace, by which callers are sent away").set_function(
            lambda: throughput.seconds_per_photo
        )
        self._gauge("resad_ready", "1 while every index answers").set_function(
            lambda: float(registry.not_ready() is None)
        )
        if torch.cuda.is_available():
            self._gauge("resad_gpu_memory_bytes", "Held by torch").set_function(torch.cuda.memory_reserved)
        self.indexes.watch(registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._stages.labels("request").observe(seconds)
        if status in (408, 504):
            self._late.labels("upload" if status == 408 else "deadline").inc()

    def stage(self, name: Stage, seconds: float) -> None:
        """Record a finished step of a photograph."""
        self._stages.labels(name).observe(seconds)

    def scored(self, index: str, version: str, image_score: float) -> None:
        """Record a scored photograph."""
        self.indexes.scored(index, version, image_score)

    def dropped(self) -> None:
        """Count a photograph whose caller left before it was scored."""
        self._dropped.inc()

    def batch(self, batch: BatchStats) -> None:
        """Record a batch of the worker."""
        self._out_of_memory.inc(batch.without_memory)
        if batch.scored:
            self._batches.observe(batch.scored)
            self._batch_seconds.inc(batch.seconds)

    def shed(self, reason: Reason) -> None:
        """Count a request refused with 429."""
        self._shed.labels(reason).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self._registry)

    def _gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(name, help_, registry=self._registry)


class IndexMetrics(Collector):
    """Metrics of each index: versions, loads, scores and drift; the methods may be called on any thread."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._p = Histogram(
            "resad_p_value", "Of the photographs, among all normals", _INDEX, buckets=_P_VALUES, registry=metrics
        )
        self._ratio = Histogram(
            "resad_image_score_ratio",
            "Image score over the normals' median",
            _INDEX,
            buckets=_RATIOS,
            registry=metrics,
        )
        self._loads = Counter(
            "resad_index_loads",
            "Versions loaded beside the one that served",
            ("index", "outcome"),
            registry=metrics,
        )
        self._load_seconds = Gauge(
            "resad_index_load_seconds", "The last one's, until its probe was scored", _INDEX, registry=metrics
        )
        self._metrics = metrics
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[str, ScoreWindow]] = {}
        self._indexes: Registry | None = None

    def watch(self, indexes: Registry) -> None:
        """Add metrics that read the served indexes at each scrape."""
        self._indexes = indexes
        self._metrics.register(self)

    def loaded(self, index: str, success: bool, seconds: float) -> None:
        """Count a load of a version."""
        self._loads.labels(index, "served" if success else "failed").inc()
        self._load_seconds.labels(index).set(seconds)

    def scored(self, index: str, version: str, image_score: float) -> None:
        """Record a photograph's score, unless another version of the index serves by now."""
        entry = self._indexes.entries.get(index) if self._indexes else None
        if entry is None or entry.live is None or entry.live.manifest.version != version:
            return
        calibration = entry.live.manifest.calibration
        self._p.labels(index).observe(calibration.p_value(image_score))
        self._ratio.labels(index).observe(image_score / calibration.scores[len(calibration.scores) // 2])
        self._window(entry.live.manifest).add(image_score)

    def collect(self) -> Iterable[Metric]:
        """Versions, faults and drift at this moment."""
        info = _family("resad_index_info", "Versions that answer", "index", "version", "fingerprint")
        fault = _family("resad_index_fault", "CURRENT names what cannot be served", "index")
        photos = _family("resad_drift_photos", "Last photographs that the drift is taken over", "index")
        ks = _family("resad_drift_ks", "Their image scores against the calibration's, largest distance", "index")
        mean_p = _family("resad_drift_mean_p", "Their mean p-value; 0.5 where they are alike", "index")
        abnormal = _family("resad_drift_abnormal_share", "Of them, with p at most 0.05", "index")
        for entry in self._indexes.entries.values() if self._indexes else ():
            fault.add_metric((entry.name,), float(entry.fault is not None))
            if entry.live is None:
                continue
            manifest = entry.live.manifest
            info.add_metric((entry.name, manifest.version, manifest.fingerprint), 1)
            drift = self._window(manifest).drift()
            photos.add_metric((entry.name,), drift.photos if drift else 0)
            if drift:
                for family, value in ((ks, drift.ks), (mean_p, drift.mean_p), (abnormal, drift.abnormal)):
                    family.add_metric((entry.name,), value)
        return (info, fault, photos, ks, mean_p, abnormal)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the series depend on the served indexes."""
        return ()

    def _window(self, manifest: Manifest) -> "ScoreWindow":
        """The window of this version; a new version starts an empty one."""
        with self._lock:
            version, window = self._windows.get(manifest.name, (None, None))
            if window is None or version != manifest.version:
                window = ScoreWindow(manifest.calibration.scores)
                self._windows[manifest.name] = (manifest.version, window)
            return window


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the last photographs of a version are from its calibration.

    photos: how many, at most `WINDOW`.  ks: Kolmogorov-Smirnov statistic of their image scores and the
    calibration's, in [0, 1].  mean_p: mean p-value, in (0, 1]; about 0.5 without drift.  abnormal: share with
    p <= 0.05.

    A clinic also sends diseased photographs, so no value by itself is a verdict; a change is.
    """

    photos: int
    ks: float
    mean_p: float
    abnormal: float


class ScoreWindow:
    """The last image scores under one version; used on any thread.

    Args:
        normals: image scores of the version's calibration, ascending.
    """

    def __init__(self, normals: Sequence[float]) -> None:
        self._normals = np.asarray(normals)
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def add(self, score: float) -> None:
        """Add a photograph's image score."""
        with self._lock:
            self._scores.append(score)

    def drift(self) -> Drift | None:
        """None before the first photograph."""
        from scipy.stats import ks_2samp  # half a second that the start of the service need not wait for

        with self._lock:
            scores = np.sort(np.array(self._scores))
        if not len(scores):
            return None
        # As in resad.calibration.p_value: (1 + normals at or above) / (normals + 1).
        at_or_above = len(self._normals) - np.searchsorted(self._normals, scores, side="left")
        p = (1 + at_or_above) / (len(self._normals) + 1)
        # Only the statistic is used; the method is that of the p-value, and `asymp` is the faster one.
        ks = float(ks_2samp(scores, self._normals, method="asymp" if len(scores) > 1 else "exact").statistic)
        return Drift(len(scores), ks, float(p.mean()), float((p <= 0.05).mean()))


def _family(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_, labels=labels)
