"""External servers over HTTP for tests: sessions up to 2025-11-25, or the stateless protocol, honest or not."""

import asyncio
import itertools
from typing import Any

import orjson
from foreign import TOOLS

Headers = dict[str, str]
MODERN = "2026-07-28"


class Foreign:
    """An ASGI app whose attributes a test changes while it runs; it remembers what it was sent."""

    def __init__(self, era: str = "legacy") -> None:
        self.era = era
        self.tools = TOOLS
        self.instructions: str | None = None
        self.accepts = True  # the row's credential
        self.redirects = False
        self.streams = False
        self.says_lost_in_answer = False
        self.garbage = False
        self.calls = 0
        self.initialized = 0
        self.headers: list[Headers] = []
        self.deleted: list[str] = []
        self.noted: list[dict[str, Any]] = []
        self.sessions: set[str] = set()
        self.news = asyncio.Event()
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Any]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI entry."""
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.headers.append(headers)
        if not self.accepts:
            await reply(send, 401, {"error": "no"})
        elif self.redirects:
            await reply(send, 307, None, {"location": "http://127.0.0.1:9/"})
        elif scope["method"] == "DELETE":
            self.deleted.append(headers["mcp-session-id"])
            await reply(send, 200, None)
        elif scope["method"] == "GET":
            await self._stream_news(send)
        else:
            await self._post(orjson.loads(await whole(receive)), headers, receive, send)

    async def _post(self, message: dict[str, Any], headers: Headers, receive: Any, send: Any) -> None:
        if self.garbage:
            await reply_raw(send, 200, b"<html>")
        elif self.era == "modern":
            await self._modern(message, headers, send)
        else:
            await self._legacy(message, headers, receive, send)

    async def _modern(self, message: dict[str, Any], headers: Headers, send: Any) -> None:
        if headers.get("mcp-protocol-version") != MODERN:
            await error(send, message, -32022, "unsupported version", 400)
        elif message["method"] == "server/discover":
            told: dict[str, Any] = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
            told |= {"instructions": self.instructions} if self.instructions else {}
            told["_meta"] = {"io.modelcontextprotocol/serverInfo": {"name": "foreign", "version": "2"}}
            await result(send, message, told)
        elif message["method"] == "subscriptions/listen":
            await self._stream_news(send, acknowledge=True)
        else:
            await self._answer(message, headers, send)

    async def _legacy(self, message: dict[str, Any], headers: Headers, receive: Any, send: Any) -> None:
        session = headers.get("mcp-session-id")
        if message.get("method") == "initialize":
            self.initialized += 1
            session = f"s{next(self._ids)}"
            self.sessions.add(session)
            about: dict[str, Any] = {"name": "foreign", "version": "1"}
            told = {"protocolVersion": "2025-11-25", "serverInfo": about}
            told |= {"capabilities": {"tools": {"listChanged": True}}}
            await result(send, message, told, {"mcp-session-id": session})
        elif session is None:
            await error(send, message, -32600, "Missing session ID", 400)
        elif session not in self.sessions:
            status = 200 if self.says_lost_in_answer and "id" in message else 404
            await error(send, message, -32600, "Session not found", status)
        elif "id" not in message or "method" not in message:
            self.noted.append(message)
            if message.get("id") in self._answers:
                self._answers.pop(message["id"]).set_result(message.get("result"))
            await reply(send, 202, None)
        elif message["method"] == "ping":
            await result(send, message, {})
        else:
            await self._answer(message, headers, send)

    async def _answer(self, message: dict[str, Any], headers: Headers, send: Any) -> None:
        params = message["params"]
        if message["method"] == "tools/list":
            await result(send, message, {"tools": self.tools})
            return
        self.calls += 1
        match params["name"]:
            case "tell":
                await open_stream(send)
                token = params.get("_meta", {}).get("progressToken")
                note = {"progressToken": token, "progress": 1}
                await event(send, {"jsonrpc": "2.0", "method": "notifications/progress", "params": note})
                await event(send, answer_of(message, text("told")))
                await send({"type": "http.response.body", "body": b""})
            case "ask":
                await open_stream(send)
                waiting = self._answers["q1"] = asyncio.get_running_loop().create_future()
                await event(send, {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}})
                await event(send, answer_of(message, text(orjson.dumps(await waiting).decode())))
                await send({"type": "http.response.body", "body": b""})
            case "hang":
                await open_stream(send)
                await asyncio.get_running_loop().create_future()
            case "die":
                await open_stream(send)
                await send({"type": "http.response.body", "body": b""})
            case "flood":
                await result(send, message, text("x" * 10_000_000))
            case _:
                said = orjson.dumps({"calls": self.calls, "meta": params.get("_meta", {})}).decode()
                await result(send, message, text(said))

    async def _stream_news(self, send: Any, *, acknowledge: bool = False) -> None:
        await open_stream(send)
        if acknowledge:
            await event(send, {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}})
        await self.news.wait()
        await event(send, {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await send({"type": "http.response.body", "body": b""})


def text(said: str) -> dict[str, Any]:
    """A result."""
    return {"content": [{"type": "text", "text": said}]}


def answer_of(message: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC answer."""
    return {"jsonrpc": "2.0", "id": message["id"], "result": content}


async def whole(receive: Any) -> bytes:
    """A request's body."""
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            return body


async def result(send: Any, message: dict[str, Any], content: dict[str, Any], headers: Headers | None = None) -> None:
    """One whole answer."""
    await reply(send, 200, answer_of(message, content), headers)


async def error(send: Any, message: dict[str, Any], code: int, words: str, status: int) -> None:
    """One whole JSON-RPC error."""
    problem = {"code": code, "message": words}
    await reply(send, status, {"jsonrpc": "2.0", "id": message.get("id"), "error": problem})


async def reply(send: Any, status: int, content: object, headers: Headers | None = None) -> None:
    """One whole JSON answer; None has no body."""
    await reply_raw(send, status, b"" if content is None else orjson.dumps(content), headers)


async def reply_raw(send: Any, status: int, body: bytes, headers: Headers | None = None) -> None:
    """One whole answer of any bytes."""
    sent = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = [(key.encode(), value.encode()) for key, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def open_stream(send: Any) -> None:
    """Begin a stream of events."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b": hi\n\n", "more_body": True})


async def event(send: Any, message: dict[str, Any]) -> None:
    """One event."""
    await send({"type": "http.response.body", "body": b"data: " + orjson.dumps(message) + b"\n\n", "more_body": True})
