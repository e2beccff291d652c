"""What exists: services, their tools, and looking at them again."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ConfigDict

from fleetkit.errors import NotFound
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.rest.route import Access, Answer, Request, Route, Shape
from master_mcp.status import Fleet, Member

Visible = Callable[[Caller, Iterable[CatalogTool]], list[CatalogTool]]
_NAME = {"name": "A server's name (`linux_cli`) or namespace (`os.linux`)."}


class Server(Shape):
    """One service. `since` is in seconds since the epoch; `health` is starting, healthy or unavailable."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    namespace: str
    number: int
    embedded: bool
    url: str | None
    health: str
    reason: str
    since: float
    tools: int
    breaker: str


class Servers(Shape):
    """Every service of the fleet."""

    total: int
    servers: list[Server]


class Status(Shape):
    """The fleet: `status` is `ok` when every service answers, else `degraded`."""

    name: str
    version: str
    status: str
    started_at: float
    uptime_s: float
    tools: int
    services: list[Server]


class Tool(Shape):
    """One tool: canonical id, name on the MCP wire, its highest risk, and the JSON Schema of its parameters."""

    name: str
    wire_name: str
    server_name: str
    risk: str
    description: str
    input_schema: dict[str, Any]


class Tools(Shape):
    """The tools that this key may call. `local_tools` and `external_tools` are how many each side has."""

    total_tools: int
    local_tools: int
    external_tools: int
    all_tools: list[Tool]


class Plugin(Shape):
    """A service as something that can be plugged in. `status` is active, loading or error."""

    name: str
    namespace: str
    version: str
    kind: str
    status: str
    error: str | None
    capabilities: list[str]
    tool_count: int


class Plugins(Shape):
    """Everything that is plugged in."""

    total: int
    plugins: list[Plugin]


class Listing:
    """Lists from memory; a reload asks the service itself. `external` says which service is not of this fleet."""

    def __init__(self, fleet: Fleet, catalog: Catalog, external: Callable[[str], bool], visible: Visible) -> None:
        self._fleet = fleet
        self._catalog = catalog
        self._external = external
        self._visible = visible

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        manager = Access.manager
        return [
            Route("GET", "/mcp/status", self._status, "Show the fleet and its services.", "servers", Status),
            Route("GET", "/mcp/servers", self._servers, "List the services.", "servers", Servers),
            Route(
                "GET", "/mcp/servers/{name}/tools", self._tools_of, "List the tools of one service.", "servers", Tools,
                path_doc=_NAME,
            ),
            Route(
                "POST", "/mcp/servers/{name}/reload", self._reload, "Ask a service for its tools again.", "servers",
                Server, access=manager, path_doc=_NAME,
            ),
            Route("GET", "/mcp/tools", self._tools, "List the tools that this key may call.", "servers", Tools),
            Route("GET", "/plugins", self._plugins, "List what is plugged in.", "plugins", Plugins),
            Route(
                "POST", "/plugins/reload", self._reload_all, "Ask every service for its tools again.", "plugins",
                Plugins, access=manager,
            ),
        ]  # fmt: skip

    async def _status(self, _request: Request) -> Answer:
        found = self._fleet.status()
        services = [Server.model_validate(one) for one in found["services"]]
        return Status(
            name=found["name"],
            version=found["version"],
            status="ok" if all(one.health == "healthy" for one in services) else "degraded",
            started_at=found["started_at"],
            uptime_s=round(time.time() - found["started_at"], 3),
            tools=found["tools"],
            services=services,
        )

    async def _servers(self, _request: Request) -> Answer:
        servers = [self._server(member) for member in self._fleet.members.values()]
        return Servers(total=len(servers), servers=servers)

    async def _tools(self, request: Request) -> Answer:
        return self._listed(self._visible(request.caller, self._catalog.all()))

    async def _tools_of(self, request: Request) -> Answer:
        member = self._member(request.path["name"])
        return self._listed(self._visible(request.caller, self._catalog.of(member.name)))

    async def _reload(self, request: Request) -> Answer:
        member = self._member(request.path["name"])
        await _look_again(member)
        return self._server(member)

    async def _plugins(self, _request: Request) -> Answer:
        plugins = [self._plugin(member) for member in self._fleet.members.values()]
        return Plugins(total=len(plugins), plugins=plugins)

    async def _reload_all(self, request: Request) -> Answer:
        await asyncio.gather(*map(_look_again, self._fleet.members.values()))
        return await self._plugins(request)

    def _member(self, name: str) -> Member:
        member = self._fleet.find(name)
        if member is None:
            raise NotFound(f"no server {name!r}: the fleet has {', '.join(self._fleet.members)}")
        return member

    def _server(self, member: Member) -> Server:
        return Server.model_validate(self._fleet.service(member))

    def _listed(self, tools: list[CatalogTool]) -> Tools:
        external = sum(self._external(tool.service) for tool in tools)
        return Tools(
            total_tools=len(tools),
            local_tools=len(tools) - external,
            external_tools=external,
            all_tools=[_tool(tool) for tool in tools],
        )

    def _plugin(self, member: Member) -> Plugin:
        found = self._fleet.service(member)
        status = {"healthy": "active", "starting": "loading"}.get(found["health"], "error")
        return Plugin(
            name=member.name,
            namespace=member.namespace,
            version=self._fleet.version,
            kind="external" if self._external(member.name) else "spoke",
            status=status,
            error=found["reason"] or None,
            capabilities=[tool.id for tool in self._catalog.of(member.name)],
            tool_count=found["tools"],
        )


async def _look_again(member: Member) -> None:
    if member.watcher is not None:
        await member.watcher.reload()


def _tool(tool: CatalogTool) -> Tool:
    return Tool(
        name=tool.id,
        wire_name=tool.wire,
        server_name=tool.service,
        risk=tool.risk.value,
        description=str(tool.definition.get("description") or ""),
        input_schema=dict(tool.definition.get("inputSchema") or {}),
    )
