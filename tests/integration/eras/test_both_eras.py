"""What clients of both protocol eras get alike, from a server that speaks only the newer one."""

import asyncio

import pytest
from hubs import RunningHub
from wire import ERAS, Either, Message, ModernClient, SessionClient, accepts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(30)]

ADA = {"username": "ada", "email": "ada@example.com"}


async def names(client: Either) -> set[str]:
    return {tool["name"] for tool in (await client.request("tools/list")).result["tools"]}


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
