"""Sessions up to 2025-11-25: opened, kept, answered, ended."""

import asyncio
from pathlib import Path

import processes
import pytest
from hubs import RunningHub
from wire import META, MODERN, Message, SessionClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(30)]


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [("2025-11-25", "2025-11-25"), ("2024-11-05", "2024-11-05"), ("2099-01-01", "2025-11-25"), (MODERN, "2025-11-25")],
)
async def test_initialize_agrees_on_a_version_that_has_sessions(session: SessionClient, asked: str, agreed: str):
    reply = await session.connect(asked)
    assert reply.result["protocolVersion"] == agreed
    assert reply.result["serverInfo"]["name"] == "mcp-fleet"
    assert reply.result["capabilities"]["tools"] == {"listChanged": True}


async def test_a_ping_is_answered_with_nothing(session: SessionClient):
    assert (await session.request("ping")).result == {}


async def test_a_notification_is_accepted_without_a_body(session: SessionClient):
    reply = await session.notify("notifications/roots/list_changed")
    assert (reply.status, reply.messages) == (202, [])


async def test_a_session_without_the_version_header_goes_on(session: SessionClient):
    session.version = None
    assert (await session.call("test_simple_text")).said.startswith("This is")


async def test_a_session_with_an_unknown_version_header_is_refused(session: SessionClient):
    session.version = "1999-01-01"
    assert (await session.request("tools/list")).status == 400


@pytest.mark.parametrize(("token", "status"), [(None, 400), ("made-up", 404), ("A" * 200, 404)])
async def test_a_made_up_session_is_none(session: SessionClient, token: str | None, status: int):
    session.session_id = token
    assert (await session.request("tools/list")).status == status


async def test_a_session_belongs_to_the_key_that_opened_it(hub: RunningHub, session: SessionClient):
    async with SessionClient(f"{hub.url}/mcp", hub.client) as other:
        other.session_id = session.session_id
        assert (await other.request("tools/list")).status == 404


async def test_an_ended_session_is_gone(session: SessionClient):
    assert (await session.end()).status == 200
    assert (await session.request("tools/list")).status == 404
    assert (await session.end()).status == 404


async def test_ending_a_session_cancels_its_calls(hub: RunningHub, session: SessionClient):
    async with session.stream("tools/call", {"name": "test_wait", "_meta": {"progressToken": 1}}) as stream:
        await stream.next()
        await session.end()
        async with SessionClient(f"{hub.url}/mcp", hub.admin) as other:
            assert (await other.call("test_wait_over")).said.endswith("cancelled")


async def test_a_cancelled_call_gets_no_answer(session: SessionClient):
    async with session.stream("tools/call", {"name": "test_wait", "_meta": {"progressToken": 1}}) as stream:
        await stream.next()
        await session.cancel(stream)
        assert [message async for message in stream] == []


async def test_a_session_cannot_cancel_the_calls_of_another(hub: RunningHub, session: SessionClient):
    async with (
        SessionClient(f"{hub.url}/mcp", hub.admin) as other,
        session.stream("tools/call", {"name": "test_tool_with_progress", "_meta": {"progressToken": 1}}) as stream,
    ):
        await stream.next()
        await other.cancel(stream)
        assert "result" in [message async for message in stream][-1]


async def test_a_client_that_cannot_be_asked_is_told_so(hub: RunningHub):
    async with SessionClient(f"{hub.url}/mcp", hub.admin, capabilities={}) as plain:
        reply = await plain.call("test_elicitation", {"message": "?"})
    assert reply.result["structuredContent"]["code"] == "refused"
    assert "elicitation/create" in reply.said


async def test_a_client_that_fails_to_answer_fails_its_call(session: SessionClient):
    def fails(_: Message) -> Message:
        return {"error": {"code": -1, "message": "window closed"}}

    reply = await session.call_answering("test_elicitation", {"message": "?"}, fails)
    assert reply.result["isError"] is True
    assert "window closed" in reply.said


async def test_a_session_of_another_cannot_answer_the_question(hub: RunningHub, session: SessionClient):
    async with (
        SessionClient(f"{hub.url}/mcp", hub.admin) as other,
        session.stream("tools/call", {"name": "test_elicitation", "arguments": {"message": "?"}}) as stream,
    ):
        question = await stream.next()
        answer = {"action": "accept", "content": {"username": "mallory", "email": "m@example.com"}}
        await other.post({"jsonrpc": "2.0", "id": question["id"], "result": answer}, other.headers())
        honest = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}}
        await session.post(honest, session.headers())
        final = await stream.next()
    assert "action=decline" in final["result"]["content"][0]["text"]


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 3), ("error", 0)])
async def test_a_session_hears_logs_from_its_level_up(session: SessionClient, level: str, lines: int):
    assert (await session.request("logging/setLevel", {"level": level})).result == {}
    assert len((await session.call("test_tool_with_logging")).notified("notifications/message")) == lines


async def test_a_level_that_does_not_exist_is_refused(session: SessionClient):
    assert (await session.request("logging/setLevel", {"level": "loud"})).error["code"] == -32602


async def test_a_session_can_call_a_tool_that_wants_its_argument_in_a_header(session: SessionClient):
    reply = await session.call("test_header_parameter", {"region": "eu west ä"})
    assert reply.result["structuredContent"] == {"region": "eu west ä"}


async def test_results_for_a_session_carry_nothing_of_the_newer_protocol(session: SessionClient):
    reply = await session.call("test_simple_text")
    assert {"resultType", "ttlMs", "cacheScope"} & set(reply.result) == set()
    assert [name for name in reply.result["_meta"] if name.startswith(META)] == []


async def test_the_sessions_own_stream_wants_to_be_one(session: SessionClient):
    async with session.raw("GET", None, {**session.headers(), "Accept": "application/json"}) as stream:
        assert stream.status == 406


async def test_a_session_survives_a_restart_of_the_hub(server: processes.Program, tmp_path: Path):
    with processes.hub(tmp_path, {"conformance": processes.row_of(server)}) as hub:
        async with SessionClient(f"{hub.url}/mcp", hub.key("admin")) as session:
            first = session.session_id
            await asyncio.to_thread(hub.restart)
            assert (await session.call("test_simple_text")).said.startswith("This is")
            assert session.session_id == first
