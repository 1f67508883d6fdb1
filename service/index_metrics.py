"""What Prometheus is told of the indexes: which versions answer, what they say, and whether that drifts."""

import threading
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from resad.manifest import Manifest
from resad.result import Result
from service.drift import Recent
from service.registry import Registry

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
