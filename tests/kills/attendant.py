"""Who attends to a run of the demo: starts it, approves, signals, says what became of steps in doubt."""

import asyncio
import json
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import demo
import sqlalchemy as sa
from demo_mcp import book

from fleetkit.errors import Conflict
from master_mcp.app import Hub
from master_mcp.store.workflows import runs
from master_mcp.workflows.starting import Order

LOOK_S = 0.02
ENDED = ("completed", "failed", "cancelled")


class Attendant:
    """One hub's. What is to stay the same over all kills goes into `seen.jsonl`."""

    def __init__(self, hub: Hub, seen: Path) -> None:
        self._hub = hub
        self._rooms = hub.workflows
        key = (hub.config.data_dir / "admin.key").read_text(encoding="utf-8").strip()
        found = hub.keys.authenticate(key)
        assert found is not None
        self._caller = found.caller
        self._seen = os.open(seen, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._told: set[str] = set()

    async def save(self, definition: dict[str, Any]) -> None:
        """Put a workflow into the library."""
        await self._rooms.shelf.save(self._caller, definition)

    async def begin(self, definition: dict[str, Any], inputs: dict[str, Any], key: str | None = None) -> str:
        """Start a run; its id."""
        order = Order(definition=definition, inputs=inputs, key=key)
        return (await self._rooms.starting.start(order, self._caller, "test")).id

    async def attend(self, workflow: str, key: str = "the one") -> dict[str, Any]:
        """The run of that workflow under that key, brought to its end."""
        run_id = await self.begin(demo.WORKFLOWS[workflow], {"who": "ada"}, key)
        while (await self._helped())[run_id] not in ENDED:
            await asyncio.sleep(LOOK_S)
        return await self._rooms.looking.get(self._caller, run_id)

    async def attend_all(self) -> dict[str, dict[str, Any]]:
        """Every run there is, by its id, brought to its end."""
        while set((found := await self._helped()).values()) - set(ENDED):
            await asyncio.sleep(LOOK_S)
        return {run_id: await self._rooms.looking.get(self._caller, run_id) for run_id in found}

    async def statuses(self, name: str) -> dict[str, int]:
        """How many runs of a workflow stand how."""
        query = sa.select(runs.c.status, sa.func.count()).where(runs.c.name == name).group_by(runs.c.status)
        return await self._hub.store.read(lambda db: {str(status): int(count) for status, count in db.execute(query)})

    async def reasons(self, name: str) -> set[str]:
        """Why runs of a workflow failed."""
        return {str(one["reason"]) for one in await self._rooms.looking.listed(self._caller, "failed", name)}

    async def _helped(self) -> dict[str, str]:
        """How all runs stand, after a look at those that wait for somebody."""
        listed = {one["id"]: one["status"] for one in await self._rooms.looking.listed(self._caller)}
        for run_id in [one for one, status in listed.items() if status in ("waiting", "in_doubt")]:
            await self._look_at(await self._rooms.looking.get(self._caller, run_id))
        return listed

    async def _look_at(self, run: dict[str, Any]) -> None:
        for step in run["results"]:
            name, item = step["name"], step["item"]
            if step["status"] == "in_doubt":
                await self._clear(run, name, item)
            elif step["status"] == "waiting":
                for fact in ("approval_id", "due_at"):
                    self._tell(name, fact, step.get(fact))
                await self._help(run["id"], step)

    async def _clear(self, run: dict[str, Any], name: str, item: int | None) -> None:
        line = demo.line_of(run["workflow_name"], name, item)
        done = line in book.lines()
        at = name if item is None else f"{name}[{item}]"
        if not self._tell(at, "doubt", "done" if done else "repeat"):
            return
        result = line.split()[-1] if name == "gone" else line  # what the tool would have answered
        said = {"outcome": "done", "result": result} if done else {"outcome": "repeat"}
        await self._sure(self._rooms.steering.decide(self._caller, run["id"], name, item, said))

    async def _help(self, run_id: str, step: dict[str, Any]) -> None:
        waits = step.get("waits_for", "")
        if not self._once(step["name"]):
            return
        if waits == "approval":
            id = step["approval_id"]
            decide = self._hub.approvals.decide
            await self._sure(decide(self._caller, id, approve=True, channel="cli", values=demo.FILLED))
        elif waits.startswith("signal "):
            await self._sure(self._rooms.steering.signal(self._caller, run_id, demo.SIGNAL, demo.PAYLOAD))

    async def _sure(self, work: Awaitable[object]) -> None:
        with suppress(Conflict):  # an earlier life has done it
            await work

    def _once(self, name: str) -> bool:
        new = name not in self._told
        self._told.add(name)
        return new

    def _tell(self, what: str, fact: str, value: Any) -> bool:
        """Put down a fact; False when this life has done so before."""
        line = json.dumps({"what": what, "fact": fact, "value": value})
        if value is None or not self._once(line):
            return False
        os.write(self._seen, f"{line}\n".encode())
        return True
