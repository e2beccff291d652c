"""Calling tools over REST: both shapes, every name, every way a call can end."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway
from hubs import OWN, running_hub, settle

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_call_answers_in_the_shape_that_clients_of_the_original_know(hub: Gateway):
    done = await hub.execute("master.getServerInfo")
    assert (done.status, done.kind, done.headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert set(done.body) == {"status", "result", "error", "duration_ms", "command_id", "timestamp"}
    assert (done.body["status"], done.body["error"], done.body["result"]["name"]) == ("success", None, "mcp-fleet")
    assert done.body["duration_ms"] > 0
    assert datetime.fromisoformat(done.body["timestamp"]).utcoffset() is not None


@pytest.mark.parametrize("action", ["os.odd.look", "os_odd_look", "look"])
@pytest.mark.parametrize("path", ["/mcp/execute", "/mcp/tools/execute"])
async def test_an_action_is_a_tool_in_any_spelling(hub: Gateway, action: str, path: str):
    done = await hub.post(path, {"action": action, "params": {"text": "x"}, "context": {"user": "u"}, "timeout": 20})
    assert (done.status, done.body["result"]) == (200, "seen")


@pytest.mark.parametrize(
    ("server", "tool"),
    [
        ("master", "list_services"),
        ("master", "listServices"),
        ("master", "master.listServices"),
        ("master", "master_listServices"),
    ],
)
@pytest.mark.parametrize("path", ["/mcp/execute", "/mcp/tools/execute"])
async def test_a_tool_is_named_by_its_server_and_its_name_there(hub: Gateway, server: str, tool: str, path: str):
    done = await hub.post(path, {"server_name": server, "tool_name": tool, "parameters": {}})
    assert [service["name"] for service in done.body["result"]] == [*OWN, "odd"]


@pytest.mark.parametrize("server", ["odd", "os.odd", "os_odd"])
async def test_a_server_is_known_by_its_name_and_by_its_namespace(hub: Gateway, server: str):
    done = await hub.post("/mcp/tools/execute", {"server_name": server, "tool_name": "look"})
    assert done.body["result"] == "seen"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"server_name": "nowhere", "tool_name": "look"}, "GET /mcp/servers names them all"),
        ({"server_name": "odd", "tool_name": "listServices"}, "GET /mcp/servers/odd/tools"),
        ({"action": "http_request", "params": {"url": "http://127.0.0.1/"}}, "no tool 'http_request'"),
        ({"action": "execute_command", "params": {"command": "id"}}, "no tool 'os.linux.runCommand'"),
    ],
)
async def test_what_is_not_there_is_not_found_and_says_where_to_look(hub: Gateway, body: dict[str, Any], words: str):
    missing = await hub.post("/mcp/execute", body)
    assert (missing.status, missing.body["code"]) == (404, "not_found")
    assert words in missing.body["message"]


@pytest.mark.parametrize(
    ("action", "result"),
    [
        ("wrap", [1, 2]),
        ("describe", {"name": "a", "size": 2}),
        ("say", "seen\ntwice"),
        ("quiet", None),
        (
            "draw",
            [{"type": "text", "text": "seen"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}],
        ),
    ],
)
async def test_a_result_is_what_the_tool_answered_without_its_envelope(hub: Gateway, action: str, result: object):
    assert (await hub.execute(f"os.odd.{action}")).body["result"] == result


async def test_a_tool_that_fails_in_its_own_words_has_run_and_is_told_apart(hub: Gateway):
    failed = await hub.execute("os.odd.fail")
    assert (failed.status, failed.body["status"]) == (200, "failed")
    assert (failed.body["result"], failed.body["error"]) == (None, "the disk is on fire")


@pytest.mark.parametrize(
    ("action", "status", "code", "words"),
    [
        ("miss", 404, "not_found", "list them first"),
        ("limit", 429, "over_budget", "wait"),
        ("crash", 503, "unavailable", "boom"),
        ("reject", 422, "invalid", "text is required"),
        ("ask", 409, "conflict", "through MCP"),
    ],
)
async def test_an_error_of_the_fleets_is_a_problem_with_its_keys(
    hub: Gateway, action: str, status: int, code: str, words: str
):
    failed = await hub.execute(f"os.odd.{action}")
    assert (failed.status, failed.kind) == (status, "application/problem+json")
    assert (failed.body["type"], failed.body["title"], failed.body["status"]) == ("about:blank", code, status)
    assert failed.body["code"] == code
    assert words in failed.body["message"] == failed.body["detail"]
    assert len(failed.body["correlation_id"]) == 32


async def test_an_answer_of_too_many_requests_says_in_whole_seconds_when_to_come_back(hub: Gateway):
    limited = await hub.execute("os.odd.limit")
    assert (limited.headers["Retry-After"], limited.body["retry_after"]) == ("3", 2.5)


async def test_the_callers_timeout_bounds_the_call(hub: Gateway):
    late = await hub.post("/mcp/execute", {"action": "os.odd.hang", "timeout": 1})
    assert (late.status, late.body["code"], late.body["retryable"]) == (504, "timed_out", True)
    assert "within 1 s" in late.body["message"]
    assert [row["outcome"] for row in hub.hub.audit_rows() if row["tool"] == "os.odd.hang"] == ["timed_out"]


async def test_a_timeout_longer_than_the_deadline_does_not_lengthen_it(tmp_path: Path):
    import spoken
    from gateways import ODD_TOOLS, odd
    from hubs import listening, rows

    async with (
        listening(spoken.spoke_app(odd, ODD_TOOLS)) as url,
        running_hub(tmp_path, rows(odd=url), {"deadline_s": 0.5}) as running,
    ):
        await settle(running, "odd")
        late = await Gateway(running).post("/mcp/execute", {"action": "os.odd.hang", "timeout": 600})
        assert "within 0.5 s" in late.body["message"]


async def test_an_agents_risky_call_is_held_with_its_plan_and_not_made(hub: Gateway):
    held = await hub.execute("os.odd.wipe", key=hub.agent)
    assert (held.status, held.kind, held.body["code"]) == (202, "application/problem+json", "needs_approval")
    assert "os.odd.wipe" in held.body["plan"]
    assert (await hub.execute("os.odd.wipe")).body["result"] == "seen"


async def test_a_held_call_names_its_stored_request(hub: Gateway):
    held = await hub.execute("os.odd.hold")
    assert (held.status, held.body["approval_id"], held.body["plan"]) == (202, "a1", "hold it")


async def test_a_key_calls_only_what_its_scopes_name(hub: Gateway):
    _, narrow = hub.hub.hub.keys.create("narrow", scopes=["read:os.odd.*"])
    assert (await hub.execute("os.odd.look", key=narrow)).status == 200
    refused = await hub.execute("master.listServices", key=narrow)
    assert (refused.status, refused.body["code"]) == (403, "refused")


async def test_a_call_is_one_audit_row_under_the_callers_trace_and_one_count(hub: Gateway):
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    done = await hub.post("/mcp/execute", {"action": "os.odd.describe"}, headers=header)
    assert done.body["command_id"] == trace
    row = next(row for row in hub.hub.audit_rows() if row["correlation_id"] == trace)
    assert (row["door"], row["tool"], row["outcome"], row["risk"]) == ("rest", "os.odd.describe", "ok", "read")
    assert 'outcome="ok",service="odd",tool="os.odd.describe"' in (await hub.get("/metrics")).body


@pytest.mark.parametrize(
    ("action", "params", "tool"),
    [
        ("execute_command", {"command": "echo hello"}, "os.linux.runCommand"),
        ("write_file", {"path": "WORKSPACE/a.txt", "content": "hello"}, "os.linux.writeFile"),
        ("read_file", {"path": "WORKSPACE/b.txt"}, "os.linux.readFile"),
        ("list_directory", {"path": "WORKSPACE"}, "os.linux.listDirectory"),
        ("search_files", {"root": "WORKSPACE", "name": "*.txt"}, "os.linux.searchFiles"),
    ],
)
async def test_the_local_tools_of_the_original_are_tools_of_the_linux_spoke(
    tmp_path: Path, action: str, params: dict[str, str], tool: str
):
    async with running_hub(tmp_path, {"linux_cli": {}}) as running:
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        (workspace / "b.txt").write_text("hello", encoding="utf-8")
        placed = {key: value.replace("WORKSPACE", str(workspace)) for key, value in params.items()}
        done = await Gateway(running).execute(action, **placed)
        assert (done.status, done.body["status"]) == (200, "success"), done.body
        assert {row["tool"] for row in running.audit_rows()} == {tool}
