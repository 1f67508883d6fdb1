"""The metrics of several replicas in one answer: nothing lost, nothing mixed."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.replica_metrics import merge_metrics


def metrics_text(scored: int) -> str:
    registry = CollectorRegistry()
    Counter("photos", "Scored", ("index",), registry=registry).labels('a "b"').inc(scored)
    seconds = Histogram("seconds", "Spent", buckets=(1, 2), registry=registry)
    for _ in range(scored):
        seconds.observe(1.5)
    Gauge(f"only_{scored}", "Of one of them", registry=registry).set(scored)
    return generate_latest(registry).decode()


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_series_of_each_replica_is_there_once_and_says_whose_it_is() -> None:
    texts = {"r1": metrics_text(3), "r2": metrics_text(5)}
    merged_text = merge_metrics(texts).decode()
    expected = {
        (name, tuple(sorted((*labels, ("replica", replica))))): value
        for replica, text in texts.items()
        for (name, labels), value in series(text).items()
    }
    assert series(merged_text) == expected
    assert merged_text.count("# TYPE seconds histogram") == merged_text.count("# HELP photos_total Scored") == 1
