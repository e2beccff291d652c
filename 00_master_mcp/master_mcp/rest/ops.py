"""`/health`, `/ready`, `/metrics`: for people, containers and Prometheus."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError, body
from fleetkit.metrics import Metrics


class Ops:
    """The operational endpoints. `status` is the fleet's status as master.getServerInfo shows it."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._status = status
        self._metrics = metrics
        self._draining = draining

    async def health(self, exchange: Exchange) -> None:
        """200 once every embedded spoke that runs is listed; says nothing that needs a key."""
        starting = [s["name"] for s in self._status()["services"] if s["embedded"] and s["health"] == "starting"]
        content = {"status": "starting" if starting else "ok", "service": "master"}
        await exchange.json(503 if starting else 200, content)

    async def ready(self, exchange: Exchange) -> None:
        """200 when every service answers, otherwise 503 with the reasons; `draining` once the hub is stopping."""
        problems = {
            s["name"]: s["reason"] or s["health"] for s in self._status()["services"] if s["health"] != "healthy"
        }
        status = "draining" if self._draining() else "not_ready" if problems else "ready"
        content = {"status": status, "problems": problems}
        warnings = self._status()["warnings"]
        if warnings:
            content["warnings"] = warnings
        await exchange.json(200 if status == "ready" else 503, content)

    async def metrics(self, exchange: Exchange) -> None:
        """Prometheus text."""
        await exchange.raw(200, self._metrics.render(), "text/plain; version=0.0.4; charset=utf-8")


async def problem(
    exchange: Exchange, error: FleetError, status: int | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Answer with problem+json (RFC 9457): the fleet's error keys beside the standard ones."""
    status = status or error.http
    content = {"type": "about:blank", "title": error.code, "status": status, "detail": error.message}
    if error.retry_after is not None:  # HTTP counts in whole seconds
        headers = {**(headers or {}), "retry-after": str(math.ceil(error.retry_after))}
    await exchange.raw(status, orjson.dumps(content | body(error, None)), "application/problem+json", headers)
