"""`/mcp`: who calls, which era, and nothing else."""

from collections.abc import Awaitable, Callable

from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from fleetkit.asgi import Exchange
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.session import Sealer
from master_mcp.catalog.news import News
from master_mcp.mcp import body
from master_mcp.mcp.dialogue import Dialogue
from master_mcp.mcp.legacy import LegacyEra
from master_mcp.mcp.live import Sessions
from master_mcp.mcp.methods import Methods
from master_mcp.mcp.modern import ModernEra
from master_mcp.mcp.rpc import Message
from master_mcp.mcp.sse import MESSAGES_PATH, SSE_PATH, SseDoor

Keyed = Callable[[Exchange, Caller], Awaitable[None]]


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
        message = await body.read(exchange, self._max_request_bytes)
        if message is None:
            return
        if _is_modern(exchange) or _names_an_envelope(exchange, message):
            await self._modern.post(exchange, caller, message)
        else:
            await self._legacy.post(exchange, caller, message)


def mcp_routes(methods: Methods, news: News, sealer: Sealer, max_request_bytes: int) -> dict[str, Keyed]:
    """The doors of MCP over the same methods, by path: both eras, and the deprecated SSE transport of 2024-11-05."""
    dialogue = Dialogue(methods, news)
    legacy = LegacyEra(dialogue, Sessions(news), sealer)
    sse = SseDoor(dialogue, news, max_request_bytes)
    return {
        "/mcp": McpDoor(ModernEra(methods, news), legacy, max_request_bytes),
        SSE_PATH: sse.open,
        MESSAGES_PATH: sse.post,
    }


def _is_modern(exchange: Exchange) -> bool:
    version = exchange.headers.get("mcp-protocol-version")
    return version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS


def _names_an_envelope(exchange: Exchange, message: Message) -> bool:
    """A stateless request that forgot its header: that era tells it so."""
    if "mcp-protocol-version" in exchange.headers:
        return False
    return PROTOCOL_VERSION_META_KEY in mapping(mapping(message.get("params")).get("_meta"))
