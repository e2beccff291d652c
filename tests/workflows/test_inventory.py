"""nightly_inventory: what real hosts say of themselves, in the CMDB."""

import os
import platform
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from shipped import Shipped, shipped
from sshd import needs_sshd, sshd
from support import free_port

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_sshd]

RULE: dict[str, Any] = {
    "name": "hosts may say what they are",
    "who": {"group": "operators"},
    "door": "workflow",
    "tools": "cmdb.upsertCi",
    "when": '.arguments.source == "discovery"',
    "answer": "allow",
    "untrusted": True,
}
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shipped]:
    """Hosts with the tag inventory, a dead one among them, some with tags of their own, and an empty CMDB."""
    folder = tmp_path_factory.mktemp("inventory")
    tags = {"app1": "inventory", "web1": "inventory", "db1": "known", "lab1": "lab", "new1": "new"}
    hosts: dict[str, Any] = {name: {"tags": [tag]} for name, tag in tags.items()}
    hosts["dead"] = {"tags": ["inventory"], "port": free_port()}
    with sshd(folder / "sshd") as server:
        async with shipped(folder / "data", server, {"cmdb": {"seed_example": False}}, hosts, [RULE]) as running:
            yield running


async def servers(fleet: Shipped) -> dict[str, Any]:
    """Each server of the CMDB by name."""
    found = await fleet.tool("cmdb.searchCis", ci_class="server")
    return {one["name"]: one for one in found["items"]}


async def test_every_host_becomes_a_server_and_one_that_cannot_be_reached_is_listed(fleet: Shipped) -> None:
    run = await fleet.run("nightly_inventory")
    assert (run["status"], run["reason"]) == ("completed", None)
    assert run["outputs"]["written"] == [
        {"ci": "server:app1", "outcome": "inserted"},
        {"ci": "server:web1", "outcome": "inserted"},
    ]
    (dead,) = run["outputs"]["unreachable"]
    assert dead["name"] == "dead"
    assert "cannot be reached" in dead["reason"]
    found = await servers(fleet)
    assert set(found) == {"app1", "web1"}
    facts = found["web1"]["attributes"]
    assert (facts["os_type"], facts["cpu_count"]) == ("linux", os.cpu_count())
    assert facts["os_version"].split()[-1] == platform.freedesktop_os_release()["VERSION_ID"]
    assert facts["memory_gib"] == pytest.approx(MEMORY, abs=0.1)
    assert facts.get("ip_address") != "127.0.0.1"


async def test_once_more_it_changes_nothing(fleet: Shipped) -> None:
    await fleet.run("nightly_inventory")
    before = await servers(fleet)
    run = await fleet.run("nightly_inventory")
    assert (run["outputs"]["changed"], len(run["outputs"]["written"])) == (0, 2)
    assert await servers(fleet) == before


async def test_a_server_that_the_cmdb_knows_keeps_its_name_and_what_people_wrote(fleet: Shipped) -> None:
    written = {"hostname": "db1.example.net", "os_version": "CentOS 7", "owner": "dba"}
    await fleet.tool("cmdb.upsertCi", ci_class="server", attributes=written)
    await fleet.tool("cmdb.upsertCi", ci_class="server", attributes={"hostname": "db1x.example.net"})
    run = await fleet.run("nightly_inventory", tag="known")
    assert run["outputs"]["written"] == [{"ci": "server:db1.example.net", "outcome": "updated"}]
    attributes = (await servers(fleet))["db1.example.net"]["attributes"]
    assert (attributes["os_version"], attributes["owner"]) == ("CentOS 7", "dba")
    assert attributes["cpu_count"] == os.cpu_count()


async def test_a_class_that_has_an_attribute_for_the_kernel_gets_it(fleet: Shipped) -> None:
    kind = await fleet.tool("cmdb.describeClass", name="server")
    attributes = kind["attributes"] | {"kernel": {}}
    await fleet.tool("cmdb.saveClass", name="server", description="", attributes=attributes, identity=["hostname"])
    await fleet.run("nightly_inventory", tag="new")
    assert (await servers(fleet))["new1"]["attributes"]["kernel"] == platform.release()


async def test_without_the_rule_a_person_confirms_what_hosts_say(fleet: Shipped) -> None:
    arguments = {"name": "nightly_inventory", "inputs": {"tag": "lab"}, "wait_s": 0.0}
    other = fleet.hub.hub.keys.create("other", "operator")[1]
    async with fleet.under():
        begun = await fleet.tool("orchestrator.executeWorkflow", **arguments)
        run = await fleet.until_waiting(begun["id"], "write")
        assert "lab1" not in await servers(fleet)
        (held,) = [one["approval_id"] for one in run["results"] if one["approval_id"]]
        await fleet.tool("master.approve", other, id=held)
        assert (await fleet.ended(begun["id"]))["status"] == "completed"
    assert "lab1" in await servers(fleet)


async def test_saved_it_has_an_owner_and_an_hour(fleet: Shipped) -> None:
    definition = await fleet.tool("orchestrator.getDefinition", name="nightly_inventory")
    saved = await fleet.tool("orchestrator.saveDefinition", definition=definition)
    assert (saved["origin"], saved["owner"]) == ("saved", "admin")
    assert saved["schedule"] == {"cron": "15 2 * * *", "timezone": "UTC"}


async def test_a_tag_that_no_host_has_fails_with_the_tags_there_are(fleet: Shipped) -> None:
    run = await fleet.run("nightly_inventory", tag="nothing")
    assert (run["status"], run["step_failed_at"]) == ("failed", "measured")
    assert "no host has the tag 'nothing'; tags: inventory, known, lab, new" in run["reason"]
