"""One HTTP request and its answer, over bare ASGI: the hot path has no framework in it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

import orjson

from fleetkit.errors import OverBudget

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

KEEPALIVE_S = 15.0
_SSE = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Exchange:
    """Reads a bounded body, then answers once as JSON or as a stream of events."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: str = (scope.get("client") or ("",))[0]  # its address; empty for a local socket
        self.query: str = bytes(scope.get("query_string", b"")).decode("latin-1")
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        # httptools leaves the spaces behind a value, which are not part of it (RFC 9110, 5.5).
        self.headers = {k.decode("latin-1"): v.strip(b" \t").decode("latin-1") for k, v in scope["headers"]}
        self.streaming = False
        self.extra: list[tuple[bytes, bytes]] = []
        self._receive = receive
        self._send = send

    async def body(self, limit: int) -> bytes:
        """The request body; raises OverBudget past `limit` bytes."""
        raw = b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            raw += message.get("body", b"")
            if len(raw) > limit:
                raise OverBudget(f"the request is larger than {limit} bytes: send less, or raise hub.max_request_bytes")
            if not message.get("more_body"):
                return raw

    async def json(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON; `None` sends no body."""
        body = b"" if content is None else orjson.dumps(content)
        await self.raw(status, body, "application/json" if body else "", headers)

    async def raw(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with bytes of a content type."""
        await self._start(status, kind, {"content-length": str(len(body)), **(headers or {})})
        await self._send({"type": "http.response.body", "body": body})

    async def chunks(
        self, status: int, content: AsyncIterator[bytes], kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with bytes as they come; an error before the first of them is still the caller's to answer."""
        first = await anext(content, b"")
        await self._start(status, kind, headers or {})
        await self._chunk(first)
        async for chunk in content:
            await self._chunk(chunk)
        await self.close_stream()

    async def _start(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        head = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        if kind:
            head.append((b"content-type", kind.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": [*head, *self.extra]})

    async def open_stream(self) -> None:
        """Start answering with events; nothing when already started."""
        if not self.streaming:
            self.streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*_SSE, *self.extra]})

    async def event(self, message: object) -> None:
        """Send one JSON-RPC message as an event, opening the stream first."""
        await self.named_event("message", orjson.dumps(message))

    async def named_event(self, name: str, line: bytes) -> None:
        """Send one line of data as an event of that name, opening the stream first."""
        await self.open_stream()
        await self._chunk(b"event: %b\ndata: %b\n\n" % (name.encode(), line))

    async def ping(self) -> None:
        """Keep proxies from closing an idle stream."""
        await self._chunk(b": ping\n\n")

    async def finish(self, message: object, status: int = 200) -> None:
        """The last message: an event when streaming, the whole JSON answer otherwise."""
        if self.streaming:
            await self.event(message)
            await self.close_stream()
        else:
            await self.json(status, message)

    async def close_stream(self) -> None:
        """End the stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def attached(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`; when the client goes away it is cancelled, and that is the end of it."""
        task = asyncio.current_task()
        assert task is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await self._receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await work
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
        finally:
            watcher.cancel()

    async def _chunk(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
