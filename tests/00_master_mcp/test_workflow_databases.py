"""Runs on each kind of database, which is a change of URL; ended runs that are forgotten; runs that are counted."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flows import SETTINGS, Flows, running_flows, statuses, step

from master_mcp.store.workflows import artifacts, runs, signals, steps
from master_mcp.workflows.retention import Retention

PARALLEL: list[dict[str, Any]] = [
    step("a", "write"),
    step("b", "write", needs=["a"]),
    {"name": "pause", "needs": ["a"], "wait": {"signal": "go"}},
    step("loop", "write", params={"text": "${ .item }"}, forEach=["p", "q"], needs=["b", "pause"]),
]


async def test_a_run_goes_on_after_a_restart_on_every_kind_of_database(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SETTINGS, "database_url": database_url}
    if "postgresql" in database_url:  # a password does not stand in fleet.yaml
        monkeypatch.setenv("FLEET_HUB__DATABASE_URL", settings.pop("database_url"))
    async with running_flows(tmp_path, hub=settings) as hub:
        run_id = await hub.begun(*PARALLEL)
        await hub.waiting(run_id, "pause")
        await hub.settled(lambda: hub.works.done == ["write a", "write b"])
    async with running_flows(tmp_path, hub=settings) as hub:
        await hub.tool("signalWorkflow", id=run_id, name="go", payload={"by": "ada"})
        run = await hub.standing(run_id, "completed")
    assert statuses(run) == dict.fromkeys(("a", "b", "pause", "loop"), "completed")
    assert sorted(hub.works.done) == ["write p", "write q"]


def rows_left(hub: Flows, run_id: str) -> list[int]:
    """How many rows each table has of a run."""
    counts = [
        sa.select(sa.func.count()).select_from(table).where(column == run_id)
        for table, column in ((runs, runs.c.id), *((one, one.c.run_id) for one in (steps, signals, artifacts)))
    ]
    return hub.hub.hub.store.read_now(lambda db: [int(db.execute(count).scalar_one()) for count in counts])


async def test_ended_runs_are_forgotten_with_everything_of_theirs_and_live_ones_are_not(tmp_path: Path) -> None:
    async with running_flows(tmp_path) as hub:
        done = (await hub.run(step("a", "weigh", params={"kib": 400})))["id"]
        live = await hub.begun(step("a"), {"name": "pause", "wait": {"signal": "go"}})
        await hub.waiting(live, "pause")
        assert rows_left(hub, done) == [1, 1, 0, 1]
        retention = Retention(hub.hub.hub.store, hub.hub.hub.workflows.executor, keep_s=3600.0)
        assert await retention.sweep() == 0
        retention = Retention(hub.hub.hub.store, hub.hub.hub.workflows.executor, keep_s=0.0)
        assert await retention.sweep() == 1
        assert rows_left(hub, done) == [0, 0, 0, 0]
        assert rows_left(hub, live)[0] == 1
        await hub.tool("signalWorkflow", id=live, name="go")
        await hub.standing(live, "completed")


async def test_the_metrics_count_runs_by_how_they_stand_and_ended(tmp_path: Path) -> None:
    async with running_flows(tmp_path) as hub:
        await hub.run(step("a"))
        await hub.run(step("a", "trip", params={"text": "a", "code": "invalid", "times": 9}))
        run_id = await hub.begun({"name": "pause", "wait": {"signal": "go"}})
        await hub.waiting(run_id, "pause")
    async with running_flows(tmp_path) as hub:
        metrics = hub.hub.hub.metrics
        await hub.settled(lambda: b'mcp_workflow_runs_live{status="waiting"} 1.0' in metrics.render())
        await hub.run(step("a"))
        assert b'mcp_workflow_runs_total{status="completed"} 1.0' in metrics.render()
