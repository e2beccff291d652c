"""A hub that stops in the middle of undoing, and of changes: the next one goes on, and does nothing twice.

Every other place where a hub may be killed is in tests/kills.
"""

from pathlib import Path
from typing import Any

from flows import running_flows, statuses, step

UNDO = {"service": "works", "tool": "hold", "params": {"text": "undo"}}


def trip(name: str, **keys: Any) -> dict[str, Any]:
    """A step that fails."""
    return step(name, "trip", params={"text": name, "code": "invalid", "times": 9}, **keys)


async def test_a_run_that_was_being_undone_is_undone_to_its_end(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"name": "asked", "needs": [], "approval": {"message": "well?"}}
    beside: dict[str, Any] = {"name": "beside", "needs": [], "wait": "1h"}
    async with running_flows(tmp_path) as hub:
        run_id = await hub.begun(step("a", "write", compensate=UNDO), asked, beside, trip("b", needs=["a"]), step("c"))
        await hub.settled(lambda: hub.works.begun == ["undo"])
        assert hub.works.done == ["write a"]
    async with running_flows(tmp_path) as hub:
        hub.works.gate("undo").set()
        run = await hub.standing(run_id, "failed")
    assert hub.works.done == ["hold undo"]
    assert (run["step_failed_at"], run["reason"]) == ("b", "b tripped")
    assert statuses(run) == {
        "a": "completed", "a.undo": "completed", "asked": "cancelled", "beside": "cancelled", "b": "failed",
    }  # fmt: skip


async def test_a_change_that_was_under_way_is_in_doubt_and_its_probe_decides(tmp_path: Path) -> None:
    verify = {"service": "works", "tool": "look", "params": {"text": "a"}, "done": '${ .result.text == "a" }'}
    async with running_flows(tmp_path) as hub:
        run_id = await hub.begun(step("a", "stall", verify=verify), step("b", "stall"))
        await hub.settled(lambda: hub.works.begun == ["a"])
    async with running_flows(tmp_path) as hub:
        await hub.settled(lambda: hub.works.begun == ["b"])
        assert hub.works.done == ["look a"]
    async with running_flows(tmp_path) as hub:
        run = await hub.standing(run_id, "in_doubt")
        assert (statuses(run), hub.works.begun) == ({"a": "completed", "b": "in_doubt"}, [])
        await hub.tool("resumeWorkflow", id=run_id, step="b", outcome="done")
        await hub.standing(run_id, "completed")
        assert hub.works.begun == []


async def test_a_command_that_only_looked_is_made_again_and_asks_nobody(tmp_path: Path) -> None:
    async with running_flows(tmp_path) as hub:
        run_id = await hub.begun(step("a", "run", params={"text": "show slowly"}))
        await hub.settled(lambda: hub.works.begun == ["show slowly"])
    async with running_flows(tmp_path) as hub:
        hub.works.gate("show slowly").set()
        run = await hub.standing(run_id, "completed")
    assert (statuses(run), run["results"][0]["attempts"]) == ({"a": "completed"}, 2)
