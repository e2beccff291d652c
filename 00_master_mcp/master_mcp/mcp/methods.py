"""What both eras answer alike: the lists from memory, and everything that goes on to a spoke."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetkit import correlation
from fleetkit.errors import FleetError
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.mcp import rpc
from master_mcp.mcp.lists import Lists
from master_mcp.mcp.rpc import Message
from master_mcp.proxy.call import Proxy, ToolCall
from master_mcp.proxy.reading import ASKED, READ, Ask, Reader
from master_mcp.proxy.upstream import Notify, ignore

CALL = "tools/call"
FORWARDED = (CALL, *ASKED)

CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
}


@dataclass(frozen=True)
class Request:
    """One request of a client that goes on to a spoke."""

    message: Message
    caller: Caller
    on_notify: Notify = ignore
    correlation_id: str = ""
    param_headers: Mapping[str, str] | None = None
    fresh: bool = False

    @property
    def method(self) -> str:
        """What is asked for, one of FORWARDED."""
        return str(self.message["method"])

    @property
    def params(self) -> Mapping[str, Any]:
        """The caller's own params object."""
        return mapping(self.message.get("params"))


class Methods:
    """The methods of MCP as the hub has them, whatever the era of the client."""

    def __init__(self, proxy: Proxy, reader: Reader, lists: Lists) -> None:
        self.lists = lists
        self.reader = reader
        self._proxy = proxy

    def listed(self, caller: Caller, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of a list method, None for any other; raises Invalid for a cursor that is none of the hub's."""
        return self.lists.answer(caller, method, params.get("cursor"))

    async def forward(self, request: Request) -> Message:
        """What the spoke says; an error of the fleet is raised as it is."""
        correlation_id = request.correlation_id or correlation.new_id()
        request_id = request.message["id"]
        if request.method == CALL:
            call = ToolCall(
                name=str(request.params.get("name")),
                params=request.params,
                caller=request.caller,
                door="mcp",
                request_id=request_id,
                correlation_id=correlation_id,
                on_notify=request.on_notify,
                param_headers=request.param_headers,
                fresh=request.fresh,
            )
            return await self._proxy.call(call)
        ask = Ask(request.method, request.params, request.caller, "mcp", request_id, correlation_id, request.on_notify)
        return await self._reader_answer(ask)

    async def _reader_answer(self, ask: Ask) -> Message:
        """A read answers for one caller only, whatever its spoke says of caching it."""
        answer = await self.reader.ask(ask)
        result = mapping(answer.get("result"))
        if ask.method != READ or result.get("resultType", "complete") != "complete" or not result:
            return answer
        return {**answer, "result": {"ttlMs": 0, **result, "cacheScope": "private"}}


def failed(request: Request, problem: FleetError, correlation_id: str, not_found: int) -> Message:
    """A FleetError as MCP writes it: the result of a tool, for anything else a protocol error."""
    request_id = request.message["id"]
    if request.method == CALL:
        return rpc.result(request_id, rpc.failed_call(problem, correlation_id))
    return rpc.failed_ask(request_id, problem, correlation_id, not_found, request.params.get("uri"))
