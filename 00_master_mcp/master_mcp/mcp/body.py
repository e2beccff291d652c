"""Reading one JSON-RPC message from the body of a POST."""

from typing import cast

import orjson

from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError
from master_mcp.mcp import rpc
from master_mcp.mcp.rpc import Message


async def read(exchange: Exchange, limit: int) -> Message | None:
    """The message of at most `limit` bytes; a body that is none is answered here and None returned."""
    try:
        message: object = orjson.loads(await exchange.body(limit))
    except FleetError as problem:
        await exchange.json(413, rpc.error(None, rpc.INVALID_REQUEST, problem.message))
        return None
    except orjson.JSONDecodeError:
        await exchange.json(400, rpc.error(None, rpc.PARSE_ERROR, "the body is not JSON"))
        return None
    if not _is_message(message):
        text = "the body must be one JSON-RPC 2.0 message (no batch)"
        await exchange.json(400, rpc.error(None, rpc.INVALID_REQUEST, text))
        return None
    return cast("Message", message)


def _is_message(message: object) -> bool:
    if not isinstance(message, dict):
        return False
    found = cast("Message", message)
    if found.get("jsonrpc") != "2.0" or not isinstance(found.get("id", 0), str | int):
        return False
    if isinstance(found.get("id"), bool):
        return False
    return isinstance(found.get("method"), str) or "result" in found or "error" in found
