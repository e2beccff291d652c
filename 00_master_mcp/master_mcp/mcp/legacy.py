"""MCP up to 2025-11-25: sessions. The session id is a sealed token; calls go on as stateless ones.

A spoke that asks for input answers `input_required`; here that becomes a request on the client's open
stream, and its answer a second call.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, LOG_LEVEL_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from fleetkit import correlation
from fleetkit.asgi import KEEPALIVE_S, Exchange
from fleetkit.errors import FleetError, Refused, TimedOut
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.session import Sealer, Session
from master_mcp.mcp import rpc
from master_mcp.mcp.lists import STATUS_RESOURCE, Lists
from master_mcp.mcp.rpc import Message
from master_mcp.proxy.call import Proxy, ToolCall

SESSION_HEADER = "mcp-session-id"
MAX_ROUNDS = 16
ANSWER_WITHIN_S = 600.0
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


@dataclass
class _Live:
    """What is under way in one session, while it is; nothing of it must survive a restart."""

    calls: dict[object, asyncio.Task[Any]] = field(default_factory=dict[object, "asyncio.Task[Any]"])
    questions: dict[str, asyncio.Future[Message]] = field(default_factory=dict[str, "asyncio.Future[Message]"])
    log_level: str | None = None


class LegacyEra:
    """Serves clients that open a session."""

    def __init__(self, proxy: Proxy, lists: Lists, sealer: Sealer) -> None:
        self._proxy = proxy
        self._lists = lists
        self._sealer = sealer
        self._live: dict[str, _Live] = {}
        self._ended: dict[str, float] = {}
        self._ids = itertools.count(1)

    async def post(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        """Answer one POST: a request, a notification, or the client's answer to our question."""
        if message.get("method") == "initialize":
            await self._initialize(exchange, caller, message)
            return
        session = await self._session(exchange, caller)
        if session is None:
            return
        token = exchange.headers[SESSION_HEADER]
        if "method" not in message:
            self._take_answer(token, message)
            await exchange.json(202, None)
        elif "id" not in message:
            self._take_notification(token, message)
            await exchange.json(202, None)
        elif message["method"] == "tools/call":
            await exchange.attached(self._tracked_call(exchange, caller, session, token, message))
        else:
            await exchange.json(200, self._answer(caller, token, message))

    async def get(self, exchange: Exchange, caller: Caller) -> None:
        """The stream on which a session hears that the tools changed."""
        if "text/event-stream" not in exchange.headers.get("accept", ""):
            await exchange.json(406, rpc.error(None, rpc.INVALID_REQUEST, "a GET must accept text/event-stream"))
        elif await self._session(exchange, caller) is not None:
            await exchange.attached(self._stream_news(exchange))

    async def delete(self, exchange: Exchange, caller: Caller) -> None:
        """End a session: its calls are cancelled and its id is no longer accepted."""
        session = await self._session(exchange, caller)
        if session is None:
            return
        token = exchange.headers[SESSION_HEADER]
        now = time.time()
        self._ended = {t: expires for t, expires in self._ended.items() if expires > now} | {token: session.expires_at}
        live = self._live.pop(token, _Live())
        for task in live.calls.values():
            task.cancel()
        await exchange.json(200, None)

    async def _initialize(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        params = mapping(message.get("params"))
        asked = params.get("protocolVersion")
        version = asked if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION
        capabilities, client = mapping(params.get("capabilities")), mapping(params.get("clientInfo"))
        answerable = {name: capabilities[name] for name in _CAPABILITY.values() if name in capabilities}
        named = {name: str(client.get(name, ""))[:64] for name in ("name", "version")}
        token = self._sealer.seal(caller.id, str(version), answerable, named)
        content = {
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": True}, "resources": {}, "logging": {}},
            "serverInfo": rpc.SERVER_INFO,
            "instructions": rpc.INSTRUCTIONS,
        }
        await exchange.json(200, rpc.result(message.get("id"), content), {SESSION_HEADER: token})

    async def _session(self, exchange: Exchange, caller: Caller) -> Session | None:
        """The request's session; without a valid one the request is answered here and None returned."""
        token = exchange.headers.get(SESSION_HEADER)
        if token is None:
            await exchange.json(
                400, rpc.error(None, rpc.INVALID_REQUEST, "Mcp-Session-Id is missing: initialize first")
            )
            return None
        session = None if token in self._ended else self._sealer.open(token)
        if session is None or session.key_id != caller.id:
            await exchange.json(404, rpc.error(None, rpc.INVALID_REQUEST, "unknown session: initialize again"))
            return None
        asked = exchange.headers.get("mcp-protocol-version")
        if asked is not None and asked not in HANDSHAKE_PROTOCOL_VERSIONS:
            await exchange.json(400, rpc.error(None, rpc.INVALID_REQUEST, f"unsupported protocol version {asked}"))
            return None
        return session

    def _answer(self, caller: Caller, token: str, message: Message) -> Message:
        request_id, params = message["id"], mapping(message.get("params"))
        match message["method"]:
            case "ping":
                return rpc.result(request_id, {})
            case "tools/list":
                return rpc.result(request_id, self._lists.tools(caller))
            case "resources/list":
                return rpc.result(request_id, {"resources": [STATUS_RESOURCE]})
            case "resources/templates/list":
                return rpc.result(request_id, {"resourceTemplates": []})
            case "resources/read":
                found = self._lists.read_resource(str(params.get("uri")))
                if found is not None:
                    return rpc.result(request_id, found)
                return rpc.error(request_id, rpc.RESOURCE_NOT_FOUND, f"no resource {params.get('uri')}")
            case "logging/setLevel":
                return self._set_level(request_id, token, params.get("level"))
            case method:
                return rpc.error(request_id, rpc.METHOD_NOT_FOUND, f"method {method!r} is not served here")

    def _set_level(self, request_id: object, token: str, level: object) -> Message:
        if level not in LOG_LEVELS:
            return rpc.error(request_id, rpc.INVALID_PARAMS, f"level must be one of {', '.join(LOG_LEVELS)}")
        self._live.setdefault(token, _Live()).log_level = str(level)
        return rpc.result(request_id, {})

    async def _tracked_call(
        self, exchange: Exchange, caller: Caller, session: Session, token: str, message: Message
    ) -> None:
        """Run a call so that `notifications/cancelled` and DELETE can end it; a cancelled call has no answer."""
        live = self._live.setdefault(token, _Live())
        task = asyncio.create_task(self._call(exchange, caller, session, live, message))
        live.calls[message["id"]] = task
        try:
            await asyncio.wait([task])
            if task.cancelled():
                await exchange.open_stream()
                await exchange.close_stream()
            else:
                await exchange.finish(task.result())
        finally:
            task.cancel()
            live.calls.pop(message["id"], None)
            if not live.calls and live.log_level is None:
                self._live.pop(token, None)

    async def _call(
        self, exchange: Exchange, caller: Caller, session: Session, live: _Live, message: Message
    ) -> Message:
        correlation_id = correlation.new_id()
        params = {**mapping(message.get("params")), "_meta": _meta_for(session, live, message)}
        try:
            for _ in range(MAX_ROUNDS):
                call = ToolCall(
                    name=str(params.get("name")),
                    params=params,
                    caller=caller,
                    door="mcp",
                    request_id=message["id"],
                    correlation_id=correlation_id,
                    on_notify=exchange.event,
                    fresh=rpc.wants_fresh(exchange.headers),
                )
                answer = await self._proxy.call(call)
                content = mapping(answer.get("result"))
                if content.get("resultType") != "input_required":
                    return rpc.stamped(answer, correlation_id, modern=False)
                answers = await self._ask(exchange, session, live, mapping(content.get("inputRequests")))
                params = {**params, "inputResponses": answers, "requestState": content.get("requestState")}
                params = {name: value for name, value in params.items() if value is not None}
            raise Refused(f"{params.get('name')} asked for input {MAX_ROUNDS} times: given up")
        except FleetError as problem:
            return rpc.result(message["id"], rpc.failed_call(problem, correlation_id))

    async def _ask(
        self, exchange: Exchange, session: Session, live: _Live, requests: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Put a spoke's questions to the client on its open stream and wait for the answers."""
        waiting: dict[str, asyncio.Future[Message]] = {}
        try:
            for name, request in requests.items():
                _require_capability(session, str(request.get("method")))
                question_id = f"fleet-{next(self._ids)}"
                waiting[name] = live.questions[question_id] = asyncio.get_running_loop().create_future()
                await exchange.event({"jsonrpc": "2.0", "id": question_id, **_as_asked(request, question_id)})
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return {name: _answer_of(await future) for name, future in waiting.items()}
        except TimeoutError as error:
            raise TimedOut(f"nobody answered the question within {ANSWER_WITHIN_S:g} s: call again") from error
        finally:
            for question_id in [q for q, future in live.questions.items() if future in waiting.values()]:
                del live.questions[question_id]

    def _take_answer(self, token: str, message: Message) -> None:
        future = self._live.get(token, _Live()).questions.get(str(message.get("id")))
        if future is not None and not future.done():
            future.set_result(message)

    def _take_notification(self, token: str, message: Message) -> None:
        if message["method"] == "notifications/cancelled":
            request_id = mapping(message.get("params")).get("requestId")
            task = self._live.get(token, _Live()).calls.get(request_id)
            if task is not None:
                task.cancel()

    async def _stream_news(self, exchange: Exchange) -> None:
        await exchange.open_stream()
        with self._lists.news() as news:
            while True:
                try:
                    await asyncio.wait_for(news.wait(), KEEPALIVE_S)
                except TimeoutError:
                    await exchange.ping()
                    continue
                news.clear()
                await exchange.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


def _meta_for(session: Session, live: _Live, message: Message) -> dict[str, Any]:
    """The request's own `_meta` with what the stateless protocol wants to know of the client."""
    return {
        **mapping(mapping(message.get("params")).get("_meta")),
        CLIENT_CAPABILITIES_META_KEY: session.capabilities,
        CLIENT_INFO_META_KEY: session.client,
        LOG_LEVEL_META_KEY: live.log_level or "info",
    }


_CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def _require_capability(session: Session, method: str) -> None:
    if _CAPABILITY.get(method) not in session.capabilities:
        raise Refused(f"the tool needs an answer ({method}) that this client cannot give: use another client")


def _as_asked(request: Mapping[str, Any], question_id: str) -> dict[str, Any]:
    params = dict(mapping(request.get("params")))
    if params.get("mode") == "url":
        params.setdefault("elicitationId", question_id)  # required up to 2025-11-25, gone since
    return {"method": request.get("method"), "params": params}


def _answer_of(message: Message) -> Any:
    if "result" not in message:
        reason = mapping(message.get("error")).get("message", "no reason given")
        raise Refused(f"the client did not answer the tool's question: {reason}")
    return message["result"]
