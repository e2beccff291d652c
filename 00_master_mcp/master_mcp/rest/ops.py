"""`/`, `/health`, `/ready`, `/metrics`: for people, containers and Prometheus."""

from collections.abc import Callable, Mapping
from typing import Any

from fleetkit.metrics import Metrics
from master_mcp.rest.route import Access, Answer, Reply, Request, Route, Shape

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class About(Shape):
    """What this is and where to go on."""

    name: str
    description: str
    links: dict[str, str]


class Health(Shape):
    """`ok`, or `starting` while an embedded spoke is not listed yet."""

    status: str
    service: str


class Ready(Shape):
    """`ready`; `not_ready` with a reason for each service that does not answer; `draining` while the hub stops.

    `warnings` say what works, but not as its files say.
    """

    status: str
    problems: dict[str, str]
    warnings: dict[str, str] = {}


ABOUT = About(
    name="MCP Fleet",
    description="One endpoint for every tool: permissions, policy, limits and audit decide each call.",
    links={
        "mcp": "/mcp",
        "openapi": "/openapi.json",
        "docs": "/docs",
        "health": "/health",
        "ready": "/ready",
        "tools": "/mcp/tools",
        "execute": "/mcp/execute",
    },
)


class Ops:
    """The operational endpoints. `status` is the fleet's status as master.getServerInfo shows it."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        metrics: Metrics,
        draining: Callable[[], bool],
        *,
        metrics_open: bool,
    ) -> None:
        self._status = status
        self._draining = draining
        self._metrics = metrics
        self._metrics_open = metrics_open

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        free = Access.open
        figures = free if self._metrics_open else Access.manager
        starting, not_ready = {503: "An embedded spoke is not listed yet."}, {503: "A service does not answer."}
        return [
            Route("GET", "/", self._about, "Say what this is.", "about", About, access=free),
            Route("GET", "/health", self._health, "Is the hub up?", "about", Health, access=free, also=starting),
            Route(
                "GET", "/ready", self._ready, "Does every service answer?", "about", Ready, access=free, also=not_ready
            ),
            Route("GET", "/metrics", self._figures, "Show Prometheus figures.", "about", "text/plain", access=figures),
        ]

    async def _about(self, _request: Request) -> Answer:
        return ABOUT

    async def _health(self, _request: Request) -> Answer:
        """200 once every embedded spoke that runs is listed; says nothing that needs a key."""
        starting = [s["name"] for s in self._status()["services"] if s["embedded"] and s["health"] == "starting"]
        return Reply(Health(status="starting" if starting else "ok", service="master"), 503 if starting else 200)

    async def _ready(self, _request: Request) -> Answer:
        """200 when every service answers, otherwise 503 with the reasons."""
        fleet = self._status()
        problems = {s["name"]: s["reason"] or s["health"] for s in fleet["services"] if s["health"] != "healthy"}
        status = "draining" if self._draining() else "not_ready" if problems else "ready"
        found = Ready(status=status, problems=problems, warnings=fleet["warnings"])
        return Reply(found, 200 if status == "ready" else 503)

    async def _figures(self, _request: Request) -> Answer:
        return Reply(self._metrics.render(), kind=PROMETHEUS)
