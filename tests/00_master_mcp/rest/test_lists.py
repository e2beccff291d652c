"""What exists and how it is doing, over REST: figures are measured, never made up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import spoken
from gateways import ODD_TOOLS, Gateway, odd
from hubs import OWN, listening, rows, running_hub, settle
from prometheus_client.parser import text_string_to_metric_families
from support import free_port

from master_mcp.rest import diagnostics

pytestmark = pytest.mark.asyncio(loop_scope="module")


def own(hub: Gateway) -> int:
    """How many tools the hub itself has."""
    return sum(len(hub.hub.hub.catalog.of(name)) for name in OWN)


async def test_the_root_says_what_this_is_and_every_link_leads_somewhere(hub: Gateway):
    about = (await hub.get("/", key="")).body
    assert about["name"] == "MCP Fleet"
    assert {(await hub.get(path)).status for path in about["links"].values() if path != "/mcp"} <= {200, 405}


async def test_health_says_no_more_than_that_it_is_well(hub: Gateway):
    assert (await hub.get("/health", key="")).body == {"status": "ok", "service": "master"}


async def test_status_tells_each_service_and_since_when(hub: Gateway):
    status = (await hub.get("/mcp/status")).body
    assert (status["name"], status["status"], status["tools"]) == ("mcp-fleet", "ok", own(hub) + len(ODD_TOOLS))
    assert [(one["name"], one["namespace"], one["health"]) for one in status["services"]] == [
        *((name, name, "healthy") for name in OWN),
        ("odd", "os.odd", "healthy"),
    ]
    assert status["uptime_s"] > 0


async def test_a_service_that_is_down_degrades_the_status_with_its_reason(tmp_path: Path):
    url = f"http://127.0.0.1:{free_port()}"
    async with running_hub(tmp_path, rows(odd=url)) as running:
        await settle(running, "odd")
        hub = Gateway(running)
        assert (await hub.get("/mcp/status")).body["status"] == "degraded"
        found = (await hub.get("/mcp/servers")).body["servers"][-1]
        assert (found["health"], "cannot be reached" in found["reason"]) == ("unavailable", True)
        plugin = (await hub.get("/plugins")).body["plugins"][-1]
        assert (plugin["status"], "cannot be reached" in plugin["error"]) == ("error", True)
        probed = (await hub.get("/diagnostics/connection")).body
        assert probed["status"] == "degraded"
        assert (probed["services"][-1]["reachable"], probed["services"][-1]["latency_ms"]) == (False, None)
        ready = await hub.get("/ready", key="")
        assert (ready.status, list(ready.body["problems"])) == (503, ["odd"])


async def test_a_spoke_that_could_not_start_is_listed_with_its_problem(tmp_path: Path):
    async with running_hub(tmp_path, {"ghost": {"number": 77, "namespace": "ghost"}}) as running:
        hub = Gateway(running)
        probed = (await hub.get("/diagnostics/connection")).body["services"][-1]
        assert (probed["name"], probed["reachable"]) == ("ghost", False)
        assert "fleet install ghost" in probed["reason"]
        reloaded = await hub.post("/mcp/servers/ghost/reload")
        assert (reloaded.status, reloaded.body["health"]) == (200, "unavailable")


async def test_tools_are_those_the_key_may_call_with_their_schemas(hub: Gateway):
    everything = (await hub.get("/mcp/tools")).body
    assert (everything["total_tools"], everything["local_tools"], everything["external_tools"]) == (
        own(hub) + len(ODD_TOOLS),
        own(hub) + len(ODD_TOOLS),
        0,
    )
    look = next(tool for tool in everything["all_tools"] if tool["name"] == "os.odd.look")
    assert (look["wire_name"], look["server_name"], look["risk"]) == ("os_odd_look", "odd", "read")
    assert look["input_schema"]["properties"] == {"text": {"type": "string"}}
    _, narrow = hub.hub.hub.keys.create("looker", scopes=["read:os.odd.l*"])
    seen = (await hub.get("/mcp/tools", key=narrow)).body["all_tools"]
    assert [tool["name"] for tool in seen] == ["os.odd.limit", "os.odd.look"]
    assert (await hub.get("/mcp/servers/master/tools", key=narrow)).body["total_tools"] == 0


async def test_a_server_of_elsewhere_counts_as_external(tmp_path: Path):
    row: dict[str, Any] = {"number": 80, "namespace": "odd", "names": "verbatim"}
    async with (
        listening(spoken.spoke_app(odd, ODD_TOOLS)) as url,
        running_hub(tmp_path, {"odd": {**row, "url": url}}) as running,
    ):
        await settle(running, "odd")
        hub = Gateway(running)
        found = (await hub.get("/mcp/tools")).body
        assert (found["local_tools"], found["external_tools"]) == (own(hub), len(ODD_TOOLS))
        kinds = [plugin["kind"] for plugin in (await Gateway(running).get("/plugins")).body["plugins"]]
        assert kinds == [*("spoke" for _ in OWN), "external"]


@pytest.mark.parametrize("name", ["odd", "os.odd"])
async def test_the_tools_of_one_server_are_its_own(hub: Gateway, name: str):
    found = (await hub.get(f"/mcp/servers/{name}/tools")).body
    assert {tool["server_name"] for tool in found["all_tools"]} == {"odd"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/mcp/servers/nope/tools"), ("POST", "/mcp/servers/nope/reload")])
async def test_an_unknown_server_is_told_which_there_are(hub: Gateway, method: str, path: str):
    missing = await hub.send(method, path)
    assert (missing.status, missing.body["message"]) == (
        404,
        f"no server 'nope': the fleet has {', '.join((*OWN, 'odd'))}",
    )


@pytest.mark.parametrize("path", ["/mcp/servers/odd/reload", "/plugins/reload"])
async def test_a_reload_asks_the_server_for_its_tools_now(tmp_path: Path, path: str):
    tools = [ODD_TOOLS[0]]
    async with (
        listening(spoken.spoke_app(odd, tools)) as url,
        running_hub(tmp_path, rows(odd=url)) as running,
    ):
        await settle(running, "odd")
        hub = Gateway(running)
        tools.append(ODD_TOOLS[1])
        assert (await hub.post(path)).status == 200
        assert (await hub.get("/mcp/servers/odd/tools")).body["total_tools"] == 2


async def test_plugins_tell_what_each_can_do(hub: Gateway):
    found = (await hub.get("/plugins")).body
    assert (found["total"], found["plugins"][-1]["status"]) == (len(OWN) + 1, "active")
    assert "os.odd.look" in found["plugins"][-1]["capabilities"]
    assert found["plugins"][-1]["tool_count"] == len(ODD_TOOLS)


async def test_connections_are_tried_now_and_timed(hub: Gateway):
    found = (await hub.get("/diagnostics/connection")).body
    assert found["status"] == "ok"
    assert {one["name"]: one["reachable"] for one in found["services"]} == dict.fromkeys((*OWN, "odd"), True)
    assert all(one["latency_ms"] > 0 for one in [*found["services"], found["database"]])
    assert found["database"]["name"] == "sqlite"


async def test_a_service_that_does_not_answer_is_given_up(hub: Gateway, monkeypatch: pytest.MonkeyPatch):
    upstream = hub.hub.hub.fleet.members["odd"].upstream
    monkeypatch.setattr(diagnostics, "PROBE_WITHIN_S", 0.2)
    monkeypatch.setattr(upstream, "alive", asyncio.Event().wait)  # one that really hangs is found by its watcher first
    found = (await hub.get("/diagnostics/connection")).body["services"][-1]
    assert (found["reachable"], found["reason"]) == (False, "no answer within 0.2 s")


async def test_a_database_that_fails_is_a_finding_not_a_fault(hub: Gateway, monkeypatch: pytest.MonkeyPatch):
    from fleetkit.errors import Unavailable

    async def down(_work: object) -> None:
        raise Unavailable("the database is down: start it")

    monkeypatch.setattr(hub.hub.hub.store, "read", down)
    found = (await hub.get("/diagnostics/connection")).body
    assert (found["status"], found["database"]["reachable"]) == ("degraded", False)
    assert found["database"]["reason"] == "the database is down: start it"


async def test_performance_counts_what_was_really_called(tmp_path: Path):
    async with (
        listening(spoken.spoke_app(odd, ODD_TOOLS)) as url,
        running_hub(tmp_path, rows(odd=url)) as running,
    ):
        await settle(running, "odd")
        hub = Gateway(running)
        nothing = (await hub.get("/diagnostics/performance")).body
        assert nothing["calls"] == {"total": 0, "by_outcome": {}, "duration_ms": None}
        for action in ("look", "look", "miss"):
            await hub.execute(f"os.odd.{action}")
        await hub.execute("master.listServices")
        found = (await hub.get("/diagnostics/performance")).body
        assert (found["calls"]["total"], found["calls"]["by_outcome"]) == (4, {"ok": 3, "not_found": 1})
        assert {name: one["total"] for name, one in found["services"].items()} == {"master": 1, "odd": 3}
        times = found["calls"]["duration_ms"]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
        families = text_string_to_metric_families((await hub.get("/metrics")).body)
        scraped = {sample.name: 0.0 for family in families for sample in family.samples}
        assert "mcp_requests_total" in scraped


async def test_the_process_is_measured_where_the_kernel_keeps_its_figures(hub: Gateway):
    found = (await hub.get("/diagnostics/performance")).body
    status = Path(f"/proc/{found['process']['pid']}/status").read_text(encoding="ascii")
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024
    assert found["process"]["rss_bytes"] == pytest.approx(resident, rel=0.2)
    assert found["process"]["cpu_s"] > 0
    assert found["process"]["open_files"] > 3
    assert found["process"]["event_loop_lag_ms"] >= 0
    assert found["queues"] == {"calls_under_way": 0, "store_writes": 0}
