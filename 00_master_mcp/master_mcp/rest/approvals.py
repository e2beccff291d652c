"""`/approvals`: held calls over REST, for consoles and the command line."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from fleetkit.asgi import Exchange
from fleetkit.errors import Invalid, NotFound
from fleetkit.shapes import mapping
from master_mcp.approvals.room import Approvals
from master_mcp.auth.caller import Caller

CHANNEL = "rest"


class ApprovalRoutes:
    """`GET /approvals[?status=&limit=]`, `GET /approvals/{id}`, `POST /approvals/{id}/approve|deny|redeem`."""

    def __init__(self, approvals: Approvals, max_body: int) -> None:
        self._approvals = approvals
        self._max_body = max_body

    async def __call__(self, exchange: Exchange, caller: Caller) -> None:
        """Answer one authenticated request; raises NotFound for anything else under `/approvals`."""
        match exchange.method, *exchange.path.strip("/").split("/")[1:]:
            case ["GET"]:
                await exchange.json(200, {"approvals": await self._listed(exchange, caller)})
            case ["GET", approval_id]:
                await exchange.json(200, await self._approvals.get(caller, approval_id))
            case ["POST", approval_id, ("approve" | "deny") as word]:
                await exchange.json(200, await self._decided(exchange, caller, approval_id, word == "approve"))
            case ["POST", approval_id, "redeem"]:
                await exchange.json(200, await self._approvals.redeem(caller, approval_id))
            case _:
                raise NotFound(f"nothing answers {exchange.method} {exchange.path}: see GET /approvals")

    async def _listed(self, exchange: Exchange, caller: Caller) -> list[dict[str, Any]]:
        asked = {name: values[-1] for name, values in parse_qs(exchange.query).items()}
        limit = asked.get("limit", "100")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= 500:
            raise Invalid("`limit` must be a number from 1 to 500")
        return await self._approvals.listed(caller, asked.get("status", "pending"), int(limit))

    async def _decided(self, exchange: Exchange, caller: Caller, approval_id: str, approve: bool) -> dict[str, Any]:
        reason = (await self._body(exchange)).get("reason", "")
        if not isinstance(reason, str):
            raise Invalid("`reason` must be text")
        return await self._approvals.decide(caller, approval_id, approve=approve, reason=reason, channel=CHANNEL)

    async def _body(self, exchange: Exchange) -> Mapping[str, Any]:
        raw = await exchange.body(self._max_body)
        try:
            found: object = orjson.loads(raw or b"{}")
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the body is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Invalid("the body must be a JSON object")
        return mapping(found)  # pyright: ignore[reportUnknownArgumentType] - JSON from outside
