"""Steps that fail: retries, time limits, going on, going elsewhere, undoing what was done."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, statuses, step, step_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Flows]:
    """One hub for all tests."""
    async with running_flows(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture
def hub(shared: Flows) -> Flows:
    """The hub, whose spoke has done nothing yet."""
    shared.works.done.clear()
    shared.works.begun.clear()
    shared.works.tries.clear()
    shared.works.gates.clear()
    return shared


def trip(name: str, code: str = "invalid", times: int = 99, **keys: Any) -> dict[str, Any]:
    """A step that fails so many times."""
    return step(name, "trip", params={"text": name, "code": code, "times": times}, **keys)


def undo(name: str, tool: str = "burn") -> dict[str, Any]:
    """A compensation that names what it undoes."""
    return {"service": "works", "tool": tool, "params": {"text": f"undo {name}"}}


QUICK = {"max": 3, "delay": "0s"}


# --- retry ------------------------------------------------------------------------------------------


async def test_a_step_is_tried_again_until_it_works(hub: Flows) -> None:
    run = await hub.run(trip("a", "over_budget", 2, retry=QUICK), outputs={"tries": "${ .steps.a }"})
    assert (run["status"], run["outputs"], step_of(run, "a")["attempts"]) == ("completed", {"tries": 3}, 3)


async def test_it_is_not_tried_more_often_than_asked(hub: Flows) -> None:
    run = await hub.run(trip("a", "over_budget", 3, retry=QUICK))
    assert (run["status"], run["step_failed_at"], run["reason"]) == ("failed", "a", "a tripped")
    assert (step_of(run, "a")["attempts"], hub.works.tries["a"]) == (3, 3)
    assert step_of(run, "a")["error"] == {"code": "over_budget", "message": "a tripped"}


@pytest.mark.parametrize("code", ["invalid", "not_found", "conflict", "refused", "error"])
async def test_what_repeating_does_not_help_is_not_tried_again(hub: Flows, code: str) -> None:
    run = await hub.run(trip("a", code, 1, retry=QUICK))
    assert (run["status"], hub.works.tries["a"]) == ("failed", 1)


async def test_a_retry_can_name_its_errors(hub: Flows) -> None:
    run = await hub.run(trip("a", "conflict", 1, retry={**QUICK, "on": ["conflict"]}))
    assert (run["status"], hub.works.tries["a"]) == ("completed", 2)
    other = await hub.run(trip("b", "over_budget", 1, retry={**QUICK, "on": ["conflict"]}))
    assert (other["status"], hub.works.tries["b"]) == ("failed", 1)


async def test_each_item_of_a_loop_is_tried_again_by_itself(hub: Flows) -> None:
    items = [{"text": "x", "times": 0}, {"text": "y", "times": 1}]
    params = {"text": "${ .item.text }", "times": "${ .item.times }", "code": "over_budget"}
    run = await hub.run(step("all", "trip", params=params, forEach=items, retry=QUICK))
    assert (run["status"], dict(hub.works.tries)) == ("completed", {"x": 1, "y": 2})


# --- time -------------------------------------------------------------------------------------------


async def test_a_step_that_takes_longer_than_it_may_fails(hub: Flows) -> None:
    run = await hub.run(step("a", "hold", timeout="1s"))
    assert (run["status"], step_of(run, "a")["error"]["code"]) == ("failed", "timed_out")


WAITS: list[dict[str, Any]] = [{"wait": "1h"}, {"wait": {"signal": "never"}}, {"approval": {"message": "well?"}}]


async def test_a_run_that_takes_longer_than_it_may_fails_at_what_it_waits_for(hub: Flows) -> None:
    steps = [{"name": "a", **one} for one in (*WAITS, {**step("a", "hold"), "params": {"text": "never"}})]
    runs = await asyncio.gather(*(hub.run(one, timeout="1s") for one in steps))
    assert [(run["status"], step_of(run, "a")["error"]["code"]) for run in runs] == [("failed", "timed_out")] * 4
    held = step_of(runs[2], "a")["approval_id"]
    assert (await hub.hub.hub.approvals.asking.look(held))[0].status == "cancelled"


async def test_a_run_without_time_tries_nothing_again(hub: Flows) -> None:
    slow = {"max": 20, "delay": "1h", "on": ["timed_out"]}
    run = await hub.run(step("a", "hold", retry=slow), timeout="1s")
    assert (run["status"], hub.works.begun) == ("failed", ["a"])


# --- onError ----------------------------------------------------------------------------------------


async def test_a_step_that_fails_ends_the_run_and_nothing_after_it_runs(hub: Flows) -> None:
    run = await hub.run(step("a"), trip("b"), step("c"))
    assert (run["status"], statuses(run)) == ("failed", {"a": "completed", "b": "failed"})
    assert (run["step_failed_at"], run["reason"], hub.works.done) == ("b", "b tripped", ["look a"])


async def test_what_runs_beside_a_step_that_fails_comes_to_its_end(hub: Flows) -> None:
    run_id = await hub.begun(step("long", "hold"), trip("b", needs=[]), step("after", needs=["long"]))
    await hub.waiting(run_id, "b", "failed")
    assert (await hub.get(run_id))["status"] == "running"
    hub.works.gate("long").set()
    assert statuses(await hub.standing(run_id, "failed")) == {"long": "completed", "b": "failed"}


async def test_what_waits_beside_a_step_that_fails_waits_no_longer(hub: Flows) -> None:
    steps: list[dict[str, Any]] = [{"name": f"w{n}", "needs": [], **one} for n, one in enumerate(WAITS)]
    done = step("done", "write", needs=[], compensate=undo("done"))
    run_id = await hub.begun(*steps, done, step("slow", "hold", needs=["done"]), trip("b", needs=["slow"]))
    held = (await hub.waiting(run_id, "w2"))["approval_id"]
    await hub.waiting(run_id, "slow", "running")
    hub.works.gate("slow").set()
    run = await hub.standing(run_id, "failed")
    assert [statuses(run)[f"w{number}"] for number in range(3)] == ["cancelled"] * 3
    assert hub.works.done[-1] == "burn undo done"
    assert (await hub.hub.hub.approvals.asking.look(held))[0].status == "cancelled"


async def test_a_run_goes_on_after_a_failure_where_the_step_says_so(hub: Flows) -> None:
    run = await hub.run(
        trip("a", onError="continue"),
        step("b", params={"text": "${ .errors.a.code }: ${ .errors.a.message } ${ .steps.a }"}),
    )
    assert (run["status"], statuses(run)) == ("completed", {"a": "failed", "b": "completed"})
    assert hub.works.done == ["look invalid: a tripped null"]


async def test_a_failure_leads_to_another_step_and_those_between_are_skipped(hub: Flows) -> None:
    steps = (trip("a", onError={"goto": "mend"}), step("b"), step("c"), step("mend"), step("after"))
    run = await hub.run(*steps)
    assert (run["status"], hub.works.done) == ("completed", ["look mend", "look after"])
    assert statuses(run) == {
        "a": "failed", "b": "skipped", "c": "skipped", "mend": "completed", "after": "completed",
    }  # fmt: skip


async def test_where_nothing_fails_the_step_that_a_failure_leads_to_comes_in_its_turn(hub: Flows) -> None:
    mend = step("mend", when='${ .status.a == "failed" }')
    run = await hub.run(step("a", onError={"goto": "mend"}), step("b"), mend)
    assert statuses(run) == {"a": "completed", "b": "completed", "mend": "skipped"}


async def test_another_failure_on_the_way_ends_the_run(hub: Flows) -> None:
    run = await hub.run(trip("a", onError={"goto": "mend"}), step("b"), trip("mend"))
    assert (run["status"], run["step_failed_at"]) == ("failed", "mend")


# --- compensate -------------------------------------------------------------------------------------


async def test_what_was_done_is_undone_the_last_first(hub: Flows) -> None:
    slow = step("slow", "hold", needs=["a"], compensate=undo("slow"))
    quick = step("quick", "write", needs=["a"], compensate=undo("quick"))
    run_id = await hub.begun(
        step("a", "write", compensate=undo("a")), slow, quick, trip("b", needs=["slow", "quick"], compensate=undo("b"))
    )
    await hub.waiting(run_id, "quick", "completed")
    hub.works.gate("slow").set()
    run = await hub.standing(run_id, "failed")
    assert hub.works.did("burn") == ["burn undo slow", "burn undo quick", "burn undo a"]
    assert statuses(run)["a.undo"] == "completed"
    assert run["reason"] == "b tripped"


async def test_a_step_that_was_skipped_or_failed_is_not_undone(hub: Flows) -> None:
    await hub.run(
        step("a", when=".input.no", compensate=undo("a")),
        trip("b", onError="continue", compensate=undo("b")),
        step("c", compensate=undo("c")),
        trip("d"),
        input={"no": {"default": False}},
    )
    assert hub.works.did("burn") == ["burn undo c"]


async def test_undoing_reads_what_the_step_answered(hub: Flows) -> None:
    back = {"service": "works", "tool": "write", "params": {"text": "${ .result.tags[1] }", "number": "${ .input.n }"}}
    await hub.run(step("a", compensate=back), trip("b"), input={"n": {"type": "integer", "default": 2}})
    assert hub.works.done == ["look a", "write seen"]


async def test_each_item_that_was_done_is_undone(hub: Flows) -> None:
    back = {"service": "works", "tool": "burn", "params": {"text": "${ .item } ${ .index } ${ .result.number }"}}
    loop = {"items": ["x", "y"], "concurrency": 1}
    await hub.run(step("all", "write", params={"text": "${ .item }"}, forEach=loop, compensate=back), trip("b"))
    assert hub.works.did("burn") == ["burn y 1 1", "burn x 0 1"]


async def test_of_a_loop_that_stopped_the_items_that_were_done_are_undone(hub: Flows) -> None:
    items = [{"text": "x", "times": 0}, {"text": "y", "times": 9}, {"text": "z", "times": 0}]
    params = {"text": "${ .item.text }", "times": "${ .item.times }", "code": "invalid"}
    back = {"service": "works", "tool": "burn", "params": {"text": "${ .item.text }"}}
    await hub.run(step("all", "trip", params=params, forEach=items, compensate=back))
    assert hub.works.done == ["trip x", "burn x"]


async def test_what_could_not_be_undone_is_said_and_the_rest_is_undone(hub: Flows) -> None:
    broken = {"service": "works", "tool": "trip", "params": {"text": "stuck", "code": "invalid", "times": 9}}
    run = await hub.run(step("a", compensate=undo("a")), step("b", compensate=broken), trip("c"))
    assert run["reason"] == "c tripped; not undone: b"
    assert hub.works.did("burn") == ["burn undo a"]
    assert statuses(run)["b.undo"] == "failed"


async def test_a_cancelled_run_undoes_nothing(hub: Flows) -> None:
    run_id = await hub.begun(step("a", compensate=undo("a")), step("b", "hold"))
    await hub.settled(lambda: hub.works.begun == ["b"])
    run = await hub.tool("cancelWorkflow", id=run_id)
    assert (run["status"], statuses(run)) == ("cancelled", {"a": "completed", "b": "cancelled"})
    assert hub.works.done == ["look a"]
    assert (await hub.tool("cancelWorkflow", id=run_id))["code"] == "conflict"
    hub.works.gate("b").set()


async def test_a_run_that_was_undone_and_goes_on_does_again_what_was_undone(hub: Flows) -> None:
    run = await hub.run(step("a", "write", compensate=undo("a")), step("b"), trip("c", times=1), step("d"))
    assert run["status"] == "failed"
    await hub.tool("resumeWorkflow", id=run["id"])
    await hub.standing(run["id"], "completed")
    assert hub.works.done == ["write a", "look b", "burn undo a", "write a", "look b", "trip c", "look d"]


async def test_a_failed_step_of_a_definition_by_name_says_where(hub: Flows) -> None:
    await hub.tool("saveDefinition", definition={**flow(step("a"), trip("b")), "name": "failing"})
    run = await hub.tool("executeWorkflow", name="failing")
    assert (run["workflow_name"], run["status"], run["step_failed_at"]) == ("failing", "failed", "b")
    assert run["correlation_id"] in {row["correlation_id"] for row in hub.hub.audit_rows()}


async def test_a_result_that_is_not_as_expected_fails_its_step_and_is_kept(hub: Flows) -> None:
    run = await hub.run(
        step("a", expect="${ .result.number == 2 }", onError="continue"),
        step("b", expect="${ .result.number == 1 }"),
        outputs={"a": "${ .steps.a.number }", "why": "${ .errors.a.code }"},
    )
    assert statuses(run) == {"a": "failed", "b": "completed"}
    assert run["outputs"] == {"a": 1, "why": "unexpected"}


async def test_a_step_is_tried_again_until_its_result_is_as_expected(hub: Flows) -> None:
    tries = {"max": 5, "on": ["unexpected"], "delay": "0s"}
    counts = {"text": "a", "times": 0}
    run = await hub.run(step("a", "trip", params=counts, expect="${ .result == 3 }", retry=tries))
    assert (step_of(run, "a")["status"], step_of(run, "a")["attempts"]) == ("completed", 3)


async def test_an_undoing_that_is_not_as_expected_is_told_of(hub: Flows) -> None:
    in_vain = undo("a", "look") | {"expect": "${ .result.number == 2 }"}
    run = await hub.run(step("a", compensate=in_vain), trip("b"))
    assert run["reason"].endswith("; not undone: a")
