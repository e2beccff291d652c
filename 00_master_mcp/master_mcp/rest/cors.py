"""Which web pages may read the hub's answers: those of `hub.allowed_origins`, by name, never all."""

from collections.abc import Iterable

from fleetkit.asgi import Exchange

METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
HEADERS = (
    "Authorization, X-API-Key, Content-Type, Accept, Traceparent, Last-Event-ID, "
    "Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name"
)
EXPOSED = "Mcp-Session-Id, Retry-After, WWW-Authenticate, Allow"
REMEMBER_S = 600


class Cors:
    """Adds what a browser asks for, and answers its preflights."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def handled(self, exchange: Exchange) -> bool:
        """Mark the answer of `exchange` for its origin; True when it was a preflight, which is then answered."""
        if not self._origins:
            return False
        exchange.extra.append((b"vary", b"Origin"))
        origin = exchange.headers.get("origin", "")
        if origin.lower() not in self._origins:
            return False
        exchange.extra.append((b"access-control-allow-origin", origin.encode("latin-1")))
        if exchange.method != "OPTIONS" or "access-control-request-method" not in exchange.headers:
            exchange.extra.append((b"access-control-expose-headers", EXPOSED.encode()))
            return False
        allowed = {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": HEADERS,
            "access-control-max-age": str(REMEMBER_S),
        }
        await exchange.raw(200, b"", "", allowed)
        return True
