"""External servers as the proxy reaches them: what it says to a spoke, in whatever the server understands.

Nothing of the caller goes along: no key, no token, no name of its client, nothing that the hub signed.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import orjson
from mcp_types import CLIENT_INFO_META_KEY
from mcp_types.jsonrpc import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import LATEST_MODERN_VERSION

from fleetkit import correlation
from fleetkit.errors import OverBudget, Unavailable
from fleetkit.shapes import mapping
from master_mcp.external.conversations import HUB, INVALID_REQUEST, Conversations
from master_mcp.external.gate import Gate
from master_mcp.external.hygiene import foreign_meta
from master_mcp.external.session import Server, server_of
from master_mcp.proxy.answer import Message, read_message
from master_mcp.proxy.transport import OnEvent, Reply
from master_mcp.proxy.upstream import DEFAULT_META, HUB_INFO

if TYPE_CHECKING:
    from master_mcp.external.http import Endpoint

T = TypeVar("T")

_ID = 0
_STRANGE = (400, 404, 405, 406, 415, 422, 501)  # how older servers answer what they do not know


class ExternalTransport(Protocol):
    """A Transport (see proxy.transport) that can be swept, closed, and knows what the server says of itself."""

    @property
    def server(self) -> Server:
        """What the server said of itself last."""
        ...

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """See Transport."""
        ...

    async def alive(self) -> str:
        """See Transport."""
        ...

    def sweep(self) -> None:
        """End what is idle; called now and then."""
        ...

    async def close(self) -> None:
        """End every process and session."""
        ...


class SessionTransport:
    """A server that keeps sessions: a process, or HTTP up to 2025-11-25."""

    def __init__(self, name: str, conversations: Conversations, limit: int) -> None:
        self._name = name
        self.conversations = conversations
        self._limit = limit

    @property
    def server(self) -> Server:
        """See ExternalTransport."""
        return self.conversations.server

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """See Transport; the headers are the stateless protocol's and stay here."""

        async def on_notify(note: Message) -> None:
            await on_event(orjson.dumps(note))

        answer = orjson.dumps(await self.conversations.run(stripped(body), _caller(), on_notify))
        if len(answer) > self._limit:
            raise OverBudget(f"the answer of {self._name} is larger than {self._limit} bytes: ask for less")
        return Reply(200, answer)

    async def alive(self) -> str:
        """See Transport."""
        return await self.conversations.alive()

    def sweep(self) -> None:
        """See ExternalTransport."""
        self.conversations.sweep()

    async def close(self) -> None:
        """See ExternalTransport."""
        await self.conversations.close()


class HttpTransport:
    """A server behind a URL: asked which protocol it speaks, and again when that no longer holds."""

    def __init__(
        self,
        endpoint: "Endpoint",
        gate: Gate,
        sessions: SessionTransport,
        era: str,
        fill: Callable[[], Awaitable[None]],
    ) -> None:
        self._endpoint = endpoint
        self._gate = gate
        self._sessions = sessions
        self._era = era
        self._fill = fill
        self._modern: bool | None = None if era == "auto" else era == "modern"
        self._server = Server()

    @property
    def server(self) -> Server:
        """See ExternalTransport."""
        return self._server if self._modern else self._sessions.server

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """See Transport."""
        if not await self._is_modern():
            return await self._in_session(self._sessions.post(body, headers, on_event))
        message = stripped(body)
        if message["method"] == "tools/call":
            self._gate.check(str(mapping(message["params"]).get("name")))
        sent = {name: value for name, value in headers.items() if name.startswith("mcp-")}
        reply, _ = await self._endpoint.post(orjson.dumps(message), sent, on_event)
        if not self._speaks_otherwise(reply):
            return reply
        self._forget_era()  # it said so before it did anything: asking in its own way is no repetition
        return reply if await self._is_modern() else await self._sessions.post(body, headers, on_event)

    async def alive(self) -> str:
        """See Transport: empty for the stateless protocol, which tells changes on a subscription."""
        if not await self._is_modern():
            return await self._in_session(self._sessions.alive())
        if not await self._discover():
            self._forget_era()
        return ""

    def sweep(self) -> None:
        """See ExternalTransport."""
        self._sessions.sweep()

    async def close(self) -> None:
        """See ExternalTransport."""
        await self._sessions.close()

    async def _in_session(self, work: Awaitable[T]) -> T:
        """What a session gives; when it fails, the server may have become another."""
        try:
            return await work
        except Unavailable:
            self._forget_era()
            raise

    async def _is_modern(self) -> bool:
        await self._fill()
        if self._modern is None or (self._modern and self._server == Server()):
            self._modern = await self._discover() or self._era == "modern"
        return self._modern

    async def _discover(self) -> bool:
        """Whether the server speaks 2026-07-28; raises Unavailable when it does not answer at all."""
        finals: list[bytes] = []

        async def on_event(raw: bytes) -> None:
            finals.append(raw)

        body = {"jsonrpc": "2.0", "id": _ID, "method": "server/discover", "params": {"_meta": DEFAULT_META}}
        headers = {"mcp-protocol-version": LATEST_MODERN_VERSION, "mcp-method": "server/discover"}
        reply, _ = await self._endpoint.post(orjson.dumps(body), headers, on_event)
        if reply.status in _STRANGE:
            return False
        if reply.status >= 500:
            raise Unavailable(f"{self._endpoint.name} answers HTTP {reply.status}")
        raw = finals[-1] if finals else reply.body
        result = mapping(read_message(raw, self._endpoint.name).get("result") if raw else None)
        if LATEST_MODERN_VERSION not in result.get("supportedVersions", ()):
            return False
        self._server = server_of(result)
        return True

    def _speaks_otherwise(self, reply: Reply) -> bool:
        if reply.status not in _STRANGE:
            return False
        try:
            found = mapping(orjson.loads(reply.body or b"{}"))
        except orjson.JSONDecodeError:
            return True
        code = mapping(found.get("error")).get("code")
        return code in (None, UNSUPPORTED_PROTOCOL_VERSION, INVALID_REQUEST)

    def _forget_era(self) -> None:
        if self._era == "auto":
            self._modern = None


def stripped(body: bytes) -> Message:
    """A request of the proxy without what only the fleet's own spokes may see."""
    message: Message = orjson.loads(body)
    params = mapping(message.get("params"))
    meta: dict[str, Any] = {**foreign_meta(params.get("_meta")), CLIENT_INFO_META_KEY: HUB_INFO}
    return {**message, "params": {**params, "_meta": meta}}


def _caller() -> str:
    context = correlation.current()
    return context.caller.id if context is not None and context.caller is not None else HUB
