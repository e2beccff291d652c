"""Looking at runs: one, many, as a graph, as they go."""

import math
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import Invalid, NotFound
from fleetkit.store import Store
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import OPERATORS
from master_mcp.store.workflows import runs
from master_mcp.workflows import book, picture, view
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

    def __init__(self, store: Store, bell: Bell, artifacts: Artifacts, is_new: Callable[[str], bool]) -> None:
        self._store = store
        self._bell = bell
        self._artifacts = artifacts
        self._is_new = is_new

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

    async def picture(self, caller: Caller, run_id: str) -> dict[str, Any]:
        """A run as it is drawn: `{run, nodes, edges}`, nodes with how each stands."""
        run, rows = await self.visible(caller, run_id)
        whole, graph = view.whole(run, graph_of(run), rows), graph_of(run)
        return {"run": whole, "nodes": picture.nodes(graph, whole["results"]), "edges": picture.edges(graph)}

    async def artifact(self, caller: Caller, run_id: str, name: str) -> Any:
        """A large result of a run. Raises NotFound."""
        await self.visible(caller, run_id)
        return await self._artifacts.read(run_id, name)

    async def ended(self, run_id: str, within_s: float) -> Run:
        """The run once it has ended, or as it stands after so many seconds."""
        due_at = time.time() + within_s
        heard = await self._heard(run_id, within_s)
        if heard is not None:
            return heard

        async def look() -> Run | None:
            found = await self.look(run_id)
            return found if found.ended else None

        found = await until_found(self._bell, f"run:{run_id}", look, due_at)
        return found or await self.look(run_id)

    async def _heard(self, run_id: str, within_s: float) -> Run | None:
        """A run that is not begun yet, as its end tells of it: two reads are a tenth of what a short run costs."""
        if not self._is_new(run_id):
            return None
        key = f"run:{run_id}"
        ear = self._bell.listen(key)
        try:
            await self._bell.wait(key, ear, within_s)
        finally:
            self._bell.leave(key, ear)
        return ear.said if isinstance(ear.said, Run) else None

    async def watched(
        self, caller: Caller, run_id: str, quiet_s: float = math.inf
    ) -> AsyncGenerator[dict[str, Any] | None]:
        """The run whenever it has changed, None each time that nothing did for so long, until it has ended.

        Raises NotFound.
        """
        shown: dict[str, Any] | None = None
        told_at = time.monotonic()
        key = f"watch:{run_id}"
        heard = self._bell.listen(key)
        try:
            while True:
                now = await self.get(caller, run_id)
                if now != shown:
                    shown, told_at = now, time.monotonic()
                    yield now
                elif time.monotonic() - told_at >= quiet_s:
                    told_at = time.monotonic()
                    yield None
                if RunStatus(now["status"]) not in LIVE:
                    return
                await self._bell.wait(key, heard, 1.0)
        finally:
            self._bell.leave(key, heard)

    async def visible(self, caller: Caller, run_id: str) -> tuple[Run, list[dict[str, Any]]]:
        """A run and the rows of its steps; raises NotFound when there is none that `caller` may see."""
        run, rows = await self.whole(run_id)
        if run.caller_id != caller.id and not _sees_all(caller):
            raise NotFound(f"no run {run_id!r} that key {caller.name!r} may see")
        return run, rows

    async def whole(self, run_id: str) -> tuple[Run, list[dict[str, Any]]]:
        """A run and the rows of its steps, whoever asks. Raises NotFound."""

        def work(db: sa.Connection) -> tuple[Run, list[dict[str, Any]]]:
            run = book.get(db, run_id)
            return run, book.steps_of(db, run)

        return await self._store.read(work)

    async def steps(self, run: Run) -> list[dict[str, Any]]:
        """The rows of a run's steps as they stand."""
        return await self._store.read(lambda db: book.steps_of(db, run))

    async def look(self, run_id: str) -> Run:
        """A run as it stands, whoever asks. Raises NotFound."""
        return await self._store.read(lambda db: book.get(db, run_id))


def graph_of(run: Run) -> Graph:
    """The graph that a run keeps."""
    return compile_(read(run.definition), lambda _, tool: tool)


def _sees_all(caller: Caller) -> bool:
    return caller.manages or OPERATORS in caller.groups
