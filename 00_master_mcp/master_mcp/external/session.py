"""One conversation with an external server: the handshake, one request at a time, and what comes in between.

A session belongs to one caller's call at a time, so what the server says meanwhile can only be meant for that
call. What the hub asks for itself (lists, pings) goes beside it.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from fleetkit.errors import FleetError, Unavailable
from fleetkit.shapes import mapping
from master_mcp.external.hygiene import clean_text
from master_mcp.external.wire import Wire
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import DEFAULT_META, HUB_INFO, Notify

METHOD_NOT_FOUND = -32601
WAITING_NOTES = 1000  # notifications of one call that its caller has not taken yet; more are dropped
SETTLE_S = 5.0
_ANSWERABLE = ("elicitation/create", "sampling/createMessage")
_CONNECTION_META = (PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, LOG_LEVEL_META_KEY)


@dataclass(frozen=True)
class Server:
    """What a server says of itself."""

    name: str | None = None
    version: str | None = None
    instructions: str | None = None
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def said(self) -> dict[str, Any]:
        """The part that is pinned: a version grows with every update."""
        return {"name": self.name, "instructions": self.instructions}


def server_of(result: Mapping[str, Any]) -> Server:
    """The server behind an `initialize` or `server/discover` result."""
    info = mapping(result.get("serverInfo")) or mapping(mapping(result.get("_meta")).get(SERVER_INFO_META_KEY))
    texts = (info.get("name"), info.get("version"), result.get("instructions"))
    name, version, instructions = (None if text is None else str(text) for text in texts)
    return Server(name, version, instructions, mapping(result.get("capabilities")))


def tools_of(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The definitions on one page of `tools/list`; raises Unavailable when that is none."""
    listed = mapping(answer.get("result")).get("tools")
    if not isinstance(listed, list) or not all(isinstance(tool, dict) for tool in cast("list[object]", listed)):
        why = clean_text(str(mapping(answer.get("error")).get("message", "that is no list of tools")))
        raise Unavailable(f"{name} did not list its tools: {why[:200]}")
    return cast("list[Mapping[str, Any]]", listed)


@dataclass(eq=False)
class Call:
    """One request under way. `outcome()` is its answer, or a question of the server to be answered first."""

    session: "Session"
    id: int
    token: object
    can: Mapping[str, Any]
    level: object
    on_notify: Notify
    arrived: "asyncio.Queue[Message | FleetError]" = field(default_factory=lambda: asyncio.Queue())

    async def outcome(self) -> Message:
        """The final message, or a request of the server. Raises Unavailable when the session breaks."""
        while True:
            message = await self.arrived.get()
            if isinstance(message, FleetError):
                raise message
            if "method" in message and "id" not in message:
                await self.on_notify(self._restored(message))
            else:
                return message

    def _restored(self, message: Message) -> Message:
        """A progress notification under the token that the caller gave."""
        if message["method"] != "notifications/progress":
            return message
        return {**message, "params": {**mapping(message.get("params")), "progressToken": self.token}}


class Session:
    """A handshaken connection. `alive` turns False for good when it breaks."""

    def __init__(self, name: str, on_news: Callable[[], None], on_loss: Callable[[], None]) -> None:
        self.name = name
        self.server = Server()
        self.modern = False
        self._wire: Wire | None = None
        self._on_news = on_news
        self._on_loss = on_loss
        self._ids = itertools.count(1)
        self._waiting: dict[object, Call] = {}
        self._front: Call | None = None
        self._quiet = False

    @property
    def wire(self) -> Wire:
        """What carries it."""
        assert self._wire is not None
        return self._wire

    @property
    def alive(self) -> bool:
        """Whether it can carry another call."""
        return self._wire is not None and self._wire.open

    async def close(self) -> None:
        """End the connection, where there is one."""
        if self._wire is not None:
            await self._wire.close()

    def attach(self, wire: Wire) -> None:
        """Speak over this wire, which delivers to `deliver` and `fail`."""
        self._wire = wire

    async def ask(self, method: str, params: Mapping[str, Any]) -> Message:
        """The answer to a request of the hub's own, beside the call under way."""
        call = self._new_call({}, _ignore)
        try:
            await self._send(call, method, params)
            return await call.outcome()
        finally:
            self.done(call)

    async def begin(self, method: str, params: Mapping[str, Any], on_notify: Notify) -> Call:
        """Send a caller's request; `params["_meta"]` says what that caller can be asked and wants to hear."""
        call = self._front = self._new_call(mapping(params.get("_meta")), on_notify)
        await self._send(call, method, params)
        return call

    def _new_call(self, meta: Mapping[str, Any], on_notify: Notify) -> Call:
        level = meta.get(LOG_LEVEL_META_KEY)
        call = Call(self, next(self._ids), meta.get("progressToken"), _abilities(meta), level, on_notify)
        self._waiting[call.id] = call
        return call

    async def _send(self, call: Call, method: str, params: Mapping[str, Any]) -> None:
        sent = {key: value for key, value in params.items() if self.modern or key not in _STATELESS}
        meta = self._meta(mapping(params.get("_meta")), call)
        sent = {**sent, "_meta": meta} if meta else {key: value for key, value in sent.items() if key != "_meta"}
        await self.wire.send({"jsonrpc": "2.0", "id": call.id, "method": method, "params": sent})

    def _meta(self, meta: Mapping[str, Any], call: Call) -> dict[str, Any]:
        own = {key: value for key, value in meta.items() if key not in _CONNECTION_META}
        if call.token is not None:
            own["progressToken"] = call.id  # one that no earlier call of this session had
        if self.modern:
            own |= {**DEFAULT_META, CLIENT_CAPABILITIES_META_KEY: call.can}
            own |= {LOG_LEVEL_META_KEY: call.level} if call.level else {}
        return own

    async def answer(self, question: Message, answer: object) -> None:
        """Answer a request of the server."""
        await self.wire.send({"jsonrpc": "2.0", "id": question["id"], "result": answer})

    async def refuse(self, question: Message, why: str) -> None:
        """Tell the server that its request will not be answered."""
        problem = {"code": METHOD_NOT_FOUND, "message": why}
        await self.wire.send({"jsonrpc": "2.0", "id": question["id"], "error": problem})

    def done(self, call: Call) -> None:
        """The call has its answer: what still comes for it is dropped."""
        self._waiting.pop(call.id, None)
        if self._front is call:
            self._front = None

    async def give_up(self, call: Call) -> bool:
        """End a call that nobody waits for; True when the server is ready for another within 5 s."""
        self.done(call)
        self._quiet = True  # what it logs from now on may be about the call that was given up
        try:
            async with asyncio.timeout(SETTLE_S):
                self.wire.forget(call.id)
                params = {"requestId": call.id, "reason": "the caller gave up"}
                await self.wire.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
                await self.ask("server/discover" if self.modern else "ping", {})
        except (FleetError, TimeoutError):
            return False
        return True

    async def deliver(self, message: Message) -> None:
        """Take a message from the wire."""
        method = message.get("method")
        if method is None:
            call = self._waiting.get(message.get("id"))
            if call is not None:
                call.arrived.put_nowait(message)
        elif "id" in message:
            await self._asked(message)
        elif method == "notifications/tools/list_changed":
            self._on_news()
        elif self._front is not None and self._is_for(self._front, message):
            self._front.arrived.put_nowait(message)

    def fail(self, request_id: object, error: FleetError) -> None:
        """Hear from the wire that a request (None: everything under way) will have no answer."""
        for call in list(self._waiting.values()):
            if request_id in (None, call.id):
                call.arrived.put_nowait(error)
        if request_id is None:
            self._on_loss()

    async def handshake(self) -> None:
        """`initialize` as a client that can be asked. Raises Unavailable when the server will not have it."""
        params: dict[str, Any] = {
            "protocolVersion": LATEST_HANDSHAKE_VERSION,
            "capabilities": {"elicitation": {"form": {}, "url": {}}, "sampling": {}},
            "clientInfo": HUB_INFO,
        }
        answer = await self.ask("initialize", params)
        result = mapping(answer.get("result"))
        version = result.get("protocolVersion")
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            reason = mapping(answer.get("error")).get("message") or f"it speaks {version!r}"
            raise Unavailable(f"{self.name} cannot be spoken to: {clean_text(str(reason))[:200]}")
        self.server = server_of(result)
        self.wire.agreed(version)
        await self.wire.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        if mapping(self.server.capabilities.get("tools")).get("listChanged"):
            self.wire.hear()

    async def discover(self) -> bool:
        """Whether the server speaks 2026-07-28; it is then known and spoken to so."""
        self.modern = True
        answer = await self.ask("server/discover", {})
        result = mapping(answer.get("result"))
        self.modern = LATEST_MODERN_VERSION in result.get("supportedVersions", ())
        if self.modern:
            self.server = server_of(result)
        return self.modern

    async def list_tools(self) -> list[Mapping[str, Any]]:
        """Every tool definition of a server that has tools."""
        tools: list[Mapping[str, Any]] = []
        cursor: object = None
        if "tools" not in self.server.capabilities:
            return tools
        for _ in range(100):
            answer = await self.ask("tools/list", {"cursor": cursor} if cursor else {})
            page = mapping(answer.get("result"))
            tools += tools_of(answer, self.name)
            cursor = page.get("nextCursor")
            if not cursor:
                return tools
        raise Unavailable(f"{self.name} lists its tools without end")

    async def _asked(self, message: Message) -> None:
        method, call = str(message["method"]), self._front
        if method == "ping":
            await self.answer(message, {})
        elif method in _ANSWERABLE and call is not None and _ABILITY[method] in call.can:
            call.arrived.put_nowait(message)
        else:
            await self.refuse(message, f"nobody here can answer {method[:64]!r}")

    def _is_for(self, call: Call, message: Message) -> bool:
        """Whether a notification belongs to the call and its caller wants it."""
        params = mapping(message.get("params"))
        if call.arrived.qsize() > WAITING_NOTES:
            return False
        if message["method"] == "notifications/progress":
            return call.token is not None and params.get("progressToken") == call.id
        wanted = call.level in _LEVELS and params.get("level") in _LEVELS and not self._quiet
        loud = wanted and _LEVELS.index(str(params["level"])) >= _LEVELS.index(str(call.level))
        return message["method"] == "notifications/message" and loud


_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_STATELESS = ("inputResponses", "requestState")
_ABILITY = dict(zip(_ANSWERABLE, ("elicitation", "sampling"), strict=True))


def _abilities(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller's client can be asked."""
    can = mapping(meta.get(CLIENT_CAPABILITIES_META_KEY))
    return {name: can[name] for name in _ABILITY.values() if name in can}


async def _ignore(_message: Message) -> None:
    """Nobody wants to hear of it."""
