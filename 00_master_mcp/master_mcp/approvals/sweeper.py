"""What time does to held calls: they expire, escalate, and are run by the hub where the rule says so."""

import asyncio
import time
from contextlib import suppress

import sqlalchemy as sa

from fleetkit.approval_settings import Event
from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.store import Store
from master_mcp.approvals import book
from master_mcp.approvals.deciding import CallerOf, Clock
from master_mcp.approvals.events import Events
from master_mcp.approvals.record import Approval, Status
from master_mcp.auth.caller import Caller
from master_mcp.proxy.request import Run, ToolCall
from master_mcp.store import approvals

log = get_logger()

POLL_S = 1.0
AT_ONCE = 100  # approvals looked at in one go


class Sweeper:
    """Looks every second, and at once after an event, at what is due."""

    def __init__(
        self, store: Store, events: Events, metrics: Metrics, caller_of: CallerOf, clock: Clock = time.time
    ) -> None:
        self._store = store
        self._events = events
        self._metrics = metrics
        self._caller_of = caller_of
        self._clock = clock
        self._running: set[str] = set()

    def wake(self) -> None:
        """Look now rather than at the next second."""
        self._events.news.set()

    async def run(self, call: Run) -> None:
        """For ever; a database that cannot be used is tried again."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._events.news.clear()
                for approval in await self._looked():
                    self._running.add(approval.id)
                    tasks.create_task(self._execute(approval, call))
                with suppress(TimeoutError):  # wait_for would swallow a cancellation that comes with the news
                    async with asyncio.timeout(POLL_S):
                        await self._events.news.wait()

    async def recover(self) -> None:
        """At start: what was under way when the hub ended is in doubt, and never run again."""
        where = approvals.c.status == Status.executing
        found = await self._store.read(lambda db: book.listed(db, 10_000, where))
        for approval in found:
            await self._end(approval, Status.in_doubt, "the hub ended while it ran; whether it took effect is unknown")

    async def sweep(self) -> list[Approval]:
        """Do what is due now; returns the approved calls that the hub itself has to run."""
        at = self._clock()
        due = await self._store.read(lambda db: book.listed(db, AT_ONCE, approvals.c.due_at <= at))
        for approval in due:
            await self._settle(approval, at)
        ready = [one for one in due if one.status is Status.approved and one.id not in self._running]
        return [one for one in ready if one.execute_on_approval and not _past(one.execution_expires_at, at)]

    async def _looked(self) -> list[Approval]:
        try:
            ready = await self.sweep()
            pending = approvals.c.status == Status.pending
            self._metrics.approvals_pending.set(await self._store.read(lambda db: book.count(db, pending)))
        except FleetError as error:
            log.warning("approvals.sweep.failed", reason=error.message)
            return []
        return ready

    async def _settle(self, approval: Approval, at: float) -> None:
        match approval.status:
            case Status.pending if approval.expires_at <= at:
                await self._end(approval, Status.expired, "nobody decided in time")
            case Status.pending:
                await self._escalate(approval, at)
            case Status.approved if _past(approval.execution_expires_at, at):
                await self._end(approval, Status.expired, "it was approved, and not run in time")
            case Status.asking:
                await self._end(approval, Status.failed, "the tool's own question was not answered in time")
            case Status.executing:
                await self._end(approval, Status.in_doubt, "it never ended; whether it took effect is unknown")
            case _:
                pass

    async def _end(self, approval: Approval, status: Status, note: str) -> None:
        """End it unless it has changed since it was looked at."""
        same = approvals.c.due_at.is_(None) if approval.due_at is None else approvals.c.due_at == approval.due_at
        ended = await self._write(approval, same, status=status, note=note)
        if ended is not None:
            self._events.by_hub(_ENDS[status], ended)

    async def _escalate(self, approval: Approval, at: float) -> None:
        same = approvals.c.escalated_at.is_(None)
        escalated = await self._write(approval, same, escalated_at=at, due_at=approval.expires_at)
        if escalated is not None:
            self._events.by_hub("escalated", escalated)

    async def _write(self, approval: Approval, same: sa.ColumnElement[bool], **values: object) -> Approval | None:
        at, before = self._clock(), (approval.status,)
        return await self._store.write(lambda db: book.move(db, at, approval.id, before, same, **values))

    async def _execute(self, approval: Approval, call: Run) -> None:
        try:
            caller = self._caller_of(approval.requester_id)
            if caller is None:
                await self._end(approval, Status.failed, "the key that asked for it was revoked or has expired")
                return
            await call(call_of(approval, caller))
        except FleetError as error:
            log.warning("approvals.execution.failed", approval=approval.id, reason=error.code)
        finally:
            self._running.discard(approval.id)


def call_of(approval: Approval, caller: Caller) -> ToolCall:
    """The held call, to be run under its approval."""
    params = {"name": approval.tool, "arguments": approval.arguments}
    return ToolCall(
        name=approval.tool,
        params=params,
        caller=caller,
        door=approval.door,
        correlation_id=approval.correlation_id,
        approval=approval.id,
    )


def _past(moment: float | None, at: float) -> bool:
    return moment is not None and moment <= at


_ENDS: dict[Status, Event] = {Status.expired: "expired", Status.failed: "failed", Status.in_doubt: "in_doubt"}
