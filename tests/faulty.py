"""A spoke that does as it is told: each call of a tool takes the next of its faults, then all is well."""

from typing import Any

import spoken
from spoken import Answer

from fleetkit.shapes import mapping


class Faulty:
    """Counts what reached it; `faults` are used up one call each."""

    def __init__(self, *faults: Answer, always: Answer | None = None, then: Answer = spoken.good) -> None:
        self.faults = list(faults)
        self.always = always
        self.then = then
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, request: dict[str, Any], send: Any) -> None:
        """Answer one call; anything else that the hub asks it does not know."""
        if request["method"] != "tools/call":
            unknown = {"code": -32601, "message": "not here"}
            await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], "error": unknown})
            return
        self.calls.append(request["params"])
        answer = self.always or (self.faults.pop(0) if self.faults else self.then)
        await answer(request, send)

    def app(self, *tools: dict[str, Any]) -> Any:
        """The ASGI app of a spoke with these tools."""
        return spoken.spoke_app(self, list(tools))

    def metas(self) -> list[dict[str, Any]]:
        """The `_meta` of each call."""
        return [dict(mapping(params["_meta"])) for params in self.calls]


def tool(canonical: str = "os.odd.look", risk: str = "read", **more: Any) -> dict[str, Any]:
    """A tool's definition; `meta=` and `annotations=` and `properties=` go into it."""
    return {
        "name": canonical.replace(".", "_"),
        "description": "Look at something.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}, **more.get("properties", {})}},
        "annotations": more.get("annotations", {}),
        "_meta": {"fleet/id": canonical, "risk": risk, **more.get("meta", {})},
    }
