from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from vaults import AGENT, OTHER, PASSWORD, WEB1, Outcomes, Start, Use

from fleetkit.errors import Invalid, NotFound, OverBudget, Refused
from fleetkit.scrub import MASK
from fleetkit.testing import SpokeClient
from secrets_mcp import spoke
from secrets_mcp.backends.keepass import KeePass
from secrets_mcp.backends.port import NewSecret

REF = "secret://keepass/ssh/web1"
USE = {"spoke_name": "linux_cli", "tool": "os.linux.sshExecuteCommand", "argument": "credential"}


def references(listing: dict[str, list[dict[str, str]]]) -> list[str]:
    return [entry["reference"] for entry in listing["secrets"]]


async def test_secrets_of_every_store_are_listed_with_age_and_tags(vault: SpokeClient) -> None:
    await vault.call("createSecret", reference="secret://files/api/token")
    listing = await vault.call("listSecrets")
    assert set(references(listing)) == {
        *(REF, "secret://keepass/ssh/odd%2Fname%231", "secret://keepass/db/prod", "secret://files/api/token"),
    }
    web1 = next(entry for entry in listing["secrets"] if entry["reference"] == REF)
    assert (web1["tags"], web1["age_days"]) == (["prod"], 0)


async def test_a_list_can_be_narrowed_and_cut(vault: SpokeClient) -> None:
    assert references(await vault.call("listSecrets", backend="keepass", path="db/")) == ["secret://keepass/db/prod"]
    one = await vault.call("listSecrets", limit=1)
    assert (len(one["secrets"]), one["total"]) == (1, 3)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_out_of_bounds_is_refused(vault: SpokeClient, limit: int) -> None:
    with pytest.raises(Invalid, match="1 to 1000"):
        await vault.call("listSecrets", limit=limit)


async def test_an_unknown_store_is_refused_with_the_known_ones(vault: SpokeClient) -> None:
    with pytest.raises(NotFound, match="keepass, files, environment"):
        await vault.call("listSecrets", backend="azure")


async def test_a_store_that_does_not_open_hides_no_other(start: Start, password_file: Path) -> None:
    password_file.write_text("wrong", encoding="utf-8")
    async with start() as vault:
        await vault.call("createSecret", reference="secret://files/x")
        listing = await vault.call("listSecrets")
        assert references(listing) == ["secret://files/x"]
        assert "does not open" in listing["unavailable"]["keepass"]
        status = {row["name"]: row["state"] for row in (await vault.call("getBackends"))["backends"]}
        assert status == {"keepass": "unavailable", "files": "ready", "environment": "not_configured"}


async def test_search_finds_every_word_in_names_tags_and_fields_and_never_in_values(vault: SpokeClient) -> None:
    assert references(await vault.call("searchSecrets", query="WEB1 prod")) == [REF]
    assert references(await vault.call("searchSecrets", query="recovery")) == [REF]
    for value in (WEB1, "hunter2", "deploy", "web server"):
        assert references(await vault.call("searchSecrets", query=value)) == []
    with pytest.raises(Invalid, match="no word"):
        await vault.call("searchSecrets", query="  ")


async def test_what_expires_soon_or_is_old_is_named_soonest_first(vault: SpokeClient, keepass: KeePass) -> None:
    now = datetime.now(UTC)
    for name, days in (("in9", 9), ("gone", -2), ("in40", 40)):
        keepass.create(NewSecret(f"exp/{name}", expires_at=now + timedelta(days=days)), "some-value")
    soon = references(await vault.call("getExpiring", within_days=30))
    assert soon == ["secret://keepass/exp/gone", "secret://keepass/exp/in9"]
    everything = await vault.call("getExpiring", within_days=0, max_age_days=0)
    assert everything["total"] == 6


async def test_a_description_tells_versions_attachments_and_uses(vault: SpokeClient, use: Use) -> None:
    await use(REF)
    await use(f"{REF}#username")
    await vault.call("rotateSecret", reference=REF)
    info = await vault.call("describeSecret", reference=REF)
    assert (info["version"], info["uses"], info["writable"], info["value"]) == (2, 2, True, None)
    assert info["attachments"] == ["id_web1", "photo.jpg"]
    assert info["last_used_at"] is not None


async def test_uses_of_a_secret_with_a_longer_name_are_not_counted(vault: SpokeClient, use: Use) -> None:
    await vault.call("createSecret", reference="secret://keepass/ssh/web10")
    await use("secret://keepass/ssh/web10")
    assert (await vault.call("describeSecret", reference=REF))["uses"] == 0


async def test_a_lease_is_described_as_what_it_stands_for(vault: SpokeClient) -> None:
    lease = await vault.call("leaseSecret", reference=REF)
    info = await vault.call("describeSecret", reference=lease["reference"])
    assert (info["reference"], info["tags"]) == (lease["reference"], ["prod"])


@pytest.mark.parametrize("name", ["web1", "ssh/web1", REF, "/ssh/web1"])
async def test_a_secret_is_got_by_reference_path_or_name_without_its_value(vault: SpokeClient, name: str) -> None:
    info = await vault.call("getSecret", secretName=name)
    assert (info["reference"], info["value"]) == (REF, None)


async def test_a_name_in_two_stores_is_not_guessed_between(vault: SpokeClient) -> None:
    await vault.call("createSecret", reference="secret://files/web1")
    assert (await vault.call("getSecret", secretName="ssh/web1"))["reference"] == REF
    assert (await vault.call("getSecret", secretName="web1"))["reference"] == "secret://files/web1"
    await vault.call("createSecret", reference="secret://files/ssh/web1")
    with pytest.raises(Invalid, match="give the reference"):
        await vault.call("getSecret", secretName="ssh/web1")


async def test_a_name_nobody_has_or_none_at_all_is_refused(vault: SpokeClient) -> None:
    with pytest.raises(NotFound, match="searchSecrets"):
        await vault.call("getSecret", secretName="nobody")
    with pytest.raises(Invalid, match="name the secret"):
        await vault.call("getSecret")


async def test_a_version_that_is_not_the_present_one_is_not_found(vault: SpokeClient) -> None:
    await vault.call("rotateSecret", reference=REF)
    assert (await vault.call("getSecret", reference=REF, version=2))["version"] == 2
    with pytest.raises(NotFound, match="version 2"):
        await vault.call("getSecret", reference=REF, version=1)


async def test_an_entry_of_keepass_is_got_by_path_and_field(vault: SpokeClient) -> None:
    info = await vault.call("getEntry", entryPath="/ssh/web1", field="totp")
    assert (info["reference"], info["value"]) == (f"{REF}#totp", None)
    with pytest.raises(NotFound, match="no field pin"):
        await vault.call("getEntry", entryPath="ssh/web1", field="pin")


def test_the_ids_of_the_original_lead_to_these_tools() -> None:
    aliases = {alias: name for name, tool in spoke.tools.items() for alias in tool.aliases}
    assert aliases == {"secrets.keepass.getEntry": "get_entry", "secrets.getMetrics": "get_backends"}


async def test_a_value_is_not_returned_by_default_and_the_attempt_is_recorded(
    vault: SpokeClient, outcomes: Outcomes
) -> None:
    with pytest.raises(Refused, match="fleet secrets reveal"):
        await vault.call("getSecret", reference=REF, reveal=True)
    assert outcomes() == [("reveal", REF, "refused")]


async def test_a_rule_can_return_named_values_to_named_keys(start: Start, use: Use, outcomes: Outcomes) -> None:
    rule = {"name": "show", "reveal": True, "paths": ["keepass/ssh/web1"], "callers": ["claude"]}
    async with start(rules=[rule]) as vault:
        await use(REF)  # now it is masked everywhere else
        for _ in range(2):
            shown = await vault.call("getSecret", reference=REF, reveal=True, as_caller=AGENT)
            assert shown["value"] == WEB1
        for reference, caller in ((REF, OTHER), ("secret://keepass/db/prod", AGENT)):
            with pytest.raises(Refused):
                await vault.call("getSecret", reference=reference, reveal=True, as_caller=caller)
    assert [row for row in outcomes() if row[0] == "reveal"] == [
        ("reveal", REF, "allowed"),
        ("reveal", REF, "allowed"),
        ("reveal", REF, "refused"),
        ("reveal", "secret://keepass/db/prod", "refused"),
    ]


async def test_a_lease_is_never_revealed(start: Start) -> None:
    rule = {"name": "show", "reveal": True, "paths": ["keepass/ssh/web1"], "callers": ["test"]}
    async with start(rules=[rule]) as vault:
        lease = await vault.call("leaseSecret", reference=REF)
        with pytest.raises(Refused):
            await vault.call("getSecret", reference=lease["reference"], reveal=True)


async def test_beside_a_revealed_value_everything_is_masked_as_ever(start: Start, use: Use, keepass: KeePass) -> None:
    rule = {"name": "show", "reveal": True, "paths": ["keepass/ssh/web1"], "callers": ["test"]}
    async with start(rules=[rule]) as vault:
        tagged = "secret://keepass/ssh/tagged"
        await vault.call("createSecret", reference=tagged, kind="letters", tags=["t"])  # a comma would end a tag
        value = await use(tagged)
        keepass.create(NewSecret("ssh/leaky", tags=(f"x{value}",)), "other-value")
        info = await vault.call("getSecret", reference="secret://keepass/ssh/leaky")
        assert info["tags"] == [f"x{MASK}"]


async def test_a_policy_is_explained_without_being_used(vault: SpokeClient, outcomes: Outcomes) -> None:
    asked = {"reference": REF, "destination": "web1"} | USE
    assert await vault.call("explainPolicy", asked) == {
        "allowed": True,
        "rule": "ssh-login",
        "reason": "rule ssh-login allows it",
    }
    refused = await vault.call("explainPolicy", asked | {"argument": "command"})
    assert (refused["allowed"], "argument" in refused["reason"]) == (False, True)
    assert outcomes() == []


async def test_a_policy_is_explained_for_another_key(start: Start) -> None:
    rule = {"name": "ops", "paths": ["keepass/db/*"], "callers": ["role:operator", "ci"]}
    asked = {"reference": "secret://keepass/db/prod", "destination": "db"} | USE
    async with start(rules=[rule]) as vault:
        assert (await vault.call("explainPolicy", asked))["allowed"]
        assert not (await vault.call("explainPolicy", asked, as_caller=AGENT))["allowed"]
        assert (await vault.call("explainPolicy", asked | {"caller": "ci"}, as_caller=AGENT))["allowed"]
        assert (await vault.call("explainPolicy", asked | {"caller": "x", "role": "operator"}))["allowed"]


async def test_an_ended_lease_is_explained_as_ended(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference=REF, as_caller=AGENT)
    asked = {"reference": lease["reference"], "destination": "web1"} | USE
    assert (await vault.call("explainPolicy", asked, as_caller=AGENT))["allowed"]
    await use(lease["reference"])
    ended = await vault.call("explainPolicy", asked, as_caller=AGENT)
    assert (ended["allowed"], "used_up" in ended["reason"]) == (False, True)


async def test_backends_tell_uses_by_outcome_and_active_leases(vault: SpokeClient, use: Use) -> None:
    await vault.call("leaseSecret", reference=REF)
    await use(REF)
    with pytest.raises(Refused):
        await use("secret://keepass/db/prod")
    found = await vault.call("getBackends")
    assert (found["active_leases"], found["outcomes"]) == (1, {"allowed": 1, "refused": 1})


async def test_a_value_too_large_to_mask_is_not_handed_out(vault: SpokeClient, use: Use, as_keepassxc: Any) -> None:
    kp = as_keepassxc()
    kp.find_entries(title="web1", first=True).notes = "n" * 70_000
    kp.save()
    with pytest.raises(OverBudget, match="not a credential"):
        await use(f"{REF}#notes")
    assert (await vault.call("getBackends"))["outcomes"] == {"allowed": 1, "over_budget": 1}


async def test_an_empty_installation_answers_and_is_ready(start: Start) -> None:
    async with start(keepass_path=None, keepass_password_file=None) as vault:
        assert (await vault.call("getBackends"))["backends"][0]["state"] == "not_configured"
        await spoke.checks["backends"]()


async def test_it_is_not_ready_while_a_configured_store_cannot_be_read(start: Start, database: Path) -> None:
    async with start():
        await spoke.checks["backends"]()
        database.unlink()
        with pytest.raises(Exception, match="cannot read"):
            await spoke.checks["backends"]()


async def test_the_files_that_open_keepass_are_no_secrets_to_use(start: Start, tmp_path: Path) -> None:
    inside = tmp_path / "data" / "secrets" / "master"
    inside.parent.mkdir(parents=True)
    inside.write_text(PASSWORD, encoding="utf-8")
    inside.chmod(0o600)
    async with start(keepass_password_file=inside) as vault:
        assert REF in references(await vault.call("listSecrets"))
        assert "secret://files/master" not in references(await vault.call("listSecrets"))
