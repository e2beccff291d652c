"""Requests of 2026-07-28: each stands alone and says everything about itself."""

import asyncio
from pathlib import Path

import processes
import pytest
from hubs import RunningHub
from wire import HANDSHAKE, META, MODERN, Message, ModernClient, accepts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(30)]


async def test_discover_says_who_answers_and_what_it_can(modern: ModernClient):
    found = (await modern.request("server/discover")).result
    assert {MODERN, HANDSHAKE} <= set(found["supportedVersions"])
    assert found["capabilities"]["tools"] == {"listChanged": True}
    assert found["_meta"][META + "serverInfo"]["name"] == "mcp-fleet"


async def test_lists_say_how_long_and_for_whom_they_hold(modern: ModernClient):
    found = (await modern.request("tools/list")).result
    assert (found["resultType"], found["cacheScope"]) == ("complete", "private")
    assert found["ttlMs"] >= 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Mcp-Method": "tools/list"},
        {"Mcp-Method": None},
        {"Mcp-Name": "test_echo"},
        {"Mcp-Name": None},
        {"MCP-Protocol-Version": "v999"},
    ],
)
async def test_headers_that_contradict_the_message_are_refused(modern: ModernClient, headers: dict[str, str | None]):
    reply = await modern.request("tools/call", {"name": "test_simple_text"}, headers)
    assert (reply.status, reply.error["code"]) == (400, -32020)


async def test_spaces_around_a_header_do_not_matter(modern: ModernClient):
    reply = await modern.request("tools/call", {"name": "test_simple_text"}, {"Mcp-Name": "  test_simple_text  "})
    assert reply.said.startswith("This is")


async def test_an_unknown_version_is_told_the_known_ones(modern: ModernClient):
    meta = {META + "protocolVersion": "v999"}
    reply = await modern.request("tools/list", {"_meta": meta}, {"MCP-Protocol-Version": "v999"})
    assert (reply.status, reply.error["code"]) == (400, -32022)
    assert MODERN in reply.error["data"]["supported"]
    assert reply.error["data"]["requested"] == "v999"


async def test_a_request_that_hides_what_its_client_can_is_refused(modern: ModernClient):
    body = modern.message("tools/list", {"_meta": {META + "protocolVersion": MODERN}})
    reply = await modern.post(body, modern.headers("tools/list", {}))
    assert (reply.status, reply.error["code"]) == (400, -32602)


async def test_a_spokes_protocol_error_keeps_its_code_and_status(hub: RunningHub):
    async with ModernClient(f"{hub.url}/mcp", hub.admin, capabilities={}) as plain:
        reply = await plain.call("test_missing_capability")
    assert (reply.status, reply.error["code"]) == (400, -32021)
    assert reply.error["data"]["requiredCapabilities"] == {"sampling": {}}


async def test_a_question_state_that_was_tampered_with_is_refused(modern: ModernClient):
    asked = (await modern.call("test_input_required_result_tampered_state")).result
    answers = {name: accepts(request) for name, request in asked["inputRequests"].items()}
    forged = asked["requestState"] + "x"
    reply = await modern.call("test_input_required_result_tampered_state", inputResponses=answers, requestState=forged)
    assert reply.error["code"] == -32602


@pytest.mark.parametrize("header", [None, "us", "=?base64?!!!?="])
async def test_an_argument_that_must_stand_in_a_header_is_checked(modern: ModernClient, header: str | None):
    call: Message = {"name": "test_header_parameter", "arguments": {"region": "eu"}}
    wrong = await modern.request("tools/call", call, {"Mcp-Param-Region": header})
    assert (wrong.status, wrong.error["code"]) == (400, -32020)
    right = await modern.request("tools/call", call, {"Mcp-Param-Region": "eu"})
    assert right.result["structuredContent"] == {"region": "eu"}


@pytest.mark.parametrize(("level", "lines"), [("info", 3), ("warning", 0), (None, 0)])
async def test_logs_come_only_where_a_request_asks_for_them(modern: ModernClient, level: str | None, lines: int):
    meta = {} if level is None else {META + "logLevel": level}
    reply = await modern.call("test_tool_with_logging", _meta=meta)
    assert len(reply.notified("notifications/message")) == lines


async def test_a_subscription_is_acknowledged_first_and_tagged_always(modern: ModernClient):
    asked = {"notifications": {"toolsListChanged": True}}
    async with modern.stream("subscriptions/listen", asked) as stream:
        first = await stream.next()
        await modern.call("test_trigger_tool_change")
        second = await stream.next()
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["notifications"] == {"toolsListChanged": True}
    tags = {message["params"]["_meta"][META + "subscriptionId"] for message in (first, second)}
    assert tags == {stream.request_id}


async def test_a_subscription_brings_only_what_was_asked_for(modern: ModernClient):
    nothing = modern.stream("subscriptions/listen", {"notifications": {"promptsListChanged": True}})
    async with nothing as stream, modern.changes() as changes:
        await stream.next()
        await modern.call("test_trigger_tool_change")
        await changes.next()
        await modern.call("test_echo")  # by its answer, anything sent before it has arrived
        assert stream.arrived().strip() == b""


async def test_there_is_nothing_to_get_or_delete(modern: ModernClient):
    for method in ("GET", "DELETE"):
        async with modern.raw(method, None, {"MCP-Protocol-Version": MODERN}) as stream:
            assert (stream.status, stream.headers["Allow"]) == (405, "POST")


async def test_a_request_without_a_session_id_stands_alone(modern: ModernClient):
    reply = await modern.request("tools/list", headers={"Mcp-Session-Id": "made-up"})
    assert reply.result["tools"]
    assert "Mcp-Session-Id" not in reply.headers


async def test_a_stateless_client_notices_no_restart(server: processes.Program, tmp_path: Path):
    with processes.hub(tmp_path, {"conformance": processes.row_of(server)}) as hub:
        async with ModernClient(f"{hub.url}/mcp", hub.key("admin")) as client:
            before = (await client.request("tools/list")).result["tools"]
            await asyncio.to_thread(hub.restart)
            assert (await client.request("tools/list")).result["tools"] == before
