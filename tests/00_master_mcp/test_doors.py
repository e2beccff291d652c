"""The door: who may come in, what a broken request is told."""

import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import spoken
from hubs import OWN, RunningHub, ask, call, listening, rows, running_hub, settle, text_of
from wire import ERAS


async def get(hub: RunningHub, path: str, **headers: str) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{hub.url}{path}", headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_health_and_readiness_are_open_and_metrics_need_an_operators_key(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        assert (await get(hub, "/health"))[0] == 200
        assert json.loads((await get(hub, "/ready"))[1]) == {"status": "ready", "problems": {}, "warnings": {}}
        assert (await get(hub, "/metrics"))[0] == 401
        assert (await get(hub, "/metrics", Authorization=f"Bearer {hub.client}"))[0] == 403
        status, text, _ = await get(hub, "/metrics", Authorization=f"Bearer {hub.admin}")
        assert status == 200
        assert 'mcp_service_health{service="master"} 1.0' in text


async def test_metrics_can_be_opened_by_configuration(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub={"metrics_open": True}) as hub:
        assert (await get(hub, "/metrics"))[0] == 200


async def test_readiness_names_what_is_missing(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd="http://127.0.0.1:9")) as hub:
        await settle(hub, "odd")
        status, text, _ = await get(hub, "/ready")
        assert status == 503
        assert "cannot be reached" in json.loads(text)["problems"]["odd"]


async def test_a_spoke_without_its_package_is_a_problem_of_its_own(tmp_path: Path) -> None:
    async with running_hub(tmp_path, {"ghost": {"number": 77, "namespace": "ghost"}}) as hub:
        assert (await get(hub, "/health"))[0] == 200
        assert "fleet install ghost" in (await get(hub, "/ready"))[1]


async def test_a_spoke_that_breaks_while_it_loads_is_a_problem_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "burst_mcp.py").write_text("raise TypeError('half written')", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # the path is the process's own
    async with running_hub(tmp_path / "data", {"burst": {"number": 78, "namespace": "burst"}}) as hub:
        assert (await get(hub, "/health"))[0] == 200
        assert "half written" in (await get(hub, "/ready"))[1]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}])
async def test_without_a_good_key_there_is_one_sentence_and_a_challenge(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running_hub(tmp_path) as hub:
        status, text, answered = await get(hub, "/mcp", **headers)
        assert status == 401
        assert answered["WWW-Authenticate"] == "Bearer"
        assert json.loads(text)["code"] == "refused"


async def test_the_other_header_for_keys_works_too(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        status, answer = await ask(hub, "tools/list", headers={"Authorization": "", "X-API-Key": hub.client})
        assert status == 200
        assert "master_getServerInfo" in [tool["name"] for tool in answer["result"]["tools"]]


async def test_well_known_urls_are_plainly_not_there(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        status, text, _ = await get(hub, "/.well-known/oauth-protected-resource")
        assert (status, json.loads(text)["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "setting"),
    [
        ({"Host": "evil.example.com"}, "hub.allowed_hosts"),
        ({"Host": "127.0.0.1.evil.example.com"}, "hub.allowed_hosts"),
        ({"Host": "[::1"}, "hub.allowed_hosts"),
        ({"Origin": "http://evil.example.com"}, "hub.allowed_origins"),
        ({"Origin": "null"}, "hub.allowed_origins"),
        ({"Origin": "http://[bad"}, "hub.allowed_origins"),
    ],
)
async def test_a_foreign_host_or_origin_is_refused_even_with_a_key(
    tmp_path: Path, headers: dict[str, str], setting: str
) -> None:
    async with running_hub(tmp_path) as hub:
        status, answer = await ask(hub, "server/discover", headers=headers)
        assert status == 403
        assert setting in answer["message"]


async def test_allowed_hosts_and_origins_come_in(tmp_path: Path) -> None:
    allowed = {"allowed_hosts": ["fleet.example.com"], "allowed_origins": ["https://console.example.com"]}
    async with running_hub(tmp_path, hub=allowed) as hub:
        headers = {"Host": "fleet.example.com:8000", "Origin": "https://console.example.com"}
        assert (await ask(hub, "server/discover", headers=headers))[0] == 200
        assert (await ask(hub, "server/discover", headers={"Origin": "http://localhost:5173"}))[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
    ],
)
async def test_what_is_not_one_message_is_a_protocol_error(tmp_path: Path, body: bytes, code: int) -> None:
    async with running_hub(tmp_path) as hub:
        status, answer = await ask(hub, "ping", body=body)
        assert (status, answer["error"]["code"], answer["id"]) == (400, code, None)


async def test_a_request_past_the_size_limit_is_refused(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub={"max_request_bytes": 2048}) as hub:
        status, answer = await ask(hub, "tools/call", {"name": "x", "arguments": {"blob": "x" * 4096}})
        assert status == 413
        assert "hub.max_request_bytes" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Mcp-Method": "prompts/list"}, -32020),
        ({"Mcp-Method": ""}, -32020),
        ({"MCP-Protocol-Version": "v999"}, -32020),
        ({"MCP-Protocol-Version": ""}, -32020),
    ],
)
async def test_headers_that_contradict_the_body_are_refused(tmp_path: Path, headers: dict[str, str], code: int) -> None:
    async with running_hub(tmp_path) as hub:
        status, answer = await ask(hub, "tools/list", headers=headers)
        assert (status, answer["error"]["code"]) == (400, code)


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "unknown/method", "resources/subscribe"])
async def test_what_this_era_does_not_have_is_not_found(tmp_path: Path, method: str) -> None:
    async with running_hub(tmp_path) as hub:
        status, answer = await ask(hub, method)
        assert (status, answer["error"]["code"], answer["id"]) == (404, -32601, 1)


async def test_the_stateless_era_takes_only_posts(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {hub.client}", "MCP-Protocol-Version": "2026-07-28"}
        for method in ("GET", "DELETE", "PUT"):
            async with session.request(method, f"{hub.url}/mcp", headers=headers) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        del headers["MCP-Protocol-Version"]
        async with session.put(f"{hub.url}/mcp", headers=headers) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST, GET, DELETE")


@pytest.mark.parametrize(("version", "status"), [("2026-07-28", 202), ("v999", 400)])
async def test_a_notification_is_acknowledged_at_a_version_that_is_served(
    tmp_path: Path, version: str, status: int
) -> None:
    async with running_hub(tmp_path) as hub:
        body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
        assert (await ask(hub, "x", body=body, headers={"MCP-Protocol-Version": version}))[0] == status


async def test_status_is_a_resource(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        _, listed = await ask(hub, "resources/list")
        assert [found["uri"] for found in listed["result"]["resources"]] == ["master://status"]
        assert (await ask(hub, "resources/templates/list"))[1]["result"]["resourceTemplates"] == []
        _, read = await ask(hub, "resources/read", {"uri": "master://status"})
        assert json.loads(read["result"]["contents"][0]["text"])["services"][0]["name"] == "master"
        status, missing = await ask(hub, "resources/read", {"uri": "master://nope"})
        assert (status, missing["error"]["code"], missing["error"]["data"]) == (400, -32602, {"uri": "master://nope"})


async def test_the_hub_describes_itself_its_services_and_its_tools(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd="http://127.0.0.1:9")) as hub:
        await settle(hub, "odd")
        info = (await call(hub, "master_getServerInfo"))["structuredContent"]
        assert (info["name"], info["tools"]) == ("mcp-fleet", len(hub.hub.catalog.all()))
        services = (await call(hub, "master.listServices"))["structuredContent"]["result"]
        assert [(s["name"], s["health"]) for s in services] == [
            *((name, "healthy") for name in OWN),
            ("odd", "unavailable"),
        ]
        odd = (await call(hub, "master_get_service_health", {"service": "os.odd"}))["structuredContent"]
        assert "cannot be reached" in odd["reason"]
        unknown = await call(hub, "master_getServiceHealth", {"service": "nope"})
        assert ", ".join((*OWN, "odd")) in text_of(unknown)
        lines = (await call(hub, "listTools", {"query": "health number"}))["structuredContent"]["result"]
        assert [line["id"] for line in lines] == ["master.getServerInfo", "master.listServices"]
        assert (await call(hub, "listTools", {"service": "odd"}))["structuredContent"]["result"] == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_says_in_either_era_which_services_are_missing_from_it(tmp_path: Path, era: str) -> None:
    async with running_hub(tmp_path, rows(odd="http://127.0.0.1:9")) as hub:
        await settle(hub, "odd")
        async with ERAS[era](f"{hub.url}/mcp", hub.client) as client:
            listed = (await client.request("tools/list")).result
        assert list(listed["_meta"]["fleet/unavailable"]) == ["odd"]
        assert "cannot be reached" in listed["_meta"]["fleet/unavailable"]["odd"]
        assert len(listed["tools"]) == len(hub.hub.catalog.all())


async def test_a_key_sees_and_calls_only_what_its_scopes_name(tmp_path: Path) -> None:
    async with listening(spoken.spoke_app(spoken.good)) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        _, narrow = hub.hub.keys.create("narrow", scopes=["read:os.odd.*"])
        _, listed = await ask(hub, "tools/list", key=narrow)
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["os_odd_look"]
        assert text_of(await call(hub, "os_odd_look", key=narrow)) == "seen"
        refused = await call(hub, "master_listServices", key=narrow)
        assert refused["structuredContent"]["code"] == "refused"


async def test_an_agent_is_held_before_a_destroying_tool_and_an_operator_is_not(tmp_path: Path) -> None:
    wild = {**spoken.TOOL, "_meta": {"fleet/id": "os.odd.look", "risk": "destroy"}}
    async with listening(spoken.spoke_app(spoken.good, [wild])) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        held = await call(hub, "os_odd_look")
        assert held["structuredContent"]["code"] == "needs_approval"
        assert held["structuredContent"]["plan"]
        assert text_of(await call(hub, "os_odd_look", key=hub.admin)) == "seen"
        outcomes = [(row["risk"], row["outcome"]) for row in hub.audit_rows()]
        assert outcomes == [("destroy", "needs_approval"), ("destroy", "intent"), ("destroy", "ok")]


async def test_every_call_is_one_audit_row_and_one_count(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        for _ in range(3):
            await call(hub, "master_listServices", {})
        result = await call(hub, "nope", {"a": 1})
        rows_ = hub.audit_rows()
        assert [(row["tool"], row["outcome"]) for row in rows_] == [("master.listServices", "ok")] * 3 + [
            ("unknown", "not_found")
        ]
        assert rows_[3]["correlation_id"] == result["structuredContent"]["correlation_id"]
        assert len({row["args_hash"] for row in rows_[:3]}) == 1
        text = (await get(hub, "/metrics", Authorization=f"Bearer {hub.admin}"))[1]
        assert 'mcp_requests_total{outcome="ok",service="master",tool="master.listServices"} 3.0' in text
        assert 'mcp_errors_total{error_type="not_found",service="hub"} 1.0' in text


async def test_a_callers_trace_is_the_correlation_id(tmp_path: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with running_hub(tmp_path) as hub:
        meta = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        params = {"name": "master_listServices", "arguments": {}, "_meta": meta}
        _, answer = await ask(hub, "tools/call", params)
        assert answer["result"]["_meta"]["fleet/correlation_id"] == trace
        assert hub.audit_rows()[0]["correlation_id"] == trace


async def test_arguments_that_are_no_object_are_refused(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        _, answer = await ask(hub, "tools/call", {"name": "master_listServices", "arguments": [1]})
        assert answer["result"]["structuredContent"]["code"] == "invalid"


async def test_a_change_is_not_sent_when_its_intent_cannot_be_written(tmp_path: Path) -> None:
    sent: list[str] = []

    async def count(request: dict[str, Any], send: Any) -> None:
        sent.append(request["method"])
        await spoken.good(request, send)

    change = {**spoken.TOOL, "_meta": {"fleet/id": "os.odd.look", "risk": "change"}}
    async with listening(spoken.spoke_app(count, [change])) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        hub.hub.store.write_now(lambda db: db.exec_driver_sql("ALTER TABLE audit RENAME TO gone"))
        refused = await call(hub, "os_odd_look")
        assert refused["isError"]
        assert "tools/call" not in sent
