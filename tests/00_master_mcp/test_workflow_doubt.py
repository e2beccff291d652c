"""In doubt: a change was sent and nobody knows what became of it. It is never made again blindly."""

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos_fleet
import jumping_clock
import pytest
import pytest_asyncio
import spoken
from flows import Flows, running_flows, statuses, step, step_of
from hubs import listening, rows, settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}


def listed(name: str, risk: str) -> dict[str, Any]:
    """A tool of the shaky spoke as it lists it."""
    meta = {"fleet/id": f"os.shaky.{name}", "risk": risk}
    return {"name": f"os_shaky_{name}", "description": f"{name} it.", "inputSchema": TEXT, "_meta": meta}


@dataclass
class Shaky:
    """A spoke, over real HTTP, that loses its answers. `cuts` says how often, `works` whether it had done its work."""

    sent: list[str] = field(default_factory=list[str])
    there: set[str] = field(default_factory=set[str])
    cuts: int = 0
    works: bool = True
    blind: bool = False  # its reading tool fails

    async def answer(self, request: dict[str, Any], send: Any) -> None:
        """One call."""
        name, text = request["params"]["name"], request["params"]["arguments"]["text"]
        if name == "os_shaky_find":
            found: dict[str, Any] = {"structuredContent": {"there": text in self.there}}
            await self._said(request, send, {"isError": True, "structuredContent": {}} if self.blind else found)
            return
        self.sent.append(text)
        cut, self.cuts = self.cuts > 0, self.cuts - 1
        if self.works or not cut:
            self.there.add(text)
        if cut:
            await spoken.cut_off(request, send)
        await self._said(request, send, {"structuredContent": {"made": text}})

    async def _said(self, request: dict[str, Any], send: Any, result: dict[str, Any]) -> None:
        whole: dict[str, Any] = {"resultType": "complete", "content": [], **result}
        await spoken.send_json(send, {"jsonrpc": "2.0", "id": request["id"], "result": whole})


SHAKY = Shaky()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hub's data directory."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def victim(data: Path) -> Generator[chaos_fleet.Spoke]:
    """A spoke in a process of its own."""
    clock = data / "clock"
    clock.write_text("0", encoding="utf-8")
    spoke = chaos_fleet.Spoke(data, "victim", "spoke.py", {jumping_clock.VARIABLE: str(clock)})
    yield spoke
    spoke.process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(data: Path, victim: chaos_fleet.Spoke) -> AsyncGenerator[Flows]:
    """A hub over the shaky spoke and the victim."""
    tools = [listed("make", "change"), listed("find", "read")]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(spoken.spoke_app(SHAKY.answer, tools)))
        spokes = {**rows(shaky=url), "victim": victim.row(71)}
        found = await stack.enter_async_context(running_flows(data, rows=spokes))
        await settle(found.hub, "shaky", "victim")
        yield found


@pytest.fixture
def shaky(shared: Flows) -> Shaky:
    """The spoke, which has done nothing yet and loses its next answer; its breaker is closed."""
    SHAKY.__init__(cuts=1)
    shared.works.done.clear()
    shared.hub.hub.resilience.breakers.reset("all")
    return SHAKY


@pytest.fixture
def hub(shared: Flows) -> Flows:
    """The hub."""
    return shared


VERIFY = {"service": "shaky", "tool": "find", "params": {"text": "a"}, "done": "${ .result.there }"}


def make(name: str = "a", **keys: Any) -> dict[str, Any]:
    """A step that changes something at the shaky spoke."""
    return {"name": name, "service": "shaky", "tool": "make", "params": {"text": name}, **keys}


async def doubtful(hub: Flows, *steps: dict[str, Any], **keys: Any) -> str:
    """A run that stands in doubt."""
    run_id = await hub.begun(*(steps or (make(), step("b"))), **keys)
    await hub.standing(run_id, "in_doubt")
    return run_id


async def test_a_change_whose_answer_is_lost_is_in_doubt_and_not_sent_again(hub: Flows, shaky: Shaky) -> None:
    retry = {"max": 5, "delay": "0s"}
    run_id = await doubtful(hub, make(retry=retry), step("b"))
    run = await hub.get(run_id)
    assert (run["status"], statuses(run), shaky.sent) == ("in_doubt", {"a": "in_doubt"}, ["a"])
    assert run["waits_for"] == [{
        "step": "a", "item": None, "for": "a person",
        "do": f"fleet workflow resume {run_id} --step a --outcome done|repeat|failed",
    }]  # fmt: skip
    await hub.tool("cancelWorkflow", id=run_id)


async def test_a_person_who_says_it_is_done_lets_the_run_go_on(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub, make(), step("b", params={"text": "${ .steps.a.made }"}))
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done", result={"made": "by hand"})
    run = await hub.standing(run_id, "completed")
    assert (shaky.sent, hub.works.done, step_of(run, "a")["result"]) == (["a"], ["look by hand"], {"made": "by hand"})


async def test_a_person_who_says_repeat_has_it_sent_again(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="repeat")
    run = await hub.standing(run_id, "completed")
    assert (shaky.sent, step_of(run, "a")["attempts"]) == (["a", "a"], 2)


async def test_what_is_in_doubt_twice_is_asked_twice(hub: Flows, shaky: Shaky) -> None:
    shaky.cuts = 2
    run_id = await doubtful(hub)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="repeat")
    await hub.until(run_id, lambda run: run["status"] == "in_doubt" and step_of(run, "a")["attempts"] == 2)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done")
    await hub.standing(run_id, "completed")
    assert shaky.sent == ["a", "a"]


async def test_a_person_who_says_it_failed_fails_the_step(hub: Flows, shaky: Shaky) -> None:
    undo = {"service": "works", "tool": "write", "params": {"text": "undo"}}
    run_id = await doubtful(hub, step("first", compensate=undo), make(compensate=undo))
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="failed")
    run = await hub.standing(run_id, "failed")
    assert (run["step_failed_at"], run["reason"]) == ("a", "admin said that it did not take effect")
    assert hub.works.done == ["look first", "write undo"]


async def test_a_probe_that_finds_the_effect_lets_the_run_go_on(hub: Flows, shaky: Shaky) -> None:
    run = await hub.run(make(verify=VERIFY), step("b"))
    assert (run["status"], shaky.sent, hub.works.done) == ("completed", ["a"], ["look b"])


async def test_a_probe_that_finds_none_has_it_sent_again(hub: Flows, shaky: Shaky) -> None:
    shaky.works = False
    run = await hub.run(make(verify=VERIFY), step("b"))
    assert (run["status"], shaky.sent, step_of(run, "a")["attempts"]) == ("completed", ["a", "a"], 2)


async def test_a_probe_that_cannot_tell_asks_a_person(hub: Flows, shaky: Shaky) -> None:
    shaky.blind = True
    run_id = await doubtful(hub, make(verify=VERIFY))
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done")
    await hub.standing(run_id, "completed")
    assert shaky.sent == ["a"]


async def test_what_took_effect_is_not_judged_by_a_result_that_nobody_knows(hub: Flows, shaky: Shaky) -> None:
    judged = {"expect": '${ .result.made == "a" }'}
    assert (await hub.run(make(verify=VERIFY, **judged)))["status"] == "completed"
    shaky.cuts = 1
    run_id = await doubtful(hub, make(**judged))
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done")
    await hub.standing(run_id, "completed")
    assert shaky.sent == ["a", "a"]


async def test_a_probe_never_changes_anything(hub: Flows, shaky: Shaky) -> None:
    change = {"service": "works", "tool": "run", "params": {"text": "rm"}, "done": "${ .result != null }"}
    run_id = await doubtful(hub, make(verify=change))
    assert hub.works.done == []
    await hub.tool("cancelWorkflow", id=run_id)


async def test_an_error_that_the_tool_itself_answered_is_no_doubt(hub: Flows, shaky: Shaky) -> None:
    trip = {"text": "known", "code": "conflict", "times": 9}
    assert (await hub.run(step("a", "trip", params=trip)))["status"] == "failed"


async def test_a_read_whose_answer_is_lost_is_simply_made_again(hub: Flows, shaky: Shaky) -> None:
    shaky.blind = True
    run = await hub.run({**make(), "tool": "find"})
    assert (run["status"], shaky.sent) == ("failed", [])


async def test_each_item_is_in_doubt_by_itself(hub: Flows, shaky: Shaky) -> None:
    run_id = await hub.begun(make("all", params={"text": "${ .item }"}, forEach=["x", "y"]))
    run = await hub.standing(run_id, "in_doubt")
    assert [(one["item"], one["status"]) for one in run["results"]] == [(0, "in_doubt")]
    assert run["waits_for"][0]["do"].endswith("--step all --item 0 --outcome done|repeat|failed")
    assert (await hub.tool("resumeWorkflow", id=run_id, step="all", outcome="done"))["code"] == "conflict"
    await hub.tool("resumeWorkflow", id=run_id, step="all", item=0, outcome="done", result="x was there")
    run = await hub.standing(run_id, "completed")
    assert (step_of(run, "all")["result"], shaky.sent) == (["x was there", {"made": "y"}], ["x", "y"])


async def test_a_decision_needs_a_step_that_is_in_doubt_and_an_outcome(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub)
    assert (await hub.tool("resumeWorkflow", id=run_id, step="b", outcome="done"))["code"] == "conflict"
    assert (await hub.tool("resumeWorkflow", id=run_id, step="a"))["code"] == "invalid"
    assert "'repeat'" in await hub.refused("resumeWorkflow", id=run_id, step="a", outcome="perhaps")
    assert (await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done"))["id"] == run_id
    await hub.standing(run_id, "completed")


async def test_a_cancelled_run_keeps_its_doubt_until_somebody_decides(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub)
    run = await hub.tool("cancelWorkflow", id=run_id)
    assert (run["status"], statuses(run), len(run["waits_for"])) == ("cancelled", {"a": "in_doubt"}, 1)
    for tool, more in (("resumeWorkflow", {}), ("retryFromStep", {"step": "a"}), ("retryFromStep", {"fork": True})):
        refused = await hub.tool(tool, id=run_id, **more)
        assert (refused["code"], "step 'a'" in refused["message"]) == ("conflict", True)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done", result={"made": "a"})
    await hub.tool("resumeWorkflow", id=run_id)
    await hub.standing(run_id, "completed")
    assert (shaky.sent, hub.works.done) == (["a"], ["look b"])


async def test_what_was_said_to_have_failed_is_done_again_when_the_run_goes_on(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub)
    await hub.tool("cancelWorkflow", id=run_id)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="failed")
    await hub.tool("resumeWorkflow", id=run_id)
    await hub.standing(run_id, "completed")
    assert shaky.sent == ["a", "a"]


async def test_an_item_that_was_said_to_be_done_is_not_done_again(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub, make("all", params={"text": "${ .item }"}, forEach=["x", "y"]))
    await hub.tool("cancelWorkflow", id=run_id)
    await hub.tool("resumeWorkflow", id=run_id, step="all", item=0, outcome="done", result="x was there")
    await hub.tool("resumeWorkflow", id=run_id)
    run = await hub.standing(run_id, "completed")
    assert (step_of(run, "all")["result"], shaky.sent) == (["x was there", {"made": "y"}], ["x", "y"])


async def test_the_doubt_of_a_part_is_decided_before_the_run_goes_on(hub: Flows, shaky: Shaky) -> None:
    name = await hub.saved(step("first", "write"), make(), step("last"), name="inner")
    run_id = await hub.begun({"name": "sub", "workflow": name}, step("b"))
    part = (await hub.waiting(run_id, "sub"))["waits_for"].removeprefix("run ")
    await hub.standing(part, "in_doubt")
    await hub.tool("cancelWorkflow", id=run_id)
    refused = await hub.tool("resumeWorkflow", id=run_id)
    assert (refused["code"], part in refused["message"]) == ("conflict", True)
    await hub.tool("resumeWorkflow", id=part, step="a", outcome="done")
    await hub.tool("resumeWorkflow", id=run_id)
    await hub.standing(run_id, "completed")
    assert (shaky.sent, hub.works.done) == (["a"], ["write first", "look last", "look b"])


async def test_an_answer_counts_for_the_attempt_that_it_was_given_for(hub: Flows, shaky: Shaky) -> None:
    run_id = await doubtful(hub)
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done")
    await hub.standing(run_id, "completed")
    shaky.cuts = 1
    await hub.tool("retryFromStep", id=run_id, step="a")
    await hub.standing(run_id, "in_doubt")
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="failed")
    await hub.standing(run_id, "failed")
    assert shaky.sent == ["a", "a"]


async def test_a_change_that_is_cancelled_under_way_is_in_doubt(hub: Flows, shaky: Shaky) -> None:
    params = {"text": "slow"}
    run_id = await hub.begun({"name": "a", "service": "works", "tool": "stall", "params": params})
    await hub.settled(lambda: hub.works.begun[-1:] == ["slow"])
    run = await hub.tool("cancelWorkflow", id=run_id)
    assert (run["status"], statuses(run)) == ("cancelled", {"a": "in_doubt"})
    await hub.run({"name": "w", "wait": "1s"})  # and nothing that was still to be written says otherwise later
    assert statuses(await hub.get(run_id)) == {"a": "in_doubt"}
    hub.works.gate("slow").set()


async def test_a_step_that_waits_between_attempts_is_in_no_doubt(hub: Flows, shaky: Shaky) -> None:
    trip = {"text": "between", "code": "over_budget", "times": 9}
    run_id = await hub.begun(step("a", "trip", params=trip, retry={"max": 2, "delay": "1h", "maxDelay": "1h"}))
    await hub.settled(lambda: hub.works.tries["between"] == 1)
    await hub.until(run_id, lambda run: step_of(run, "a").get("attempts") == 1)
    run = await hub.tool("cancelWorkflow", id=run_id)
    assert (run["status"], statuses(run)) == ("cancelled", {"a": "cancelled"})


async def test_a_spoke_that_is_killed_in_the_middle_of_a_change_leaves_a_doubt(
    hub: Flows, shaky: Shaky, victim: chaos_fleet.Spoke
) -> None:
    with victim.holding():
        change = {
            "name": "a",
            "tool": "os.victim.write",
            "params": {"mark": "once"},
            "retry": {"max": 3, "delay": "0s"},
        }
        run_id = await hub.begun(change, step("b"))
        await hub.settled(lambda: victim.wrote() == ["once"])
        victim.process.kill()
    victim.process = victim.start()
    await hub.standing(run_id, "in_doubt")
    await settle(hub.hub, "victim")
    await hub.tool("resumeWorkflow", id=run_id, step="a", outcome="done")
    await hub.standing(run_id, "completed")
    assert (victim.wrote(), hub.works.done) == (["once"], ["look b"])


async def test_a_change_that_ran_out_of_time_by_its_own_account_is_in_doubt(hub: Flows) -> None:
    late = {"text": "late", "code": "timed_out", "times": 9}
    run_id = await hub.begun(step("a", "trip", params=late, retry={"max": 3, "delay": "0s"}))
    assert (await hub.waiting(run_id, "a", "in_doubt"))["attempts"] == 1
    await hub.tool("cancelWorkflow", id=run_id)
