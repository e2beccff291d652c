"""Raw JSON-RPC clients of both protocol eras: what goes over the wire is what the test wrote.

`ModernClient` speaks 2026-07-28 (each request stands alone), `SessionClient` 2025-11-25 (initialize,
session id, server requests answered on the way). Neither checks anything: tests do.
"""

import itertools
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import orjson

Message = dict[str, Any]
Answer = Callable[[Message], Message]

MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
META = "io.modelcontextprotocol/"
CLIENT_INFO = {"name": "wire", "version": "1"}
ANYTHING = {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}


@dataclass
class Reply:
    """A whole answer: every message in order of arrival, and the body as it came."""

    status: int
    headers: Mapping[str, str]
    messages: list[Message] = field(default_factory=list[Message])
    text: str = ""

    @property
    def final(self) -> Message:
        """The message that answers the request."""
        return next(message for message in self.messages if "method" not in message)

    @property
    def result(self) -> Message:
        """The result; fails on an error."""
        assert "result" in self.final, self.final
        return self.final["result"]

    @property
    def error(self) -> Message:
        """The JSON-RPC error; fails on a result."""
        assert "error" in self.final, self.final
        return self.final["error"]

    @property
    def said(self) -> str:
        """The text of a tool result's first block."""
        return self.result["content"][0]["text"]

    def notified(self, method: str) -> list[Message]:
        """The params of each notification `method`."""
        return [message["params"] for message in self.messages if message.get("method") == method]


class Stream:
    """An answer read message by message; leaving its block closes the connection."""

    def __init__(self, response: aiohttp.ClientResponse, request_id: object = None) -> None:
        self._response = response
        self.request_id = request_id
        self.status = response.status
        self.headers = response.headers
        self.text = ""
        self._source = self._messages()

    def __aiter__(self) -> AsyncGenerator[Message]:
        """Every further message until the answer ends."""
        return self._source

    async def next(self) -> Message:
        """The next message; fails when the answer ended."""
        return await anext(self._source)

    def arrived(self) -> bytes:
        """What has come and was not read yet."""
        return self._response.content.read_nowait()

    async def close(self) -> None:
        """Read no further and drop the connection, which is how 2026-07-28 cancels."""
        await self._source.aclose()
        self._response.close()

    async def _messages(self) -> AsyncGenerator[Message]:
        if self._response.content_type == "text/event-stream":
            async for line in self._response.content:
                if line.startswith(b"data:"):
                    yield orjson.loads(line[5:])
            return
        self.text = await self._response.text()
        if self._response.content_type == "application/json" and self.text:
            yield orjson.loads(self.text)


class Client:
    """HTTP towards one MCP endpoint, with a key or without."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key
        self._ids = itertools.count(1)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=50), read_bufsize=16 * 1024 * 1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection pool."""
        assert self._http is not None
        await self._http.close()

    @asynccontextmanager
    async def raw(
        self, method: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> AsyncGenerator[Stream]:
        """One HTTP request with exactly these headers added to the usual; None takes one away."""
        assert self._http is not None
        usual: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {self._key}" if self._key else None,
        }
        sent = {name: value for name, value in {**usual, **(headers or {})}.items() if value is not None}
        async with self._http.request(method, self._url, data=body, headers=sent) as response:
            stream = Stream(response)
            try:
                yield stream
            finally:
                await stream.close()

    async def post(self, body: Message | bytes, headers: Mapping[str, str | None] | None = None) -> Reply:
        """POST one message, or any bytes; the whole answer."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self.raw("POST", content, headers) as stream:
            messages = [message async for message in stream]
            return Reply(stream.status, stream.headers, messages, stream.text)

    def message(self, method: str, params: Message, request_id: object = None) -> Message:
        """A request with an id of its own."""
        found = next(self._ids) if request_id is None else request_id
        return {"jsonrpc": "2.0", "id": found, "method": method, "params": params}


class ModernClient(Client):
    """2026-07-28: every request carries the client's capabilities."""

    def __init__(self, url: str, key: str | None, capabilities: Message | None = None) -> None:
        super().__init__(url, key)
        self.capabilities = ANYTHING if capabilities is None else capabilities

    def params(self, params: Mapping[str, Any]) -> Message:
        """`params` with the `_meta` that the protocol wants."""
        meta = {
            META + "protocolVersion": MODERN,
            META + "clientInfo": CLIENT_INFO,
            META + "clientCapabilities": self.capabilities,
            **params.get("_meta", {}),
        }
        return {**params, "_meta": meta}

    @staticmethod
    def headers(method: str, params: Mapping[str, Any]) -> dict[str, str | None]:
        """The routing headers of a request."""
        named: str | None = params.get("name") or params.get("uri")
        return {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, "Mcp-Name": named}

    @asynccontextmanager
    async def stream(
        self, method: str, params: Mapping[str, Any] | None = None, headers: Mapping[str, str | None] | None = None
    ) -> AsyncGenerator[Stream]:
        """A request whose answer is read message by message; leaving the block cancels it."""
        full = self.params(params or {})
        message = self.message(method, full)
        sent = {**self.headers(method, full), **(headers or {})}
        async with self.raw("POST", orjson.dumps(message), sent) as found:
            found.request_id = message["id"]
            yield found

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
        request_id: object = None,
    ) -> Reply:
        """A request and its whole answer; `headers` replace the right ones, None takes one away."""
        full = self.params(params or {})
        message = self.message(method, full, request_id)
        return await self.post(message, {**self.headers(method, full), **(headers or {})})

    async def cancel(self, stream: Stream) -> None:
        """Cancel a request under way."""
        await stream.close()

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Stream]:
        """A subscription to changes of the tools, acknowledged."""
        async with self.stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}}) as found:
            acknowledged = await found.next()
            assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
            yield found

    async def call(self, tool: str, arguments: Message | None = None, **params: Any) -> Reply:
        """`tools/call`; further params beside name and arguments."""
        return await self.request("tools/call", {"name": tool, "arguments": arguments or {}, **params})

    async def call_answering(self, tool: str, arguments: Message | None, answer: Answer) -> Reply:
        """`tools/call`, repeated with the answers to what the tool asks for until it is done."""
        reply = await self.call(tool, arguments)
        while reply.result.get("resultType") == "input_required":
            asked = reply.result["inputRequests"]
            more: Message = {"inputResponses": {name: answer(request) for name, request in asked.items()}}
            if "requestState" in reply.result:
                more["requestState"] = reply.result["requestState"]
            reply = await self.call(tool, arguments, **more)
        return reply


def accepts(request: Message) -> Message:
    """Somebody who answers every kind of question."""
    person = {"name": "Ada", "color": "blue", "ok": True, "username": "ada", "email": "ada@example.com"}
    answers: dict[str, Message] = {
        "elicitation/create": {"action": "accept", "content": person},
        "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"},
        "roots/list": {"roots": [{"uri": "file:///srv", "name": "srv"}]},
    }
    return answers[request["method"]]


def declines(_: Message) -> Message:
    """A person who wants nothing of it."""
    return {"action": "decline"}


class SessionClient(Client):
    """2025-11-25: opened by `connect()`; what the server asks on the way is answered by `answer`."""

    def __init__(
        self, url: str, key: str | None, capabilities: Message | None = None, answer: Answer = declines
    ) -> None:
        super().__init__(url, key)
        self.capabilities = ANYTHING if capabilities is None else capabilities
        self.answer = answer
        self.session_id: str | None = None
        self.version: str | None = HANDSHAKE
        self.initialized: Reply | None = None

    async def __aenter__(self) -> Self:
        """Open the pool and the session."""
        await super().__aenter__()
        await self.connect()
        return self

    async def connect(self, version: str = HANDSHAKE) -> Reply:
        """`initialize` and `notifications/initialized`."""
        self.session_id = None
        params: Message = {"protocolVersion": version, "capabilities": self.capabilities, "clientInfo": CLIENT_INFO}
        self.initialized = reply = await self.post(self.message("initialize", params))
        self.session_id = reply.headers.get("Mcp-Session-Id")
        await self.notify("notifications/initialized")
        return reply

    def headers(self) -> dict[str, str | None]:
        """The session's headers."""
        return {"Mcp-Session-Id": self.session_id, "MCP-Protocol-Version": self.version}

    async def notify(self, method: str, params: Message | None = None) -> Reply:
        """A notification."""
        message: Message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        return await self.post(message, self.headers())

    @asynccontextmanager
    async def stream(
        self, method: str, params: Mapping[str, Any] | None = None, request_id: object = None
    ) -> AsyncGenerator[Stream]:
        """A request whose answer is read message by message."""
        message = self.message(method, dict(params or {}), request_id)
        async with self.raw("POST", orjson.dumps(message), self.headers()) as found:
            found.request_id = message["id"]
            yield found

    async def cancel(self, stream: Stream) -> None:
        """Cancel a request under way."""
        await self.notify("notifications/cancelled", {"requestId": stream.request_id})

    async def request(self, method: str, params: Mapping[str, Any] | None = None, request_id: object = None) -> Reply:
        """A request and its whole answer; questions of the server are answered meanwhile."""
        async with self.stream(method, params, request_id) as stream:
            messages: list[Message] = []
            async for message in stream:
                messages.append(message)
                if "method" in message and "id" in message:
                    answer = self.answer(message)
                    outcome = answer if "error" in answer else {"result": answer}
                    await self.post({"jsonrpc": "2.0", "id": message["id"], **outcome}, self.headers())
            return Reply(stream.status, stream.headers, messages, stream.text)

    async def call(self, tool: str, arguments: Message | None = None, **params: Any) -> Reply:
        """`tools/call`; further params beside name and arguments."""
        return await self.request("tools/call", {"name": tool, "arguments": arguments or {}, **params})

    async def call_answering(self, tool: str, arguments: Message | None, answer: Answer) -> Reply:
        """`tools/call` whose questions `answer` answers, with `{"error": ...}` or a result."""
        self.answer = answer
        return await self.call(tool, arguments)

    @asynccontextmanager
    async def changes(self) -> AsyncGenerator[Stream]:
        """The session's own stream (GET)."""
        async with self.raw(
            "GET", None, {**self.headers(), "Accept": "text/event-stream", "Content-Type": None}
        ) as found:
            yield found

    async def end(self) -> Reply:
        """DELETE the session."""
        async with self.raw("DELETE", None, self.headers()) as stream:
            messages = [message async for message in stream]
            return Reply(stream.status, stream.headers, messages, stream.text)


Either = ModernClient | SessionClient
ERAS: dict[str, type[Either]] = {HANDSHAKE: SessionClient, MODERN: ModernClient}
