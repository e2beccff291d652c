"""What the REST door does with requests that are wrong, foreign, large, slow or only look."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from gateways import LIMIT, ORIGIN, Gateway
from hubs import ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANAGERS = [
    ("GET", "/metrics"),
    ("GET", "/diagnostics/connection"),
    ("GET", "/diagnostics/performance"),
    ("GET", "/audit"),
    ("GET", "/audit/verify"),
    ("GET", "/audit/export"),
    ("GET", "/keys"),
    ("POST", "/keys"),
    ("POST", "/keys/client/rotate"),
    ("POST", "/keys/client/revoke"),
    ("POST", "/mcp/servers/odd/reload"),
    ("POST", "/plugins/reload"),
]
OPEN = ["/", "/health", "/ready", "/openapi.json", "/docs"]
KEYED = ["/mcp/status", "/mcp/servers", "/mcp/tools", "/mcp/servers/odd/tools", "/plugins"]


# --- who may ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPEN)
async def test_what_says_nothing_of_this_fleet_needs_no_key(hub: Gateway, path: str):
    assert (await hub.get(path, key="")).status == 200


@pytest.mark.parametrize("path", [*KEYED, "/approvals", *(path for method, path in MANAGERS if method == "GET")])
async def test_everything_else_needs_a_key(hub: Gateway, path: str):
    unknown = await hub.get(path, key="")
    assert (unknown.status, unknown.kind, unknown.body["code"]) == (401, "application/problem+json", "refused")
    assert unknown.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), MANAGERS)
async def test_administering_needs_an_operators_key(hub: Gateway, method: str, path: str):
    refused = await hub.send(method, path, key=hub.agent)
    assert (refused.status, refused.body["code"]) == (403, "refused")
    assert "use an operator key" in refused.body["message"]


@pytest.mark.parametrize("path", KEYED)
async def test_looking_takes_any_key(hub: Gateway, path: str):
    assert (await hub.get(path, key=hub.agent)).status == 200


async def test_the_other_header_for_keys_works_too(hub: Gateway):
    assert (await hub.get("/keys", key="", headers={"X-API-Key": hub.hub.admin})).status == 200


# --- paths and methods ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/nope", "/mcp/", "/mcp/nope", "/keys/a/b/c", "/mcp/servers//tools", "/mcp/servers/a%2Fb/tools", "/KEYS"]
)
async def test_an_unknown_path_is_a_problem_that_says_where_the_list_is(hub: Gateway, path: str):
    missing = await hub.get(path)
    assert (missing.status, missing.kind, missing.body["code"]) == (404, "application/problem+json", "not_found")
    assert "/docs" in missing.body["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/keys", "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/mcp/execute", "OPTIONS, POST"),
        ("HEAD", "/mcp/execute", "OPTIONS, POST"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
        ("PATCH", "/keys/x/revoke", "OPTIONS, POST"),
    ],
)
async def test_a_method_that_is_not_served_names_those_that_are(hub: Gateway, method: str, path: str, allow: str):
    wrong = await hub.send(method, path)
    assert (wrong.status, wrong.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/", "/health", "/keys", "/mcp/tools", "/docs"])
async def test_a_head_is_a_get_without_its_body(hub: Gateway, path: str):
    whole, head = await hub.get(path), await hub.send("HEAD", path)
    assert (head.status, head.kind, head.body) == (200, whole.kind, "")
    assert int(head.headers["Content-Length"]) > 0


async def test_options_tell_the_methods_without_a_key(hub: Gateway):
    told = await hub.send("OPTIONS", "/keys", key="")
    assert (told.status, told.headers["Allow"], told.body) == (200, "GET, HEAD, OPTIONS, POST", "")
    assert (await hub.send("OPTIONS", "/nope", key="")).status == 404


# --- bodies and queries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"action": NaN}', 400, "not JSON"),
        (b"[]", 422, "Input should be"),
        (b"null", 422, "Input should be"),
        (b'"text"', 422, "Input should be"),
        (b"", 422, "action: Field required"),
        (b"{}", 422, "action: Field required"),
        (b'{"action": ""}', 422, "at least 1 character"),
        (b'{"action": 7}', 422, "valid string"),
        (b'{"action": "look", "params": []}', 422, "params: Input should be a valid dictionary"),
        (b'{"action": "look", "timeout": "5"}', 422, "timeout: Input should be a valid number"),
        (b'{"action": "look", "timeout": true}', 422, "timeout: Input should be a valid number"),
        (b'{"action": "look", "timeout": 0}', 422, "timeout: Input should be greater than or equal to 1"),
        (b'{"action": "look", "timeout": 1e9}', 422, "timeout: Input should be less than or equal to"),
        (b'{"action": "look", "extra": 1}', 422, "extra: Extra inputs are not permitted"),
        (b'{"server_name": "odd"}', 422, "tool_name: Field required"),
        (b'{"action": "look", "tool_name": "look"}', 422, "server_name: Field required"),
        (b'{"server_name": "odd", "tool_name": "look", "params": {}}', 422, "params: Extra inputs are not permitted"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong_with_it(hub: Gateway, body: bytes, status: int, words: str):
    wrong = await hub.send("POST", "/mcp/execute", data=body, headers={"Content-Type": "application/json"})
    assert (wrong.status, wrong.kind, wrong.body["code"]) == (status, "application/problem+json", "invalid")
    assert words in wrong.body["message"]


async def test_a_wrong_value_is_not_repeated(hub: Gateway):
    wrong = await hub.post("/mcp/execute", {"action": "look", "params": "hunter2"})
    assert "hunter2" not in str(wrong.body)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_of_another_kind_is_not_guessed_at(hub: Gateway, kind: str):
    wrong = await hub.send("POST", "/mcp/execute", data=b"{}", headers={"Content-Type": kind})
    assert (wrong.status, kind in wrong.body["message"]) == (415, True)


async def test_a_charset_beside_the_kind_is_fine(hub: Gateway):
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    done = await hub.send("POST", "/mcp/execute", data=b'{"action": "os.odd.look"}', headers=kind)
    assert done.status == 200


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=many", "limit: Input should be a valid integer"),
        ("since=nan", "since: Input should be a finite number"),
        ("colour=red", "colour: Extra inputs are not permitted"),
        ("limit=1&limit=2", "'limit' came more than once"),
        ("cursor=99999999999999999999", "cursor: "),
    ],
)
async def test_a_wrong_query_is_told_what_is_wrong_with_it(hub: Gateway, query: str, words: str):
    wrong = await hub.get(f"/audit?{query}")
    assert (wrong.status, wrong.body["code"]) == (422, "invalid")
    assert words in wrong.body["message"]


async def test_a_body_past_the_limit_is_refused_by_its_size(hub: Gateway):
    large = await hub.execute("os.odd.look", text="x" * LIMIT)
    assert (large.status, large.body["code"]) == (413, "invalid")
    assert "hub.max_request_bytes" in large.body["message"]
    assert (await hub.execute("os.odd.look", text="x" * (LIMIT // 2))).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(hub: Gateway, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub.hub.hub.app.rest, "_body_within_s", 0.2)  # the shipped 30 s are longer than a test
    at = urlsplit(hub.hub.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST /mcp/execute HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {hub.hub.admin}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_goes_away_takes_its_call_with_it(hub: Gateway):
    before = len(hub.hub.audit_rows())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await hub.execute("os.odd.hang", text="gone")
    while not (found := hub.hub.audit_rows()[before:]):
        await asyncio.sleep(0)
    assert [(row["tool"], row["outcome"]) for row in found] == [("os.odd.hang", "cancelled")]


# --- faults of the hub ------------------------------------------------------------------------------


async def test_a_fault_of_the_hubs_is_a_problem_without_a_traceback(hub: Gateway, monkeypatch: pytest.MonkeyPatch):
    def broken() -> Any:
        raise ZeroDivisionError("the inside of the hub")

    monkeypatch.setattr(hub.hub.hub.keys, "listed", broken)
    fault = await hub.get("/keys")
    assert (fault.status, fault.kind, fault.body["code"]) == (500, "application/problem+json", "error")
    assert "fleet logs" in fault.body["message"]
    assert "Zero" not in str(fault.body)
    assert "inside" not in str(fault.body)


# --- browsers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mcp/execute", "/keys", "/mcp"])
async def test_a_page_of_an_allowed_origin_may_ask_first(hub: Gateway, path: str):
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    told = await hub.send("OPTIONS", path, key="", headers=asks)
    assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
    assert "POST" in told.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in told.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in told.headers


@pytest.mark.parametrize("path", ["/mcp/status", "/health", "/nope", "/openapi.json"])
async def test_an_allowed_origin_may_read_answers_and_problems(hub: Gateway, path: str):
    found = await hub.get(path, headers={"Origin": ORIGIN})
    assert (found.headers["Access-Control-Allow-Origin"], found.headers["Vary"]) == (ORIGIN, "Origin")
    assert "Retry-After" in found.headers["Access-Control-Expose-Headers"]


async def test_an_allowed_origin_may_read_that_it_has_no_key(hub: Gateway):
    found = await hub.get("/keys", key="", headers={"Origin": ORIGIN})
    assert (found.status, found.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        (f"{ORIGIN}.evil.example", 403),
        ("http://console.example", 403),
        ("null", 403),
        ("http://localhost:5173", 200),  # may call, as any program of this machine, but a page may not read
        ("", 200),
    ],
)
async def test_no_other_origin_may_read_anything(hub: Gateway, origin: str, status: int):
    found = await hub.get("/health", headers={"Origin": origin} if origin else {})
    assert found.status == status
    assert [name for name in found.headers if name.lower().startswith("access-control")] == []
    told = await hub.send("OPTIONS", "/keys", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert [name for name in told.headers if name.lower().startswith("access-control")] == []


async def test_mcp_itself_answers_an_allowed_origin_too(hub: Gateway):
    status, _ = await ask(hub.hub, "tools/list", headers={"Origin": ORIGIN})
    assert status == 200
