"""JSON-RPC and MCP shapes that both eras share."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mcp_types import SERVER_INFO_META_KEY

from fleetkit import errors
from fleetkit.errors import FleetError, Invalid, NotFound, Refused
from fleetkit.shapes import mapping

Message = dict[str, Any]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
RESOURCE_NOT_FOUND = -32002

SERVER_INFO = {"name": "mcp-fleet", "title": "MCP Fleet", "version": version("mcp-fleet")}
_NEWER = ("resultType", "ttlMs", "cacheScope")  # what a result of 2026-07-28 says and an older one cannot
CORRELATION_META = "fleet/correlation_id"
INSTRUCTIONS = (
    "One endpoint to many tool domains. Tool names are <domain>_<action>; master_listServices shows the domains "
    "and their health. A result with code needs_approval was not run: tell the user what it would do, and once it is "
    "approved repeat the identical call."
)


def result(request_id: object, content: Mapping[str, Any]) -> Message:
    """A successful answer."""
    return {"jsonrpc": "2.0", "id": request_id, "result": content}


def error(request_id: object, code: int, message: str, data: object = None) -> Message:
    """A protocol error."""
    problem: Message = {"code": code, "message": message}
    if data is not None:
        problem["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": problem}


def failed_call(problem: FleetError, correlation_id: str) -> Message:
    """The `tools/call` result for an error of the fleet: the one shape of contracts, as MCP writes it."""
    return {
        "content": [{"type": "text", "text": problem.message}],
        "structuredContent": errors.body(problem, correlation_id),
        "isError": True,
    }


def wants_fresh(headers: Mapping[str, str]) -> bool:
    """Whether an HTTP request wants an answer that no cache kept."""
    return "no-cache" in headers.get("cache-control", "").lower()


def failed_ask(request_id: object, problem: FleetError, correlation_id: str, not_found: int, uri: object) -> Message:
    """The protocol error for a read, a prompt or a completion: the same shape as its `data`.

    `not_found` is the era's own code for a resource that does not exist.
    """
    data = errors.body(problem, correlation_id) | ({} if uri is None else {"uri": uri})
    if isinstance(problem, NotFound) and uri is not None:
        return error(request_id, not_found, problem.message, data)
    code = INVALID_PARAMS if isinstance(problem, NotFound | Invalid | Refused) else INTERNAL_ERROR
    return error(request_id, code, problem.message, data)


def stamped(answer: Message, correlation_id: str, *, modern: bool) -> Message:
    """A spoke's answer as the hub's own: its name is the hub's, and the call can be found again."""
    content = answer.get("result")
    if not isinstance(content, dict):
        return answer
    meta = {**mapping(content.get("_meta")), CORRELATION_META: correlation_id}  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
    if modern:
        meta[SERVER_INFO_META_KEY] = SERVER_INFO
        return {**answer, "result": {**content, "_meta": meta}}
    meta.pop(SERVER_INFO_META_KEY, None)
    return {**answer, "result": {k: v for k, v in content.items() if k not in _NEWER} | {"_meta": meta}}  # pyright: ignore[reportUnknownVariableType]
