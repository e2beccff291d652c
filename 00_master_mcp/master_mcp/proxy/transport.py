"""Carrying one MCP request to a spoke: the same bytes in process or over HTTP.

Both ways push: a JSON answer comes back whole, the events of an SSE answer are handed over one by one
as they arrive. Cancelling the call closes the connection, which is how MCP 2026-07-28 cancels.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from fleetkit.errors import OverBudget, Unavailable

OnEvent = Callable[[bytes], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; the body is empty when it came as a stream of events."""

    status: int
    body: bytes


class Transport(Protocol):
    """One way to one spoke."""

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """Send one JSON-RPC request; the data of each event of a stream goes to `on_event`.

        Raises Unavailable when the spoke cannot be reached or breaks off, OverBudget past the size cap.
        """
        ...

    async def alive(self) -> str:
        """A word that changes when the spoke's tools may have; raises Unavailable when nothing answers."""
        ...


class EventReader:
    """Splits an SSE byte stream into the data of its events, each bounded by `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completed."""
        self._buffer += chunk
        found: list[bytes] = []
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            if line.startswith(b"data:"):
                self._data.append(line[5:].lstrip(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data = []
        if len(self._buffer) + sum(map(len, self._data)) > self._limit:
            raise OverBudget(f"the answer is larger than {self._limit} bytes: ask for less")
        return found


class EmbeddedTransport:
    """A spoke's ASGI app in this process."""

    def __init__(self, service: str, app: App, limit: int) -> None:
        self._service = service
        self._app = app
        self._limit = limit

    async def post(self, body: bytes, headers: Mapping[str, str], on_event: OnEvent) -> Reply:
        """See Transport."""
        exchange = _Exchange(body, self._limit, on_event)
        await self._app(_scope(headers), exchange.receive, exchange.send)
        return exchange.reply(self._service)

    async def alive(self) -> str:
        """An embedded spoke lives as long as the hub."""
        return ""


class _Exchange:
    """The receive and send ends of one in-process request."""

    def __init__(self, body: bytes, limit: int, on_event: OnEvent) -> None:
        self._request: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": body, "more_body": False},
        ]
        self._limit = limit
        self._stream: EventReader | None = None
        self._on_event = on_event
        self._status = 0
        self._body = bytearray()

    async def receive(self) -> MutableMapping[str, Any]:
        if self._request:
            return self._request.pop()
        return await asyncio.get_running_loop().create_future()  # never: a disconnect is a cancellation here

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = next((v for k, v in message["headers"] if k.lower() == b"content-type"), b"")
            if kind.startswith(b"text/event-stream"):
                self._stream = EventReader(self._limit)
            return
        chunk = message.get("body", b"")
        if self._stream is not None:
            for event in self._stream.feed(chunk):
                await self._on_event(event)
            return
        self._body += chunk
        if len(self._body) > self._limit:
            raise OverBudget(f"the answer is larger than {self._limit} bytes: ask for less")

    def reply(self, service: str) -> Reply:
        if not self._status:
            raise Unavailable(f"{service} broke off without an answer")
        return Reply(self._status, bytes(self._body))


def _scope(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/mcp",
        "raw_path": b"/mcp",
        "query_string": b"",
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        + [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
    }
