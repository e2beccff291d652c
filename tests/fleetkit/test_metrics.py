"""Metrics: fixed names, and an error counted once as a call and once as an error."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleetkit.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_good_call_is_counted_and_timed_and_is_no_error():
    metrics = Metrics()
    metrics.observe("cmdb", "cmdb.getCi", "ok", 0.02)
    assert value(metrics, "mcp_requests_total", service="cmdb", tool="cmdb.getCi", outcome="ok") == 1
    assert value(metrics, "mcp_request_duration_seconds_sum", service="cmdb", tool="cmdb.getCi") == pytest.approx(0.02)
    assert value(metrics, "mcp_errors_total", service="cmdb", error_type="ok") is None


def test_a_failed_call_is_counted_under_its_error_code():
    metrics = Metrics()
    metrics.observe("cmdb", "cmdb.getCi", "not_found", 0.001)
    metrics.observe("cmdb", "cmdb.findPath", "not_found", 0.001)
    assert value(metrics, "mcp_requests_total", service="cmdb", tool="cmdb.getCi", outcome="not_found") == 1
    assert value(metrics, "mcp_errors_total", service="cmdb", error_type="not_found") == 2


def test_a_duration_falls_into_its_bucket_and_all_larger_ones():
    metrics = Metrics()
    metrics.observe("cmdb", "cmdb.getCi", "ok", 0.03)
    bucket = "mcp_request_duration_seconds_bucket"
    assert value(metrics, bucket, service="cmdb", tool="cmdb.getCi", le="0.025") == 0
    assert value(metrics, bucket, service="cmdb", tool="cmdb.getCi", le="0.05") == 1
    assert value(metrics, bucket, service="cmdb", tool="cmdb.getCi", le="60.0") == 1


def test_two_processes_in_one_test_do_not_share_figures():
    one, two = Metrics(), Metrics()
    one.observe("cmdb", "t", "ok", 0.1)
    assert value(two, "mcp_requests_total", service="cmdb", tool="t", outcome="ok") is None


def test_the_text_is_what_prometheus_reads():
    metrics = Metrics()
    metrics.health.labels("cmdb").set(1)
    families = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    assert {"mcp_requests", "mcp_request_duration_seconds", "mcp_service_health", "mcp_errors"} <= families
