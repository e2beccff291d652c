"""The hub's ASGI app: guard, CORS, route, authenticate."""

from collections.abc import Awaitable, Callable, Mapping

from fleetkit.asgi import Exchange, Receive, Scope, Send
from fleetkit.errors import FleetError, Refused
from fleetkit.log import get_logger
from master_mcp.auth.caller import Caller
from master_mcp.auth.keys import Keys, id_of
from master_mcp.auth.lockout import Lockout
from master_mcp.guard import Guard
from master_mcp.rest.cors import Cors
from master_mcp.rest.door import Rest
from master_mcp.rest.problems import problem

log = get_logger()

Open = Callable[[Exchange], Awaitable[None]]
Keyed = Callable[[Exchange, Caller], Awaitable[None]]


class Unauthorized(Exception):
    """No key, or one that does not hold: `refused`, as HTTP says it."""


class Web:
    """Routes by exact path: `open_routes` need no key, `keyed_routes` do; what is in neither goes to `rest`."""

    def __init__(
        self,
        guard: Guard,
        cors: Cors,
        keys: Keys,
        lockout: Lockout,
        open_routes: Mapping[str, Open],
        keyed_routes: Mapping[str, Keyed],
        rest: Rest,
    ) -> None:
        self._guard = guard
        self._cors = cors
        self._keys = keys
        self._lockout = lockout
        self._open = open_routes
        self._keyed = keyed_routes
        self.rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            self._guard.check(exchange.headers.get("host", ""), exchange.headers.get("origin", ""))
            if not await self._cors.handled(exchange):
                await self._route(exchange)
        except Unauthorized as error:
            await problem(exchange, Refused(str(error)), 401, {"www-authenticate": "Bearer"})
        except FleetError as error:
            await problem(exchange, error)

    async def _route(self, exchange: Exchange) -> None:
        keyed = self._keyed.get(exchange.path)
        if keyed is not None:
            await keyed(exchange, self._authenticate(exchange))
            return
        handler = self._open.get(exchange.path)
        if handler is None:
            await self.rest(exchange, self._authenticate)
        else:
            await handler(exchange)

    def _authenticate(self, exchange: Exchange) -> Caller:
        scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
        secret = token if scheme.lower() == "bearer" else exchange.headers.get("x-api-key", "")
        if not secret:
            raise Unauthorized("this hub needs a key: send it as `Authorization: Bearer KEY`")
        secret = secret.strip()
        self._lockout.check(exchange.client, id_of(secret))
        key = self._keys.authenticate(secret)
        if key is None:
            self._lockout.failed(exchange.client, id_of(secret))
            raise Unauthorized("the key is unknown, revoked or expired: `fleet keys list` shows the live ones")
        self._lockout.succeeded(exchange.client)
        return key.caller
