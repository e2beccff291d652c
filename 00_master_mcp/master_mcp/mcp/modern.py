"""MCP 2026-07-28: every POST is one self-contained request, no session."""

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
)
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import SERVER_INFO_META_KEY
from mcp_types.jsonrpc import HEADER_MISMATCH
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

from fleetkit import correlation
from fleetkit.asgi import KEEPALIVE_S, Exchange
from fleetkit.errors import FleetError
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.mcp import rpc
from master_mcp.mcp.lists import STATUS_RESOURCE, Lists
from master_mcp.mcp.rpc import Message
from master_mcp.proxy.call import Proxy, ToolCall

LIST_TTL_MS = 5000


class ModernEra:
    """Serves requests of the stateless protocol."""

    def __init__(self, proxy: Proxy, lists: Lists) -> None:
        self._proxy = proxy
        self._lists = lists

    async def post(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        """Answer one POST whose headers name this era."""
        if "id" not in message:
            await self._acknowledge(exchange)
            return
        request_id = message["id"]
        rejected = _rejection(exchange, message)
        if rejected is not None:
            problem = rpc.error(request_id, rejected.code, rejected.message, rejected.data)
            await exchange.json(ERROR_CODE_HTTP_STATUS.get(rejected.code, 400), problem)
        elif message["method"] == "tools/call":
            await exchange.attached(self._call(exchange, caller, message))
        elif message["method"] == "subscriptions/listen":
            await exchange.attached(self._listen(exchange, message))
        else:
            answer = self._answer(caller, message["method"], mapping(message.get("params")), request_id)
            code = mapping(answer.get("error")).get("code")
            await exchange.json(ERROR_CODE_HTTP_STATUS.get(code, 200) if code else 200, answer)

    async def _acknowledge(self, exchange: Exchange) -> None:
        unserved = unsupported_protocol_version_rejection(exchange.headers.get("mcp-protocol-version", ""))
        if unserved is None:
            await exchange.json(202, None)
        else:
            await exchange.json(400, rpc.error(None, unserved.code, unserved.message, unserved.data))

    def _answer(self, caller: Caller, method: str, params: Mapping[str, Any], request_id: object) -> Message:
        match method:
            case "server/discover":
                return _complete(request_id, _DISCOVERED, ttl_ms=LIST_TTL_MS)
            case "tools/list":
                return _complete(request_id, self._lists.tools(caller), ttl_ms=LIST_TTL_MS)
            case "resources/list":
                return _complete(request_id, {"resources": [STATUS_RESOURCE]}, ttl_ms=LIST_TTL_MS)
            case "resources/templates/list":
                return _complete(request_id, {"resourceTemplates": []}, ttl_ms=LIST_TTL_MS)
            case "resources/read":
                uri = params.get("uri")
                found = self._lists.read_resource(str(uri))
                if found is None:
                    return rpc.error(request_id, rpc.INVALID_PARAMS, f"no resource {uri}", {"uri": uri})
                return _complete(request_id, found, ttl_ms=0)
            case _:
                return rpc.error(request_id, rpc.METHOD_NOT_FOUND, f"method {method!r} is not served here")

    async def _call(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        params = mapping(message.get("params"))
        traced = correlation.from_traceparent(str(mapping(params.get("_meta")).get("traceparent")))
        call = ToolCall(
            name=str(params.get("name")),
            params=params,
            caller=caller,
            door="mcp",
            request_id=message["id"],
            correlation_id=traced or correlation.new_id(),
            on_notify=exchange.event,
            param_headers={n: v for n, v in exchange.headers.items() if n.startswith("mcp-param-")},
            fresh=rpc.wants_fresh(exchange.headers),
        )
        try:
            answer = rpc.stamped(await self._proxy.call(call), call.correlation_id, modern=True)
        except FleetError as problem:
            answer = _complete(message["id"], rpc.failed_call(problem, call.correlation_id))
        code = mapping(answer.get("error")).get("code")
        await exchange.finish(answer, ERROR_CODE_HTTP_STATUS.get(code, 200) if code else 200)

    async def _listen(self, exchange: Exchange, message: Message) -> None:
        wanted = mapping(mapping(message.get("params")).get("notifications"))
        honoured = {"toolsListChanged": True} if wanted.get("toolsListChanged") else {}
        meta = {SUBSCRIPTION_ID_META_KEY: message["id"]}
        with self._lists.news() as news:
            acknowledged = {"notifications": honoured, "_meta": meta}
            await exchange.event(_notification("notifications/subscriptions/acknowledged", acknowledged))
            while True:
                try:
                    await asyncio.wait_for(news.wait(), KEEPALIVE_S)
                except TimeoutError:
                    await exchange.ping()
                    continue
                news.clear()
                if honoured:
                    await exchange.event(_notification("notifications/tools/list_changed", {"_meta": meta}))


_DISCOVERED: dict[str, Any] = {
    "supportedVersions": list(reversed(KNOWN_PROTOCOL_VERSIONS)),
    "capabilities": {"tools": {"listChanged": True}, "resources": {}},
    "instructions": rpc.INSTRUCTIONS,
}


def _rejection(exchange: Exchange, message: Message) -> InboundLadderRejection | None:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.raw_headers)
    doubled = find_duplicated_routing_header(pairs)
    if doubled is not None:
        return InboundLadderRejection(HEADER_MISMATCH, f"header {doubled} came more than once")
    verdict = classify_inbound_request(message, headers=exchange.headers)
    return verdict if isinstance(verdict, InboundLadderRejection) else None


def _complete(request_id: object, content: Mapping[str, Any], ttl_ms: int | None = None) -> Message:
    meta = {**mapping(content.get("_meta")), SERVER_INFO_META_KEY: rpc.SERVER_INFO}
    cache: dict[str, Any] = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "private"}
    return rpc.result(request_id, {"resultType": "complete", **cache, **content, "_meta": meta})


def _notification(method: str, params: Mapping[str, Any]) -> Message:
    return {"jsonrpc": "2.0", "method": method, "params": params}
