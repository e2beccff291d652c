"""`POST /mcp/execute` and `POST /mcp/tools/execute`: one tool call over plain HTTP, by the path of every call."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, RootModel, Tag

from fleetkit import names
from fleetkit.errors import NotFound
from fleetkit.shapes import mapping
from master_mcp.catalog.tools import Catalog
from master_mcp.proxy.call import Proxy, ToolCall
from master_mcp.rest.content import ToolFailed, content_of
from master_mcp.rest.route import Answer, Request, Route, Shape

LOCAL_ACTIONS = {
    "execute_command": "os.linux.runCommand",
    "read_file": "os.linux.readFile",
    "write_file": "os.linux.writeFile",
    "list_directory": "os.linux.listDirectory",
    "search_files": "os.linux.searchFiles",
}
LONGEST_S = 24 * 3600.0

Services = Callable[[], Iterable[tuple[str, str]]]  # name and namespace of every service


class _Common(Shape):
    context: dict[str, Any] | None = Field(
        default=None, description="Taken and not used; to continue a trace, send a `traceparent` header."
    )
    timeout: float = Field(default=30.0, ge=1, le=LONGEST_S, description="Seconds after which the call is given up.")


class ActionCall(_Common):
    """A tool by its action: a canonical id, a name on the MCP wire, or one of the short local names."""

    action: str = Field(min_length=1, max_length=200, examples=["master.listServices", "read_file"])
    params: dict[str, Any] = {}


class ServerCall(_Common):
    """A tool by its server (`linux_cli`, or its namespace `os.linux`) and its name there."""

    server_name: str = Field(min_length=1, max_length=200, examples=["master"])
    tool_name: str = Field(min_length=1, max_length=200, examples=["list_services"])
    parameters: dict[str, Any] = {}


def _which(body: object) -> str:
    return "server" if "server_name" in mapping(body) or "tool_name" in mapping(body) else "action"


_Either = Annotated[Annotated[ActionCall, Tag("action")] | Annotated[ServerCall, Tag("server")], Discriminator(_which)]


class AnyCall(RootModel[_Either]):
    """One of the two shapes of a call."""


class Executed(Shape):
    """What became of a call. `failed`: the tool ran and failed in its own words, which are in `error`.

    `command_id` is the call's correlation id: the same in audit, log and trace. `timestamp` is when it ended.
    """

    status: Literal["success", "failed"]
    result: Any = None
    error: str | None = None
    duration_ms: float
    command_id: str
    timestamp: str


class Execution:
    """Runs calls."""

    def __init__(self, proxy: Proxy, catalog: Catalog, services: Services) -> None:
        self._proxy = proxy
        self._catalog = catalog
        self._services = services

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        return [
            Route(
                "POST", "/mcp/execute", self._execute, "Call a tool by its action.", "calls", Executed, AnyCall,
                calls=True,
            ),
            Route(
                "POST", "/mcp/tools/execute", self._execute, "Call a tool of a named server.", "calls", Executed,
                AnyCall, calls=True,
            ),
        ]  # fmt: skip

    async def _execute(self, request: Request) -> Answer:
        asked = request.read_body(AnyCall).root
        started = time.perf_counter()
        name, arguments = self._target(asked)
        call = ToolCall(
            name,
            {"name": name, "arguments": arguments},
            request.caller,
            "rest",
            correlation_id=request.correlation_id,
            within_s=asked.timeout,
        )
        answer = await self._proxy.call(call)
        result, error = None, None
        try:
            result = content_of(answer)
        except ToolFailed as problem:
            error = str(problem)
        return Executed(
            status="success" if error is None else "failed",
            result=result,
            error=error,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
            command_id=call.correlation_id,
            timestamp=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def _target(self, asked: ActionCall | ServerCall) -> tuple[str, Mapping[str, Any]]:
        if isinstance(asked, ActionCall):
            return LOCAL_ACTIONS.get(asked.action, asked.action), asked.params
        return self._tool_of(asked.server_name, asked.tool_name), asked.parameters

    def _tool_of(self, server: str, tool: str) -> str:
        spelled = server.replace("_", ".")
        name = next((name for name, space in self._services() if server in (name, space) or spelled == space), None)
        if name is None:
            raise NotFound(f"no server {server!r}: GET /mcp/servers names them all")
        for one in self._catalog.of(name):
            if tool in (one.id, one.wire, one.upstream) or names.camel(tool) == one.id.rpartition(".")[2]:
                return one.id
        raise NotFound(f"server {server!r} has no tool {tool!r}: GET /mcp/servers/{name}/tools names them all")
