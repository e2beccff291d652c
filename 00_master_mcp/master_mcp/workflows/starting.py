"""Starting runs: checked, judged as a whole, written down, begun."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from fleetkit import correlation
from fleetkit.errors import Conflict, Invalid, NotFound
from fleetkit.risk import Assessment, Risk
from fleetkit.store import Store
from master_mcp.approvals.record import Approval
from master_mcp.approvals.room import Approvals
from master_mcp.auth.caller import Caller
from master_mcp.workflows import book
from master_mcp.workflows.carrying import kept_of
from master_mcp.workflows.checking import Checked, Checker
from master_mcp.workflows.executing import Executor
from master_mcp.workflows.library import Library
from master_mcp.workflows.looking import graph_of
from master_mcp.workflows.places import USUAL
from master_mcp.workflows.planning import MAX_DEPTH, Planner
from master_mcp.workflows.record import RunStatus
from master_mcp.workflows.run import Run, new_run_id

SHOWN = 2000  # characters of a call's arguments in a plan
EXECUTE = "orchestrator.executeWorkflow"


@dataclass(frozen=True)
class Order:
    """What is to be run: a workflow by name or written out, with its inputs."""

    name: str | None = None
    definition: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    key: str | None = None
    priority: int = USUAL


class Starting:
    """Begins runs."""

    def __init__(
        self,
        store: Store,
        library: Library,
        checker: Checker,
        planner: Planner,
        approvals: Approvals,
        executor: Executor,
    ) -> None:
        self._store = store
        self._library = library
        self._checker = checker
        self._planner = planner
        self._approvals = approvals
        self._executor = executor

    async def checked(self, order: Order, caller: Caller) -> Checked:
        """The definition that an order means, checked for `caller`. Raises NotFound, Invalid."""
        if (order.name is None) == (order.definition is None):
            raise Invalid("say either the name of a workflow or its definition")
        content = order.definition if order.name is None else (await self._library.get(order.name)).content
        assert content is not None
        return await self._checker.check(content, caller)

    async def assess(self, order: Order, caller: Caller) -> Assessment:
        """What a run would do that its caller may not do alone: the risk of it, and all calls known beforehand."""
        checked = await self.checked(order, caller)
        calls = await self._planner.calls(checked, checked.filled(order.inputs or {}), caller)
        held = [one.risk for one in calls if one.held]
        risk = max(held, key=lambda one: one.rank, default=Risk.read)
        lines = [f"{one.step}: {one.tool} ({one.risk}) {_short(one.arguments)}" for one in calls]
        silent = {one.step for one in calls} | {node.name for node in checked.graph.nodes if node.waits}
        later = [node.name for node in checked.graph.nodes if node.name not in silent]
        plan = [f"run workflow {checked.definition.name}, definition {checked.hash}", *lines]
        if later:
            plan.append(f"decided as the run goes, and asked about then: {', '.join(later)}")
        return Assessment(risk, "\n".join(plan))

    async def start(self, order: Order, caller: Caller, door: str, approval: Approval | None = None) -> Run:
        """The run, begun now, or the one that was begun before under the same key.

        `approval` is what a person approved of it as a whole. Raises Invalid, NotFound, OverBudget, Unavailable when
        runs cannot be recorded, and Conflict when the key was used for something else or the definition is not the
        one that was approved.
        """
        self._executor.check_room()
        checked = await self.checked(order, caller)
        inputs = checked.filled(order.inputs or {})
        await self._executor.ready()
        approved = None if approval is None else await self._approved(approval, checked, inputs, caller)
        run = Run(
            id=new_run_id(),
            name=checked.definition.name,
            hash=checked.hash,
            definition=checked.content,
            inputs=inputs,
            caller_id=caller.id,
            caller_name=caller.name,
            door=door,
            correlation_id=_correlation_id(),
            created_at=time.time(),
            priority=order.priority,
            key=order.key,
            approved=approved,
        )
        return await self.begin(run)

    async def begin(self, run: Run) -> Run:
        """Write a run down and begin it; the one that was begun before under its key when there is one."""
        kept, is_new = await self._written(run)
        if is_new:
            await self._executor.begin(kept)
        elif (kept.hash, kept.inputs) != (run.hash, run.inputs):
            raise Conflict(f"key {run.key!r} has started run {kept.id} with another definition or other inputs")
        return kept

    async def child(
        self, parent: Run, run_id: str, name: str, inputs: Mapping[str, Any], earlier: str | None = None
    ) -> Run:
        """The run of a step that is a workflow; `earlier` is the one that it goes on with."""
        if parent.depth >= MAX_DEPTH:
            raise Invalid(f"workflows in workflows go {MAX_DEPTH} deep at most")
        caller = self._approvals.caller(parent.caller_id)
        checked = await self.checked(Order(name), caller)
        filled = checked.filled(inputs)
        run = replace(
            parent,
            id=run_id,
            name=checked.definition.name,
            hash=checked.hash,
            definition=checked.content,
            inputs=filled,
            created_at=time.time(),
            status=RunStatus.queued,
            epoch=0,
            key=None,
            parent=parent.id,
            depth=parent.depth + 1,
            carried={} if earlier is None else await self._left_by(earlier, checked, filled),
            started_at=None,
        )
        kept, is_new = await self._written(run)
        if is_new:
            await self._executor.begin(kept)
        return kept

    async def _left_by(self, run_id: str, checked: Checked, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a run with these inputs had done; nothing when it is forgotten."""

        def work(db: sa.Connection) -> tuple[Run, list[dict[str, Any]]]:
            run = book.get(db, run_id)
            return run, book.steps_of(db, run)

        try:
            run, rows = await self._store.read(work)
        except NotFound:
            return {}
        return kept_of(run, rows, graph_of(run), checked.graph, None) if run.inputs == inputs else {}

    async def _written(self, run: Run) -> tuple[Run, bool]:
        """The run on disk, or the one that is there already; and whether it is new."""
        placed = self._executor.placed(run)
        is_new = False
        try:
            kept, is_new = await self._store.write(lambda db: book.insert(db, placed))
        finally:
            if not is_new:
                self._executor.leave(placed)
        return kept, is_new

    async def _approved(
        self, approval: Approval, checked: Checked, inputs: Mapping[str, Any], caller: Caller
    ) -> dict[str, Any]:
        if checked.hash not in approval.plan:
            raise Conflict(f"workflow {checked.definition.name} has changed since {approval.id} was approved: ask anew")
        calls = await self._planner.calls(checked, inputs, caller)
        return {
            "approval_id": approval.id,
            "risk": approval.risk.value,
            "effect": approval.effect.value,
            "quorum": approval.quorum,
            "group": approval.group_name,
            "calls": [[one.tool, one.args_hash] for one in calls if one.held],
        }

    async def approving(self, caller: Caller, tool: str) -> list[Approval]:
        """The approvals under which `caller` calls a tool right now."""
        return await self._approvals.asking.executing(caller.id, tool)


def _correlation_id() -> str:
    context = correlation.current()
    return context.correlation_id if context is not None else correlation.new_id()


def _short(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
