"""Asking people something that is no held call: a step of a run that waits for their word."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fleetkit import trust
from fleetkit.risk import Risk
from fleetkit.store import Store
from master_mcp.approvals import book
from master_mcp.approvals.deciding import Clock
from master_mcp.approvals.events import Events
from master_mcp.approvals.record import Approval, Status
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import Effect
from master_mcp.store import approvals

SERVICE = "orchestrator"
KEPT_S = 365 * 24 * 3600.0  # for whoever asked to hear the answer, however long the hub was down


@dataclass(frozen=True)
class Question:
    """What is asked, by whom, and who answers. `id` is the same for the same question. Times are in seconds."""

    id: str
    subject: str
    message: str
    arguments: Mapping[str, Any]
    caller: Caller
    door: str
    correlation_id: str
    quorum: int
    group: str
    expires_s: float
    escalate_after_s: float | None = None
    escalate_to: str | None = None
    form: Mapping[str, Any] | None = None


class Asking:
    """Questions and their answers."""

    def __init__(self, store: Store, events: Events, clock: Clock) -> None:
        self._store = store
        self._events = events
        self._clock = clock

    async def ask(self, question: Question) -> Approval:
        """The question as it stands, asked now when it was not yet."""
        wanted = _record(question, self._clock())

        def work(db: sa.Connection) -> tuple[Approval, bool]:
            known = book.first(db, approvals.c.id == wanted.id)
            if known is not None:
                return known, False
            db.execute(approvals.insert().values(vars(wanted)))
            return wanted, True

        asked, is_new = await self._store.write(work)
        if is_new:
            self._events.tell("held", asked)
        return asked

    async def look(self, approval_id: str) -> tuple[Approval, dict[str, Any]]:
        """A question or a held call as it stands, and all that was filled in by those who approved."""

        def work(db: sa.Connection) -> tuple[Approval, dict[str, Any]]:
            filled: dict[str, Any] = {}
            for one in book.said(db, approval_id):
                filled |= (one.values or {}) if one.approve else {}
            return book.get(db, approval_id), filled

        return await self._store.read(work)

    async def executing(self, requester_id: str, tool: str) -> list[Approval]:
        """The held calls of a tool that run now for that key."""
        where = (approvals.c.requester_id == requester_id, approvals.c.tool == tool)
        under_way = approvals.c.status == Status.executing
        return await self._store.read(lambda db: book.listed(db, 100, *where, under_way))

    async def heard(self, approval_id: str) -> None:
        """Whoever asked has the answer: it is used up."""
        at = self._clock()
        ended = await self._store.write(
            lambda db: book.move(db, at, approval_id, (Status.approved,), status=Status.executed)
        )
        if ended is not None:
            self._events.tell("executed", ended)

    async def withdraw(self, approval_id: str, note: str) -> None:
        """Nobody waits for the answer any more."""
        at, open_ = self._clock(), (Status.pending, Status.approved)
        ended = await self._store.write(
            lambda db: book.move(db, at, approval_id, open_, status=Status.cancelled, note=note)
        )
        if ended is not None:
            self._events.tell("cancelled", ended)


def _record(question: Question, at: float) -> Approval:
    """A pending approval; one person's word is a confirmation, so that a sole operator can give it."""
    expires = at + question.expires_s
    later = question.escalate_after_s
    escalates = None if later is None else at + later
    return Approval(
        id=question.id,
        status=Status.pending,
        service=SERVICE,
        tool=question.subject,
        schema_hash="",
        args_hash=trust.canonical_hash(dict(question.arguments)),
        requester_id=question.caller.id,
        requester_name=question.caller.name,
        door=question.door,
        correlation_id=question.correlation_id,
        risk=Risk.change,
        plan=question.message,
        rule="the workflow",
        effect=Effect.confirm if question.quorum == 1 else Effect.approve,
        quorum=question.quorum,
        group_name=question.group,
        escalate_to=question.escalate_to,
        execute_on_approval=False,
        created_at=at,
        expires_at=expires,
        execution_s=KEPT_S,
        arguments=question.arguments,
        escalates_at=escalates,
        due_at=expires if escalates is None else min(expires, escalates),
        form=question.form,
    )
