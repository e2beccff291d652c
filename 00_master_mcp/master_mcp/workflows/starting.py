"""Starting runs: checked, judged as a whole, written down, begun."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleetkit import correlation
from fleetkit.errors import Conflict, Invalid
from fleetkit.risk import Assessment, Risk
from fleetkit.store import Store
from master_mcp.approvals.record import Approval
from master_mcp.approvals.room import Approvals
from master_mcp.auth.caller import Caller
from master_mcp.workflows import book
from master_mcp.workflows.checking import Checked, Checker
from master_mcp.workflows.executing import Executor
from master_mcp.workflows.library import Library
from master_mcp.workflows.places import USUAL
from master_mcp.workflows.record import RunStatus
from master_mcp.workflows.run import Run, new_run_id

MAX_DEPTH = 5  # of workflows in workflows
SHOWN = 300  # characters of a call's arguments in a plan
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
        self, store: Store, library: Library, checker: Checker, approvals: Approvals, executor: Executor
    ) -> None:
        self._store = store
        self._library = library
        self._checker = checker
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
        calls = await self._checker.calls(checked, checked.filled(order.inputs or {}), caller)
        held = [one.risk for one in calls if one.held]
        risk = max(held, key=lambda one: one.rank, default=Risk.read)
        lines = [f"{one.step}: {one.tool} ({one.risk}) {_short(one.arguments)}" for one in calls]
        known = {one.step for one in calls}
        later = [node.name for node in checked.graph.nodes if node.name not in known]
        plan = [f"run workflow {checked.definition.name}, definition {checked.hash}", *lines]
        if later:
            plan.append(f"decided as the run goes, and asked about then: {', '.join(later)}")
        return Assessment(risk, "\n".join(plan))

    async def start(self, order: Order, caller: Caller, door: str, approval: Approval | None = None) -> Run:
        """The run, begun now, or the one that was begun before under the same key.

        `approval` is what a person approved of it as a whole. Raises Invalid, NotFound, OverBudget, and Conflict when
        the key was used for something else or the definition is not the one that was approved.
        """
        self._executor.check_room()
        checked = await self.checked(order, caller)
        inputs = checked.filled(order.inputs or {})
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
        kept, is_new = await self._store.write(lambda db: book.insert(db, run))
        if is_new:
            await self._executor.begin(kept)
        elif (kept.hash, kept.inputs) != (run.hash, run.inputs):
            raise Conflict(f"key {run.key!r} has started run {kept.id} with another definition or other inputs")
        return kept

    async def child(self, parent: Run, run_id: str, name: str, inputs: Mapping[str, Any]) -> Run:
        """The run of a step that is a workflow."""
        if parent.depth >= MAX_DEPTH:
            raise Invalid(f"workflows in workflows go {MAX_DEPTH} deep at most")
        caller = self._approvals.caller(parent.caller_id)
        checked = await self.checked(Order(name), caller)
        run = replace(
            parent,
            id=run_id,
            name=checked.definition.name,
            hash=checked.hash,
            definition=checked.content,
            inputs=checked.filled(inputs),
            created_at=time.time(),
            status=RunStatus.queued,
            epoch=0,
            key=None,
            parent=parent.id,
            depth=parent.depth + 1,
            carried={},
            started_at=None,
        )
        kept, is_new = await self._store.write(lambda db: book.insert(db, run))
        if is_new:
            await self._executor.begin(kept)
        return kept

    async def _approved(
        self, approval: Approval, checked: Checked, inputs: Mapping[str, Any], caller: Caller
    ) -> dict[str, Any]:
        if checked.hash not in approval.plan:
            raise Conflict(f"workflow {checked.definition.name} has changed since {approval.id} was approved: ask anew")
        calls = await self._checker.calls(checked, inputs, caller)
        return {
            "approval_id": approval.id,
            "risk": approval.risk.value,
            "effect": approval.effect.value,
            "quorum": approval.quorum,
            "group": approval.group_name,
            "calls": [[one.tool, one.args_hash] for one in calls],
        }

    async def approving(self, caller: Caller) -> list[Approval]:
        """The approved runs that `caller` starts right now."""
        return await self._approvals.asking.executing(caller.id, EXECUTE)


def _correlation_id() -> str:
    context = correlation.current()
    return context.correlation_id if context is not None else correlation.new_id()


def _short(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
