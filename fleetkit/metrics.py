"""Prometheus metrics under the fleet's fixed names. A label is a word from the catalog, never an id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One process's figures, in a registry of its own so that several can live in one test."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mcp_requests", "Calls by outcome", ["service", "tool", "outcome"], registry=self.registry
        )
        self.duration = Histogram(
            "mcp_request_duration_seconds",
            "Time from accepting a call to its answer",
            ["service", "tool"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.health = Gauge("mcp_service_health", "1 when a service answers", ["service"], registry=self.registry)
        self.errors = Counter(
            "mcp_errors", "Failed calls by error code", ["service", "error_type"], registry=self.registry
        )
        self.audit_rows = Counter("mcp_audit_rows", "Audit rows written", registry=self.registry)
        self.audit_failures = Counter("mcp_audit_failures", "Audit writes that failed", registry=self.registry)
        self.approvals = Counter(
            "mcp_approvals", "Held calls by what happened to them", ["event"], registry=self.registry
        )
        self.approvals_pending = Gauge(
            "mcp_approvals_pending", "Held calls that wait for a decision", registry=self.registry
        )
        self.breaker = Gauge(
            "mcp_breaker_state",
            "0 closed, 1 half open, 2 open; without a tool it is the spoke's",
            ["service", "tool"],
            registry=self.registry,
        )
        self.retries = Counter("mcp_retries", "Calls sent again", ["service", "tool"], registry=self.registry)
        self.limited = Counter("mcp_limited", "Calls that a limit refused", ["limit"], registry=self.registry)
        self.cache = Counter(
            "mcp_cache", "Answers of tools that may be cached: hit, miss, bypass", ["tool", "state"],
            registry=self.registry,
        )  # fmt: skip
        self.workflow_runs = Counter("mcp_workflow_runs", "Runs by how they ended", ["status"], registry=self.registry)
        self.workflow_live = Gauge(
            "mcp_workflow_runs_live", "Runs that have not ended, by how they stand", ["status"], registry=self.registry
        )
        self.inflight = Gauge("mcp_inflight", "Calls under way at a service", ["service"], registry=self.registry)

    def observe(self, service: str, tool: str, outcome: str, seconds: float) -> None:
        """Count one finished call; `outcome` is `ok` or an error code."""
        self.requests.labels(service, tool, outcome).inc()
        self.duration.labels(service, tool).observe(seconds)
        if outcome != "ok":
            self.errors.labels(service, outcome).inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
