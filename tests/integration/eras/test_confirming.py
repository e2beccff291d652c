"""The person at the requesting client confirms a call, in both protocol eras."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import processes
import pytest
import pytest_asyncio
from held import CONFIRM, ByRisk
from hubs import RunningHub, running_hub, settle
from wire import ERAS, Either, Message, ModernClient, accepts, declines

from master_mcp.approvals.questions import QUESTION

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = "This is a simple text response for testing."
TOOL, ROUNDS = "test_simple_text", "test_input_required_result_multi_round"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(server: processes.Program, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningHub]:
    """A hub where whatever may destroy has to be confirmed."""
    rows = {"conformance": processes.row_of(server)}
    settings = {"deadline_s": 600, "approvals": {"ask_again_after_s": 0}}
    async with running_hub(tmp_path_factory.mktemp("strict"), rows, settings, rules=ByRisk(destroy=CONFIRM)) as found:
        await settle(found, "conformance")
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def agent(strict: RunningHub, era: str) -> AsyncGenerator[Either]:
    """An agent's client of this era."""
    async with ERAS[era](f"{strict.url}/mcp", strict.client) as found:
        yield found


def person(**content: Any) -> Callable[[Message], Message]:
    """Somebody who answers the hub's question with this form, and a tool's own questions as well as they can."""

    def answer(request: Message) -> Message:
        asked = request["params"].get("requestedSchema", {}).get("properties", {})
        return {"action": "accept", "content": content} if "approve" in asked else accepts(request)

    return answer


async def state(hub: RunningHub, approval_id: str) -> str:
    """Where a held call stands."""
    key = hub.hub.keys.authenticate(hub.admin)
    assert key is not None
    return str((await hub.hub.approvals.get(key.caller, approval_id))["status"])


async def test_a_call_runs_once_its_person_says_yes(strict: RunningHub, agent: Either) -> None:
    reply = await agent.call_answering(TOOL, {}, person(approve=True, reason="fine with me"))
    assert reply.said == SAID
    rows = strict.audit_rows()[-4:]
    assert [(row["door"], row["outcome"]) for row in rows] == [
        ("mcp", "input_required"),
        ("elicitation", "approve"),
        ("mcp", "intent"),
        ("mcp", "ok"),
    ]
    ids = {row["approval_id"] for row in rows[1:]}
    assert len(ids) == 1
    assert await state(strict, ids.pop()) == "executed"


async def test_the_question_shows_who_wants_what(agent: Either) -> None:
    asked: list[Message] = []

    def answer(request: Message) -> Message:
        asked.append(request)
        return {"action": "decline"}

    await agent.call_answering(TOOL, {}, answer)
    assert [request["method"] for request in asked] == ["elicitation/create"]
    message = asked[0]["params"]["message"]
    assert "client wants to run conformance.test_simple_text (risk: destroy)" in message
    assert message.endswith("with exactly these arguments\n\narguments: {}")


@pytest.mark.parametrize("answer", [declines, person(approve=False), person(approve="yes")])
async def test_a_call_never_runs_once_its_person_says_no(
    strict: RunningHub, agent: Either, answer: Callable[[Message], Message]
) -> None:
    reply = await agent.call_answering(TOOL, {}, answer)
    assert reply.result["structuredContent"]["code"] == "refused"
    assert "the person at the client declined" in reply.said
    last = strict.audit_rows()[-1]
    assert await state(strict, last["approval_id"]) == "denied"


async def test_a_question_that_is_dismissed_leaves_the_call_held(strict: RunningHub, agent: Either) -> None:
    reply = await agent.call_answering(TOOL, {}, lambda _: {"action": "cancel"})
    held = reply.result["structuredContent"]
    assert held["code"] == "needs_approval"
    assert await state(strict, held["approval_id"]) == "pending"
    again = await agent.call_answering(TOOL, {}, person(approve=True))
    assert again.said == SAID
    assert await state(strict, held["approval_id"]) == "executed"


@pytest.mark.parametrize("capabilities", [{}, {"sampling": {}}, {"elicitation": {"url": {}}}])
async def test_a_client_that_cannot_ask_its_person_gets_the_id(
    strict: RunningHub, era: str, capabilities: Message
) -> None:
    async with ERAS[era](f"{strict.url}/mcp", strict.client, capabilities) as mute:
        held = (await mute.call(TOOL)).result["structuredContent"]
    assert held["code"] == "needs_approval"
    assert await state(strict, held["approval_id"]) == "pending"


async def test_a_tool_that_asks_by_itself_goes_on_within_the_confirmed_call(strict: RunningHub, agent: Either) -> None:
    reply = await agent.call_answering(ROUNDS, {}, person(approve=True))
    assert reply.said == "both steps answered"
    approvals = {row["approval_id"] for row in strict.audit_rows()[-3:]}
    assert len(approvals) == 1
    assert await state(strict, approvals.pop()) == "executed"


# --- what a stateless client could do with the state that it carries -------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def modern_agent(strict: RunningHub) -> AsyncGenerator[ModernClient]:
    """An agent's client of 2026-07-28."""
    async with ModernClient(f"{strict.url}/mcp", strict.client) as found:
        yield found


YES = {QUESTION: {"action": "accept", "content": {"approve": True}}}


async def code(reply: Any) -> str:
    """The error code of a call."""
    return str(reply.result["structuredContent"]["code"])


async def test_a_yes_is_good_for_one_execution(modern_agent: ModernClient) -> None:
    asked = (await modern_agent.call(TOOL)).result
    carried = {"inputResponses": YES, "requestState": asked["requestState"]}
    assert (await modern_agent.call(TOOL, {}, **carried)).said == SAID
    assert await code(await modern_agent.call(TOOL, {}, **carried)) == "conflict"


async def test_a_yes_is_good_for_this_call_of_this_key_only(strict: RunningHub, modern_agent: ModernClient) -> None:
    asked = (await modern_agent.call(TOOL)).result
    carried = {"inputResponses": YES, "requestState": asked["requestState"]}
    assert await code(await modern_agent.call(TOOL, {"x": 1}, **carried)) == "invalid"
    assert await code(await modern_agent.call("test_image_content", {}, **carried)) == "refused"
    async with ModernClient(f"{strict.url}/mcp", strict.admin) as other:
        assert await code(await other.call(TOOL, {}, **carried)) == "refused"
    forged: dict[str, Any] = {**carried, "requestState": asked["requestState"][:-1] + "x"}
    assert await code(await modern_agent.call(TOOL, {}, **forged)) == "refused"
    assert (await modern_agent.call(TOOL, {}, **carried)).said == SAID


async def test_an_answer_to_a_tools_own_question_is_used_once(modern_agent: ModernClient) -> None:
    asked = (await modern_agent.call(ROUNDS)).result
    first = (await modern_agent.call(ROUNDS, {}, inputResponses=YES, requestState=asked["requestState"])).result
    name = {"step1": {"action": "accept", "content": {"name": "Ada"}}}
    carried = {"inputResponses": name, "requestState": first["requestState"]}
    second = (await modern_agent.call(ROUNDS, {}, **carried)).result
    assert second["resultType"] == "input_required"
    assert await code(await modern_agent.call(ROUNDS, {}, **carried)) == "conflict"
    colour = {"step2": {"action": "accept", "content": {"color": "blue"}}}
    last = await modern_agent.call(ROUNDS, {}, inputResponses=colour, requestState=second["requestState"])
    assert last.said == "both steps answered"
