"""Spokes that misbehave on the wire: each speaks real HTTP and lies in one way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

Answer = Callable[[dict[str, Any], Any], Awaitable[None]]

TOOL = {
    "name": "os_odd_look",
    "description": "Look at something.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    "_meta": {"fleet/id": "os.odd.look", "risk": "read"},
}


async def send_json(send: Any, content: object, status: int = 200) -> None:
    """One whole JSON answer."""
    await send_bytes(send, orjson.dumps(content), b"application/json", status)


async def send_bytes(send: Any, body: bytes, kind: bytes = b"application/json", status: int = 200) -> None:
    """One whole answer of any bytes."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


def spoke_app(answer_call: Answer, tools: list[dict[str, Any]] | None = None) -> Any:
    """A spoke that lists `tools` properly and answers `tools/call` as `answer_call` does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            await send_json(send, {"status": "ok"})
            return
        request = orjson.loads((await receive())["body"])
        if request["method"] == "server/discover":
            can: dict[str, Any] = {"tools": {}}
            result = {"resultType": "complete", "capabilities": can, "supportedVersions": ["2026-07-28"]}
            await send_json(send, {"jsonrpc": "2.0", "id": request["id"], "result": result})
        elif request["method"] == "tools/list":
            result = {"resultType": "complete", "tools": tools or [TOOL], "ttlMs": 0, "cacheScope": "public"}
            await send_json(send, {"jsonrpc": "2.0", "id": request["id"], "result": result})
        else:
            await answer_call(request, send)

    return app


def text_result(request: dict[str, Any], text: str) -> dict[str, Any]:
    """A well-formed answer."""
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": request["id"], "result": {"resultType": "complete", "content": content}}


async def good(request: dict[str, Any], send: Any) -> None:
    """An honest spoke."""
    await send_json(send, text_result(request, "seen"))


async def invalid_json(request: dict[str, Any], send: Any) -> None:
    """Bytes that are not JSON."""
    await send_bytes(send, b"{not json")


async def not_an_object(request: dict[str, Any], send: Any) -> None:
    """JSON that is no message."""
    await send_json(send, [1, 2])


async def wrong_id(request: dict[str, Any], send: Any) -> None:
    """Somebody else's answer."""
    await send_json(send, {**text_result(request, "x"), "id": "another"})


async def neither(request: dict[str, Any], send: Any) -> None:
    """A message with neither result nor error."""
    await send_json(send, {"jsonrpc": "2.0", "id": request["id"]})


async def ten_megabytes(request: dict[str, Any], send: Any) -> None:
    """More than the hub takes."""
    await send_json(send, text_result(request, "x" * 10_000_000))


async def endless_event(request: dict[str, Any], send: Any) -> None:
    """One event of a stream that never ends its line."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(10):
        await send({"type": "http.response.body", "body": b"data: " + b"x" * 1_000_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def closes_mid_stream(request: dict[str, Any], send: Any) -> None:
    """A stream that ends after a progress notification."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    await send({"type": "http.response.body", "body": b"data: " + orjson.dumps(note) + b"\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def cut_off(request: dict[str, Any], send: Any) -> None:
    """A body shorter than promised."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"jsonrpc"', "more_body": True})
    raise ConnectionError


async def empty(request: dict[str, Any], send: Any) -> None:
    """HTTP 500 and nothing else."""
    await send_bytes(send, b"", status=500)


async def unauthorized(request: dict[str, Any], send: Any) -> None:
    """A spoke of another fleet."""
    await send_json(send, {"message": "no"}, status=401)


async def silent(request: dict[str, Any], send: Any) -> None:
    """Never answers."""
    await asyncio.get_running_loop().create_future()
