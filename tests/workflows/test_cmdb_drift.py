"""cmdb_drift_report: declared servers against real hosts."""

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

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
DECLARED: list[dict[str, Any]] = [
    {
        "hostname": "web1.example.net",
        "os_type": "Linux",
        "os_version": platform.freedesktop_os_release()["PRETTY_NAME"],
        "cpu_count": os.cpu_count(),
        "memory_gib": round(MEMORY * 1.05, 2),
        "ip_address": "127.0.0.1",
        "owner": "shop",
    },
    {"hostname": "web2", "os_version": "CentOS 7", "cpu_count": 96, "memory_gib": 3000, "ip_address": "10.9.9.8"},
    {"hostname": "renamed.example.net", "os_version": "CentOS 7", "ip_address": "127.0.0.9"},
    {"hostname": "gone", "environment": "lab", "ip_address": "10.9.9.9"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shipped]:
    """Hosts with the tag web, one of them dead, and servers that fit some of them."""
    folder = tmp_path_factory.mktemp("drifting")
    hosts: dict[str, Any] = {name: {"tags": ["web"]} for name in ("web1", "web2", "stranger")}
    hosts["dead"] = {"tags": ["web"], "port": free_port(), "address": "127.0.0.9"}
    with sshd(folder / "sshd") as server:
        async with shipped(folder / "data", server, {"cmdb": {"seed_example": False}}, hosts) as running:
            for one in DECLARED:
                await running.tool("cmdb.upsertCi", ci_class="server", attributes=one)
            yield running


async def test_what_differs_is_reported_and_nothing_else(fleet: Shipped) -> None:
    run = await fleet.run("cmdb_drift_report", tag="web")
    assert (run["status"], run["reason"]) == ("completed", None)
    differences = run["outputs"]["report"]["differences"]
    assert {(one["ci"], one["host"]) for one in differences} == {("server:web2", "web2")}
    found = {one["attribute"]: (one["declared"], one["actual"]) for one in differences}
    assert set(found) == {"os_version", "cpu_count", "memory_gib", "ip_address"}
    assert found["cpu_count"] == (96, os.cpu_count())
    assert found["os_version"][0] == "CentOS 7"
    assert found["memory_gib"] == (3000, pytest.approx(MEMORY, abs=0.1))


async def test_a_host_that_cannot_be_reached_is_listed_with_its_server(fleet: Shipped) -> None:
    report = (await fleet.run("cmdb_drift_report", tag="web"))["outputs"]["report"]
    (dead,) = report["unreachable"]
    assert (dead["host"], dead["ci"]) == ("dead", "server:renamed.example.net")
    assert "cannot be reached" in dead["reason"]
    assert report["compared"] == 2


async def test_servers_without_a_host_and_hosts_without_a_server_are_named(fleet: Shipped) -> None:
    report = (await fleet.run("cmdb_drift_report", tag="web"))["outputs"]["report"]
    assert (report["without_host"], report["without_ci"]) == (["server:gone"], ["stranger"])
    assert report["complete"] is True


async def test_only_the_servers_of_a_filter_are_compared(fleet: Shipped) -> None:
    report = (await fleet.run("cmdb_drift_report", tag="web", filters={"environment": "lab"}))["outputs"]["report"]
    assert (report["compared"], report["differences"], report["without_host"]) == (0, [], ["server:gone"])


async def test_the_cmdb_is_left_as_it_was(fleet: Shipped) -> None:
    before = await fleet.tool("cmdb.searchCis", ci_class="server")
    await fleet.run("cmdb_drift_report", tag="web")
    assert await fleet.tool("cmdb.searchCis", ci_class="server") == before


async def test_a_key_that_may_only_look_can_run_it(fleet: Shipped) -> None:
    key = fleet.hub.hub.keys.create("looker", "agent", ["read:*"])[1]
    arguments = {"name": "cmdb_drift_report", "inputs": {"tag": "web"}, "wait_s": 50.0}
    run = await fleet.tool("orchestrator.executeWorkflow", key, **arguments)
    assert (run["status"], run["outputs"]["report"]["compared"]) == ("completed", 2)


async def test_a_tag_that_no_host_has_fails_with_the_tags_there_are(fleet: Shipped) -> None:
    run = await fleet.run("cmdb_drift_report", tag="nothing")
    assert (run["status"], run["step_failed_at"]) == ("failed", "measured")
    assert "no host has the tag 'nothing'; tags: web" in run["reason"]
