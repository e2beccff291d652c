"""Looking at runs: one, many, as a graph, as they go."""

import time
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import Invalid, NotFound
from fleetkit.store import Store
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import OPERATORS
from master_mcp.store.workflows import runs
from master_mcp.workflows import book, view
from master_mcp.workflows.bell import Bell
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.graph import Graph
from master_mcp.workflows.reading import read
from master_mcp.workflows.record import LIVE, RunStatus
from master_mcp.workflows.results import Artifacts
from master_mcp.workflows.run import Run
from master_mcp.workflows.waiting import until_found

MAX_LISTED = 500


class Looking:
    """What callers may see of runs: their own, operators all."""

    def __init__(self, store: Store, bell: Bell, artifacts: Artifacts) -> None:
        self._store = store
        self._bell = bell
        self._artifacts = artifacts

    async def get(self, caller: Caller, run_id: str) -> dict[str, Any]:
        """One run with its steps. Raises NotFound when there is none that `caller` may see."""
        run, rows = await self.visible(caller, run_id)
        return view.whole(run, graph_of(run), rows)

    async def listed(
        self, caller: Caller, status: str = "all", name: str | None = None, limit: int = 50
    ) -> list[dict[str, Any]]:
        """The newest runs that `caller` may see: its own, for operators all. Raises Invalid for an unknown status."""
        if status != "all" and status not in RunStatus.__members__:
            raise Invalid(f"no status {status!r}: use all, {', '.join(RunStatus)}")
        where = [] if status == "all" else [runs.c.status == status]
        if name:
            where.append(runs.c.name == name)
        if not _sees_all(caller):
            where.append(runs.c.caller_id == caller.id)
        found = await self._store.read(lambda db: book.listed(db, min(limit, MAX_LISTED), *where))
        return [view.summary(run) for run in found]

    async def graph(self, caller: Caller, run_id: str) -> str:
        """A run as a Mermaid flowchart, coloured by how its steps stand."""
        run, rows = await self.visible(caller, run_id)
        whole = view.whole(run, graph_of(run), rows)
        return view.mermaid(graph_of(run), {one["name"]: one["status"] for one in whole["results"]})

    async def artifact(self, caller: Caller, run_id: str, name: str) -> Any:
        """A large result of a run. Raises NotFound."""
        await self.visible(caller, run_id)
        return await self._artifacts.read(run_id, name)

    async def ended(self, run_id: str, within_s: float) -> Run:
        """The run once it has ended, or as it stands after so many seconds."""

        async def look() -> Run | None:
            found = await self.look(run_id)
            return found if found.ended else None

        found = await until_found(self._bell, f"run:{run_id}", look, time.time() + within_s)
        return found or await self.look(run_id)

    async def watched(self, caller: Caller, run_id: str) -> AsyncIterator[dict[str, Any]]:
        """The run whenever it has changed, until it has ended. Raises NotFound."""
        shown: dict[str, Any] | None = None
        key = f"watch:{run_id}"
        heard = self._bell.listen(key)
        try:
            while True:
                now = await self.get(caller, run_id)
                if now != shown:
                    shown = now
                    yield now
                if RunStatus(now["status"]) not in LIVE:
                    return
                await self._bell.wait(key, heard, 1.0)
        finally:
            self._bell.leave(key, heard)

    async def visible(self, caller: Caller, run_id: str) -> tuple[Run, list[dict[str, Any]]]:
        """A run and the rows of its steps; raises NotFound when there is none that `caller` may see."""

        def work(db: sa.Connection) -> tuple[Run, list[dict[str, Any]]]:
            run = book.get(db, run_id)
            return run, book.steps_of(db, run)

        run, rows = await self._store.read(work)
        if run.caller_id != caller.id and not _sees_all(caller):
            raise NotFound(f"no run {run_id!r} that key {caller.name!r} may see")
        return run, rows

    async def look(self, run_id: str) -> Run:
        """A run as it stands, whoever asks. Raises NotFound."""
        return await self._store.read(lambda db: book.get(db, run_id))


def graph_of(run: Run) -> Graph:
    """The graph that a run keeps."""
    return compile_(read(run.definition), lambda _, tool: tool)


def _sees_all(caller: Caller) -> bool:
    return caller.manages or OPERATORS in caller.groups
