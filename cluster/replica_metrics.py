"""Prometheus metrics of several replicas as one text, each series with a label `replica`.

They are not summed: a sum falls when a replica ends, which Prometheus takes for a counter reset, and a rate over
it would jump.  `sum(rate(...))` over the label is right at any time.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


def merge_metrics(texts: Mapping[str, str]) -> bytes:
    """One text of the texts by replica."""
    families: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            merged.samples += [
                sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Parsed(list(families.values())))
    return generate_latest(registry)


class _Parsed(Collector):
    """Metrics that were measured elsewhere."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """The metrics."""
        return self._families

    def describe(self) -> list[Metric]:
        """None in advance."""
        return []
