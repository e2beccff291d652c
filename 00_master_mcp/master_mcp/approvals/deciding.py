"""One person's decision: checked, recorded, counted."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from fleetkit.approval_settings import Event
from fleetkit.errors import FleetError, Invalid, Refused
from fleetkit.store import Store
from master_mcp.approvals import book, eyes, forms
from master_mcp.approvals.events import Events, row_of
from master_mcp.approvals.record import Approval, Decision, Status
from master_mcp.audit import Audit
from master_mcp.auth.caller import Caller
from master_mcp.store import decisions

MAX_REASON = 500

Clock = Callable[[], float]
CallerOf = Callable[[str], Caller | None]  # the live caller of an id


class Deciding:
    """Takes decisions. `caller_of` knows who is neither revoked nor expired."""

    def __init__(
        self, store: Store, audit: Audit, events: Events, caller_of: CallerOf, clock: Clock = time.time
    ) -> None:
        self._store = store
        self._audit = audit
        self._events = events
        self._caller_of = caller_of
        self._clock = clock

    async def decide(
        self,
        approval_id: str,
        decider: Caller,
        *,
        approve: bool,
        reason: str,
        channel: str,
        values: Mapping[str, Any] | None = None,
    ) -> Approval:
        """The approval after this decision, which is on disk with its audit row.

        Raises NotFound, Refused when `decider` may not, Conflict when it is too late, Invalid for values that its
        form does not take.
        """
        if len(reason) > MAX_REASON:
            raise Invalid(f"the reason is longer than {MAX_REASON} characters: shorten it")
        if self._caller_of(decider.id) is None:
            raise Refused(f"key {decider.name!r} was revoked or has expired: it decides nothing any more")
        said = Decision(decider.id, decider.name, approve, reason, channel, self._clock(), values)
        found = await self._store.read(lambda db: self._checked(db, approval_id, decider, said))
        await self._audit.commit(row_of(found, decider.id, channel, "approve" if approve else "deny"))
        try:
            after = await self._store.write(lambda db: self._take(db, approval_id, decider, said))
        except FleetError as error:
            self._audit.note(row_of(found, decider.id, channel, error.code))  # somebody was quicker
            raise
        if after.status is not Status.pending:
            self._events.tell(_EVENTS[after.status], after)
        return after

    def _checked(self, db: sa.Connection, approval_id: str, decider: Caller, said: Decision) -> Approval:
        approval = book.get(db, approval_id)
        counted = self._counted(db, approval_id)
        eyes.check(approval, counted, decider, approve=said.approve, channel=said.channel, now=self._clock())
        forms.check(approval, said)
        return approval

    def _counted(self, db: sa.Connection, approval_id: str) -> list[Decision]:
        """The decisions of keys that still live: who was revoked meanwhile has approved nothing."""
        return [one for one in book.said(db, approval_id) if self._caller_of(one.decider_id) is not None]

    def _take(self, db: sa.Connection, approval_id: str, decider: Caller, said: Decision) -> Approval:
        approval = self._checked(db, approval_id, decider, said)
        db.execute(decisions.insert().values(approval_id=approval_id, **vars(said)))
        if not said.approve:
            own = approval.is_requester(decider.id, decider.name) and said.channel != eyes.ELICITATION
            status = Status.cancelled if own else Status.denied
            note = f"{decider.name}: {said.reason}" if said.reason else decider.name
            after = book.move(db, said.at, approval_id, (Status.pending,), status=status, note=note)
        elif eyes.is_enough(approval, self._counted(db, approval_id)):
            expires = said.at + approval.execution_s
            due = said.at if approval.execute_on_approval else expires
            values = {"status": Status.approved, "execution_expires_at": expires, "due_at": due}
            after = book.move(db, said.at, approval_id, (Status.pending,), **values)
        else:
            after = approval
        return after or approval


_EVENTS: dict[Status, Event] = {Status.approved: "approved", Status.denied: "denied", Status.cancelled: "cancelled"}
