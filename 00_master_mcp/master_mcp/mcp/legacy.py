"""MCP up to 2025-11-25 over Streamable HTTP: sessions, whose id is a sealed token, and the stream of their news."""

import asyncio
import time

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from fleetkit.asgi import Exchange
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.session import Sealer, Session
from master_mcp.mcp import rpc, streaming
from master_mcp.mcp.dialogue import Dialogue, Party, agreement, welcome
from master_mcp.mcp.live import Live, Sessions
from master_mcp.mcp.methods import FORWARDED
from master_mcp.mcp.rpc import Message

SESSION_HEADER = "mcp-session-id"


class LegacyEra:
    """Serves clients that open a session."""

    def __init__(self, dialogue: Dialogue, sessions: Sessions, sealer: Sealer) -> None:
        self._dialogue = dialogue
        self._sessions = sessions
        self._sealer = sealer
        self._ended: dict[str, float] = {}

    async def post(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        """Answer one POST: a request, a notification, or the client's answer to our question."""
        if message.get("method") == "initialize":
            await self._initialize(exchange, caller, message)
            return
        session = await self._session(exchange, caller)
        if session is None:
            return
        token = exchange.headers[SESSION_HEADER]
        if "method" not in message or "id" not in message:
            live = self._sessions.known(token)
            if live is not None:
                self._dialogue.take(live, message)
            await exchange.json(202, None)
            return
        party = Party(caller, session, self._sessions.of(token), exchange.event, rpc.wants_fresh(exchange.headers))
        if message["method"] in FORWARDED:
            await exchange.attached(self._tracked(exchange, party, token, message))
        else:
            await exchange.json(200, await self._dialogue.answer(party, message))
            self._sessions.rest(token)

    async def get(self, exchange: Exchange, caller: Caller) -> None:
        """The stream on which a session hears of changes."""
        if "text/event-stream" not in exchange.headers.get("accept", ""):
            await exchange.json(406, rpc.error(None, rpc.INVALID_REQUEST, "a GET must accept text/event-stream"))
        elif await self._session(exchange, caller) is not None:
            await exchange.attached(self._stream_news(exchange, exchange.headers[SESSION_HEADER]))

    async def delete(self, exchange: Exchange, caller: Caller) -> None:
        """End a session: its calls are cancelled and its id is no longer accepted."""
        session = await self._session(exchange, caller)
        if session is None:
            return
        token = exchange.headers[SESSION_HEADER]
        now = time.time()
        self._ended = {t: expires for t, expires in self._ended.items() if expires > now} | {token: session.expires_at}
        self._sessions.end(token)
        await exchange.json(200, None)

    async def _initialize(self, exchange: Exchange, caller: Caller, message: Message) -> None:
        version, capabilities, client = agreement(mapping(message.get("params")))
        token = self._sealer.seal(caller.id, version, capabilities, client)
        await exchange.json(200, rpc.result(message.get("id"), welcome(version)), {SESSION_HEADER: token})

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

    async def _tracked(self, exchange: Exchange, party: Party, token: str, message: Message) -> None:
        """Run a request so that `notifications/cancelled` and DELETE can end it; a cancelled one has no answer."""
        live = party.live
        task = asyncio.create_task(self._dialogue.answer(party, message))
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
            self._sessions.rest(token)

    async def _stream_news(self, exchange: Exchange, token: str) -> None:
        await exchange.open_stream()
        live: Live = self._sessions.of(token)
        live.streams += 1
        try:
            await streaming.tell(exchange, live.listener)
        finally:
            live.streams -= 1
            self._sessions.rest(token)
