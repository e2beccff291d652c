"""The hub's own tools, called for whoever sent a request: the way of every call, the answer without its envelope."""

from collections.abc import Mapping
from typing import Any

from fleetkit.errors import FleetError
from master_mcp.proxy.call import Proxy, ToolCall
from master_mcp.rest.content import ToolFailed, content_of
from master_mcp.rest.route import Request

DOOR = "rest"


class HubTools:
    """Calls tools by their canonical ids."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def call(self, request: Request, tool: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """What the tool answered to the caller of `request`. Raises the FleetError that stopped or failed it."""
        params = {"name": tool, "arguments": dict(arguments or {})}
        call = ToolCall(tool, params, request.caller, DOOR, correlation_id=request.correlation_id)
        try:
            return content_of(await self._proxy.call(call))
        except ToolFailed as failed:
            raise FleetError(str(failed)) from failed
