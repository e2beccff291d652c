"""What the fleet's own processes ask of the hub: a grant for a secret, a call to another spoke.

Each proves itself with its service token, and carries the signed context of the call it works for: it
acts as that caller, never as itself.
"""

import hmac
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import orjson

from fleetkit import trust
from fleetkit.asgi import Exchange
from fleetkit.errors import Invalid, Refused, of_body
from fleetkit.secrets import grant_for
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.keys import Keys
from master_mcp.proxy.call import Proxy, ToolCall

MAX_BODY = 4 * 1024 * 1024
SECRETS = "secrets"


class Internal:
    """`/internal/grant` and `/internal/call`."""

    def __init__(
        self,
        rows: Mapping[str, SpokeRow],
        ring: trust.KeyRing,
        keys: Keys,
        proxy: Proxy,
        url_of: Callable[[str], str | None],
    ) -> None:
        self._rows = rows
        self._tokens = {name: ring.service_token(name) for name in rows}
        self._keys = keys
        self._proxy = proxy
        self._url_of = url_of

    async def grant(self, exchange: Exchange) -> None:
        """Answer a Resolver's wish with `{grant, url}`: single use, for that spoke only, a minute long."""
        spoke = self._spoke(exchange)
        wish = await _object(exchange)
        if SECRETS not in self._tokens:
            raise Refused("this fleet has no secrets spoke: enable it in fleet.yaml")
        grant = grant_for(wish, spoke, self._tokens[spoke], self._tokens[SECRETS])
        await exchange.json(200, {"grant": grant, "url": self._url_of(SECRETS)})

    async def call(self, exchange: Exchange) -> None:
        """Run `{context, tool, arguments}` for a spoke and answer `{result}`: caller and spoke must both be allowed."""
        spoke = self._spoke(exchange)
        asked = await _object(exchange)
        caller = self._caller(str(asked.get("context")), spoke)
        tool, arguments = asked.get("tool"), asked.get("arguments", {})
        if not isinstance(tool, str) or not isinstance(arguments, dict):
            raise Invalid("a call needs `tool` (text) and `arguments` (an object)")
        if not any(fnmatchcase(tool, glob) for glob in self._rows[spoke].calls):
            raise Refused(f"{spoke} may not call {tool}: add it to spokes.{spoke}.calls in fleet.yaml")
        context = trust.verify(str(asked["context"]), self._tokens[spoke], "allow")
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        left_s = context["due"] - time.time()  # both by this hub's clock
        request = ToolCall(tool, params, caller, f"spoke:{spoke}", 0, context["cid"], within_s=left_s)
        await exchange.json(200, {"result": _content(mapping(await self._proxy.call(request)))})

    def _spoke(self, exchange: Exchange) -> str:
        given = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        for name, token in self._tokens.items():
            if hmac.compare_digest(given.encode(), token.encode()):
                return name
        raise Refused("only services of this fleet may ask this")

    def _caller(self, context: str, spoke: str) -> Caller:
        signed = trust.verify(context, self._tokens[spoke], "allow")
        key = self._keys.by_id(str(signed["caller"][0]))
        if key is None or signed["exp"] < time.time():
            raise Refused("the caller this works for is gone: its key was revoked or has expired")
        return key.caller


def _content(answer: Mapping[str, Any]) -> Any:
    """The structured result of a call; an error answer is raised as the FleetError it names."""
    if "error" in answer:
        raise Invalid(str(mapping(answer["error"]).get("message")))
    result = mapping(answer["result"])
    structured = mapping(result.get("structuredContent"))
    if result.get("isError"):
        raise of_body(structured, "the tool failed")
    return structured["result"] if set(structured) == {"result"} else structured


async def _object(exchange: Exchange) -> Mapping[str, Any]:
    try:
        found: object = orjson.loads(await exchange.body(MAX_BODY))
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid("the body must be a JSON object")
    return mapping(found)  # pyright: ignore[reportUnknownArgumentType] - JSON from outside
