"""A spoke that offers resources and prompts over real HTTP, page by page, and fails as a test wants it to."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson
import spoken

PAGE = 500
ALL = {"tools": {}, "resources": {"subscribe": True}, "prompts": {}}


@dataclass
class Shop:
    """An ASGI app. `refuses` answers a method with an error, `hangs` never answers it."""

    uris: list[str] = field(default_factory=list[str])
    templates: list[str] = field(default_factory=list[str])
    prompts: list[str] = field(default_factory=list[str])
    tools: list[dict[str, Any]] = field(default_factory=lambda: [spoken.TOOL])
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(ALL))
    refuses: set[str] = field(default_factory=set[str])
    refusal: int = -32603
    hangs: set[str] = field(default_factory=set[str])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    listening: list[set[str]] = field(default_factory=list[set[str]])
    streams: dict[int, Any] = field(default_factory=dict[int, Any])
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI entry."""
        if scope["path"] == "/health":
            if "/health" in self.hangs:
                await asyncio.get_running_loop().create_future()
            await spoken.send_json(send, {"status": "ok"})
            return
        request = orjson.loads((await receive())["body"])
        method = request["method"]
        self.asked.append(request)
        if method in self.hangs:
            await asyncio.get_running_loop().create_future()
        if method in self.refuses:
            await self._send(send, request, error={"code": self.refusal, "message": "not today"})
        elif method == "subscriptions/listen":
            await self._listen(request, receive, send)
        else:
            await self._send(send, request, result=self._result(method, request["params"]))

    async def update(self, uri: str) -> None:
        """Tell every subscription to `uri` that it changed."""
        note = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}
        for number, send in list(self.streams.items()):
            if uri in self.listening[number]:
                await _event(send, note)

    async def heard(self, *uris: str) -> None:
        """Wait until the one subscription that is open is for these."""
        async with self.moved:
            await self.moved.wait_for(lambda: [self.listening[n] for n in self.streams] == [set(uris)])

    async def unheard(self) -> None:
        """Wait until nobody is subscribed."""
        async with self.moved:
            await self.moved.wait_for(lambda: not self.streams)

    def of(self, method: str) -> list[dict[str, Any]]:
        """The params of every request of that method."""
        return [request["params"] for request in self.asked if request["method"] == method]

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "server/discover":
                return {"capabilities": self.capabilities, "supportedVersions": ["2026-07-28"]}
            case "tools/list":
                return {"tools": self.tools}
            case "resources/list":
                return _page("resources", [{"uri": uri, "name": uri} for uri in self.uris], params)
            case "resources/templates/list":
                return {"resourceTemplates": [{"uriTemplate": text, "name": text} for text in self.templates]}
            case "prompts/list":
                return {"prompts": [{"name": name} for name in self.prompts]}
            case "resources/read":
                return {"contents": [{"uri": params["uri"], "text": "here"}], "cacheScope": "public", "ttlMs": 5}
            case _:
                return {"messages": [{"role": "user", "content": {"type": "text", "text": params["name"]}}]}

    async def _send(self, send: Any, request: dict[str, Any], **answer: Any) -> None:
        if "result" in answer:
            answer["result"] = {"resultType": "complete", **answer["result"]}
        await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], **answer})

    async def _listen(self, request: dict[str, Any], receive: Any, send: Any) -> None:
        wanted = request["params"]["notifications"]
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        acknowledged = {"notifications": wanted}
        method = "notifications/subscriptions/acknowledged"
        await _event(send, {"jsonrpc": "2.0", "method": method, "params": acknowledged})
        number = len(self.listening)
        self.listening.append(set(wanted.get("resourceSubscriptions", [])))
        self.streams[number] = send
        await self._tell()
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            del self.streams[number]
            await self._tell()

    async def _tell(self) -> None:
        async with self.moved:
            self.moved.notify_all()


async def _event(send: Any, message: dict[str, Any]) -> None:
    await send({"type": "http.response.body", "body": b"data: " + orjson.dumps(message) + b"\n\n", "more_body": True})


def _page(key: str, entries: list[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
    start = int(params.get("cursor", 0))
    more = {"nextCursor": str(start + PAGE)} if start + PAGE < len(entries) else {}
    return {key: entries[start : start + PAGE], **more}
