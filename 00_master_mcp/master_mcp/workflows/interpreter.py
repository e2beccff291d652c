"""Running a graph: which node comes when, and what follows from how it ended.

Everything that is decided here follows from the journal, in the order of the definition: an execution that is begun
again takes the same way. A node draws its places in the journal when it starts and none later.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fleetkit.errors import FleetError
from master_mcp.workflows.engine import Journal, Json
from master_mcp.workflows.expressions import Scope
from master_mcp.workflows.graph import Ask, Each, Graph, Listen, Node, Pause
from master_mcp.workflows.record import Fault, StepRecord, StepStatus, record_of

UNDO = ".undo"  # behind a step's name: its compensation


@dataclass(frozen=True)
class Plan:
    """What a node is about to do: whether its condition holds, and the items it goes through."""

    runs: bool
    items: list[Any] | None = None
    problem: Fault | None = None


class Steps(Protocol):
    """What nodes do. Each is called once for each place in a journal, or again after it was interrupted."""

    async def plan(self, node: Node, scope: Scope) -> Plan:
        """Judge the condition and find the items."""
        ...

    async def perform(self, node: Node, item: int | None, scope: Scope) -> StepRecord:
        """Do a node's task, for one item."""
        ...

    async def undo(self, node: Node, item: int | None, scope: Scope) -> StepRecord:
        """Do a node's compensation, for one item."""
        ...

    async def fill(self, template: Json, scope: Scope) -> Json:
        """Fill in a template; raises FleetError."""
        ...

    async def give_up(self) -> None:
        """The run has failed: nobody need decide about calls that are held, nothing is tried again."""
        ...

    def over(self, record: StepRecord, item: int | None = None) -> None:
        """A node is over, or one item of it; told again when an execution is begun again."""
        ...


@dataclass(frozen=True)
class End:
    """How a run ended. `failed` names the step it failed for, None when it did not."""

    outputs: Json
    failed: str | None
    reason: str | None


class Interpreter:
    """One execution of a graph. `carried` are steps whose records an earlier execution left."""

    def __init__(
        self, graph: Graph, base: Scope, carried: Mapping[str, StepRecord], journal: Journal, steps: Steps
    ) -> None:
        self._graph = graph
        self._base = base
        self._journal = journal
        self._steps = steps
        self._records: dict[str, StepRecord] = dict(carried)
        self._order = [node.name for node in graph.nodes if node.name in carried]
        self._blocked: set[str] = set()
        self._released: set[str] = set()
        self._running: dict[asyncio.Task[Json], Node] = {}
        self._failed: Node | None = None

    async def run(self) -> End:
        """The end of the run; raises what ends an execution without one."""
        try:
            await self._go()
        finally:
            for task in self._running:
                task.cancel()
        if self._failed is None:
            return await self._outputs()
        fault = self._records[self._failed.name].error
        reason = fault.message if fault else "it failed"
        return End(None, self._failed.name, reason + await self._undo())

    async def _go(self) -> None:
        while True:
            while self._failed is None and await self._advance():
                pass
            if self._failed is not None:
                await self._give_up()
            if not self._running:
                return
            for task in await self._journal.first_of(list(self._running)):
                node = self._running.pop(task)
                self._settle(node, record_of(task.result()))

    async def _give_up(self) -> None:
        """A run that failed waits for nothing any more; calls under way come to their end."""
        for task, node in list(self._running.items()):
            if isinstance(node.task, Pause | Listen | Ask):
                del self._running[task]
                task.cancel()
                await asyncio.wait([task])
                self._settle(node, StepRecord(node.name, StepStatus.cancelled))
        await self._steps.give_up()

    async def _advance(self) -> bool:
        """Start or skip what can be; True when that may have made others ready."""
        skipped = False
        for node in self._graph.nodes:
            if self._is_settled(node.name) or node in self._running.values():
                continue
            if not all(map(self._is_settled, node.needs)):
                continue
            if node.name not in self._released and any(map(self._stops, node.needs)):
                self._blocked.add(node.name)
                self._settle(node, StepRecord(node.name, StepStatus.skipped))
                skipped = True
            elif not await self._start(node):
                skipped = True
        return skipped and self._failed is None

    def _is_settled(self, name: str) -> bool:
        return name in self._records

    def _stops(self, name: str) -> bool:
        """Whether what needs this step does not run."""
        if name in self._blocked:
            return True
        return self._records[name].status is StepStatus.failed and self._graph.node(name).on_error != "continue"

    async def _start(self, node: Node) -> bool:
        """Begin a node; False when it was over at once."""
        plan = await self._plan(node)
        if plan.problem is not None:
            self._settle(node, StepRecord(node.name, StepStatus.failed, error=plan.problem))
            return False
        if not plan.runs:
            self._settle(node, StepRecord(node.name, StepStatus.skipped))
            return False
        scope = self._scope()
        if node.each is None:
            place = self._journal.step(node.name, lambda: _recorded(self._steps.perform(node, None, scope)))
            task = asyncio.ensure_future(place)
        else:
            task = self._start_each(node, node.each, plan.items or [], scope)
        self._running[task] = node
        return True

    async def _plan(self, node: Node) -> Plan:
        if node.when is True and node.each is None:
            return Plan(runs=True)
        scope = self._scope()

        async def work() -> Json:
            found = await self._steps.plan(node, scope)
            problem = None if found.problem is None else vars(found.problem)
            return {"runs": found.runs, "items": found.items, "problem": problem}

        found = await self._journal.step(f"{node.name}.plan", work)
        problem = None if found["problem"] is None else Fault(**found["problem"])
        return Plan(found["runs"], found["items"], problem)

    def _start_each(self, node: Node, each: Each, items: list[Any], scope: Scope) -> "asyncio.Task[Json]":
        """All items as one task, whose record is one place in the journal: which item came first does not matter."""

        def item_of(number: int) -> Scope:
            return {**scope, "item": items[number], "index": number}

        places = [
            self._journal.step(
                f"{node.name}[{number}]",
                lambda number=number: _recorded(self._steps.perform(node, number, item_of(number))),
            )
            for number in range(len(items))
        ]
        done: list[StepRecord | None] = [None] * len(items)
        last = self._journal.step(node.name, lambda: _recorded(_summed(node, items, done)))

        async def run() -> Json:
            free, stopped = asyncio.Semaphore(each.concurrency), False

            async def one(number: int) -> None:
                nonlocal stopped
                async with free:
                    if not stopped:
                        found = done[number] = record_of(await places[number])
                        self._steps.over(found, number)
                        stopped = not found.completed and not each.goes_on

            tasks = [asyncio.ensure_future(one(number)) for number in range(len(items))]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            return await last

        return asyncio.ensure_future(run())

    def _settle(self, node: Node, record: StepRecord) -> None:
        self._records[node.name] = record
        self._steps.over(record)
        if record.completed or record.items is not None:
            self._order.append(node.name)
        if record.status is not StepStatus.failed:
            return
        if node.on_error == "fail" and self._failed is None:
            self._failed = node
        if node.goto is not None:
            self._released.add(node.goto)

    async def _outputs(self) -> End:
        outputs = self._graph.outputs
        if not outputs:
            return End(None, None, None)

        async def work() -> Json:
            try:
                return {"outputs": await self._steps.fill(outputs, self._scope())}
            except FleetError as error:
                return {"outputs": None, "problem": f"outputs: {error.message}"}

        found = await self._journal.step("outputs", work)
        if "problem" in found:  # every step did what it should, and nothing is undone
            return End(None, "outputs", found["problem"])
        return End(found["outputs"], None, None)

    async def _undo(self) -> str:
        """Run the compensations, the last completed step's first; what went wrong, as words for the reason."""
        failed: list[str] = []
        for name in reversed(self._order):
            node = self._graph.node(name)
            if node.compensate is None:
                continue
            for item, scope in reversed(self._undone(node)):
                if not (await self._undone_one(node, item, scope)).completed:
                    failed.append(name)
        return f"; not undone: {', '.join(failed)}" if failed else ""

    async def _undone_one(self, node: Node, item: int | None, scope: Scope) -> StepRecord:
        place = self._journal.step(node.name + UNDO, lambda: _recorded(self._steps.undo(node, item, scope)))
        record = record_of(await place)
        self._steps.over(record, item)
        return record

    def _undone(self, node: Node) -> list[tuple[int | None, Scope]]:
        """What there is to undo of a completed step: each of its items that was done."""
        record = self._records[node.name]
        if record.items is None:
            return [(None, {**self._scope(), "result": record.result})]
        return [
            (number, {**self._scope(), "item": one["item"], "index": number, "result": record.result[number]})
            for number, one in enumerate(record.items)
            if one["status"] == StepStatus.completed
        ]

    def _scope(self) -> Scope:
        records = self._records
        return {
            **self._base,
            "steps": {name: record.result for name, record in records.items()},
            "status": {name: record.status.value for name, record in records.items()},
            "errors": {name: vars(record.error) for name, record in records.items() if record.error is not None},
        }


async def _recorded(work: Awaitable[StepRecord]) -> Json:
    return (await work).as_json()


async def _summed(node: Node, items: list[Any], done: list[StepRecord | None]) -> StepRecord:
    """One record for all items: failed when one failed."""
    known = [record for record in done if record is not None]
    faults = [(number, record.error) for number, record in enumerate(done) if record is not None and record.error]
    error = None
    if faults:
        number, first = faults[0]
        more = f" ({len(faults)} of {len(items)} items failed)" if len(faults) > 1 else ""
        error = Fault(first.code, f"item {number}: {first.message}{more}")
    statuses = [StepStatus.skipped if record is None else record.status for record in done]
    return StepRecord(
        node.name,
        StepStatus.failed if faults else StepStatus.completed,
        [None if record is None else record.result for record in done],
        error,
        min((record.started_at for record in known if record.started_at is not None), default=None),
        max((record.ended_at for record in known if record.ended_at is not None), default=None),
        sum(record.attempts for record in known),
        [{"item": item, "status": status.value} for item, status in zip(items, statuses, strict=True)],
    )
