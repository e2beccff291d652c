"""Runs from start to end: order, conditions, loops, results, sub-workflows, priorities, keys."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import flows
import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, statuses, step, step_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Flows]:
    """One hub for all tests."""
    async with running_flows(tmp_path_factory.mktemp("hub"), hub={"workflows": {"poll_s": 0.05, "lane": 3}}) as found:
        yield found


@pytest.fixture
def hub(shared: Flows) -> Flows:
    """The hub, whose spoke has done nothing yet."""
    shared.works.done.clear()
    shared.works.begun.clear()
    shared.works.gates.clear()
    return shared


# --- order ------------------------------------------------------------------------------------------


async def test_steps_without_needs_run_one_after_the_other(hub: Flows) -> None:
    run = await hub.run(step("c"), step("a"), step("b", "write"))
    assert (run["status"], hub.works.done) == ("completed", ["look c", "look a", "write b"])
    assert [one["name"] for one in run["results"]] == ["c", "a", "b"]
    assert run["results"][0]["ended_at"] <= run["results"][1]["started_at"]


async def test_steps_that_do_not_need_each_other_run_at_once(hub: Flows) -> None:
    wide = [step("a", "hold"), step("b", "hold", needs=[]), step("c", needs=["b"]), step("d", needs=["a", "c"])]
    run_id = await hub.begun(*wide)
    await hub.settled(lambda: sorted(hub.works.begun) == ["a", "b"])
    hub.works.gate("b").set()
    await hub.waiting(run_id, "c", "completed")
    assert statuses(await hub.get(run_id)) == {"a": "running", "b": "completed", "c": "completed"}
    hub.works.gate("a").set()
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["hold b", "look c", "hold a", "look d"]


async def test_a_result_is_read_by_later_steps_and_outputs(hub: Flows) -> None:
    run = await hub.run(
        step("a", params={"text": "${ .input.who }", "number": 4}),
        step("b", params={"text": "${ .steps.a.tags[0] } of ${ .run.workflow }", "number": "${ .steps.a.number + 1 }"}),
        input={"who": {"type": "string", "default": "ada"}},
        outputs={"said": "${ .steps.b.text }", "n": "${ .steps.b.number }", "by": "${ .run.started_by }"},
    )
    assert run["outputs"] == {"said": "ada of demo", "n": 5, "by": "admin"}
    assert (run["inputs"], run["step_failed_at"], run["reason"]) == ({"who": "ada"}, None, None)


async def test_outputs_that_cannot_be_made_fail_the_run_and_say_why(hub: Flows) -> None:
    undo = {"service": "works", "tool": "burn", "params": {"text": "a"}}
    run = await hub.run(step("a", compensate=undo), outputs={"x": "${ .steps.a.text + 1 }"})
    assert (run["status"], run["step_failed_at"], hub.works.done) == ("failed", "outputs", ["look a"])
    assert "outputs: ${ .steps.a.text + 1 }: jq: string" in run["reason"]
    mended = {**flow(step("a", compensate=undo)), "outputs": {"x": "${ .steps.a.text }"}}
    await hub.tool("retryFromStep", id=run["id"], definition=mended)
    assert (await hub.standing(run["id"], "completed"))["outputs"] == {"x": "a"}
    assert hub.works.done == ["look a"]


# --- when -------------------------------------------------------------------------------------------


async def test_a_step_whose_condition_does_not_hold_is_skipped_and_others_go_on(hub: Flows) -> None:
    run = await hub.run(
        step("a"), step("b", when="${ .steps.a.number == 2 }"), step("c", params={"text": "${ .status.b }"})
    )
    assert statuses(run) == {"a": "completed", "b": "skipped", "c": "completed"}
    assert hub.works.done == ["look a", "look skipped"]


async def test_a_condition_that_is_none_fails_its_step(hub: Flows) -> None:
    run = await hub.run(step("a", when="${ .input.x }", onError="continue"), step("b"), input={"x": {"default": "?"}})
    assert (run["status"], statuses(run)) == ("completed", {"a": "failed", "b": "completed"})
    assert "gives neither true nor false" in step_of(run, "a")["error"]["message"]


# --- forEach ----------------------------------------------------------------------------------------


async def test_a_step_runs_once_for_each_item(hub: Flows) -> None:
    run = await hub.run(
        step("all", params={"text": "${ .item.of }", "number": "${ .index }"}, forEach=[{"of": "x"}, {"of": "y"}]),
        outputs={"texts": "${ [.steps.all[].text] }", "numbers": "${ [.steps.all[].number] }"},
    )
    assert run["outputs"] == {"texts": ["x", "y"], "numbers": [0, 1]}
    assert [(one["item"], one["status"]) for one in run["results"]] == [
        (None, "completed"), (0, "completed"), (1, "completed"),
    ]  # fmt: skip


async def test_an_expression_gives_the_items_and_none_are_no_work(hub: Flows) -> None:
    run = await hub.run(
        step("a"),
        step("b", forEach="${ .steps.a.tags }", params={"text": "${ .item }"}),
        step("c", forEach="${ [] }"),
        outputs={"b": "${ .steps.b | length }", "c": "${ .steps.c }"},
    )
    assert (run["outputs"], hub.works.done) == ({"b": 2, "c": []}, ["look a", "look a", "look seen"])


async def test_items_that_are_no_list_fail_the_step(hub: Flows) -> None:
    run = await hub.run(step("a"), step("b", forEach="${ .steps.a.text }"))
    assert (run["status"], run["step_failed_at"]) == ("failed", "b")
    assert "gives no list" in run["reason"]


async def test_no_more_items_run_at_once_than_asked(hub: Flows) -> None:
    loop = {"items": ["p", "q", "r"], "concurrency": 2}
    run_id = await hub.begun(step("all", "hold", params={"text": "${ .item }"}, forEach=loop))
    await hub.settled(lambda: sorted(hub.works.begun) == ["p", "q"])
    hub.works.gate("q").set()
    await hub.settled(lambda: hub.works.begun[2:] == ["r"])
    hub.works.gate("p").set()
    hub.works.gate("r").set()
    assert step_of(await hub.standing(run_id, "completed"), "all")["result"] == ["p", "q", "r"]


TRIPS = {"text": "${ .item.name }", "times": "${ .item.times }", "code": "invalid"}


async def test_a_loop_stops_at_the_first_item_that_fails(hub: Flows) -> None:
    items = [{"name": "s1", "times": 0}, {"name": "s2", "times": 9}, {"name": "s3", "times": 0}]
    run = await hub.run(step("all", "trip", params=TRIPS, forEach=items))
    assert (run["status"], run["step_failed_at"], run["reason"]) == ("failed", "all", "item 1: s2 tripped")
    assert hub.works.done == ["trip s1"]
    assert [(one["item"], one["status"]) for one in run["results"][1:]] == [(0, "completed"), (1, "failed")]


async def test_a_loop_that_goes_on_runs_every_item_and_fails_at_the_end(hub: Flows) -> None:
    items = [{"name": f"g{n}", "times": n % 2} for n in range(4)]
    loop = {"items": items, "onFailure": "continue"}
    run = await hub.run(
        step("all", "trip", params=TRIPS, forEach=loop, onError="continue"),
        outputs={"done": "${ .steps.all }", "why": "${ .errors.all.message }"},
    )
    assert run["status"] == "completed"
    assert run["outputs"] == {"done": [1, None, 1, None], "why": "item 1: g1 tripped (2 of 4 items failed)"}


# --- sub-workflows ----------------------------------------------------------------------------------


async def test_a_workflow_in_a_step_gives_its_outputs(hub: Flows) -> None:
    name = await hub.saved(
        step("look", params={"text": "${ .input.text }"}),
        name="inner",
        input={"text": {"type": "string"}},
        outputs={"tags": "${ .steps.look.tags }"},
    )
    run = await hub.run(
        {"name": "sub", "workflow": name, "inputs": {"text": "deep ${ .run.id }"}},
        outputs={"tags": "${ .steps.sub.tags }"},
    )
    assert run["outputs"] == {"tags": [f"deep {run['id']}", "seen"]}
    parts = [one for one in (await hub.tool("listWorkflows", name=name))["result"] if one["parent"] == run["id"]]
    assert [(one["status"], one["started_by"]) for one in parts] == [("completed", "admin")]


async def test_a_workflow_runs_once_for_each_item(hub: Flows) -> None:
    name = await hub.saved(step("a", params={"text": "${ .input.n }"}), name="each", input={"n": {"type": "string"}})
    loop = {"items": ["x", "y"], "concurrency": 2}
    run = await hub.run({"name": "sub", "workflow": name, "inputs": {"n": "${ .item }"}, "forEach": loop})
    assert run["status"] == "completed"
    assert sorted(hub.works.done) == ["look x", "look y"]


async def test_a_workflow_that_fails_in_a_step_fails_the_step(hub: Flows) -> None:
    name = await hub.saved(step("in", "trip", params={"text": "sub", "times": 9, "code": "conflict"}), name="broken")
    run = await hub.run({"name": "sub", "workflow": name})
    assert (run["status"], run["step_failed_at"]) == ("failed", "sub")
    assert "of broken failed: sub tripped" in run["reason"]


async def test_the_parts_of_a_cancelled_run_are_cancelled_too(hub: Flows) -> None:
    name = await hub.saved(step("in", "hold", params={"text": "part"}), name="held")
    run_id = await hub.begun({"name": "sub", "workflow": name})
    await hub.settled(lambda: hub.works.begun == ["part"])
    run = await hub.tool("cancelWorkflow", id=run_id, reason="enough")
    assert (run["status"], run["reason"]) == ("cancelled", "cancelled by admin: enough")
    assert statuses(run) == {"sub": "cancelled"}
    part = next(one for one in (await hub.tool("listWorkflows", name=name))["result"] if one["parent"] == run_id)
    assert (part["status"], part["reason"]) == ("cancelled", "cancelled by admin: enough")


async def test_a_part_that_takes_longer_than_its_step_may_is_cancelled(hub: Flows) -> None:
    name = await hub.saved(step("in", "hold", params={"text": "long"}), name="slow")
    run = await hub.run({"name": "sub", "workflow": name, "timeout": "1s"})
    assert (run["status"], step_of(run, "sub")["error"]["code"]) == ("failed", "timed_out")
    part = next(one for one in (await hub.tool("listWorkflows", name=name))["result"] if one["parent"] == run["id"])
    assert part["status"] == "cancelled"


# --- starting ---------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_run_and_another_body_a_conflict(hub: Flows) -> None:
    wanted: dict[str, Any] = {"input": {"n": {"default": 1}}, "key": "once"}
    first = await hub.run(step("a", "write"), **wanted)
    again = await hub.run(step("a", "write"), inputs={"n": 1}, **wanted)
    assert (first["id"], hub.works.done) == (again["id"], ["write a"])
    for other in (await hub.run(step("b"), **wanted), await hub.run(step("a", "write"), inputs={"n": 2}, **wanted)):
        assert (other["code"], first["id"] in other["message"]) == ("conflict", True)


async def test_keys_of_two_callers_do_not_meet(hub: Flows) -> None:
    other = hub.key("other")
    first = await hub.run(step("a"), key="shared")
    second = await hub.tool("executeWorkflow", other, definition=flow(step("a")), key="shared")
    assert first["id"] != second["id"]


async def test_twenty_starts_at_once_under_one_key_are_one_run(hub: Flows) -> None:
    runs = await asyncio.gather(*(hub.run(step("a", "write"), key="many") for _ in range(20)))
    assert (len({one["id"] for one in runs}), hub.works.done) == (1, ["write a"])


@pytest.mark.parametrize("order", [{}, {"name": "x", "definition": flow(step("a"))}, {"name": "nothing"}])
async def test_a_start_names_exactly_one_workflow_that_there_is(hub: Flows, order: dict[str, object]) -> None:
    found = await hub.tool("executeWorkflow", **order)
    assert found["code"] in ("invalid", "not_found")


async def test_calls_of_important_runs_come_first_at_a_busy_spoke(hub: Flows) -> None:
    busy = [await hub.begun(step(f"busy{n}", "hold")) for n in range(3)]
    await hub.settled(lambda: len(hub.works.begun) == 3)
    late = [await hub.begun(step(name, "hold"), priority=number) for name, number in (("last", 9), ("first", 0))]
    for run_id, name in zip(late, ("last", "first"), strict=True):
        await hub.waiting(run_id, name, "running")
    hub.works.gate("busy0").set()
    await hub.settled(lambda: len(hub.works.begun) == 4)
    assert hub.works.begun[3] == "first"
    for name in ("busy1", "busy2", "first", "last"):
        hub.works.gate(name).set()
    for run_id in (*busy, *late):
        await hub.standing(run_id, "completed")


async def test_a_definition_that_was_edited_changes_no_run_under_way(hub: Flows) -> None:
    await hub.saved(step("a", "hold", params={"text": "old"}), step("b", params={"text": "old"}), name="edited")
    run_id = (await hub.tool("executeWorkflow", name="edited", wait_s=0))["id"]
    await hub.settled(lambda: hub.works.begun == ["old"])
    await hub.saved(step("b", params={"text": "new"}), name="edited")
    hub.works.gate("old").set()
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["hold old", "look old"]


# --- looking ----------------------------------------------------------------------------------------


async def test_a_large_result_is_kept_beside_the_run(hub: Flows) -> None:
    run = await hub.run(step("a", "weigh", params={"kib": 300}), step("b"))
    reference = step_of(run, "a")["result"]
    assert (reference["artifact"], reference["bytes"] > 300 * 1024, len(reference["preview"])) == ("a", True, 400)
    whole = (await hub.tool("getArtifact", run=run["id"], name="a"))["content"]
    assert len(whole["text"]) == 300 * 1024
    assert (await hub.tool("getArtifact", run=run["id"], name="b"))["code"] == "not_found"


async def test_an_agent_sees_its_own_runs_only(hub: Flows) -> None:
    mine = await hub.run(step("a", "weigh", params={"kib": 300}))
    theirs = await hub.tool("executeWorkflow", hub.hub.client, definition=flow(step("a")))
    listed = (await hub.tool("listWorkflows", hub.hub.client))["result"]
    assert [one["id"] for one in listed] == [theirs["id"]]
    assert {mine["id"], theirs["id"]} <= {one["id"] for one in (await hub.tool("listWorkflows", limit=500))["result"]}
    for tool, more in (
        ("getWorkflow", {}), ("cancelWorkflow", {}), ("resumeWorkflow", {}), ("retryFromStep", {"step": "a"}),
        ("signalWorkflow", {"name": "go"}),
    ):  # fmt: skip
        assert (await hub.tool(tool, hub.hub.client, id=mine["id"], **more))["code"] == "not_found"
    assert (await hub.tool("getArtifact", hub.hub.client, run=mine["id"], name="a"))["code"] == "not_found"


async def test_a_run_acts_as_the_key_that_started_it(hub: Flows) -> None:
    limited = hub.key("limited", "agent", scopes=["destroy:orchestrator.*", "read:lab.works.*"])
    steps = (step("a"), step("b", "write", params={"text": "${ .steps.a.text }"}))
    run_id = (await hub.tool("executeWorkflow", limited, definition=flow(*steps), wait_s=0))["id"]
    held = await hub.waiting(run_id, "b")
    assert (held["waits_for"], hub.works.done) == ("approval", ["look a"])
    run = await hub.tool("getWorkflow", limited, id=run_id)
    assert run["waits_for"] == [
        {"step": "b", "item": None, "for": "approval", "do": f"fleet approvals show {held['approval_id']}"}
    ]
    await hub.say(held["approval_id"])
    run = await hub.standing(run_id, "completed")
    assert (run["started_by"], hub.works.done) == ("limited", ["look a", "write a"])


async def test_secrets_are_masked_in_what_is_shown(hub: Flows) -> None:
    from fleetkit.scrub import scrubber

    scrubber.add("hunter2-hunter2")
    run = await hub.run(
        step("a", params={"text": "it is ${ .input.word }"}), input={"word": {}}, inputs={"word": "hunter2-hunter2"}
    )
    assert "hunter2-hunter2" not in str(run)
    assert flows.statuses(run) == {"a": "completed"}
