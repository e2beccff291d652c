"""A run approved as a whole: one decision for all that it is known to do, another for whatever differs."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, statuses, step, step_of
from hubs import call

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUP = {
    "rules": [
        {
            "name": "what is sacred takes two", "who": {"group": "agents"}, "tools": ["lab.works.burn"],
            "when": '.arguments.text == "sacred"', "answer": "approve(2, operators)",
        },
        {
            "name": "the hub itself runs what is urgent", "who": {"group": "agents"}, "tools": ["lab.works.write"],
            "when": '.arguments.text == "urgent"', "answer": "confirm", "execute_on_approval": True,
        },
    ]
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Flows]:
    """A hub under the shipped policies, and two rules of its operator's."""
    async with running_flows(tmp_path_factory.mktemp("hub"), policies=GROUP) as found:
        yield found


@pytest.fixture
def hub(shared: Flows) -> Flows:
    """The hub, whose spoke has done nothing yet."""
    shared.works.done.clear()
    return shared


async def ordered(hub: Flows, *steps: dict[str, Any], inputs: dict[str, Any] | None = None, **keys: Any) -> Any:
    """What an agent gets who runs a workflow of these steps."""
    order = {"definition": flow(*steps, **keys), "inputs": inputs or {}, "wait_s": 0}
    return await hub.tool("executeWorkflow", hub.hub.client, **order)


async def redeemed(hub: Flows, held: str) -> Any:
    """The run that an agent starts under an approval."""
    answer = await call(hub.hub, "master.redeemApproval", {"id": held}, key=hub.hub.client)
    return answer["structuredContent"]["answer"]["structuredContent"]


async def test_a_run_that_only_reads_asks_nobody(hub: Flows) -> None:
    found = await ordered(hub, step("a"), step("b", params={"text": "${ .steps.a.text }"}))
    assert (await hub.standing(found["id"], "completed"))["started_by"] == "client"


async def test_a_run_that_changes_something_is_held_with_a_plan_of_every_call(hub: Flows) -> None:
    back = {"service": "works", "tool": "burn", "params": {"text": "undo ${ .input.who }"}}
    found = await ordered(
        hub,
        step("a"),
        step("b", "write", params={"text": "to ${ .input.who }"}, compensate=back),
        step("c", "write", params={"text": "${ .item }"}, forEach=["x", "y"]),
        {"name": "w", "wait": "1s"},
        step("d", "write", params={"text": "${ .steps.a.text }"}),
        input={"who": {"type": "string"}},
        inputs={"who": "ada"},
    )
    assert (found["code"], hub.works.done) == ("needs_approval", [])
    lines = found["plan"].splitlines()
    checked = await hub.tool("validateDefinition", definition=flow(step("a")))
    assert lines[0].startswith("run workflow demo, definition ")
    assert len(lines[0].split()[-1]) == len(checked["hash"])
    assert lines[1:] == [
        'a: lab.works.look (read) {"text": "a"}',
        'b: lab.works.write (change) {"text": "to ada"}',
        'b (to undo it): lab.works.burn (destroy) {"text": "undo ada"}',
        'c: lab.works.write (change) {"text": "x"}',
        'c: lab.works.write (change) {"text": "y"}',
        "decided as the run goes, and asked about then: d",
    ]


async def test_an_approved_run_does_what_was_approved_without_asking_again(hub: Flows) -> None:
    steps = (step("a", "write"), step("b", "burn"), step("c", "write", params={"text": "${ .item }"}, forEach=["x"]))
    held = (await ordered(hub, *steps))["approval_id"]
    await hub.say(held)
    run = await hub.standing((await redeemed(hub, held))["id"], "completed")
    assert hub.works.done == ["write a", "burn b", "write x"]
    assert {one["approval_id"] for one in run["results"]} == {None}
    rows = [row for row in hub.hub.audit_rows() if row["tool"].startswith("lab.works.") and row["approval_id"] == held]
    assert [(row["tool"], row["outcome"]) for row in rows] == [
        ("lab.works.write", "intent"), ("lab.works.write", "ok"),
        ("lab.works.burn", "intent"), ("lab.works.burn", "ok"),
        ("lab.works.write", "intent"), ("lab.works.write", "ok"),
    ]  # fmt: skip


async def test_the_same_call_again_runs_it_too_and_only_once(hub: Flows) -> None:
    held = (await ordered(hub, step("a", "write")))["approval_id"]
    await hub.say(held)
    run = await ordered(hub, step("a", "write"))
    await hub.standing(run["id"], "completed")
    assert (await ordered(hub, step("a", "write")))["code"] == "needs_approval"
    assert hub.works.done == ["write a"]


async def test_a_denied_run_does_nothing(hub: Flows) -> None:
    held = (await ordered(hub, step("a", "write", params={"text": "no"})))["approval_id"]
    await hub.say(held, approve=False)
    assert (await ordered(hub, step("a", "write", params={"text": "no"})))["code"] == "refused"
    assert hub.works.done == []


async def test_a_step_whose_arguments_were_not_known_asks_when_it_comes(hub: Flows) -> None:
    steps = (step("a", "write"), step("b", "write", params={"text": "${ .steps.a.text } again"}))
    held = (await ordered(hub, *steps))["approval_id"]
    await hub.say(held)
    run_id = (await redeemed(hub, held))["id"]
    asked = await hub.waiting(run_id, "b")
    assert (asked["approval_id"] != held, hub.works.done) == (True, ["write a"])
    await hub.say(asked["approval_id"])
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["write a", "write a again"]


async def test_a_step_that_is_denied_fails(hub: Flows) -> None:
    steps = (step("a"), step("b", "write", params={"text": "${ .steps.a.text } denied"}))
    run_id = (await ordered(hub, *steps))["id"]
    await hub.say((await hub.waiting(run_id, "b"))["approval_id"], approve=False)
    run = await hub.standing(run_id, "failed")
    assert (run["step_failed_at"], step_of(run, "b")["error"]["code"]) == ("b", "refused")
    assert hub.works.done == ["look a"]


async def test_a_definition_that_was_changed_after_it_was_approved_does_not_run(hub: Flows) -> None:
    await hub.saved(step("a", "write", params={"text": "good"}), name="swapped")
    order = {"name": "swapped", "wait_s": 0}
    held = (await hub.tool("executeWorkflow", hub.hub.client, **order))["approval_id"]
    await hub.say(held)
    await hub.saved(step("a", "write", params={"text": "evil"}), name="swapped")
    refused = await redeemed(hub, held)
    assert (refused["code"], "has changed since" in refused["message"]) == ("conflict", True)
    assert hub.works.done == []


async def test_a_step_that_takes_more_people_asks_them(hub: Flows) -> None:
    held = (await ordered(hub, step("a", "burn"), step("b", "burn", params={"text": "sacred"})))["approval_id"]
    await hub.say(held)
    run_id = (await redeemed(hub, held))["id"]
    asked = (await hub.waiting(run_id, "b"))["approval_id"]
    assert hub.works.done == ["burn a"]
    await hub.say(asked)
    assert (await hub.get(run_id))["status"] == "waiting"
    await hub.say(asked, by=hub.key("second"))
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["burn a", "burn sacred"]


async def test_a_call_that_the_hub_itself_runs_is_run_once_and_gives_its_result(hub: Flows) -> None:
    steps = (step("a"), step("b", "write", params={"text": '${ if .steps.a.number == 1 then "urgent" else "" end }'}))
    run_id = (await ordered(hub, *steps, outputs={"text": "${ .steps.b.text }"}))["id"]
    await hub.say((await hub.waiting(run_id, "b"))["approval_id"])
    run = await hub.standing(run_id, "completed")
    assert (run["outputs"], hub.works.done) == ({"text": "urgent"}, ["look a", "write urgent"])


async def test_a_run_that_is_run_again_is_another_one_than_the_one_that_was_approved(hub: Flows) -> None:
    held = (await ordered(hub, step("a", "burn"), step("b")))["approval_id"]
    await hub.say(held)
    run_id = (await redeemed(hub, held))["id"]
    await hub.standing(run_id, "completed")
    await hub.tool("retryFromStep", id=run_id, step="a")
    asked = (await hub.waiting(run_id, "a"))["approval_id"]
    assert (asked != held, hub.works.did("burn")) == (True, ["burn a"])
    await hub.tool("cancelWorkflow", id=run_id)


async def test_an_approved_run_that_failed_goes_on_under_its_approval(hub: Flows) -> None:
    steps = (step("a", "trip", params={"text": "first", "code": "invalid"}), step("b", "burn"))
    held = (await ordered(hub, *steps))["approval_id"]
    await hub.say(held)
    run_id = (await redeemed(hub, held))["id"]
    await hub.standing(run_id, "failed")
    await hub.tool("resumeWorkflow", id=run_id)
    assert statuses(await hub.standing(run_id, "completed")) == {"a": "completed", "b": "completed"}


async def test_the_steps_of_a_part_are_approved_with_the_whole(hub: Flows) -> None:
    name = await hub.saved(step("in", "write", params={"text": "part"}), name="part")
    held = await ordered(hub, {"name": "sub", "workflow": name})
    assert "sub > in: " in held["plan"]
    await hub.say(held["approval_id"])
    await hub.standing((await redeemed(hub, held["approval_id"]))["id"], "completed")
    assert hub.works.done == ["write part"]


async def test_a_command_that_only_reads_is_no_reason_to_ask(hub: Flows) -> None:
    looks = step("a", "run", params={"text": "show it"})
    run = await ordered(hub, looks, step("b", "run", params={"text": "show that"}))
    await hub.standing(run["id"], "completed")
    held = await ordered(hub, looks, step("b", "run", params={"text": "burn"}))
    assert "b: lab.works.run (destroy)" in held["plan"]


async def test_an_operator_confirms_what_a_run_destroys(hub: Flows) -> None:
    found = await hub.run(step("a", "burn"), wait_s=0)
    assert (found["code"], hub.works.done) == ("needs_approval", [])
    run = await hub.run(step("a", "write"))
    assert (run["status"], hub.works.done) == ("completed", ["write a"])
