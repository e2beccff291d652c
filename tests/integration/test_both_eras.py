"""One hub, clients of both protocol eras, a server that speaks only the newer one."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import processes
import pytest
import pytest_asyncio
from hubs import RunningHub, running_hub, settle
from wire import HANDSHAKE, META, MODERN, Message, ModernClient, SessionClient

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(30)]

Either = ModernClient | SessionClient
ERAS: dict[str, type[Either]] = {HANDSHAKE: SessionClient, MODERN: ModernClient}
ADA = {"username": "ada", "email": "ada@example.com"}


@pytest.fixture(scope="module")
def server() -> Generator[processes.Program]:
    """The fixture server of the conformance suite, as a process."""
    with processes.program("conformance/fixture/server.py") as program:
        yield program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(server: processes.Program, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub whose only spoke is the fixture server, and whose deadline ends no call before the test does."""
    rows = {"conformance": processes.row_of(server)}
    async with running_hub(tmp_path_factory.mktemp("eras"), rows, {"deadline_s": 600}) as found:
        await settle(found, "conformance")
        yield found


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    """One of the two protocol eras."""
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def client(hub: RunningHub, era: str) -> AsyncGenerator[Either]:
    """An operator's client of this era."""
    async with ERAS[era](f"{hub.url}/mcp", hub.admin) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: RunningHub) -> AsyncGenerator[SessionClient]:
    """An operator's session of 2025-11-25."""
    async with SessionClient(f"{hub.url}/mcp", hub.admin) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def modern(hub: RunningHub) -> AsyncGenerator[ModernClient]:
    """An operator's client of 2026-07-28."""
    async with ModernClient(f"{hub.url}/mcp", hub.admin) as found:
        yield found


def accepts(request: Message) -> Message:
    """Somebody who answers every kind of question."""
    answers: dict[str, Message] = {
        "elicitation/create": {"action": "accept", "content": {"name": "Ada", "color": "blue", "ok": True, **ADA}},
        "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m"},
        "roots/list": {"roots": [{"uri": "file:///srv", "name": "srv"}]},
    }
    return answers[request["method"]]


async def names(client: Either) -> set[str]:
    return {tool["name"] for tool in (await client.request("tools/list")).result["tools"]}


# --- what both eras have ----------------------------------------------------------------------------


async def test_both_eras_see_the_same_tools_in_the_same_order(session: SessionClient, modern: ModernClient):
    old, new = (await session.request("tools/list")).result, (await modern.request("tools/list")).result
    assert [tool["name"] for tool in old["tools"]] == [tool["name"] for tool in new["tools"]]
    assert old["tools"] == new["tools"]


async def test_a_call_is_answered_with_what_the_spoke_said(client: Either):
    reply = await client.call("test_simple_text")
    assert reply.said == "This is a simple text response for testing."
    assert len(reply.result["_meta"]["fleet/correlation_id"]) == 32


async def test_structured_content_comes_through_unchanged(client: Either):
    given: Message = {"value": {"deep": [1, 2.5, None, "ä\u2028\n"], "empty": {}}}
    assert (await client.call("test_echo", given)).result["structuredContent"] == given


async def test_a_call_without_arguments_is_a_call_with_none(client: Either):
    assert (await client.request("tools/call", {"name": "test_simple_text"})).said.startswith("This is")


@pytest.mark.parametrize("request_id", [0, 7, "7", "a b/c"])
async def test_the_answer_carries_the_id_as_it_was_sent(client: Either, request_id: object):
    reply = await client.request("tools/call", {"name": "test_simple_text", "arguments": {}}, request_id=request_id)
    assert reply.final["id"] == request_id


async def test_progress_comes_before_the_answer(client: Either):
    reply = await client.call("test_tool_with_progress", _meta={"progressToken": "t"})
    assert [note["progress"] for note in reply.notified("notifications/progress")] == [0, 50, 100]
    assert {note["progressToken"] for note in reply.notified("notifications/progress")} == {"t"}
    assert "result" in reply.messages[-1]


async def test_without_a_token_there_is_no_progress(client: Either):
    assert (await client.call("test_tool_with_progress")).notified("notifications/progress") == []


async def test_parallel_calls_hear_only_their_own_progress(client: Either):
    tokens = ["a", "b", "c", 1, 2]
    calls = [client.call("test_tool_with_progress", _meta={"progressToken": token}) for token in tokens]
    heard = [reply.notified("notifications/progress") for reply in await asyncio.gather(*calls)]
    assert [{note["progressToken"] for note in notes} for notes in heard] == [{token} for token in tokens]
    assert [len(notes) for notes in heard] == [3] * 5


async def test_cancelling_reaches_the_spoke(client: Either):
    async with client.stream("tools/call", {"name": "test_wait", "_meta": {"progressToken": 1}}) as stream:
        assert (await stream.next())["method"] == "notifications/progress"
        await client.cancel(stream)
        assert (await client.call("test_wait_over")).said.endswith("cancelled")


async def test_a_client_that_leaves_cancels_its_call(client: Either):
    async with client.stream("tools/call", {"name": "test_wait", "_meta": {"progressToken": 1}}) as stream:
        await stream.next()
    assert (await client.call("test_wait_over")).said.endswith("cancelled")


async def test_a_question_reaches_the_person_and_the_answer_reaches_the_tool(client: Either):
    asked: list[Message] = []

    def answer(request: Message) -> Message:
        asked.append(request)
        return {"action": "accept", "content": ADA}

    reply = await client.call_answering("test_elicitation", {"message": "Who are you?"}, answer)
    assert reply.said == f"User response: action=accept, content={ADA}"
    assert [request["method"] for request in asked] == ["elicitation/create"]
    assert asked[0]["params"]["message"] == "Who are you?"
    assert asked[0]["params"]["requestedSchema"]["required"] == ["username", "email"]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_person_may_say_no(client: Either, action: str):
    reply = await client.call_answering("test_elicitation", {"message": "?"}, lambda _: {"action": action})
    assert reply.said == f"User response: action={action}, content=None"


async def test_the_clients_model_can_be_asked(client: Either):
    reply = await client.call_answering("test_sampling", {"prompt": "Capital of France?"}, accepts)
    assert '"text":"Paris"' in reply.said


async def test_several_questions_of_one_round_are_all_answered(client: Either):
    reply = await client.call_answering("test_input_required_result_multiple_inputs", {}, accepts)
    assert all(part in reply.said for part in ("action=accept", "Paris", "file:///srv"))


async def test_questions_may_follow_answers(client: Either):
    reply = await client.call_answering("test_input_required_result_multi_round", {}, accepts)
    assert reply.said == "both steps answered"


async def test_parallel_questions_get_each_their_own_answer(client: Either):
    def answer(request: Message) -> Message:
        return {"action": "accept", "content": {"username": request["params"]["message"], "email": "x@example.com"}}

    people = [f"person {number}" for number in range(5)]
    client_calls = [client.call_answering("test_elicitation", {"message": name}, answer) for name in people]
    replies = await asyncio.gather(*client_calls)
    assert [name in reply.said for name, reply in zip(people, replies, strict=True)] == [True] * 5


async def test_a_tools_own_failure_stays_its_own(client: Either):
    reply = await client.call("test_error_handling")
    assert reply.result["isError"] is True
    assert reply.said == "This tool intentionally returns an error for testing"


async def test_an_unknown_tool_is_named_in_a_result_that_says_where_to_look(client: Either):
    reply = await client.call("no_such_tool")
    assert reply.result["isError"] is True
    assert reply.result["structuredContent"]["code"] == "not_found"
    assert "no_such_tool" in reply.said


async def test_an_agents_key_is_held_before_a_tool_whose_risk_is_unknown(hub: RunningHub, era: str):
    async with ERAS[era](f"{hub.url}/mcp", hub.client) as agent:
        reply = await agent.call("test_simple_text")
    assert reply.result["structuredContent"]["code"] == "needs_approval"


async def test_an_unknown_method_is_not_found(client: Either):
    assert (await client.request("no/such/method")).error["code"] == -32601


async def test_who_listens_hears_that_the_tools_changed(client: Either):
    before = await names(client)
    async with client.changes() as stream:
        await client.call("test_trigger_tool_change")
        assert (await stream.next())["method"] == "notifications/tools/list_changed"
    assert before ^ await names(client) == {"test_changing_tool"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', -32600),
        (b"\xff\xfe", -32700),
    ],
)
async def test_what_is_not_one_message_is_refused(client: Either, body: bytes, code: int):
    reply = await client.post(body, {"MCP-Protocol-Version": None})
    assert (reply.status, reply.error["code"]) == (400, code)


@pytest.mark.parametrize("header", [{"Host": "evil.example.com"}, {"Origin": "http://evil.example.com"}])
async def test_a_foreign_page_is_refused_whatever_key_it_has(client: Either, header: dict[str, str | None]):
    reply = await client.post(b"{}", header)
    assert reply.status == 403


# --- sessions up to 2025-11-25 ----------------------------------------------------------------------


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


# --- 2026-07-28 -------------------------------------------------------------------------------------


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
