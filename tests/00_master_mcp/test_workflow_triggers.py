"""Workflows that start by themselves, at the moments of a schedule."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hubs import RunningHub, call, running_hub, text_of

from master_mcp.store.workflows import runs, ticks
from master_mcp.workflows.definition import Schedule
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.triggers import Triggers, moments

HOUR = 3600.0
HOURLY = {
    "name": "hourly",
    "input": {"who": {"type": "string", "default": "nobody"}},
    "schedule": {"cron": "0 * * * *", "inputs": {"who": "ada"}},
    "steps": [{"name": "look", "tool": "master.getServerInfo"}],
    "outputs": {"who": "${ .input.who }"},
}


def triggers_of(hub: RunningHub, clock: Callable[[], float]) -> Triggers:
    """The triggers of a hub, at another time of day."""
    parts = hub.hub.workflows
    return Triggers(hub.hub.store, parts.shelf, parts.starting, Notes(hub.hub.audit), hub.hub.keys.caller, clock)


def run_rows(hub: RunningHub) -> list[dict[str, Any]]:
    """Every run."""
    found = hub.hub.store.read_now(lambda db: db.execute(sa.select(runs).order_by(runs.c.created_at)).mappings().all())
    return [dict(row) for row in found]


async def saved(hub: RunningHub, definition: dict[str, Any]) -> None:
    """Save a workflow as the operator."""
    result = await call(hub, "orchestrator.saveDefinition", {"definition": definition}, key=hub.admin)
    assert not result.get("isError"), text_of(result)


async def test_a_saved_workflow_starts_at_its_moment_as_whoever_saved_it(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub, HOURLY)
        await triggers_of(hub, time.time).look()
        assert run_rows(hub) == []
        await triggers_of(hub, lambda: time.time() + HOUR).look()
        (run,) = run_rows(hub)
        ended = await hub.hub.workflows.looking.ended(run["id"], 30)
        assert (ended.status, ended.outputs, ended.caller_name) == ("completed", {"who": "ada"}, "admin")
        assert (run["door"], run["key"].split(":")[:2]) == ("cron", ["cron", "hourly"])


async def test_a_moment_is_started_once_however_often_anybody_looks(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub, HOURLY)
        later = time.time() + HOUR
        for _ in range(3):
            await triggers_of(hub, lambda: later).look()
        hub.hub.store.write_now(lambda db: db.execute(ticks.delete()))  # as another hub, which has not seen it
        await triggers_of(hub, lambda: later).look()
        assert len(run_rows(hub)) == 1


async def test_moments_that_passed_while_the_hub_was_down_are_made_up_for_once(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub, HOURLY)
        await triggers_of(hub, lambda: time.time() + 50 * HOUR).look()
        assert len(run_rows(hub)) == 1


async def test_a_schedule_whose_owner_is_revoked_starts_nothing_and_says_so(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        key, secret = hub.hub.keys.create("ada", "operator")
        result = await call(hub, "orchestrator.saveDefinition", {"definition": HOURLY}, key=secret)
        assert not result.get("isError"), text_of(result)
        hub.hub.keys.revoke(key.id)
        await triggers_of(hub, lambda: time.time() + HOUR).look()
        assert run_rows(hub) == []
        assert [row["caller"] for row in hub.audit_rows() if row["tool"] == "workflow.schedule.refused"] == [key.id]


async def test_a_removed_workflow_starts_no_more(tmp_path: Path):
    async with running_hub(tmp_path) as hub:
        await saved(hub, HOURLY)
        await call(hub, "orchestrator.removeDefinition", {"name": "hourly"}, key=hub.admin)
        await triggers_of(hub, lambda: time.time() + HOUR).look()
        assert run_rows(hub) == []


async def test_files_start_nothing_by_themselves(tmp_path: Path):
    folder = tmp_path / "workflows"
    folder.mkdir()
    async with running_hub(tmp_path) as hub:
        (folder / "hourly.yaml").write_text(
            "name: hourly\nschedule: {cron: '* * * * *'}\nsteps: [{name: look, tool: master.getServerInfo}]\n"
        )
        listed = (await call(hub, "orchestrator.listDefinitions", {"query": "hourly"}))["structuredContent"]["result"]
        assert [(one["name"], one["origin"]) for one in listed] == [("hourly", "file")]
        await triggers_of(hub, lambda: time.time() + HOUR).look()
        assert run_rows(hub) == []


NEW_YEAR = 1798761600.0  # 2027-01-01T00:00:00Z, a Friday


@pytest.mark.parametrize(
    ("cron", "timezone", "since", "now", "expected"),
    [
        ("0 * * * *", "UTC", NEW_YEAR, NEW_YEAR + 10, (None, NEW_YEAR + HOUR)),
        ("0 * * * *", "UTC", NEW_YEAR, NEW_YEAR + HOUR, (NEW_YEAR + HOUR, NEW_YEAR + 2 * HOUR)),
        ("0 * * * *", "UTC", NEW_YEAR, NEW_YEAR + 5.5 * HOUR, (NEW_YEAR + 5 * HOUR, NEW_YEAR + 6 * HOUR)),
        ("30 2 * * *", "Europe/Berlin", NEW_YEAR, NEW_YEAR + 10, (None, NEW_YEAR + 1.5 * HOUR)),
        ("0 0 * * 6", "UTC", NEW_YEAR, NEW_YEAR + 10, (None, NEW_YEAR + 24 * HOUR)),
    ],
)
def test_the_moments_of_a_schedule_follow_its_own_time_zone(
    cron: str, timezone: str, since: float, now: float, expected: tuple[float | None, float]
):
    assert moments(Schedule(cron=cron, timezone=timezone), since, now) == expected
