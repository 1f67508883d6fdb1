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

from resad.manifest import Manifest
from resad.result import Result
from service.admission import Admission, Pace, Reason
from service.registry import Registry
from service.tracing import Stage
from service.worker import Batch, Worker

WINDOW: Final = 200
"""Photographs looked back upon."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Of one version's last photographs.

    photos: how many, at most `WINDOW`.  ks: in [0, 1].  mean_p: of their p-values, in (0, 1].  abnormal: share
    with p <= 0.05.
    """

    photos: int
    ks: float
    mean_p: float
    abnormal: float


class Recent:
    """The last image scores under one version; filled and read on any thread.

    Args:
        normals: image scores of its calibration, ascending.
    """

    def __init__(self, normals: Sequence[float]) -> None:
        self._normals = np.asarray(normals)
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def add(self, score: float) -> None:
        """One photograph more."""
        with self._lock:
            self._scores.append(score)

    def drift(self) -> Drift | None:
        """None before the first photograph."""
        with self._lock:
            scores = np.sort(np.array(self._scores))
        if not len(scores):
            return None
        # As resad.calibration.p_value has it: (1 + normals at or above) / (normals + 1).
        above = len(self._normals) - np.searchsorted(self._normals, scores, side="left")
        p = (1 + above) / (len(self._normals) + 1)
        return Drift(len(scores), distance(scores, self._normals), float(p.mean()), float((p <= 0.05).mean()))


def distance(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """The largest difference of two samples' distribution functions; both ascending."""
    places = np.concatenate([one, other])
    shares = [np.searchsorted(sample, places, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


_P_VALUES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_RATIOS: Final = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0)
_INDEX: Final = ("index",)


class IndexMetrics(Collector):
    """Per index that is served; `scored` may be called on any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._p = Histogram(
            "resad_p_value", "Of the photographs, among all normals", _INDEX, buckets=_P_VALUES, registry=registry
        )
        self._ratio = Histogram(
            "resad_image_score_ratio",
            "Image score over the normals' median",
            _INDEX,
            buckets=_RATIOS,
            registry=registry,
        )
        self._loads = Counter(
            "resad_index_loads",
            "Versions loaded beside the one that served",
            ("index", "outcome"),
            registry=registry,
        )
        self._load_seconds = Gauge(
            "resad_index_load_seconds", "The last one's, until its probe was scored", _INDEX, registry=registry
        )
        self._collected = registry
        self._lock = threading.Lock()
        self._recent: dict[str, tuple[str, Recent]] = {}
        self._served: Registry | None = None

    def watch(self, registry: Registry) -> None:
        """Show what is served whenever somebody looks."""
        self._served = registry
        self._collected.register(self)

    def loaded(self, name: str, well: bool, seconds: float) -> None:
        """A version was loaded, or could not be."""
        self._loads.labels(name, "served" if well else "failed").inc()
        self._load_seconds.labels(name).set(seconds)

    def scored(self, result: Result) -> None:
        """A photograph was scored by a version that is served, or just was."""
        entry = self._served.served.get(result.index.name) if self._served else None
        if entry is None or entry.live is None or entry.live.manifest.version != result.index.version:
            return
        calibration = entry.live.manifest.calibration
        name, score = result.index.name, result.image_score
        self._p.labels(name).observe(calibration.p_value(score))
        self._ratio.labels(name).observe(score / calibration.scores[len(calibration.scores) // 2])
        self._recent_of(entry.live.manifest).add(score)

    def collect(self) -> Iterable[Metric]:
        """Versions, faults and drift as they are now."""
        info = _family("resad_index_info", "Versions that answer", "index", "version", "fingerprint")
        fault = _family("resad_index_fault", "CURRENT names what cannot be served", "index")
        photos = _family("resad_drift_photos", "Last photographs that the drift is taken over", "index")
        ks = _family("resad_drift_ks", "Their image scores against the calibration's, largest distance", "index")
        mean_p = _family("resad_drift_mean_p", "Their mean p-value; 0.5 where they are alike", "index")
        abnormal = _family("resad_drift_abnormal_share", "Of them, with p at most 0.05", "index")
        for entry in self._served.served.values() if self._served else ():
            fault.add_metric((entry.name,), float(entry.fault is not None))
            if entry.live is None:
                continue
            manifest = entry.live.manifest
            info.add_metric((entry.name, manifest.version, manifest.fingerprint), 1)
            drift = self._recent_of(manifest).drift()
            photos.add_metric((entry.name,), drift.photos if drift else 0)
            if drift:
                for family, value in ((ks, drift.ks), (mean_p, drift.mean_p), (abnormal, drift.abnormal)):
                    family.add_metric((entry.name,), value)
        return (info, fault, photos, ks, mean_p, abnormal)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on what is served."""
        return ()

    def _recent_of(self, manifest: Manifest) -> Recent:
        """The window of the version that answers; another version begins another one."""
        with self._lock:
            version, recent = self._recent.get(manifest.name, (None, None))
            if recent is None or version != manifest.version:
                recent = Recent(manifest.calibration.scores)
                self._recent[manifest.name] = (manifest.version, recent)
            return recent


def _family(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_, labels=labels)


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
