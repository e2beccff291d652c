import asyncio
from datetime import UTC, datetime

import pytest
from vaults import AGENT, OTHER, WEB1, Start, Use

from fleetkit.errors import Invalid, NotFound, Refused
from fleetkit.testing import OPERATOR, SpokeClient
from secrets_mcp import spoke
from secrets_mcp.vault import Vault

REF = "secret://keepass/ssh/web1"


def pass_time(seconds: float) -> None:
    """Let the running vault's clock jump, so that no test waits."""
    records = spoke.state(Vault).records
    now = records.clock() + seconds
    records.clock = lambda: now


async def test_a_lease_stands_for_the_secret_once(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    assert lease["reference"] == f"secret://lease/{lease['lease_id']}"
    assert await use(lease["reference"]) == WEB1
    with pytest.raises(Refused, match="used_up"):
        await use(lease["reference"])


async def test_a_lease_may_work_several_times_or_any_number(vault: SpokeClient, use: Use) -> None:
    twice = await vault.call("leaseSecret", reference=REF, max_uses=2, as_caller=AGENT)
    always = await vault.call("leaseSecret", reference=REF, max_uses=None, as_caller=AGENT)
    assert [await use(twice["reference"]) for _ in range(2)] == [WEB1, WEB1]
    assert [await use(always["reference"]) for _ in range(4)] == [WEB1] * 4
    states = {row["lease_id"]: row["state"] for row in await vault.call("listLeases", as_caller=AGENT)}
    assert states == {twice["lease_id"]: "used_up", always["lease_id"]: "active"}


async def test_a_lease_is_for_one_field(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=f"{REF}#Recovery Code", as_caller=AGENT)
    with pytest.raises(Invalid, match="one field"):
        await use(f"{lease['reference']}#password")
    assert await use(lease["reference"]) == "rc-1234-5678-rc"


async def test_a_lease_works_only_for_who_took_it(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    with pytest.raises(NotFound, match="no such lease"):
        await use(lease["reference"], caller=OTHER)
    assert await vault.call("listLeases", as_caller=OTHER) == []
    assert await use(lease["reference"]) == WEB1


async def test_a_refused_use_does_not_use_a_lease_up(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    with pytest.raises(Refused, match="argument"):
        await use(lease["reference"], argument="command")
    assert await use(lease["reference"]) == WEB1


async def test_an_expired_lease_gives_nothing_and_cannot_be_renewed(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, ttl_s=60, as_caller=AGENT)
    pass_time(61)
    with pytest.raises(Refused, match="expired"):
        await use(lease["reference"])
    with pytest.raises(Refused, match="expired"):
        await vault.call("renewLease", lease_id=lease["lease_id"], as_caller=AGENT)


async def test_a_renewed_lease_lives_from_now_but_not_beyond_the_longest_life(start: Start, use: Use) -> None:
    async with start(max_lease_ttl_s=100) as vault:
        lease = await vault.call("leaseSecret", reference=REF, ttl_s=60, max_uses=None, as_caller=AGENT)
        pass_time(50)
        renewed = await vault.call("renewLease", lease_id=lease["reference"], ttl_s=60, as_caller=AGENT)
        lived = datetime.fromisoformat(renewed["expires_at"]) - datetime.fromisoformat(lease["expires_at"])
        assert lived.total_seconds() == pytest.approx(40, abs=0.01)
        pass_time(40)
        assert await use(lease["reference"]) == WEB1
        pass_time(20)
        with pytest.raises(Refused, match="expired"):
            await use(lease["reference"])


async def test_a_renewal_never_shortens(vault: SpokeClient) -> None:
    lease = await vault.call("leaseSecret", reference=REF, ttl_s=600, as_caller=AGENT)
    renewed = await vault.call("renewLease", lease_id=lease["lease_id"], ttl_s=5, as_caller=AGENT)
    assert renewed["expires_at"] == lease["expires_at"]


async def test_a_revoked_lease_gives_nothing_and_may_be_revoked_again(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, max_uses=None, as_caller=AGENT)
    for _ in range(2):
        revoked = await vault.call("revokeLease", lease_id=lease["lease_id"], as_caller=AGENT)
        assert revoked["state"] == "revoked"
    with pytest.raises(Refused, match="revoked"):
        await use(lease["reference"])


async def test_another_agent_cannot_renew_or_revoke_a_lease_and_an_operator_can_revoke(vault: SpokeClient) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    for tool in ("renewLease", "revokeLease"):
        with pytest.raises(NotFound):
            await vault.call(tool, lease_id=lease["lease_id"], as_caller=OTHER)
    assert (await vault.call("revokeLease", lease_id=lease["lease_id"], as_caller=OPERATOR))["state"] == "revoked"


async def test_leases_and_their_uses_outlive_a_restart(start: Start, use: Use) -> None:
    async with start() as vault:
        lease = await vault.call("leaseSecret", reference=REF, max_uses=2, as_caller=AGENT)
        revoked = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
        await vault.call("revokeLease", lease_id=revoked["lease_id"], as_caller=AGENT)
        await use(lease["reference"])
    async with start():
        assert await use(lease["reference"]) == WEB1
        with pytest.raises(Refused, match="used_up"):
            await use(lease["reference"])
        with pytest.raises(Refused, match="revoked"):
            await use(revoked["reference"])


async def test_two_uses_at_once_of_a_single_use_lease_are_one_use(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    ends = await asyncio.gather(*(use(lease["reference"]) for _ in range(8)), return_exceptions=True)
    assert ends.count(WEB1) == 1
    assert sum(isinstance(end, Refused) for end in ends) == 7


async def test_a_lease_for_nothing_is_not_given(vault: SpokeClient) -> None:
    with pytest.raises(NotFound):
        await vault.call("leaseSecret", reference="secret://keepass/ssh/missing", as_caller=AGENT)
    with pytest.raises(Refused, match=r"spokes\.secrets\.rules"):
        await vault.call("leaseSecret", reference="secret://keepass/db/prod", as_caller=AGENT)
    assert await vault.call("listLeases", as_caller=AGENT) == []


async def test_a_lease_of_a_lease_is_refused(vault: SpokeClient) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    with pytest.raises(Invalid, match="renewLease"):
        await vault.call("leaseSecret", reference=lease["reference"], as_caller=AGENT)


@pytest.mark.parametrize("wrong", [{"ttl_s": 0}, {"ttl_s": -1}, {"ttl_s": 1e9}, {"max_uses": 0}, {"max_uses": -1}])
async def test_a_life_or_a_count_out_of_bounds_is_refused(vault: SpokeClient, wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid, match=r"(ttl_s|max_uses) is"):
        await vault.call("leaseSecret", {"reference": REF} | wrong, as_caller=AGENT)


async def test_a_rule_can_want_a_lease(start: Start, use: Use) -> None:
    leased = {"name": "leased", "paths": ["keepass/ssh/**"], "lease": True}
    async with start(rules=[leased], default_rules=False) as vault:
        with pytest.raises(Refused, match="leaseSecret"):
            await use(REF)
        lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
        assert await use(lease["reference"]) == WEB1


async def test_a_lease_ends_with_the_rule_that_allowed_it(start: Start, use: Use) -> None:
    async with start() as vault:
        lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    async with start(rules=[{"name": "stop", "effect": "deny", "paths": ["**"]}]):
        with pytest.raises(Refused, match="stop"):
            await use(lease["reference"])


async def test_a_call_without_the_hubs_signature_takes_no_lease(vault: SpokeClient) -> None:
    answer = await vault.client.call_tool("secrets_leaseSecret", {"reference": REF}, raise_on_error=False)
    assert answer.is_error
    answer = await vault.client.call_tool("secrets_listLeases", {}, raise_on_error=False)
    assert (answer.structured_content or {})["code"] == "refused"


async def test_times_are_told_in_utc(vault: SpokeClient) -> None:
    lease = await vault.call("leaseSecret", reference=REF, ttl_s=60, as_caller=AGENT)
    assert datetime.fromisoformat(lease["expires_at"]).tzinfo == UTC
