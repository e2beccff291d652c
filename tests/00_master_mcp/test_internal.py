"""Spokes ask the hub as their callers, never as themselves."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hubs import OWN, RunningHub, call, running_hub

from fleetkit import Risk, Setting, SpokeOptions, correlation, trust
from fleetkit.correlation import Caller, Context
from fleetkit.errors import FleetError, Invalid, NotFound, Refused
from fleetkit.hub import HubClient


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[RunningHub]:
    spokes = {
        "asker": {"number": 70, "namespace": "asker", "calls": ["master.*"]},
        "other": {"number": 71, "namespace": "o"},
    }
    async with running_hub(tmp_path, spokes) as running:
        yield running


def context_of(hub: RunningHub, secret: str, spoke: str = "asker", ttl_s: float = 60) -> Context:
    """What a spoke has bound while it works for the key with this secret."""
    key = hub.hub.keys.authenticate(secret)
    assert key is not None
    allowance = trust.Allowance(key.caller, "asker.ask", trust.canonical_hash({}), Risk.change, "ab" * 16)
    token = allowance.signed(hub.hub.ring.service_token(spoke), ttl_s)
    return Context("ab" * 16, key.caller, "asker.ask", token)


def client(hub: RunningHub, tmp_path: Path, spoke: str = "asker") -> HubClient:
    return HubClient(Setting(tmp_path, SpokeOptions(), hub.hub.ring.service_token(spoke), hub.url, embedded=False))


async def test_a_spoke_calls_another_domain_as_its_caller(hub: RunningHub, tmp_path: Path) -> None:
    with correlation.bound(context_of(hub, hub.client)):
        services = await client(hub, tmp_path).call("master.listServices")
    assert [service["name"] for service in services] == [*OWN, "asker", "other"]
    row = hub.audit_rows()[-1]
    assert (row["door"], row["tool"], row["correlation_id"]) == ("spoke:asker", "master.listServices", "ab" * 16)
    assert row["caller"] == hub.hub.keys.authenticate(hub.client).id  # type: ignore[union-attr]


async def test_an_error_of_the_called_tool_arrives_as_that_error(hub: RunningHub, tmp_path: Path) -> None:
    with correlation.bound(context_of(hub, hub.client)), pytest.raises(NotFound, match="no service 'x'"):
        await client(hub, tmp_path).call("master.getServiceHealth", {"service": "x"})
    with correlation.bound(context_of(hub, hub.client)), pytest.raises(Invalid, match="Missing required"):
        await client(hub, tmp_path).call("master.getServiceHealth")


async def test_a_spoke_calls_only_what_its_row_lists(hub: RunningHub, tmp_path: Path) -> None:
    with correlation.bound(context_of(hub, hub.client)), pytest.raises(Refused, match=r"spokes\.asker\.calls"):
        await client(hub, tmp_path).call("os.linux.runCommand", {})


async def test_a_spoke_gets_no_more_than_its_caller_may(hub: RunningHub, tmp_path: Path) -> None:
    _, narrow = hub.hub.keys.create("narrow", scopes=["read:cmdb.*"])
    with correlation.bound(context_of(hub, narrow)), pytest.raises(Refused, match="'narrow' may not call"):
        await client(hub, tmp_path).call("master.listServices")


async def test_a_revoked_caller_takes_its_spokes_calls_with_it(hub: RunningHub, tmp_path: Path) -> None:
    _, secret = hub.hub.keys.create("gone")
    bound = context_of(hub, secret)
    hub.hub.keys.revoke("gone")
    with correlation.bound(bound), pytest.raises(Refused, match="is gone"):
        await client(hub, tmp_path).call("master.listServices")


async def test_another_spokes_context_or_token_is_worth_nothing(hub: RunningHub, tmp_path: Path) -> None:
    with correlation.bound(context_of(hub, hub.client, spoke="other")), pytest.raises(Refused, match="was not signed"):
        await client(hub, tmp_path).call("master.listServices")
    with correlation.bound(context_of(hub, hub.client)), pytest.raises(Refused, match="was not signed"):
        await client(hub, tmp_path, "other").call("master.listServices")


async def test_an_expired_context_is_worth_nothing(hub: RunningHub, tmp_path: Path) -> None:
    with correlation.bound(context_of(hub, hub.client, ttl_s=-1)), pytest.raises(Refused, match="expired"):
        await client(hub, tmp_path).call("master.listServices")


async def test_outside_a_signed_call_nothing_is_asked(hub: RunningHub, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="only inside a call"):
        await client(hub, tmp_path).call("master.listServices")
    with correlation.bound(Context("ab" * 16, Caller("x", "x", "agent"))), pytest.raises(Refused):
        await client(hub, tmp_path).call("master.listServices")


async def post(hub: RunningHub, path: str, body: bytes, token: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.post(hub.url + path, data=body, headers=headers) as answer:
        return answer.status, orjson.loads(await answer.read())


@pytest.mark.parametrize("path", ["/internal/grant", "/internal/call"])
async def test_a_client_key_is_no_service_token(hub: RunningHub, path: str) -> None:
    for key in (hub.client, hub.admin, ""):
        status, answer = await post(hub, path, b"{}", key)
        assert (status, answer["code"]) == (403, "refused")


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 422), (b"[]", 422), (b"{}", 403), (b'{"context": 7, "tool": "x"}', 403)]
)
async def test_a_malformed_wish_is_named(hub: RunningHub, body: bytes, status: int) -> None:
    token = hub.hub.ring.service_token("asker")
    assert (await post(hub, "/internal/call", body, token))[0] == status


async def test_a_call_without_a_tool_is_invalid(hub: RunningHub) -> None:
    body = orjson.dumps({"context": context_of(hub, hub.client).token, "arguments": {}})
    status, answer = await post(hub, "/internal/call", body, hub.hub.ring.service_token("asker"))
    assert (status, answer["code"]) == (422, "invalid")


async def test_without_a_secrets_spoke_there_are_no_grants(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("{}", encoding="utf-8")
    async with running_hub(tmp_path, {"asker": {"number": 70, "namespace": "asker"}}) as hub:
        status, answer = await post(hub, "/internal/grant", b"{}", hub.hub.ring.service_token("asker"))
        assert status in (403, 422)
        assert answer["code"] in ("refused", "invalid")
        assert (await call(hub, "master.listServices"))["isError"] is False


def test_an_unknown_error_code_is_still_an_error() -> None:
    from master_mcp.rest.internal import _content  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(FleetError, match="odd"):
        _content({"result": {"isError": True, "structuredContent": {"code": "strange", "message": "odd"}}})
    with pytest.raises(Invalid, match="bad"):
        _content({"error": {"message": "bad"}})
