"""What Prometheus is told of several replicas at once: every series of each, with whose it is.

They are not added up: a sum falls when a replica ends, which Prometheus takes for a counter that began again, and
a rate over it would leap.  `sum(rate(...))` over the label is right at any time.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


def of_all(texts: Mapping[str, str]) -> bytes:
    """One text of those of all replicas, by their names; each series gets a label `replica`."""
    families: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            whole.samples += [one._replace(labels={**one.labels, "replica": replica}) for one in family.samples]
    registry = CollectorRegistry()
    registry.register(_Told(list(families.values())))
    return generate_latest(registry)


class _Told(Collector):
    """What was measured elsewhere."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """As it is."""
        return self._families

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []
