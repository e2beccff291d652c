"""The hub's own tools: what this fleet is, how its services are, which tools there are."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from fleetkit import Risk, Spoke
from fleetkit.errors import NotFound
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.resilience.breakers import Breakers
from master_mcp.resilience.tools import add_breaker_tools
from master_mcp.status import Fleet


class Service(BaseModel):
    """One service of the fleet; `since` is seconds since the epoch."""

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


class ServerInfo(BaseModel):
    """The hub and its services."""

    name: str
    version: str
    started_at: float
    tools: int
    services: list[Service]
    warnings: dict[str, str] = {}


class ToolLine(BaseModel):
    """One tool: canonical id, the name on the MCP wire, its service, its highest risk, what it does."""

    id: str
    wire_name: str
    service: str
    risk: str
    summary: str


def build(fleet: Fleet, catalog: Catalog, breakers: Breakers, visible: Callable[[CatalogTool], bool]) -> Spoke:
    """The spoke `master` over these rooms; `visible` says whether the caller of the call under way may call a tool."""
    spoke = Spoke("master", instructions="The hub itself.")
    add_breaker_tools(spoke, breakers)

    @spoke.tool(risk=Risk.read)
    async def get_server_info() -> ServerInfo:
        """The fleet's name, version, number of tools, and every service with its health."""
        return ServerInfo.model_validate(fleet.status())

    @spoke.tool(risk=Risk.read)
    async def list_services() -> list[Service]:
        """Every service with namespace, health, number of tools and breaker state."""
        return [Service.model_validate(fleet.service(member)) for member in fleet.members.values()]

    @spoke.tool(risk=Risk.read)
    async def get_service_health(service: str) -> Service:
        """The health of one service, and the reason when it is unavailable.

        Args:
            service: its name (`linux_cli`) or namespace (`os.linux`).
        """
        member = fleet.find(service)
        if member is None:
            raise NotFound(f"no service {service!r}: the fleet has {', '.join(fleet.members)}")
        return Service.model_validate(fleet.service(member))

    @spoke.tool(risk=Risk.read)
    async def list_tools(query: str = "", service: str = "") -> list[ToolLine]:
        """Tools of the fleet that you may call, with their risk, without their schemas.

        Args:
            query: only tools whose id or description holds every one of these words.
            service: only tools of this service.
        """
        words = query.lower().split()
        tools = filter(visible, catalog.all())
        lines = [_line(tool.id, tool.wire, tool.service, tool.risk, tool.definition) for tool in tools]
        return [
            line
            for line in lines
            if (not service or line.service == service)
            and all(word in f"{line.id} {line.summary}".lower() for word in words)
        ]

    @spoke.resource("status")
    async def status() -> ServerInfo:
        """Every service of the fleet: health, tools, breaker."""
        return ServerInfo.model_validate(fleet.status())

    # The decorator registers them; naming them here tells the type checker that they are used.
    _ = (get_server_info, list_services, get_service_health, list_tools, status)
    return spoke


def _line(tool_id: str, wire: str, service: str, risk: str, definition: Any) -> ToolLine:
    summary = str(definition.get("description") or "").strip().split("\n", 1)[0]
    return ToolLine(id=tool_id, wire_name=wire, service=service, risk=str(risk), summary=summary)
