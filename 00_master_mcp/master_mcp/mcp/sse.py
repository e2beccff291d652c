"""The transport of 2024-11-05, deprecated: `GET /sse` is the stream, requests are POSTed to `/messages/`.

A session is its stream: bound to the key that opened it, gone with the connection.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from fleetkit.asgi import KEEPALIVE_S, Exchange
from fleetkit.errors import NotFound, OverBudget
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.session import Session
from master_mcp.catalog.news import News
from master_mcp.mcp import body, rpc
from master_mcp.mcp.dialogue import Dialogue, Party, agreement, welcome
from master_mcp.mcp.live import Live
from master_mcp.mcp.rpc import Message

SSE_PATH, MESSAGES_PATH = "/sse", "/messages/"
MAX_SESSIONS = 256
MAX_UNREAD = 1000  # messages that a client may leave unread before its stream ends
MAX_CALLS = 64  # requests under way in one session
CLOSES_WITHIN_S = 1.0


@dataclass(eq=False)
class _Stream:
    """One open stream and the session on it; `facts` is None until `initialize`."""

    caller: Caller
    facts: Session | None = None
    live: Live = field(default_factory=Live)
    unread: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue[Message](MAX_UNREAD))
    overrun: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, message: Message) -> None:
        """Put a message on the stream; a client that reads too slowly loses it, and with it the session."""
        try:
            self.unread.put_nowait(message)
        except asyncio.QueueFull:
            self.overrun.set()


class SseDoor:
    """Serves clients that know only HTTP+SSE."""

    def __init__(self, dialogue: Dialogue, news: News, max_request_bytes: int) -> None:
        self._dialogue = dialogue
        self._news = news
        self._max_request_bytes = max_request_bytes
        self._streams: dict[str, _Stream] = {}

    async def open(self, exchange: Exchange, caller: Caller) -> None:
        """`GET /sse`: name the endpoint, then carry every message to the client until it leaves."""
        if exchange.method != "GET":
            await exchange.json(405, None, {"allow": "GET"})
            return
        if len(self._streams) >= MAX_SESSIONS:
            raise OverBudget(f"the hub has its {MAX_SESSIONS} SSE sessions: use /mcp, or try again later")
        await exchange.attached(self._carry(exchange, caller))

    async def post(self, exchange: Exchange, caller: Caller) -> None:
        """`POST /messages/?session_id=`: accept one message; its answer comes on the stream."""
        if exchange.method != "POST":
            await exchange.json(405, None, {"allow": "POST"})
            return
        named = parse_qs(exchange.query).get("session_id", [""])[0]
        stream = self._streams.get(named)
        if stream is None or stream.caller.id != caller.id:
            raise NotFound("unknown session: open /sse first, with the same key")
        message = await body.read(exchange, self._max_request_bytes)
        if message is not None:
            self._accept(stream, message, caller)
            await exchange.json(202, None)

    async def _carry(self, exchange: Exchange, caller: Caller) -> None:
        stream, session_id = _Stream(caller), secrets.token_urlsafe(24)
        self._streams[session_id] = stream
        try:
            with self._news.listening(stream.live.listener):
                await exchange.named_event("endpoint", f"{MESSAGES_PATH}?session_id={session_id}".encode())
                await _until_one_ends(_write(exchange, stream), _pass_on_news(stream), stream.overrun.wait())
            with contextlib.suppress(TimeoutError):  # who does not read does not see the end either
                await asyncio.wait_for(exchange.close_stream(), CLOSES_WITHIN_S)
        finally:
            del self._streams[session_id]
            stream.live.cancel()

    def _accept(self, stream: _Stream, message: Message, caller: Caller) -> None:
        if "method" not in message or "id" not in message:
            self._dialogue.take(stream.live, message)
            return
        task = asyncio.create_task(self._answer(stream, message, caller))
        stream.live.calls[message["id"]] = task
        task.add_done_callback(lambda _: stream.live.calls.pop(message["id"], None))

    async def _answer(self, stream: _Stream, message: Message, caller: Caller) -> None:
        if message["method"] == "initialize":
            version, capabilities, client = agreement(mapping(message.get("params")))
            stream.facts = Session(caller.id, version, capabilities, dict(client), 0.0)
            await stream.say(rpc.result(message["id"], welcome(version)))
        elif stream.facts is None:
            await stream.say(rpc.error(message["id"], rpc.INVALID_REQUEST, "initialize first"))
        elif len(stream.live.calls) > MAX_CALLS:
            text = f"a session may have {MAX_CALLS} requests under way: wait for one"
            await stream.say(rpc.error(message["id"], rpc.INTERNAL_ERROR, text))
        else:
            await stream.say(await self._dialogue.answer(Party(caller, stream.facts, stream.live, stream.say), message))


async def _write(exchange: Exchange, stream: _Stream) -> None:
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                message = await stream.unread.get()
            await exchange.event(message)
        except TimeoutError:
            await exchange.ping()


async def _pass_on_news(stream: _Stream) -> None:
    while True:
        await stream.live.listener.woken.wait()
        for message in stream.live.listener.take():
            await stream.say(message)


async def _until_one_ends(*works: Coroutine[Any, Any, object]) -> None:
    """Run all of it together, end all of it together."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
