"""Runs under way: started as places come free, interpreted, ended; found again after a failure or a restart."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fleetkit.errors import FleetError, OverBudget
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.store import Store
from fleetkit.workflow_settings import WorkflowSettings
from master_mcp.policy.verdict import Effect, Terms
from master_mcp.proxy.request import Under
from master_mcp.workflows import book
from master_mcp.workflows.calling import Calls
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.engine import Body, DurableEngine, Interrupted, Journal
from master_mcp.workflows.graph import Graph
from master_mcp.workflows.interpreter import End, Interpreter
from master_mcp.workflows.ledger import Ledger
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.performing import Performer
from master_mcp.workflows.places import Places
from master_mcp.workflows.reading import read
from master_mcp.workflows.record import LIVE, RunStatus, record_of
from master_mcp.workflows.rooms import Rooms
from master_mcp.workflows.run import Run, split

log = get_logger()

LOOK_S = 5.0  # between looks for runs that should be under way and are not

Launch = Callable[[Body], Awaitable[DurableEngine]]


class Executor:
    """Brings every run to its end. The engine is launched when the first run needs it."""

    def __init__(
        self, store: Store, notes: Notes, metrics: Metrics, settings: WorkflowSettings, launch: Launch
    ) -> None:
        self._store = store
        self._notes = notes
        self._metrics = metrics
        self._settings = settings
        self._launch = launch
        self._launching = asyncio.Lock()
        self._engine: DurableEngine | None = None
        self._places = Places(settings.running)
        self._placed: set[str] = set()  # runs that hold a place
        self._fresh: set[str] = set()  # executions that no earlier start of the hub can have begun
        self._admitting: dict[str, asyncio.Task[None]] = {}
        self.rooms: Rooms

    async def begin(self, run: Run) -> None:
        """Run it as soon as there is a place; a part of another run takes its parent's."""
        self._fresh.add(run.execution_id)
        if run.parent is not None:
            await self._ensure(run)
        else:
            self._admit(run)

    def check_room(self) -> None:
        """Raises OverBudget when too many runs wait for a place."""
        if len(self._admitting) >= self._settings.queued:
            raise OverBudget(
                f"{self._settings.queued} runs wait for a place: try again later, or raise hub.workflows.queued",
                retry_after=10.0,
            )

    async def cancel(self, run: Run) -> None:
        """Stop what runs of it."""
        waiting = self._admitting.pop(run.id, None)
        if waiting is not None:
            waiting.cancel()
        if self._engine is not None:
            await self._engine.cancel(run.execution_id)
        self._leave(run)
        self.ended(run)

    async def forget(self, runs: list[Run]) -> None:
        """Delete the journals of ended runs, of every attempt."""
        engine = await self._ready()
        await engine.forget([f"{run.id}.{epoch}" for run in runs for epoch in range(run.epoch + 1)])

    async def watch(self) -> None:
        """For ever: have every run go on that should, those of an earlier start first."""
        while True:
            try:
                await self._look()
            except FleetError as error:
                log.warning("workflow.look.failed", reason=error.message)
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Interrupt what runs; the next start goes on with it."""
        for task in self._admitting.values():
            task.cancel()
        if self._engine is not None:
            await self._engine.close()

    async def _look(self) -> None:
        for run in await self._store.read(book.live):
            under_way = self._engine.under_way() if self._engine is not None else set[str]()
            if run.execution_id in under_way or run.id in self._admitting:
                continue
            if run.status is RunStatus.queued and run.parent is None:
                self._admit(run)
            else:
                await self._ensure(run)

    def _admit(self, run: Run) -> None:
        self._admitting[run.id] = asyncio.create_task(self._admitted(run))

    async def _admitted(self, run: Run) -> None:
        try:
            await self._places.take(run.priority)
            self._placed.add(run.id)
            await self._ensure(run)
        except FleetError as error:
            log.warning("workflow.start.failed", run=run.id, reason=error.message)
            self._leave(run)
        finally:
            self._admitting.pop(run.id, None)

    async def _ensure(self, run: Run) -> None:
        engine = await self._ready()
        await engine.ensure(run.execution_id)

    async def _ready(self) -> DurableEngine:
        async with self._launching:
            if self._engine is None:
                self._engine = await self._launch(self._execute)
            return self._engine

    def _leave(self, run: Run) -> None:
        if run.id in self._placed:
            self._placed.discard(run.id)
            self._places.leave()

    async def _execute(self, execution_id: str, journal: Journal) -> None:
        """The body of every execution."""
        run_id, epoch = split(execution_id)
        fresh = execution_id in self._fresh
        self._fresh.discard(execution_id)
        try:
            run = await self._store.read(lambda db: book.get(db, run_id))
            if run.ended or run.epoch != epoch:
                return
            run = await self._started(run)
        except FleetError as error:
            raise Interrupted(error.message) from error
        if run is None:
            return
        try:
            await self._interpret(run, journal, resumed=not fresh)
        finally:
            self._leave(run)

    async def _started(self, run: Run) -> Run | None:
        started = run.started_at or time.time()
        moved = await self._store.write(
            lambda db: book.move(db, run, LIVE, status=RunStatus.running, started_at=started)
        )
        if moved is not None and run.status is RunStatus.queued:
            self._notes.of_run("workflow.started", run)
        return moved

    async def _interpret(self, run: Run, journal: Journal, *, resumed: bool) -> None:
        graph = compile_(read(run.definition), lambda _, tool: tool)
        ends_at = None if graph.timeout_s is None else run.created_at + graph.timeout_s
        ledger = Ledger(self._store, run, resumed=resumed, changed=lambda status: self._changed(run, status))
        calls = Calls(run, self.rooms, ledger, under_of(run), ends_at)
        performer = Performer(run, self.rooms, ledger, calls, ends_at)
        carried = {name: record_of(content) for name, content in run.carried.items()}
        end = await Interpreter(graph, _base(run), carried, journal, performer).run()
        await self._end(run, graph, end, ledger)

    def _changed(self, run: Run, status: RunStatus) -> None:
        """A run that only waits gives its place to another; its status is on display."""
        if status is not RunStatus.running:
            self._leave(run)
        self._store.submit(lambda db: book.move(db, run, LIVE, status=status))
        self.rooms.bell.ring(f"watch:{run.id}")

    async def _end(self, run: Run, graph: Graph, end: End, ledger: Ledger) -> None:
        status = RunStatus.completed if end.failed is None else RunStatus.failed
        values: dict[str, Any] = {"outputs": end.outputs, "failed_step": end.failed, "reason": end.reason}
        await ledger.sound(self._store.write(lambda db: book.move(db, run, LIVE, status=status, **values)))
        self._metrics.workflow_runs.labels(status.value).inc()
        self._notes.of_run(f"workflow.{status}", run, step=end.failed)
        self.ended(run)

    def ended(self, run: Run) -> None:
        """Wake who waits for its end."""
        self.rooms.bell.ring(f"run:{run.id}")
        self.rooms.bell.ring(f"watch:{run.id}")


def under_of(run: Run) -> Under | None:
    """What a person approved of the run as a whole."""
    found = run.approved
    if found is None:
        return None
    terms = Terms(Effect(found["effect"]), found["quorum"], found["group"])
    calls = frozenset((str(tool), str(args_hash)) for tool, args_hash in found["calls"])
    return Under(found["approval_id"], Risk(found["risk"]), terms, calls)


def _base(run: Run) -> Mapping[str, Any]:
    """What expressions see of the run itself."""
    facts = {"id": run.id, "workflow": run.name, "started_by": run.caller_name, "created_at": run.created_at}
    return {"input": run.inputs, "run": facts}
