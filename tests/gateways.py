"""The REST gateway as a client uses it, and a spoke whose tools end in every way a call can end."""

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp
import spoken
from hubs import RunningHub
from multidict import CIMultiDictProxy

ORIGIN = "https://console.example"  # a page that may read the hub's answers
LIMIT = 64 * 1024  # of a request to the tests' hub, in bytes


@dataclass(frozen=True)
class Answered:
    """What came back: `body` is parsed where it is JSON, text otherwise."""

    status: int
    kind: str
    body: Any
    headers: CIMultiDictProxy[str]


class Gateway:
    """A hub's REST endpoints; every request carries the operator's key unless another is given ('' for none)."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.agent = hub.client

    async def send(self, method: str, path: str, *, key: str | None = None, **request: Any) -> Answered:
        """One request; `json`, `data` and `headers` as aiohttp takes them."""
        secret = self.hub.admin if key is None else key
        headers = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **request.pop("headers", {})}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.hub.url}{path}", headers=headers, **request) as answer,
        ):
            is_json = answer.content_type in ("application/json", "application/problem+json") and method != "HEAD"
            body: Any = await (answer.json(content_type=None) if is_json else answer.text())
            return Answered(answer.status, answer.content_type, body, answer.headers)

    async def get(self, path: str, **request: Any) -> Answered:
        """GET `path`."""
        return await self.send("GET", path, **request)

    async def post(self, path: str, content: Any = None, **request: Any) -> Answered:
        """POST JSON to `path`."""
        return await self.send("POST", path, json=content, **request)

    async def execute(self, action: str, key: str | None = None, **params: Any) -> Answered:
        """Call a tool by its action."""
        return await self.post("/mcp/execute", {"action": action, "params": params}, key=key)


def _tool(action: str, risk: str = "read") -> dict[str, Any]:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    meta = {"fleet/id": f"os.odd.{action}", "risk": risk}
    return {"name": f"os_odd_{action}", "description": f"Do {action}.", "inputSchema": schema, "_meta": meta}


ODD_TOOLS = [
    _tool("look"),
    _tool("wrap"),
    _tool("describe"),
    _tool("draw"),
    _tool("say"),
    _tool("quiet"),
    _tool("fail"),
    _tool("miss"),
    _tool("limit"),
    _tool("crash"),
    _tool("reject"),
    _tool("hold"),
    _tool("ask"),
    _tool("hang"),
    _tool("wipe", "destroy"),
]
_BLOCK = {"type": "text", "text": "seen"}
_RESULTS: dict[str, dict[str, Any]] = {
    "wrap": {"content": [], "structuredContent": {"result": [1, 2]}},
    "describe": {"content": [], "structuredContent": {"name": "a", "size": 2}},
    "draw": {"content": [_BLOCK, {"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
    "say": {"content": [_BLOCK, {"type": "text", "text": "twice"}]},
    "quiet": {},
    "fail": {"content": [{"type": "text", "text": "the disk is on fire"}], "isError": True},
    "miss": {
        "content": [],
        "isError": True,
        "structuredContent": {"code": "not_found", "message": "no such file: list them first"},
    },
    "limit": {
        "content": [],
        "isError": True,
        "structuredContent": {"code": "over_budget", "message": "too many: wait", "retry_after": 2.5},
    },
    "hold": {
        "content": [],
        "isError": True,
        "structuredContent": {"code": "needs_approval", "message": "ask", "plan": "hold it", "approval_id": "a1"},
    },
    "ask": {"resultType": "input_required", "inputRequests": {}},
}
_ERRORS = {
    "crash": (-32603, "boom"),
    "reject": (-32602, "text is required"),
    "subscriptions/listen": (-32601, "it tells no news"),
}


async def odd(request: dict[str, Any], send: Any) -> None:
    """Answer a call as its tool's name says."""
    action = str(request["params"].get("name", request["method"])).rpartition("_")[2]
    head = {"jsonrpc": "2.0", "id": request["id"]}
    if action == "hang":
        await asyncio.Event().wait()
    elif action in _ERRORS:
        code, message = _ERRORS[action]
        await spoken.send_json(send, {**head, "error": {"code": code, "message": message}})
    elif action in _RESULTS:
        await spoken.send_json(send, {**head, "result": {"resultType": "complete", **_RESULTS[action]}})
    else:
        await spoken.good(request, send)
