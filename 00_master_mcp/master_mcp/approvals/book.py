"""The tables of held calls. Every change of state is one conditional statement in the store's writer."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from fleetkit.errors import Conflict, NotFound
from master_mcp.approvals.record import Approval, Decision, Status, approval_of
from master_mcp.store import approvals, decisions

ENDED = (Status.denied, Status.cancelled, Status.expired, Status.executed, Status.failed, Status.in_doubt)


def binding(approval: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    """The rows that are exactly this call of exactly this requester."""
    keys = ("requester_id", "service", "tool", "schema_hash", "args_hash")
    return sa.and_(*(approvals.c[key] == approval[key] for key in keys))


def first(db: sa.Connection, *where: sa.ColumnElement[bool]) -> Approval | None:
    """The oldest approval that meets all conditions."""
    query = sa.select(approvals).where(*where).order_by(approvals.c.created_at, approvals.c.id).limit(1)
    row = db.execute(query).mappings().first()
    return None if row is None else approval_of(row)


def get(db: sa.Connection, approval_id: str) -> Approval:
    """One approval, locked for this transaction where the database can; raises NotFound."""
    row = db.execute(sa.select(approvals).where(approvals.c.id == approval_id).with_for_update()).mappings().first()
    if row is None:
        raise NotFound(f"no approval {approval_id!r}: `fleet approvals list` or master.listApprovals name them")
    return approval_of(row)


def listed(db: sa.Connection, limit: int, *where: sa.ColumnElement[bool]) -> list[Approval]:
    """The newest approvals that meet all conditions."""
    query = sa.select(approvals).where(*where).order_by(approvals.c.created_at.desc(), approvals.c.id).limit(limit)
    return [approval_of(row) for row in db.execute(query).mappings()]


def said(db: sa.Connection, approval_id: str) -> list[Decision]:
    """What was said about one approval, oldest first."""
    query = sa.select(decisions).where(decisions.c.approval_id == approval_id).order_by(decisions.c.at)
    names = ("decider_id", "decider_name", "approve", "reason", "channel", "at", "values")
    return [Decision(**{name: row[name] for name in names}) for row in db.execute(query).mappings()]


def count(db: sa.Connection, *where: sa.ColumnElement[bool]) -> int:
    """How many approvals meet all conditions."""
    return int(db.execute(sa.select(sa.func.count()).select_from(approvals).where(*where)).scalar_one())


def move(
    db: sa.Connection,
    at: float,
    approval_id: str,
    before: Collection[Status],
    *where: sa.ColumnElement[bool],
    **values: Any,
) -> Approval | None:
    """Change one approval that stands in one of these states; None when it does not, and nothing happened.

    An approval that ends (now is `at`) forgets its arguments.
    """
    if values.get("status") in ENDED:
        values = {"ended_at": at, "arguments": None, "due_at": None, **values}
    change = approvals.update().where(approvals.c.id == approval_id, approvals.c.status.in_(before), *where)
    row = db.execute(change.values(**values).returning(*approvals.c)).mappings().first()
    return None if row is None else approval_of(row)


def settled(approval: Approval) -> Conflict:
    """The error for who comes too late."""
    done = {
        Status.approved: "is approved already: repeat the call, or redeem it",
        Status.executing: "is being executed: see master.getApproval for its end",
        Status.asking: "waits for its client to answer the tool's own question",
        Status.executed: "was executed already, and an approval is good for one execution: repeat the call to ask anew",
        Status.denied: "is denied: the same call is refused for a while, then repeat it to ask anew",
        Status.in_doubt: "was started and its outcome is unknown: look at what it changed, then repeat the call",
        Status.pending: "still waits for a decision: see `fleet approvals show`",
    }
    what = done.get(approval.status, f"is {approval.status}: repeat the call")
    return Conflict(f"approval {approval.id} {what}", approval_id=approval.id)
