"""Percentiles from histogram buckets."""

import math

import pytest

from fleetkit.metrics import Metrics
from master_mcp.rest.percentiles import calls, quantile, services

BUCKETS = [(0.1, 50), (0.2, 90), (0.5, 100), (math.inf, 100)]


@pytest.mark.parametrize(
    ("share", "value"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.9, 0.2), (0.95, 0.35), (1.0, 0.5)]
)
def test_within_a_bucket_values_are_evenly_spread(share: float, value: float):
    assert quantile(BUCKETS, share) == pytest.approx(value)


def test_beyond_the_last_bound_that_bound_is_the_answer():
    assert quantile([(0.1, 1), (0.5, 1), (math.inf, 10)], 0.99) == 0.5


def test_an_empty_bucket_in_between_is_passed_over():
    assert quantile([(0.1, 2), (0.2, 2), (0.4, 4), (math.inf, 4)], 0.75) == pytest.approx(0.3)


def test_figures_are_of_all_calls_or_of_one_service():
    metrics = Metrics()
    for seconds in (0.004, 0.004, 0.004, 0.2):
        metrics.observe("a", "a.x", "ok", seconds)
    metrics.observe("b", "b.x", "timed_out", 4.0)
    assert services(metrics) == ["a", "b"]
    assert (calls(metrics).total, calls(metrics).by_outcome) == (5, {"ok": 4, "timed_out": 1})
    of_a = calls(metrics, "a").duration_ms
    assert of_a is not None
    assert of_a.mean == pytest.approx(53.0)
    assert 2.5 < of_a.p50 <= 5
    assert 100 < of_a.p99 <= 250


def test_without_calls_there_are_no_times():
    assert calls(Metrics()).model_dump() == {"total": 0, "by_outcome": {}, "duration_ms": None}
