"""Making the record of a call that has to wait, once for each call that is the same."""

import secrets
from typing import Any

import sqlalchemy as sa

from fleetkit.approval_settings import ApprovalSettings
from fleetkit.errors import OverBudget, Refused
from fleetkit.risk import Risk
from master_mcp.approvals import book
from master_mcp.approvals.record import Approval, Status
from master_mcp.policy.verdict import Terms, Verdict
from master_mcp.proxy.held import schema_hash
from master_mcp.proxy.request import Asked
from master_mcp.store import approvals


def record(asked: Asked, risk: Risk, plan: str, verdict: Verdict, at: float) -> Approval:
    """A pending approval of this call, as the verdict says."""
    call = asked.call
    expires = at + verdict.approval_expires_s
    escalates = None if verdict.escalate_after_s is None else at + verdict.escalate_after_s
    return Approval(
        id=f"ap_{secrets.token_hex(8)}",
        status=Status.pending,
        arguments=asked.arguments,
        requester_name=call.caller.name,
        door=call.door,
        correlation_id=call.correlation_id,
        risk=risk,
        plan=plan,
        rule=verdict.rule,
        effect=verdict.effect,
        quorum=verdict.quorum,
        group_name=verdict.group,
        escalate_to=verdict.escalate_to,
        execute_on_approval=verdict.execute_on_approval,
        created_at=at,
        expires_at=expires,
        execution_s=verdict.execution_expires_s,
        escalates_at=escalates,
        due_at=expires if escalates is None else min(expires, escalates),
        **identity(asked),
    )


def insert(db: sa.Connection, wanted: Approval, settings: ApprovalSettings) -> tuple[Approval, bool]:
    """The approval that waits for this call, and whether it is new.

    Raises Refused for a call that was denied just now, OverBudget when its key has too many waiting.
    """
    mine, at = book.binding(vars(wanted)), wanted.created_at
    pending = approvals.c.status == Status.pending
    alike = (approvals.c.risk == wanted.risk, *under(wanted.terms))
    same = book.first(db, mine, pending, approvals.c.expires_at > at, *alike)
    if same is not None:
        return same, False
    recently = approvals.c.ended_at > at - settings.ask_again_after_s
    denied = book.first(db, mine, approvals.c.status == Status.denied, recently)
    if denied is not None:
        raise Refused(f"{wanted.tool} with these arguments was denied by {denied.note}", approval_id=denied.id)
    if book.count(db, pending, approvals.c.requester_id == wanted.requester_id) >= settings.max_pending:
        raise OverBudget(
            f"{settings.max_pending} calls of key {wanted.requester_name!r} wait for a decision: "
            "wait for them, or withdraw some with master.deny",
            retry_after=60.0,
        )
    db.execute(approvals.insert().values(vars(wanted)))
    return wanted, True


def identity(asked: Asked) -> dict[str, Any]:
    """What an approval is bound to."""
    return {
        "service": asked.tool.service,
        "tool": asked.tool.id,
        "schema_hash": schema_hash(asked.tool),
        "args_hash": asked.args_hash,
        "requester_id": asked.call.caller.id,
    }


def under(terms: Terms) -> tuple[sa.ColumnElement[bool], ...]:
    """The rows that were asked for under these terms."""
    columns = approvals.c
    return columns.effect == terms.effect, columns.quorum == terms.quorum, columns.group_name == terms.group
