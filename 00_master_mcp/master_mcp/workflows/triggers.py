"""Workflows that start by themselves: at the moments of their schedule, as whoever saved them.

A moment that passed while the hub was down is made up for once: only the last one counts. Several hubs on one
database start each moment once, because the moment is the run's key.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.store import Store
from master_mcp.auth.caller import Caller
from master_mcp.store.workflows import ticks
from master_mcp.workflows.definition import Schedule
from master_mcp.workflows.library import Entry
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.schedules import next_after
from master_mcp.workflows.shelf import Shelf
from master_mcp.workflows.starting import Order, Starting

DOOR = "cron"
LOOK_S = 20.0  # at most between looks: the clock may be set, another hub may save a workflow
LEAST_S = 0.05

log = get_logger()


class Triggers:
    """Starts scheduled workflows."""

    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        starting: Starting,
        notes: Notes,
        caller_of: Callable[[str], Caller | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._starting = starting
        self._notes = notes
        self._caller_of = caller_of
        self._clock = clock

    async def watch(self) -> None:
        """For ever."""
        changed = self._shelf.changes()
        while True:
            wait = LOOK_S
            try:
                wait = min(wait, await self.look())
            except FleetError as error:
                log.warning("workflow.schedules.failed", reason=error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait, LEAST_S)):
                    await changed.wait()
            changed.clear()

    async def look(self) -> float:
        """Start what is due; the seconds until the next moment of any schedule."""
        entries = await self._shelf.library.saved()
        scheduled = {name: entry for name, entry in entries.items() if entry.content.get("schedule")}
        last = await self._store.read(_last_ticks) if scheduled else {}
        now, ahead = self._clock(), LOOK_S
        for name, entry in scheduled.items():
            schedule = Schedule.model_validate(entry.content["schedule"])
            due, coming = moments(schedule, max(entry.saved_at or now, last.get(name, 0.0)), now)
            if due is not None:
                await self._start(entry, schedule, due)
            ahead = min(ahead, coming - now)
        return ahead

    async def _start(self, entry: Entry, schedule: Schedule, at: float) -> None:
        run_id = ""
        owner = self._caller_of(entry.owner_id or "")
        if owner is None:
            self._refused(entry, f"key {entry.owner_name!r}, who saved it, was revoked or has expired")
        else:
            order = Order(entry.name, inputs=schedule.inputs, key=f"cron:{entry.name}:{at:.0f}")
            try:
                run_id = (await self._starting.start(order, owner, DOOR)).id
            except FleetError as error:
                self._refused(entry, error.message)
        await self._store.write(lambda db: _ticked(db, entry.name, at, run_id))

    def _refused(self, entry: Entry, reason: str) -> None:
        log.warning("workflow.schedule.refused", workflow=entry.name, reason=reason)
        detail: Mapping[str, Any] = {"workflow": entry.name, "reason": reason}
        self._notes.note("workflow.schedule.refused", entry.owner_id or "hub", detail)


def moments(schedule: Schedule, since: float, now: float) -> tuple[float | None, float]:
    """The last moment of a schedule after `since` that has come, None when none has; and the next that will."""
    due, coming = None, next_after(schedule, since)
    while coming <= now:
        due, coming = coming, next_after(schedule, coming)
    return due, coming


def _last_ticks(db: sa.Connection) -> dict[str, float]:
    rows = db.execute(sa.select(ticks.c.name, sa.func.max(ticks.c.at)).group_by(ticks.c.name))
    return {row[0]: row[1] for row in rows}


def _ticked(db: sa.Connection, name: str, at: float, run_id: str) -> None:
    db.execute(ticks.delete().where(ticks.c.name == name, ticks.c.at <= at))
    db.execute(ticks.insert().values(name=name, at=at, run_id=run_id))
