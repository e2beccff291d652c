"""What the hub knows of its services, for people, tools and probes alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from master_mcp.catalog.tools import Catalog
from master_mcp.catalog.watcher import Health, Watcher
from master_mcp.proxy.upstream import Upstream


@dataclass
class Member:
    """One service of the fleet; a spoke that could not start has neither watcher nor upstream.

    `problem` is why it is not what it could be.
    """

    name: str
    namespace: str
    number: int
    embedded: bool
    url: str | None
    upstream: Upstream | None = None
    watcher: Watcher | None = None
    problem: str = ""


class Fleet:
    """The members and how they are."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._started = time.time()
        self.version = version("mcp-fleet")
        self.members: dict[str, Member] = {}
        self.warnings: dict[str, Callable[[], str]] = {}  # what works, but not as its files say

    def status(self) -> Mapping[str, Any]:
        """`{name, version, started_at, tools, services, warnings}`.

        Each service is as in `service()`; warnings are sentences by what they are about.
        """
        return {
            "name": "mcp-fleet",
            "version": self.version,
            "started_at": self._started,
            "tools": len(self._catalog.all()),
            "services": [self.service(member) for member in self.members.values()],
            "warnings": {name: sentence for name, said in self.warnings.items() if (sentence := said())},
        }

    def find(self, name: str) -> Member | None:
        """The member with this name (`linux_cli`) or namespace (`os.linux`)."""
        return next((one for one in self.members.values() if name in (one.name, one.namespace)), None)

    def service(self, member: Member) -> dict[str, Any]:
        """`{name, namespace, number, embedded, url, health, reason, since, tools, breaker}`."""
        health = member.watcher.health if member.watcher else Health("unavailable", member.problem)
        return {
            "name": member.name,
            "namespace": member.namespace,
            "number": member.number,
            "embedded": member.embedded,
            "url": member.url,
            "health": health.state,
            "reason": health.reason or member.problem,
            "since": health.since,
            "tools": len(self._catalog.of(member.name)),
            "breaker": member.upstream.breaker.state if member.upstream else "closed",
        }
