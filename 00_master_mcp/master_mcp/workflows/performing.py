"""What the nodes of one run do: the interpreter's `Steps`."""

import hashlib
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, cast

from fleetkit import trust
from fleetkit.errors import Conflict, FleetError, Invalid, Refused, TimedOut
from master_mcp.approvals.asking import Question
from master_mcp.approvals.record import Approval, Status
from master_mcp.workflows import book, schedules
from master_mcp.workflows.calling import WITHDRAWN, Calls, Order
from master_mcp.workflows.carrying import HASH, item_in, part_in
from master_mcp.workflows.expressions import Scope
from master_mcp.workflows.graph import Ask, Invoke, Listen, Node, Pause, Sub
from master_mcp.workflows.interpreter import UNDO, Plan
from master_mcp.workflows.ledger import At, Ledger, now
from master_mcp.workflows.notes import DOOR
from master_mcp.workflows.record import OVER, Fault, RunStatus, StepRecord, StepStatus
from master_mcp.workflows.rooms import Rooms
from master_mcp.workflows.run import Run, part_id
from master_mcp.workflows.waiting import until_found, until_moment

MAX_ITEMS = 1000

Done = tuple[Any, Fault | None]


class Performer:
    """Does the steps of one run. A failing database interrupts the execution instead of failing the step."""

    def __init__(self, run: Run, rooms: Rooms, ledger: Ledger, calls: Calls, ends_at: float | None) -> None:
        self._run = run
        self._rooms = rooms
        self._ledger = ledger
        self._calls = calls
        self._ends_at = ends_at

    async def plan(self, node: Node, scope: Scope) -> Plan:
        """See `Steps`."""
        try:
            if not await self._rooms.templates.holds(node.when, scope):
                return Plan(runs=False)
            if node.each is None:
                return Plan(runs=True)
            items = node.each.items
            found = await self._rooms.templates.fill(items, scope)
            if not isinstance(found, list):
                raise Invalid(f"forEach {items!r} gives no list")
            listed = cast("list[Any]", found)
            if len(listed) > MAX_ITEMS:
                raise Invalid(f"forEach goes through {len(listed)} items: {MAX_ITEMS} at most")
            return Plan(runs=True, items=listed)
        except FleetError as error:
            return Plan(runs=False, problem=Fault(error.code, error.message))

    async def perform(self, node: Node, item: int | None, scope: Scope) -> StepRecord:
        """See `Steps`."""
        at: At = (node.name, item)
        row = await self._ledger.found(at)
        if row is not None and row["status"] in OVER:
            return book.record_in(row)
        if isinstance(node.task, Invoke):
            order = Order(at, node.task, scope, node.attempts, node.timeout_s, node.verify)
            return await self._tried(at, self._calls.made(order))
        return await self._tried(at, self._waited(at, node, scope, row))

    async def undo(self, node: Node, item: int | None, scope: Scope) -> StepRecord:
        """See `Steps`."""
        assert node.compensate is not None
        at: At = (node.name + UNDO, item)
        row = await self._ledger.found(at)
        if row is not None and row["status"] in OVER:
            return book.record_in(row)
        return await self._tried(at, self._calls.made(Order(at, node.compensate, scope, timeout_s=node.timeout_s)))

    async def fill(self, template: Any, scope: Scope) -> Any:
        """See `Steps`."""
        return await self._rooms.templates.fill(template, scope)

    async def give_up(self) -> None:
        """See `Steps`."""
        self._calls.give_up()
        await self._ledger.written()
        for row in await self._ledger.sound(self._rooms.steps(self._run)):
            if row["approval_id"] and row["status"] in (StepStatus.waiting, StepStatus.cancelled):
                await self._ledger.sound(self._rooms.asking.withdraw(row["approval_id"], WITHDRAWN))

    def over(self, record: StepRecord, item: int | None = None) -> None:
        """See `Steps`."""
        self._ledger.over((record.name, item), record)

    async def _tried(self, at: At, work: Awaitable[StepRecord]) -> StepRecord:
        """How a step ended, also when it could not be begun."""
        try:
            return await work
        except FleetError as error:
            attempts = self._ledger.attempts.get(at, 0)
            fault = Fault(error.code, error.message)
            return StepRecord(at[0], StepStatus.failed, None, fault, None, now(), attempts)

    async def _waited(self, at: At, node: Node, scope: Scope, row: Mapping[str, Any] | None) -> StepRecord:
        started = now() if row is None else row["started_at"] or now()
        due = None if row is None else row["due_at"]
        match node.task:
            case Pause():
                result = await self._paused(at, node.task, scope, started, due)
            case Listen():
                result = await self._heard(at, node.task, started, due)
            case Ask():
                result = await self._answered(at, node.task, scope, started)
            case Sub():
                result = await self._ran(at, node.task, scope, _earlier(self._ends_at, started, node.timeout_s))
            case _:
                raise AssertionError(node.task)
        return StepRecord(at[0], StepStatus.completed, result, None, started, now(), 1)

    async def _paused(self, at: At, pause: Pause, scope: Scope, started: float, due: float | None) -> None:
        if due is None:
            if pause.seconds is not None:
                due = started + pause.seconds
            else:
                due = schedules.moment(await self._rooms.templates.fill(pause.until, scope))
            await self._ledger.sure(at, StepStatus.waiting, started_at=started, due_at=due, waits_for="time")
        else:
            self._ledger.note(at, StepStatus.waiting)
        if self._ends_at is not None and self._ends_at < due:
            await until_moment(self._ends_at)
            raise TimedOut("the time that the whole run may take is over")
        await until_moment(due)

    async def _heard(self, at: At, listen: Listen, started: float, due: float | None) -> Any:
        due = due or started + listen.timeout_s
        waits_for = f"signal {listen.signal}"
        await self._ledger.sure(at, StepStatus.waiting, started_at=started, due_at=due, waits_for=waits_for)

        async def look() -> Mapping[str, Any] | None:
            return await self._ledger.signal(listen.signal)

        said = await until_found(self._rooms.bell, f"signal:{self._run.id}", look, self._until(due))
        if said is None:
            raise TimedOut(f"signal {listen.signal!r} did not come in time: send it with `fleet workflow signal`")
        return said["payload"]

    async def _answered(self, at: At, ask: Ask, scope: Scope, started: float) -> Any:
        caller = self._rooms.caller_of(self._run.caller_id)
        if caller is None:
            raise Refused(f"key {self._run.caller_name!r}, as which this run acts, was revoked or has expired")
        message = str(await self._rooms.templates.fill(ask.message, scope))
        question = Question(
            id=_approval_id(self._run, at),
            subject="orchestrator.approval",
            message=message,
            arguments={"run": self._run.id, "workflow": self._run.name, "step": at[0], "message": message},
            caller=caller,
            door=DOOR,
            correlation_id=self._run.correlation_id,
            quorum=ask.quorum,
            group=ask.group,
            expires_s=ask.expires_s,
            escalate_after_s=ask.escalate_after_s,
            escalate_to=ask.escalate_to,
            form=ask.form,
        )
        asked = await self._ledger.sound(self._rooms.asking.ask(question))
        await self._ledger.sure(
            at,
            StepStatus.waiting,
            started_at=started,
            approval_id=asked.id,
            waits_for="approval",
            due_at=asked.expires_at,
        )

        async def decided() -> tuple[Approval, dict[str, Any]] | None:
            approval, values = await self._ledger.sound(self._rooms.asking.look(asked.id))
            return None if approval.status is Status.pending else (approval, values)

        found = await until_found(self._rooms.bell, f"approval:{asked.id}", decided, self._ends_at)
        if found is None:
            await self._ledger.sound(self._rooms.asking.withdraw(asked.id, "the run had no time left"))
            raise TimedOut("nobody decided in the time that the whole run may take")
        approval, values = found
        if approval.status not in (Status.approved, Status.executed):
            said = f": {approval.note}" if approval.note else ""
            raise Refused(f"{asked.id} is {approval.status}{said}")
        await self._ledger.sound(self._rooms.asking.heard(asked.id))
        return values

    async def _ran(self, at: At, sub: Sub, scope: Scope, ends_at: float | None) -> Any:
        inputs = await self._rooms.templates.fill(sub.inputs, scope)
        kept = item_in(self._run, at, inputs)
        if kept is not None:
            return kept.result
        earlier = part_in(self._run, at, inputs)
        child = await self._rooms.child(self._run, part_id(self._run, *at), sub.workflow, inputs, earlier)
        row = {HASH: trust.canonical_hash(dict(inputs)), "started_at": child.created_at, "waits_for": f"run {child.id}"}
        await self._ledger.sure(at, StepStatus.waiting, **row)

        async def ended() -> Run | None:
            found = await self._ledger.sound(self._rooms.look(child.id))
            return found if found.ended else None

        found = await until_found(self._rooms.bell, f"run:{child.id}", ended, ends_at)
        if found is None:
            with suppress(Conflict):  # it has ended after all
                await self._ledger.sound(self._rooms.stop(child.id, "it took longer than the step that runs it may"))
            raise TimedOut(f"run {child.id} of {sub.workflow} took longer than it may")
        if found.status is not RunStatus.completed:
            reason = f": {found.reason}" if found.reason else ""
            raise FleetError(f"run {child.id} of {sub.workflow} {found.status}{reason}")
        return found.outputs

    def _until(self, due: float) -> float:
        return due if self._ends_at is None else min(due, self._ends_at)


def _earlier(ends_at: float | None, started: float, timeout_s: float | None) -> float | None:
    """When a step's time is over: its own, or that of the whole run."""
    ends = [one for one in (ends_at, None if timeout_s is None else started + timeout_s) if one is not None]
    return min(ends, default=None)


def _approval_id(run: Run, at: At) -> str:
    """The same for the same step of the same attempt, so that asking again asks nothing new."""
    return "ap_" + hashlib.sha256(f"{run.execution_id}/{at[0]}/{at[1]}".encode()).hexdigest()[:16]
