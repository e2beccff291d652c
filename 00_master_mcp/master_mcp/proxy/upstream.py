"""One spoke as the hub reaches it: how to speak 2026-07-28 to it, and its breaker."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_MODERN_VERSION

from fleetkit.errors import Unavailable
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping
from master_mcp.proxy.answer import Message, check_final, read_message, whole_answer
from master_mcp.proxy.transport import Transport
from master_mcp.resilience.breaker import Breaker

HUB_INFO = {"name": "mcp-fleet", "version": "0.1.0"}


Notify = Callable[[Message], Awaitable[None]]


async def ignore(_message: Message) -> None:
    """A Notify for callers that want none."""


@dataclass
class Upstream:
    """A spoke's row, transport and breaker."""

    name: str
    row: SpokeRow
    transport: Transport
    token: str
    breaker: Breaker

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        request_id: object = 0,
        name: str | None = None,
        param_headers: Mapping[str, str] | None = None,
        on_notify: Notify = ignore,
    ) -> Message:
        """The spoke's checked JSON-RPC answer. `params["_meta"]` gains the protocol's required keys.

        Raises Unavailable when the spoke is down or lies.
        """
        sent = {**params, "_meta": {**DEFAULT_META, **mapping(params.get("_meta"))}}
        body = orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": sent})
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.token}",
            "mcp-protocol-version": LATEST_MODERN_VERSION,
            "mcp-method": method,
        }
        if name is not None:
            headers["mcp-name"] = encode_header_value(name)
        if param_headers:
            headers.update(param_headers)
        finals: list[Message] = []

        async def on_event(raw: bytes) -> None:
            message = read_message(raw, self.name)
            if "method" in message:
                await on_notify(message)
            else:
                finals.append(message)

        reply = await self.transport.post(body, headers, on_event)
        return check_final(finals[-1] if finals else whole_answer(reply, self.name), request_id, self.name)

    def lost(self, reason: str) -> None:
        """The watcher found the spoke down: calls are answered at once until it is back."""
        self.breaker.trip(reason)

    def found(self) -> None:
        """The watcher got an answer."""
        self.breaker.succeeded()

    async def alive(self) -> str:
        """See Transport.alive; a probe of the breaker."""
        self.breaker.probed()
        return await self.transport.alive()

    async def hear(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the subscription stands and at every change of the tools, until the spoke ends it.

        Raises Unavailable when the spoke is down.
        """

        async def on_notify(message: Message) -> None:
            if message["method"] in _NEWS:
                changed()

        await self.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, on_notify=on_notify)

    async def list_tools(self) -> list[Mapping[str, Any]]:
        """Every tool definition, page by page; raises Unavailable when the list is not one."""
        tools: list[Mapping[str, Any]] = []
        cursor: str | None = None
        for _ in range(100):
            message = await self.ask("tools/list", {"cursor": cursor} if cursor else {})
            result = message.get("result")
            if not isinstance(result, dict):
                raise Unavailable(f"{self.name} did not list its tools: {message.get('error')}")
            page = cast("Mapping[str, Any]", result)
            tools += page.get("tools", [])
            cursor = page.get("nextCursor")
            if not cursor:
                return tools
        raise Unavailable(f"{self.name} lists its tools without end")


# The acknowledgement counts: what changed before it was not told.
_NEWS = ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed")
DEFAULT_META: dict[str, Any] = {
    PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
    CLIENT_INFO_META_KEY: HUB_INFO,
    CLIENT_CAPABILITIES_META_KEY: {},
}


def headers_for(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers that a tool's schema asks for."""
    return mcp_param_headers(x_mcp_header_map(schema), arguments)
