"""MCP 2026-07-28: every POST is one self-contained request, no session."""

from collections.abc import Mapping
from typing import Any, cast

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
from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError, Invalid
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.catalog.news import LISTS, MAX_WATCHED, Listener, News
from master_mcp.mcp import rpc, streaming
from master_mcp.mcp.methods import CALL, CAPABILITIES, FORWARDED, Methods, Request, failed
from master_mcp.mcp.rpc import Message

LIST_TTL_MS = 5000


class ModernEra:
    """Serves requests of the stateless protocol."""

    def __init__(self, methods: Methods, news: News) -> None:
        self._methods = methods
        self._news = news

    async def post(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        """Answer one POST whose headers name this era."""
        if "id" not in message:
            await self._acknowledge(exchange)
            return
        rejected = _rejection(exchange, message)
        if rejected is not None:
            problem = rpc.error(message["id"], rejected.code, rejected.message, rejected.data)
            await exchange.json(ERROR_CODE_HTTP_STATUS.get(rejected.code, 400), problem)
        elif message["method"] in FORWARDED:
            await exchange.attached(self._forward(exchange, caller, message))
        elif message["method"] == "subscriptions/listen":
            await exchange.attached(self._listen(exchange, caller, message))
        else:
            await _finish(exchange, self._answer(caller, message))

    async def _acknowledge(self, exchange: Exchange) -> None:
        unserved = unsupported_protocol_version_rejection(exchange.headers.get("mcp-protocol-version", ""))
        if unserved is None:
            await exchange.json(202, None)
        else:
            await exchange.json(400, rpc.error(None, unserved.code, unserved.message, unserved.data))

    def _answer(self, caller: Caller, message: Message) -> Message:
        request_id, method = message["id"], message["method"]
        if method == "server/discover":
            return _complete(request_id, _DISCOVERED, ttl_ms=LIST_TTL_MS)
        try:
            listed = self._methods.listed(caller, method, mapping(message.get("params")))
        except Invalid as problem:
            return rpc.error(request_id, rpc.INVALID_PARAMS, problem.message)
        if listed is None:
            return rpc.error(request_id, rpc.METHOD_NOT_FOUND, f"method {method!r} is not served here")
        return _complete(request_id, listed, ttl_ms=LIST_TTL_MS)

    async def _forward(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        meta = mapping(mapping(message.get("params")).get("_meta"))
        traced = correlation.from_traceparent(str(meta.get("traceparent"))) or correlation.new_id()
        headers = {n: v for n, v in exchange.headers.items() if n.startswith("mcp-param-")}
        request = Request(message, caller, exchange.event, traced, headers, rpc.wants_fresh(exchange.headers))
        try:
            answer = rpc.stamped(await self._methods.forward(request), traced, modern=True)
        except FleetError as problem:
            answer = failed(request, problem, traced, rpc.INVALID_PARAMS)
            if request.method == CALL:
                answer = _complete(message["id"], answer["result"])
        await _finish(exchange, answer)

    async def _listen(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        wanted = mapping(mapping(message.get("params")).get("notifications"))
        listener = Listener([kind for kind in LISTS if wanted.get(f"{kind}ListChanged") is True])
        uris: object = wanted.get("resourceSubscriptions", [])
        if not isinstance(uris, list) or len(cast("list[object]", uris)) > MAX_WATCHED:
            text = f"resourceSubscriptions must be a list of at most {MAX_WATCHED} URIs"
            await _finish(exchange, rpc.error(message["id"], rpc.INVALID_PARAMS, text))
            return
        self._watch(caller, listener, cast("list[object]", uris))
        tag = {SUBSCRIPTION_ID_META_KEY: message["id"]}
        with self._news.listening(listener):
            await self._news.settled(listener)
            await exchange.event(_acknowledgement(listener, tag))
            await streaming.tell(exchange, listener, lambda news: _tagged(news, tag))

    def _watch(self, caller: Caller, listener: Listener, uris: list[object]) -> None:
        """Honour what this caller may hear of; what is left out it sees by the acknowledgement."""
        for uri in map(str, uris):
            try:
                self._news.watch(listener, uri, self._methods.reader.watchable(caller, uri))
            except FleetError:
                continue


_DISCOVERED: dict[str, Any] = {
    "supportedVersions": list(reversed(KNOWN_PROTOCOL_VERSIONS)),
    "capabilities": CAPABILITIES,
    "instructions": rpc.INSTRUCTIONS,
}


def _rejection(exchange: Exchange, message: Message) -> InboundLadderRejection | None:
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.raw_headers)
    doubled = find_duplicated_routing_header(pairs)
    if doubled is not None:
        return InboundLadderRejection(HEADER_MISMATCH, f"header {doubled} came more than once")
    verdict = classify_inbound_request(message, headers=exchange.headers)
    return verdict if isinstance(verdict, InboundLadderRejection) else None


async def _finish(exchange: Exchange, answer: Message) -> None:
    code = mapping(answer.get("error")).get("code")
    await exchange.finish(answer, ERROR_CODE_HTTP_STATUS.get(code, 200) if code else 200)


def _complete(request_id: object, content: Mapping[str, Any], ttl_ms: int | None = None) -> Message:
    meta = {**mapping(content.get("_meta")), SERVER_INFO_META_KEY: rpc.SERVER_INFO}
    cache: dict[str, Any] = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "private"}
    return rpc.result(request_id, {"resultType": "complete", **cache, **content, "_meta": meta})


def _acknowledgement(listener: Listener, tag: Mapping[str, Any]) -> Message:
    honoured: dict[str, Any] = {f"{kind}ListChanged": True for kind in LISTS if kind in listener.lists}
    if listener.watched:
        honoured["resourceSubscriptions"] = list(listener.watched)
    method = "notifications/subscriptions/acknowledged"
    return {"jsonrpc": "2.0", "method": method, "params": {"notifications": honoured, "_meta": tag}}


def _tagged(news: Message, tag: Mapping[str, Any]) -> Message:
    return {**news, "params": {**news["params"], "_meta": tag}}
