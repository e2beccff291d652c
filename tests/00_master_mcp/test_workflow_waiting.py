"""Steps that wait: approvals with forms and quorum, time, signals; and steering runs that have ended."""

import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, statuses, step, step_of

from fleetkit.errors import Conflict, Invalid, Refused

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


def ask(**keys: Any) -> dict[str, Any]:
    """A step `ok` that people decide."""
    return {"name": "ok", "approval": {"message": "go on with ${ .steps.a.text }?", **keys}}


async def asked(hub: Flows, *steps: dict[str, Any], key: str | None = None, **keys: Any) -> tuple[str, str]:
    """A run that waits at its step `ok`, and the approval that it waits for."""
    definition = flow(step("a"), *steps, **keys)
    run_id = (await hub.tool("executeWorkflow", key, definition=definition, wait_s=0))["id"]
    return run_id, (await hub.waiting(run_id, "ok"))["approval_id"]


# --- approvals --------------------------------------------------------------------------------------


async def test_a_run_waits_until_somebody_says_yes(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(), step("b"))
    run = await hub.get(run_id)
    assert (run["status"], hub.works.done) == ("waiting", ["look a"])
    shown = await hub.hub.hub.approvals.get(hub.hub.hub.keys.listed()[0].caller, held)
    assert (shown["plan"], shown["tool"], shown["arguments"]["run"]) == (
        "go on with a?",
        "orchestrator.approval",
        run_id,
    )
    assert run["waits_for"] == [
        {"step": "ok", "item": None, "for": "approval", "do": f"fleet approvals show {held}"},
    ]
    await hub.say(held)
    assert statuses(await hub.standing(run_id, "completed")) == {"a": "completed", "ok": "completed", "b": "completed"}


async def test_a_no_fails_the_step_with_its_reason(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(), step("b"))
    await hub.say(held, approve=False, by=hub.key("naysayer"))
    run = await hub.standing(run_id, "failed")
    assert (run["step_failed_at"], step_of(run, "ok")["error"]["code"]) == ("ok", "refused")
    assert f"{held} is denied" in run["reason"]


async def test_a_no_can_lead_elsewhere(hub: Flows) -> None:
    run_id, held = await asked(hub, {**ask(), "onError": {"goto": "no"}}, step("yes"), step("no"))
    await hub.say(held, approve=False)
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["look a", "look no"]


FORM = {"window": {"type": "string"}, "hosts": {"type": "integer", "default": 1, "maximum": 9}}


async def test_what_is_filled_in_is_the_result(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(form=FORM), step("b", params={"text": "${ .steps.ok.window }"}))
    wrongs: list[dict[str, Any]] = [{}, {"window": 3}, {"window": "w", "hosts": 10}, {"window": "w", "x": 1}]
    for wrong in wrongs:
        with pytest.raises(Invalid, match="has a form"):
            await hub.say(held, **wrong)
    await hub.say(held, window="sunday")
    assert step_of(await hub.standing(run_id, "completed"), "ok")["result"] == {"window": "sunday"}
    assert hub.works.done == ["look a", "look sunday"]


async def test_an_approval_without_a_form_takes_no_values(hub: Flows) -> None:
    run_id, held = await asked(hub, ask())
    with pytest.raises(Invalid, match="asks for no values"):
        await hub.say(held, window="sunday")
    await hub.say(held)
    await hub.standing(run_id, "completed")


async def test_two_people_have_to_say_yes_and_never_who_started_the_run(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(quorum=2, form={"note": {"type": "string", "default": ""}}))
    with pytest.raises(Refused, match="your own"):
        await hub.say(held)
    anna, bert = hub.key("anna"), hub.key("bert")
    await hub.say(held, by=anna, note="from anna")
    with pytest.raises(Conflict, match="has decided"):
        await hub.say(held, by=anna)
    assert (await hub.get(run_id))["status"] == "waiting"
    await hub.say(held, by=bert)
    assert step_of(await hub.standing(run_id, "completed"), "ok")["result"] == {"note": "from anna"}


async def test_only_the_group_that_was_named_decides(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(group="dbas", quorum=1), key=hub.hub.client)
    with pytest.raises(Refused, match="dbas"):
        await hub.say(held)
    await hub.say(held, by=hub.key("dora", groups=["dbas"]))
    await hub.standing(run_id, "completed")


async def test_an_approval_that_nobody_gives_expires(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(expires="1s"))
    run = await hub.standing(run_id, "failed")
    assert f"{held} is expired" in run["reason"]


async def test_an_approval_goes_to_others_when_nobody_decides(hub: Flows) -> None:
    run_id, held = await asked(hub, ask(group="dbas", escalate={"after": "1s", "to": "chiefs"}), key=hub.hub.client)
    carla = hub.key("carla", groups=["chiefs"])
    with pytest.raises(Refused):
        await hub.say(held, by=carla)
    while (await hub.hub.hub.approvals.asking.look(held))[0].escalated_at is None:
        await hub.get(run_id)
    await hub.say(held, by=carla)
    await hub.standing(run_id, "completed")


async def test_a_cancelled_run_asks_nobody_any_more(hub: Flows) -> None:
    run_id, held = await asked(hub, ask())
    await hub.tool("cancelWorkflow", id=run_id)
    with pytest.raises(Conflict):
        await hub.say(held)


async def test_the_decision_stands_on_the_audit(hub: Flows) -> None:
    run_id, held = await asked(hub, ask())
    await hub.say(held)
    await hub.standing(run_id, "completed")
    rows = [row for row in hub.hub.audit_rows() if row["approval_id"] == held or run_id in str(row["detail"])]
    assert {"workflow.started", "workflow.completed"} <= {row["tool"] for row in rows}
    assert any(row["approval_id"] == held and row["outcome"] == "approve" for row in rows)


# --- time and signals -------------------------------------------------------------------------------


async def test_a_wait_lasts_as_long_as_it_says(hub: Flows) -> None:
    run = await hub.run(step("a"), {"name": "w", "wait": "1s"}, step("b"))
    waited = step_of(run, "w")
    assert (run["status"], waited["ended_at"] - waited["started_at"] >= 1.0) == ("completed", True)


MOMENTS = ["${ .input.at }", "${ .input.at + 0.0 }", "2020-01-31T08:00:00+01:00", "${ .input.at | todate }"]


@pytest.mark.parametrize("until", MOMENTS)
async def test_a_wait_lasts_until_a_moment(hub: Flows, until: str) -> None:
    at = time.time()
    run = await hub.run({"name": "w", "wait": {"until": until}}, input={"at": {}}, inputs={"at": int(at)})
    assert (run["status"], step_of(run, "w")["result"]) == ("completed", None)


async def test_what_is_no_moment_fails_the_step(hub: Flows) -> None:
    run = await hub.run({"name": "w", "wait": {"until": "${ .run.workflow }"}})
    assert (run["status"], "'demo' is no moment" in run["reason"]) == ("failed", True)


LISTEN = {"name": "go", "wait": {"signal": "ready"}}


async def test_a_signal_wakes_a_run_and_brings_what_it_needs(hub: Flows) -> None:
    run_id = await hub.begun(LISTEN, step("b", params={"text": "${ .steps.go.host }"}))
    await hub.waiting(run_id, "go")
    assert (await hub.get(run_id))["waits_for"][0]["do"] == f"fleet workflow signal {run_id} ready"
    await hub.tool("signalWorkflow", id=run_id, name="other", payload={"host": "no"})
    assert (await hub.get(run_id))["status"] == "waiting"
    await hub.tool("signalWorkflow", id=run_id, name="ready", payload={"host": "web1"})
    await hub.standing(run_id, "completed")
    assert hub.works.done == ["look web1"]


async def test_a_signal_may_come_before_its_step_waits_and_comes_once(hub: Flows) -> None:
    run_id = await hub.begun(step("a", "hold"), LISTEN)
    await hub.settled(lambda: hub.works.begun == ["a"])
    assert "code" not in await hub.tool("signalWorkflow", id=run_id, name="ready", payload=1)
    assert (await hub.tool("signalWorkflow", id=run_id, name="ready", payload=2))["code"] == "conflict"
    hub.works.gate("a").set()
    assert step_of(await hub.standing(run_id, "completed"), "go")["result"] == 1
    assert (await hub.tool("signalWorkflow", id=run_id, name="late"))["code"] == "conflict"


async def test_a_signal_that_does_not_come_fails_the_step(hub: Flows) -> None:
    run = await hub.run({"name": "go", "wait": {"signal": "never", "timeout": "1s"}})
    assert (run["status"], step_of(run, "go")["error"]["code"]) == ("failed", "timed_out")


@pytest.mark.parametrize("name", ["doubt:a:0:1", "x:y"])
async def test_a_signal_cannot_pretend_to_be_a_decision(hub: Flows, name: str) -> None:
    run_id = await hub.begun(LISTEN)
    found = await hub.tool("signalWorkflow", id=run_id, name=name, payload={"outcome": "done"})
    assert found["code"] == "invalid"
    await hub.tool("cancelWorkflow", id=run_id)


# --- running on -------------------------------------------------------------------------------------


def trip(name: str, times: int = 1, **keys: Any) -> dict[str, Any]:
    """A step that fails so many times."""
    return step(name, "trip", **{"params": {"text": name, "code": "invalid", "times": times}, **keys})


async def test_a_failed_run_goes_on_where_it_failed(hub: Flows) -> None:
    run = await hub.run(step("a", "write"), trip("b"), step("c"), outputs={"n": "${ .steps.a.number + .steps.b }"})
    assert run["status"] == "failed"
    await hub.tool("resumeWorkflow", id=run["id"])
    again = await hub.standing(run["id"], "completed")
    assert (again["attempt"], again["outputs"], again["hash"]) == (1, {"n": 3}, run["hash"])
    assert hub.works.done == ["write a", "trip b", "look c"]
    assert [(one["name"], one["carried"]) for one in again["results"]] == [("a", True), ("b", False), ("c", False)]


async def test_a_cancelled_run_goes_on_where_it_stood(hub: Flows) -> None:
    run_id = await hub.begun(step("a", "write"), step("b", "hold"))
    await hub.settled(lambda: hub.works.begun == ["b"])
    await hub.tool("cancelWorkflow", id=run_id)
    hub.works.gate("b").set()
    await hub.tool("resumeWorkflow", id=run_id)
    await hub.standing(run_id, "completed")
    assert hub.works.did("write", "hold b")[0] == "write a"
    assert hub.works.did("write") == ["write a"]


async def test_only_a_run_that_has_ended_runs_on(hub: Flows) -> None:
    run_id = await hub.begun(LISTEN)
    assert (await hub.tool("resumeWorkflow", id=run_id))["code"] == "conflict"
    assert (await hub.tool("retryFromStep", id=run_id, step="go"))["code"] == "conflict"
    await hub.tool("cancelWorkflow", id=run_id)


async def test_a_step_is_done_again_with_all_that_depends_on_it(hub: Flows) -> None:
    beside = step("beside", needs=["a"])
    run = await hub.run(step("a"), step("b", needs=["a"]), beside, step("c", needs=["b"]))
    hub.works.done.clear()
    await hub.tool("retryFromStep", id=run["id"], step="b")
    again = await hub.standing(run["id"], "completed")
    assert (hub.works.done, again["attempt"]) == (["look b", "look c"], 1)
    assert (await hub.tool("retryFromStep", id=run["id"], step="x"))["code"] == "not_found"


async def test_a_fork_is_a_run_of_its_own(hub: Flows) -> None:
    run = await hub.run(step("a"), step("b"), key="mother")
    fork = await hub.tool("retryFromStep", id=run["id"], step="b", fork=True)
    assert fork["id"] != run["id"]
    await hub.standing(fork["id"], "completed")
    assert hub.works.done == ["look a", "look b", "look b"]
    assert (await hub.get(run["id"])) == run


async def test_a_mended_definition_keeps_the_results_of_steps_that_are_the_same(hub: Flows) -> None:
    run = await hub.run(step("a", "write"), step("b"), step("c", "trip", params={"text": "c", "code": "invalid"}))
    assert run["step_failed_at"] == "c"
    mended = flow(step("a", "write"), step("b", params={"text": "mended"}), step("c"))
    await hub.tool("retryFromStep", id=run["id"], definition=mended)
    again = await hub.standing(run["id"], "completed")
    assert hub.works.done == ["write a", "look b", "look mended", "look c"]
    assert again["hash"] != run["hash"]


async def test_a_definition_that_is_wrong_mends_nothing(hub: Flows) -> None:
    run = await hub.run(step("a", "write"), trip("b"))
    wrong = flow(step("a", "write"), step("b", params={"txt": 1}))
    assert (await hub.tool("retryFromStep", id=run["id"], step="b", definition=wrong))["code"] == "invalid"
    assert await hub.get(run["id"]) == run


ITEMS = [{"text": "i0", "times": 0}, {"text": "i1", "times": 1}, {"text": "i2", "times": 0}]
EACH = {"text": "${ .item.text }", "times": "${ .item.times }", "code": "invalid"}


async def test_a_loop_goes_on_with_the_items_that_were_not_done(hub: Flows) -> None:
    run = await hub.run(step("all", "trip", params=EACH, forEach=ITEMS), outputs={"all": "${ .steps.all }"})
    assert (run["status"], hub.works.done) == ("failed", ["trip i0"])
    await hub.tool("resumeWorkflow", id=run["id"])
    again = await hub.standing(run["id"], "completed")
    assert (again["outputs"], hub.works.done) == ({"all": [1, 2, 1]}, ["trip i0", "trip i1", "trip i2"])


async def test_a_loop_over_workflows_goes_on_with_those_that_were_not_done(hub: Flows) -> None:
    name = await hub.saved(
        trip("in", params={"text": "${ .input.text }", "times": "${ .input.times }", "code": "invalid"}),
        name="wave",
        input={"text": {"type": "string"}, "times": {"type": "integer"}},
    )
    inputs = {"text": "${ .item.text }", "times": "${ .item.times }"}
    run = await hub.run({"name": "all", "workflow": name, "inputs": inputs, "forEach": ITEMS})
    assert (run["status"], hub.works.done) == ("failed", ["trip i0"])
    await hub.tool("resumeWorkflow", id=run["id"])
    await hub.standing(run["id"], "completed")
    assert hub.works.done == ["trip i0", "trip i1", "trip i2"]


async def test_a_part_goes_on_where_it_failed(hub: Flows) -> None:
    deep = await hub.saved(step("x", "write"), trip("y"), name="deep")
    name = await hub.saved(step("in", "write"), {"name": "sub", "workflow": deep}, name="outer")
    run = await hub.run({"name": "sub", "workflow": name}, step("b"))
    assert (run["status"], hub.works.done) == ("failed", ["write in", "write x"])
    await hub.tool("resumeWorkflow", id=run["id"])
    await hub.standing(run["id"], "completed")
    assert hub.works.done == ["write in", "write x", "trip y", "look b"]


async def test_a_part_that_is_done_again_on_purpose_is_done_from_its_beginning(hub: Flows) -> None:
    name = await hub.saved(step("in", "write"), trip("y"), name="whole")
    run = await hub.run({"name": "sub", "workflow": name})
    await hub.tool("retryFromStep", id=run["id"], step="sub")
    await hub.standing(run["id"], "completed")
    assert hub.works.done == ["write in", "write in", "trip y"]


async def test_a_loop_that_is_done_again_on_purpose_does_every_item_again(hub: Flows) -> None:
    run = await hub.run(step("all", "write", params={"text": "${ .item }"}, forEach=["x", "y"]))
    await hub.tool("retryFromStep", id=run["id"], step="all")
    await hub.standing(run["id"], "completed")
    assert hub.works.done == ["write x", "write y", "write x", "write y"]


async def test_a_revoked_key_stops_its_run_at_the_next_call(hub: Flows) -> None:
    key = hub.key("leaver", "agent")
    run_id = (await hub.tool("executeWorkflow", key, definition=flow(step("a", "hold"), step("b")), wait_s=0))["id"]
    await hub.settled(lambda: hub.works.begun == ["a"])
    hub.hub.hub.keys.revoke("leaver")
    hub.works.gate("a").set()
    run = await hub.standing(run_id, "failed")
    assert (run["step_failed_at"], step_of(run, "b")["error"]["code"]) == ("b", "refused")
    assert "key 'leaver', as which this run acts, was revoked or has expired" in run["reason"]
    assert hub.works.done == ["hold a"]
