"""`/mcp`: who calls, which era, and nothing else."""

from typing import cast

import orjson
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.mcp import rpc
from master_mcp.mcp.legacy import LegacyEra
from master_mcp.mcp.modern import ModernEra
from master_mcp.mcp.rpc import Message


class McpDoor:
    """Splits requests between the eras by the `MCP-Protocol-Version` header."""

    def __init__(self, modern: ModernEra, legacy: LegacyEra, max_request_bytes: int) -> None:
        self._modern = modern
        self._legacy = legacy
        self._max_request_bytes = max_request_bytes

    async def __call__(self, exchange: Exchange, caller: Caller) -> None:
        """Answer one authenticated request."""
        if exchange.method == "POST":
            await self._post(exchange, caller)
        elif _is_modern(exchange):
            await exchange.json(405, None, {"allow": "POST"})
        elif exchange.method == "GET":
            await self._legacy.get(exchange, caller)
        elif exchange.method == "DELETE":
            await self._legacy.delete(exchange, caller)
        else:
            await exchange.json(405, None, {"allow": "POST, GET, DELETE"})

    async def _post(self, exchange: Exchange, caller: Caller) -> None:
        try:
            body = await exchange.body(self._max_request_bytes)
        except FleetError as problem:
            await exchange.json(413, rpc.error(None, rpc.INVALID_REQUEST, problem.message))
            return
        message = await _read(exchange, body)
        if message is None:
            return
        if _is_modern(exchange) or _names_an_envelope(exchange, message):
            await self._modern.post(exchange, caller, message)
        else:
            await self._legacy.post(exchange, caller, message)


def _is_modern(exchange: Exchange) -> bool:
    version = exchange.headers.get("mcp-protocol-version")
    return version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS


def _names_an_envelope(exchange: Exchange, message: Message) -> bool:
    """A stateless request that forgot its header: that era tells it so."""
    if "mcp-protocol-version" in exchange.headers:
        return False
    return PROTOCOL_VERSION_META_KEY in mapping(mapping(message.get("params")).get("_meta"))


async def _read(exchange: Exchange, body: bytes) -> Message | None:
    """The body as one JSON-RPC message; a body that is none is answered here and None returned."""
    try:
        message = orjson.loads(body)
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
