"""Resources, templates, prompts and completions of a spoke, as clients of both eras get them."""

import base64

import pytest
from hubs import RunningHub
from wire import ERAS, META, Either, Message, ModernClient, SessionClient, accepts

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

PROMPT = "test_prompt_with_arguments"


async def listed(client: Either, method: str, key: str, name: str) -> list[str]:
    return [entry[name] for entry in (await client.request(method)).result[key]]


async def test_both_eras_see_the_same_in_the_same_order(session: SessionClient, modern: ModernClient):
    for method, key in (
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
        ("prompts/list", "prompts"),
    ):
        old, new = (await session.request(method)).result[key], (await modern.request(method)).result[key]
        assert old == new
        assert old


async def test_resources_of_a_spoke_stand_beside_the_hubs_own(client: Either):
    uris = await listed(client, "resources/list", "resources", "uri")
    assert uris == sorted(uris)
    assert {"master://status", "test://static-text", "test://static-binary"} <= set(uris)
    templates = await listed(client, "resources/templates/list", "resourceTemplates", "uriTemplate")
    assert templates == ["test://template/{id}/data"]


async def test_a_resource_is_read_as_its_spoke_gives_it(client: Either):
    (text,) = (await client.request("resources/read", {"uri": "test://static-text"})).result["contents"]
    assert text == {
        "uri": "test://static-text",
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    }
    (picture,) = (await client.request("resources/read", {"uri": "test://static-binary"})).result["contents"]
    assert base64.b64decode(picture["blob"]).startswith(b"\x89PNG")


async def test_a_template_is_read_by_the_spoke_that_it_belongs_to(client: Either):
    (found,) = (await client.request("resources/read", {"uri": "test://template/4 2/data"})).result["contents"]
    assert '"id": "4 2"' in found["text"]


async def test_the_hubs_own_status_is_a_resource_like_any(client: Either):
    (found,) = (await client.request("resources/read", {"uri": "master://status"})).result["contents"]
    assert '"name": "mcp-fleet"' in found["text"]


async def test_a_resource_that_nobody_has_is_named_in_the_error(client: Either, era: str):
    error = (await client.request("resources/read", {"uri": "test://nowhere"})).error
    assert error["code"] == {"2025-11-25": -32002, "2026-07-28": -32602}[era]
    assert (error["data"]["uri"], error["data"]["code"]) == ("test://nowhere", "not_found")


@pytest.mark.parametrize("uri", [None, 7, ["test://static-text"]])
async def test_a_uri_that_is_none_is_refused(session: SessionClient, uri: object):
    error = (await session.request("resources/read", {"uri": uri})).error
    assert (error["code"], error["data"]["code"]) == (-32602, "invalid")


async def test_a_read_leaves_a_row_with_its_pseudo_tool(hub: RunningHub, client: Either):
    reply = await client.request("resources/read", {"uri": "test://static-text"})
    row = hub.audit_rows()[-1]
    assert (row["tool"], row["risk"], row["outcome"]) == ("conformance.resources/read", "read", "ok")
    assert row["correlation_id"] == reply.result["_meta"]["fleet/correlation_id"]


async def test_a_failed_read_leaves_a_row_too(hub: RunningHub, client: Either):
    await client.request("resources/read", {"uri": "test://nowhere"})
    assert (hub.audit_rows()[-1]["tool"], hub.audit_rows()[-1]["outcome"]) == ("unknown", "not_found")


async def test_a_prompt_is_filled_in(client: Either):
    asked = {"name": PROMPT, "arguments": {"arg1": "one", "arg2": "two"}}
    (message,) = (await client.request("prompts/get", asked)).result["messages"]
    assert message["content"]["text"] == "Prompt with arguments: arg1='one', arg2='two'"


@pytest.mark.parametrize("spelling", ["conformance.testSimplePrompt", "conformance_test_simple_prompt"])
async def test_a_prompt_has_the_spellings_of_a_tool(client: Either, spelling: str):
    (message,) = (await client.request("prompts/get", {"name": spelling})).result["messages"]
    assert message["content"]["text"].startswith("This is a simple prompt")


async def test_a_prompt_that_nobody_has_is_an_error(client: Either):
    error = (await client.request("prompts/get", {"name": "no_such"})).error
    assert (error["code"], error["data"]["code"]) == (-32602, "not_found")


async def test_a_spokes_own_error_about_a_prompt_comes_through(hub: RunningHub, client: Either):
    error = (await client.request("prompts/get", {"name": "test_changing_prompt"})).error
    assert error["code"] == -32602
    assert hub.audit_rows()[-1]["outcome"] == "not_found"


async def test_a_prompt_may_ask_the_person_first(modern: ModernClient, session: SessionClient):
    asked = {"name": "test_input_required_result_prompt"}
    first = (await modern.request("prompts/get", asked)).result
    assert first["resultType"] == "input_required"
    answers = {name: accepts(request) for name, request in first["inputRequests"].items()}
    more: Message = {"inputResponses": answers}
    assert (await modern.request("prompts/get", {**asked, **more})).result["messages"]
    session.answer = accepts
    reply = await session.request("prompts/get", asked)
    assert reply.result["messages"]
    assert [message["method"] for message in reply.messages if "method" in message] == ["elicitation/create"]


async def test_cancelling_a_prompt_reaches_the_spoke(client: Either):
    asked = {"name": "test_wait_prompt", "_meta": {"progressToken": 1}}
    async with client.stream("prompts/get", asked) as stream:
        assert (await stream.next())["method"] == "notifications/progress"
        await client.cancel(stream)
        assert (await client.call("test_wait_over")).said.endswith("cancelled")


async def test_an_argument_of_a_prompt_is_completed(client: Either):
    asked = {"ref": {"type": "ref/prompt", "name": PROMPT}, "argument": {"name": "arg1", "value": "par"}}
    found = (await client.request("completion/complete", asked)).result["completion"]
    assert found["values"] == ["paris", "park", "party"]


async def test_a_part_of_a_template_is_completed(client: Either):
    ref = {"type": "ref/resource", "uri": "test://template/{id}/data"}
    asked = {"ref": ref, "argument": {"name": "id", "value": "park"}}
    assert (await client.request("completion/complete", asked)).result["completion"]["values"] == ["park"]


async def test_a_service_without_completions_completes_nothing(client: Either):
    asked = {"ref": {"type": "ref/resource", "uri": "master://status"}, "argument": {"name": "x", "value": ""}}
    assert (await client.request("completion/complete", asked)).result["completion"]["values"] == []


@pytest.mark.parametrize("ref", [None, {"type": "ref/tool", "name": "x"}, {"type": "ref/prompt"}])
async def test_a_completion_of_nothing_is_refused(client: Either, ref: object):
    error = (await client.request("completion/complete", {"ref": ref, "argument": {}})).error
    assert (error["code"], error["data"]["code"]) == (-32602, "invalid")


async def test_a_list_has_no_page_of_somebody_elses_making(client: Either):
    reply = await client.request("resources/list", {"cursor": "page 2!"})
    assert reply.error["code"] == -32602
    assert "list from the start" in reply.error["message"]


async def test_results_for_a_session_carry_nothing_of_the_newer_protocol(session: SessionClient):
    for method, asked in (("resources/read", {"uri": "test://static-text"}), ("prompts/get", {"name": PROMPT})):
        result = (await session.request(method, asked)).result
        assert {"resultType", "ttlMs", "cacheScope"} & set(result) == set()
        assert [name for name in result["_meta"] if name.startswith(META)] == []


async def test_a_read_is_never_shared_between_callers(modern: ModernClient):
    found = (await modern.request("resources/read", {"uri": "test://static-text"})).result
    assert (found["resultType"], found["cacheScope"], found["ttlMs"]) == ("complete", "private", 0)


async def test_what_the_hub_can_is_said_at_the_start(modern: ModernClient, session: SessionClient):
    said = (await modern.request("server/discover")).result["capabilities"]
    assert said["resources"] == {"listChanged": True, "subscribe": True}
    assert said["prompts"] == {"listChanged": True}
    assert said["completions"] == {}
    assert session.initialized is not None
    assert session.initialized.result["capabilities"] == said | {"logging": {}}


async def test_an_agent_that_may_only_call_one_tool_sees_no_resource(hub: RunningHub, era: str):
    _, secret = hub.hub.keys.create(f"narrow {era}", scopes=["change:conformance.test_echo"])
    async with ERAS[era](f"{hub.url}/mcp", secret) as narrow:
        assert (await narrow.request("resources/list")).result["resources"] == []
        assert (await narrow.request("prompts/list")).result["prompts"] == []
        error = (await narrow.request("resources/read", {"uri": "test://static-text"})).error
    assert error["data"]["code"] == "refused"
    assert "conformance.resources/read" in error["message"]
