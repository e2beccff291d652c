"""The hub asks the secrets service in its own name: embedded, or as a process of its own."""

from pathlib import Path

import pytest
from hubs import listening

from fleetkit import trust
from fleetkit.asgi import Exchange
from fleetkit.errors import Invalid
from fleetkit.secrets import TOKEN_HEADER, check_grant
from master_mcp.external.credentials import Credentials


async def test_a_secrets_service_elsewhere_gets_a_grant_for_exactly_this_use(tmp_path: Path) -> None:
    ring = trust.KeyRing(tmp_path)
    uses: list[tuple[str, ...]] = []

    async def secrets_service(scope: object, receive: object, send: object) -> None:
        """Checks the grant as the spoke does; the spoke itself is tested in its own folder."""
        exchange = Exchange(scope, receive, send)  # pyright: ignore[reportArgumentType] - ASGI's own loose types
        body = trust.orjson.loads(await exchange.body(10_000))
        use = check_grant(body["grant"], exchange.headers[TOKEN_HEADER], ring.service_token("secrets")).use
        uses.append((str(use.reference), use.caller.role, use.spoke, use.tool, use.argument, use.destination))
        await exchange.json(200, {"value": "hunter2-of-odd"})

    async with listening(secrets_service) as url:
        credentials = Credentials(tmp_path, ring, lambda: url)
        texts = {"API_TOKEN": "Bearer secret://keepass/external/odd#password", "MODE": "x"}
        filled = await credentials.fill("odd", "env", texts, "odd")
    assert filled == {"API_TOKEN": "Bearer hunter2-of-odd", "MODE": "x"}
    reference = "secret://keepass/external/odd#password"
    assert uses == [(reference, "spoke", "external", "external.odd", "env.API_TOKEN", "odd")]


async def test_a_malformed_reference_is_refused(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, trust.KeyRing(tmp_path), lambda: None)
    with pytest.raises(Invalid):
        await credentials.fill("odd", "env", {"TOKEN": "secret://../x"}, "odd")
