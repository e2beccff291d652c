"""The door for other processes of the fleet. Not a tool: no client can reach it through the hub."""

from collections.abc import Mapping
from typing import Any

from fleetkit.errors import Invalid
from fleetkit.secrets import RESOLVE_PATH, TOKEN_HEADER, check_grant
from secrets_mcp import spoke
from secrets_mcp.vault import Vault


@spoke.http("POST", RESOLVE_PATH, open=True)
async def resolve(body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
    """`{grant}` and the asking spoke's token in `x-fleet-token` -> `{value}`. A grant works once."""
    grant, token = body.get("grant"), headers.get(TOKEN_HEADER, "")
    if not isinstance(grant, str) or not token:
        raise Invalid(f"send the hub's grant as `grant` and this spoke's own token in {TOKEN_HEADER}")
    vault = spoke.state(Vault)
    granted = check_grant(grant, token, vault.service_token)
    await vault.records.spend(granted.jti, granted.expires_at)
    return {"value": await vault.resolve(granted.use)}
