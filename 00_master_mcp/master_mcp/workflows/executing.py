"""Runs under way: started as places come free, interpreted, ended; found again after a failure or a restart."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
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
from master_mcp.workflows.carrying import steps_in
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.engine import Body, DurableEngine, Interrupted, Journal
from master_mcp.workflows.graph import Graph
from master_mcp.workflows.interpreter import End, Interpreter
from master_mcp.workflows.ledger import Ledger
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.performing import Performer
from master_mcp.workflows.places import Places
from master_mcp.workflows.reading import read
from master_mcp.workflows.record import LIVE, RunStatus
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
        self._fresh: dict[str, Run] = {}  # attempts at runs that nobody can have begun or changed, by the runs' ids
        self._admitting: dict[str, asyncio.Task[None]] = {}
        self.rooms: Rooms

    def placed(self, run: Run) -> Run:
        """A new run as it is to be written down: running already when there is a place for it, which it has then.

        A part of another run takes its parent's. Tell of it with `begin`, or give the place back with `leave`.
        """
        if run.parent is None:
            if not self._places.take_free():
                return run
            self._placed.add(run.id)
        return replace(run, status=RunStatus.running, started_at=time.time())

    async def begin(self, run: Run) -> None:
        """Run it as soon as there is a place."""
        self._fresh[run.id] = run
        if run.status is RunStatus.running:
            self._notes.of_run("workflow.started", run)
        if run.parent is not None:
            await self._ensure(run)
        else:
            self._admit(run)

    def is_new(self, run_id: str) -> bool:
        """Whether it will begin here and has not yet: its end is still to be told of."""
        return run_id in self._fresh

    def check_room(self) -> None:
        """Raises OverBudget when too many runs wait for a place."""
        if len(self._admitting) >= self._settings.queued:
            raise OverBudget(
                f"{self._settings.queued} runs wait for a place: try again later, or raise hub.workflows.queued",
                retry_after=10.0,
            )

    async def ready(self) -> None:
        """Launch the engine if it was not yet; raises Unavailable, saying what to do, when its database is not well."""
        await self._ready()

    async def cancel(self, run: Run) -> None:
        """Stop what runs of it."""
        self._fresh.pop(run.id, None)
        waiting = self._admitting.pop(run.id, None)
        if waiting is not None:
            waiting.cancel()
        if self._engine is not None:
            await self._engine.cancel(run.execution_id)
        self.leave(run)
        self._ended(run)

    async def forget(self, runs: list[Run]) -> None:
        """Delete the journals of ended runs, of every attempt."""
        engine = await self._ready()
        await engine.forget([f"{run.id}.{epoch}" for run in runs for epoch in range(run.epoch + 1)])

    async def watch(self) -> None:
        """For ever: have every run go on that should, those of an earlier start first, once the hub has opened."""
        await asyncio.sleep(self._settings.poll_s)  # loading the engine takes a second, which nobody shall wait for
        while True:
            try:
                await self._look()
            except FleetError as error:
                log.warning("workflow.look.failed", reason=error.message)
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Interrupt what runs; the next start goes on with it."""
        admitting = list(self._admitting.values())
        for task in admitting:
            task.cancel()
        if admitting:
            await asyncio.wait(admitting)  # one of them may be launching the engine
        if self._engine is not None:
            await self._engine.close()

    async def _look(self) -> None:
        live = await self._store.read(book.live)
        for status in LIVE:
            self._metrics.workflow_live.labels(status.value).set(sum(run.status is status for run in live))
        for run in live:
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
            if run.id not in self._placed:
                await self._places.take(run.priority)
                self._placed.add(run.id)
            await self._ensure(run)
        except FleetError as error:
            log.warning("workflow.start.failed", run=run.id, reason=error.message)
            self.leave(run)
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

    def leave(self, run: Run) -> None:
        """Give its place to another, if it has one."""
        if run.id in self._placed:
            self._placed.discard(run.id)
            self._places.leave()

    async def _execute(self, execution_id: str, journal: Journal) -> None:
        """The body of every execution."""
        run_id, epoch = split(execution_id)
        fresh = self._fresh.pop(run_id, None)
        try:
            run = fresh or await self._store.read(lambda db: book.get(db, run_id))
            if run.ended or run.epoch != epoch:
                return
            if fresh is None or run.status is RunStatus.queued:
                run = await self._started(run)
        except FleetError as error:
            raise Interrupted(error.message) from error
        if run is None:
            return
        try:
            await self._interpret(run, journal, resumed=fresh is None)
        finally:
            self.leave(run)

    async def _started(self, run: Run) -> Run | None:
        started = run.started_at or time.time()
        values: dict[str, Any] = {"status": RunStatus.running, "started_at": started}
        if not await self._store.write(lambda db: book.change(db, run, LIVE, **values)):
            return None
        if run.status is RunStatus.queued:
            self._notes.of_run("workflow.started", run)
        return replace(run, **values)

    async def _interpret(self, run: Run, journal: Journal, *, resumed: bool) -> None:
        graph = compile_(read(run.definition), lambda _, tool: tool)
        ends_at = None if graph.timeout_s is None else run.created_at + graph.timeout_s
        ledger = Ledger(self._store, run, resumed=resumed, changed=lambda status: self._changed(run, status))
        calls = Calls(run, self.rooms, ledger, under_of(run), ends_at)
        performer = Performer(run, self.rooms, ledger, calls, ends_at)
        carried = steps_in(run.carried)
        try:
            end = await Interpreter(graph, _base(run), carried, journal, performer).run()
            await self._end(run, graph, end, ledger)
        finally:
            ledger.close()

    def _changed(self, run: Run, status: RunStatus) -> None:
        """A run that only waits gives its place to another; its status is on display."""
        if status is not RunStatus.running:
            self.leave(run)
        self._store.submit(lambda db: book.change(db, run, LIVE, status=status))
        self.rooms.bell.ring(f"watch:{run.id}")

    async def _end(self, run: Run, graph: Graph, end: End, ledger: Ledger) -> None:
        status = RunStatus.completed if end.failed is None else RunStatus.failed
        values: dict[str, Any] = {"outputs": end.outputs, "failed_step": end.failed, "reason": end.reason}
        values |= {"status": status, "ended_at": time.time()}
        is_so = await ledger.written(lambda db: book.change(db, run, LIVE, **values))
        self._metrics.workflow_runs.labels(status.value).inc()
        self._notes.of_run(f"workflow.{status}", run, step=end.failed)
        self._ended(run, replace(run, **values) if is_so else None)

    def _ended(self, run: Run, said: Run | None = None) -> None:
        """Wake who waits for its end."""
        self.rooms.bell.ring(f"run:{run.id}", said)
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
