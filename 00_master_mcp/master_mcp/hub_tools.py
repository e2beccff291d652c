"""The hub's own tools: what this fleet is, how its services are, which tools there are."""

from typing import Any

from pydantic import BaseModel

from fleetkit import Risk, Spoke, correlation
from fleetkit.errors import NotFound, Refused
from master_mcp.catalog.tools import Catalog
from master_mcp.resilience.breaker import Breaker
from master_mcp.resilience.breakers import Breakers
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


class BreakerLine(BaseModel):
    """One breaker; `tool` is empty for a service's own, `since` is seconds since the epoch."""

    service: str
    tool: str
    state: str
    failures: int
    since: float
    reason: str


class ServerInfo(BaseModel):
    """The hub and its services."""

    name: str
    version: str
    started_at: float
    tools: int
    services: list[Service]


class ToolLine(BaseModel):
    """One tool: canonical id, the name on the MCP wire, its service, its highest risk, what it does."""

    id: str
    wire_name: str
    service: str
    risk: str
    summary: str


def build(fleet: Fleet, catalog: Catalog, breakers: Breakers) -> Spoke:
    """The spoke `master` over these rooms."""
    spoke = Spoke("master", instructions="The hub itself.")

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
        for member in fleet.members.values():
            if service in (member.name, member.namespace):
                return Service.model_validate(fleet.service(member))
        raise NotFound(f"no service {service!r}: the fleet has {', '.join(fleet.members)}")

    @spoke.tool(risk=Risk.read)
    async def list_tools(query: str = "", service: str = "") -> list[ToolLine]:
        """Tools of the fleet with their risk, without their schemas.

        Args:
            query: only tools whose id or description holds every one of these words.
            service: only tools of this service.
        """
        words = query.lower().split()
        lines = [_line(tool.id, tool.wire, tool.service, tool.risk, tool.definition) for tool in catalog.all()]
        return [
            line
            for line in lines
            if (not service or line.service == service)
            and all(word in f"{line.id} {line.summary}".lower() for word in words)
        ]

    @spoke.tool(risk=Risk.read)
    async def list_breakers() -> list[BreakerLine]:
        """Every circuit breaker: one per service, and one per tool that has failed lately."""
        return [_breaker_line(breaker) for breaker in breakers.listed()]

    @spoke.tool(risk=Risk.change, idempotent=True)
    async def reset_breaker(name: str) -> list[str]:
        """Close a circuit breaker by hand, for operators; returns what was not closed.

        Args:
            name: a service (its tools' breakers close with it), a tool's id, or `all`.
        """
        _only_operators()
        return breakers.reset(name)

    # The decorator registers them; naming them here tells the type checker that they are used.
    _ = (get_server_info, list_services, get_service_health, list_tools, list_breakers, reset_breaker)
    return spoke


def _only_operators() -> None:
    context = correlation.current()
    if context is None or context.caller is None or context.caller.role != "operator":
        raise Refused("only an operator key may do this: ask an operator")


def _breaker_line(breaker: Breaker) -> BreakerLine:
    return BreakerLine(
        service=breaker.service,
        tool=breaker.tool,
        state=breaker.state,
        failures=breaker.failures,
        since=breaker.since,
        reason=breaker.reason,
    )


def _line(tool_id: str, wire: str, service: str, risk: str, definition: Any) -> ToolLine:
    summary = str(definition.get("description") or "").strip().split("\n", 1)[0]
    return ToolLine(id=tool_id, wire_name=wire, service=service, risk=str(risk), summary=summary)
