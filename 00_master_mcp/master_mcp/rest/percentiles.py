"""Counts and times out of the metrics that Prometheus reads too: one source of figures."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.samples import Sample

from fleetkit.metrics import Metrics
from master_mcp.rest.route import Shape


class Percentiles(Shape):
    """Estimates from histogram buckets, in milliseconds: right to the width of a bucket; the mean is exact."""

    mean: float
    p50: float
    p95: float
    p99: float


class Calls(Shape):
    """Calls since the hub started, by outcome, and how long they took (milliseconds)."""

    total: int
    by_outcome: dict[str, int]
    duration_ms: Percentiles | None


def services(metrics: Metrics) -> list[str]:
    """Every service that was called."""
    return sorted({sample.labels["service"] for sample in _samples(metrics.requests.collect(), "_total", None)})


def calls(metrics: Metrics, service: str | None = None) -> Calls:
    """The calls of one service, or of all."""
    outcomes: Counter[str] = Counter()
    for sample in _samples(metrics.requests.collect(), "_total", service):
        outcomes[sample.labels["outcome"]] += int(sample.value)
    return Calls(total=outcomes.total(), by_outcome=dict(outcomes), duration_ms=_durations(metrics, service))


def _durations(metrics: Metrics, service: str | None) -> Percentiles | None:
    found = list(metrics.duration.collect())
    buckets: Counter[float] = Counter()
    for sample in _samples(found, "_bucket", service):
        buckets[float(sample.labels["le"])] += int(sample.value)
    count = sum(sample.value for sample in _samples(found, "_count", service))
    if not count:
        return None
    total = sum(sample.value for sample in _samples(found, "_sum", service))
    at = [quantile(sorted(buckets.items()), share) for share in (0.5, 0.95, 0.99)]
    mean, p50, p95, p99 = (round(seconds * 1000, 3) for seconds in (total / count, *at))
    return Percentiles(mean=mean, p50=p50, p95=p95, p99=p99)


def quantile(buckets: list[tuple[float, int]], share: float) -> float:
    """The value below which `share` of the observations lie.

    `buckets` are upper bounds with cumulated counts, ending at infinity. Within a bucket values are taken as
    evenly spread; beyond the last finite bound, that bound is the answer.
    """
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0
    for bound, count in buckets[:-1]:
        if count >= rank:
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def _samples(metrics: Iterable[Metric], ending: str, service: str | None) -> list[Sample]:
    return [
        sample
        for metric in metrics
        for sample in metric.samples
        if sample.name.endswith(ending) and service in (None, sample.labels["service"])
    ]
