"""One spoke as the hub reaches it: how to speak 2026-07-28 to it, and its breaker."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from mcp.shared.inbound import (
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import LATEST_MODERN_VERSION

from fleetkit.errors import Unavailable
from fleetkit.log import get_logger
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping
from master_mcp.catalog.hearing import Heard
from master_mcp.catalog.news import LISTS
from master_mcp.proxy.answer import Message, check_final, read_message, whole_answer
from master_mcp.proxy.transport import Transport
from master_mcp.resilience.breaker import Breaker

log = get_logger()

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

    async def hear(self, uris: Collection[str], heard: Heard) -> None:
        """See Telling.hear; raises Unavailable when the spoke is down."""
        wanted: dict[str, Any] = {f"{kind}ListChanged": True for kind in LISTS}
        if uris:
            wanted["resourceSubscriptions"] = list(uris)

        async def on_notify(message: Message) -> None:
            heard(str(message["method"]), str(mapping(message.get("params")).get("uri", "")))

        await self.ask("subscriptions/listen", {"notifications": wanted}, on_notify=on_notify)

    async def discover(self) -> Mapping[str, Any]:
        """The capabilities of the spoke, none when it does not know the question.

        Raises Unavailable when it is down.
        """
        answer = await self.ask("server/discover", {})
        return mapping(mapping(answer.get("result")).get("capabilities"))

    async def list_tools(self) -> list[Mapping[str, Any]]:
        """Every tool definition that the protocol allows; raises Unavailable when the list is not one."""
        listed = await self.list_all("tools/list", "tools")
        return [tool for tool in listed if _has_sound_headers(tool, self.name)]

    async def list_all(self, method: str, listed: str) -> list[Mapping[str, Any]]:
        """Every entry of a list, page by page; raises Unavailable when it is not one or has no end."""
        found: list[Mapping[str, Any]] = []
        cursor: str | None = None
        seen: set[str | None] = set()
        while cursor not in seen and len(seen) < MAX_PAGES and len(found) <= MAX_LISTED:
            seen.add(cursor)
            message = await self.ask(method, {"cursor": cursor} if cursor else {})
            result = message.get("result")
            if not isinstance(result, dict):
                raise Unavailable(f"{self.name} did not list its {listed}: {message.get('error')}")
            page = cast("Mapping[str, Any]", result)
            found += [mapping(entry) for entry in cast("list[object]", page.get(listed) or [])]
            cursor = page.get("nextCursor")
            if not cursor:
                return found
        raise Unavailable(f"{self.name} lists its {listed} without end")


MAX_PAGES = 1000
MAX_LISTED = 50_000
DEFAULT_META: dict[str, Any] = {
    PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
    CLIENT_INFO_META_KEY: HUB_INFO,
    CLIENT_CAPABILITIES_META_KEY: {},
}


def running(upstreams: Mapping[str, Upstream], service: str) -> Upstream:
    """Where a service is reached; raises Unavailable when this hub does not run it."""
    upstream = upstreams.get(service)
    if upstream is None:
        raise Unavailable(f"{service} is not running here: see master.listServices")
    return upstream


def headers_for(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers that a tool's schema asks for."""
    return mcp_param_headers(x_mcp_header_map(schema), arguments)


def _has_sound_headers(tool: Mapping[str, Any], service: str) -> bool:
    """A tool that wants its arguments in headers that cannot be is not one that anybody may call."""
    problem = find_invalid_x_mcp_header(tool.get("inputSchema"))
    if problem is not None:
        log.warning("tool.refused", service=service, tool=tool.get("name"), reason=str(problem))
    return problem is None
