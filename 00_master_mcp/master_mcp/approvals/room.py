"""Approvals as doors and tools use them: look, decide, redeem."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from fleetkit import trust
from fleetkit.approval_settings import ApprovalSettings
from fleetkit.errors import Invalid, NotFound, Refused
from fleetkit.metrics import Metrics
from fleetkit.scrub import scrubber
from fleetkit.store import Store
from master_mcp.approvals import book
from master_mcp.approvals.asking import Asking
from master_mcp.approvals.deciding import CallerOf, Clock, Deciding
from master_mcp.approvals.desk import Desk
from master_mcp.approvals.events import Events
from master_mcp.approvals.hooks import Hooks
from master_mcp.approvals.questions import Questions
from master_mcp.approvals.record import Approval, Decision, Status, shown
from master_mcp.approvals.sweeper import Sweeper, call_of
from master_mcp.audit import Audit
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import OPERATORS
from master_mcp.proxy.request import Run
from master_mcp.store import approvals

MAX_LISTED = 500


class Approvals:
    """The held calls of one hub. `desk` is what the proxy is given."""

    def __init__(
        self,
        store: Store,
        ring: trust.KeyRing,
        audit: Audit,
        metrics: Metrics,
        settings: ApprovalSettings,
        caller_of: CallerOf,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._caller_of = caller_of
        self._hooks = Hooks(settings.webhooks)
        self._events = Events(audit, metrics, self._hooks)
        self.sweeper = Sweeper(store, self._events, metrics, caller_of, clock)
        self._deciding = Deciding(store, audit, self._events, caller_of, clock)
        self.asking = Asking(store, self._events, clock)
        self.desk = Desk(store, self._deciding, self._events, Questions(ring), settings, clock)
        self._call: Run | None = None

    async def run(self, call: Run) -> None:
        """Expire, escalate, execute and notify for ever; held calls run through `call`."""
        self._call = call
        await self.sweeper.recover()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hooks.run())
            tasks.create_task(self.sweeper.run(call))

    async def listed(self, caller: Caller, status: str = "pending", limit: int = 100) -> list[dict[str, Any]]:
        """The newest held calls that `caller` may see: its own, those of its groups, for operators all.

        `status` is one of the states, or `all`. Raises Invalid for another word.
        """
        if status != "all" and status not in Status.__members__:
            raise Invalid(f"no state {status!r}: use all, {', '.join(Status)}")
        where = [] if status == "all" else [approvals.c.status == status]
        if not _sees_all(caller):
            where.append(_seen_by(caller))

        def work(db: sa.Connection) -> list[dict[str, Any]]:
            return [shown(one, book.said(db, one.id)) for one in book.listed(db, min(limit, MAX_LISTED), *where)]

        return await self._store.read(work)

    async def get(self, caller: Caller, approval_id: str) -> dict[str, Any]:
        """One held call with its decisions and, once it ran, its result.

        Raises NotFound when there is none that `caller` may see.
        """
        return shown(*await self._visible(caller, approval_id))

    async def decide(
        self,
        caller: Caller,
        approval_id: str,
        *,
        approve: bool,
        reason: str = "",
        channel: str,
        values: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One held call after this decision; `values` is what was filled in where it has a form.

        Raises NotFound, Refused, Conflict, Invalid.
        """
        await self._visible(caller, approval_id)
        await self._deciding.decide(approval_id, caller, approve=approve, reason=reason, channel=channel, values=values)
        return await self.get(caller, approval_id)

    async def redeem(self, caller: Caller, approval_id: str) -> dict[str, Any]:
        """Run an approved call of `caller`, once: the approval as it is then, and `answer`, the tool's result.

        Raises NotFound, Refused, Conflict, and what any call raises.
        """
        approval, _ = await self._visible(caller, approval_id)
        if approval.requester_id != caller.id:
            raise Refused(f"approval {approval_id} is redeemed by the key that asked for it: {approval.requester_name}")
        if approval.status is not Status.approved or self._call is None:
            raise book.settled(approval)
        answer = await self._call(call_of(approval, caller))
        result = scrubber.data(answer.get("result", answer))
        return {**await self.get(caller, approval_id), "answer": result}

    def on_event(self, listener: Callable[[Approval], None]) -> None:
        """Have `listener` hear of everything that happens to a held call."""
        self._events.listeners.append(listener)

    def caller(self, key_id: str | None) -> Caller:
        """The live caller of a key's id; raises Refused when there is none."""
        found = self._caller_of(key_id) if key_id else None
        if found is None:
            raise Refused("the key that this call came with was revoked or has expired")
        return found

    async def _visible(self, caller: Caller, approval_id: str) -> tuple[Approval, list[Decision]]:
        def work(db: sa.Connection) -> tuple[Approval, list[Decision]]:
            return book.get(db, approval_id), book.said(db, approval_id)

        approval, said = await self._store.read(work)
        mine = approval.is_requester(caller.id, caller.name)
        if not mine and not _sees_all(caller) and not set(caller.groups) & approval.groups:
            raise NotFound(f"no approval {approval_id!r} that key {caller.name!r} may see")
        return approval, said


def _sees_all(caller: Caller) -> bool:
    return caller.manages or OPERATORS in caller.groups


def _seen_by(caller: Caller) -> sa.ColumnElement[bool]:
    columns = approvals.c
    return sa.or_(
        columns.requester_id == caller.id,
        columns.requester_name == caller.name,
        columns.group_name.in_(caller.groups),
        sa.and_(columns.escalated_at.is_not(None), columns.escalate_to.in_(caller.groups)),
    )
