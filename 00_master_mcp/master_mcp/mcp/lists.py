"""What the hub answers from memory: tools, its own resource, and the news that the tools changed."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy

STATUS_URI = "master://status"
STATUS_RESOURCE = {
    "uri": STATUS_URI,
    "name": "status",
    "title": "Fleet status",
    "description": "Every service of the fleet: health, tools, breaker.",
    "mimeType": "application/json",
}


class Lists:
    """Tool lists per caller, made once per change of the catalog."""

    def __init__(self, catalog: Catalog, status: Callable[[], Mapping[str, Any]], policy: Policy) -> None:
        self._catalog = catalog
        self._policy = policy
        self._status = status
        self._made: dict[Caller, list[Mapping[str, Any]]] = {}
        self._version = (-1, -1)
        self._changed: set[asyncio.Event] = set()
        catalog.on_change(self._tell)
        policy.on_change(self._tell)

    def tools(self, caller: Caller) -> dict[str, Any]:
        """`tools/list` as this caller may see it, and which services are missing from it."""
        version = (self._catalog.version, self._policy.version)
        if self._version != version:
            self._made, self._version = {}, version
        if caller not in self._made or caller.claims:  # equal callers may differ in what a token claims
            visible = (tool for tool in self._catalog.all() if self._policy.visible(caller, tool))
            self._made[caller] = [tool.definition for tool in visible]
        listed: dict[str, Any] = {"tools": self._made[caller]}
        missing = {
            service["name"]: service["reason"]
            for service in self._status()["services"]
            if service["health"] == "unavailable"
        }
        if missing:
            listed["_meta"] = {"fleet/unavailable": missing}
        return listed

    def read_resource(self, uri: str) -> dict[str, Any] | None:
        """The contents of one of the hub's own resources, None when it is not one."""
        if uri != STATUS_URI:
            return None
        text = orjson.dumps(self._status(), option=orjson.OPT_INDENT_2).decode()
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": text}]}

    @contextmanager
    def news(self) -> Generator[asyncio.Event]:
        """An event that is set whenever the tools have changed, for the length of a block."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            yield event
        finally:
            self._changed.discard(event)

    def _tell(self) -> None:
        for event in self._changed:
            event.set()
