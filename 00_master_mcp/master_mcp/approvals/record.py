"""One held call as it is stored and as it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa

from fleetkit.risk import Risk
from fleetkit.scrub import scrubber
from master_mcp.policy.verdict import Effect, Terms


class Status(StrEnum):
    """Where a held call stands. `asking` is one under way whose tool waits for its client's answer."""

    pending = "pending"
    approved = "approved"
    denied = "denied"
    cancelled = "cancelled"
    expired = "expired"
    executing = "executing"
    asking = "asking"
    executed = "executed"
    failed = "failed"
    in_doubt = "in_doubt"


State = Literal[
    "all", "pending", "approved", "denied", "cancelled", "expired", "executing", "asking", "executed", "failed",
    "in_doubt",
]  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """What one person said. `channel` is rest, mcp or elicitation; `at` is seconds since the epoch.

    `values` are what they filled in where the approval has a form.
    """

    decider_id: str
    decider_name: str
    approve: bool
    reason: str
    channel: str
    at: float
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Approval:
    """One held call: a row of `approvals`. Times are in seconds since the epoch."""

    id: str
    status: Status
    service: str
    tool: str
    schema_hash: str
    args_hash: str
    requester_id: str
    requester_name: str
    door: str
    correlation_id: str
    risk: Risk
    plan: str
    rule: str
    effect: Effect
    quorum: int
    group_name: str
    escalate_to: str | None
    execute_on_approval: bool
    created_at: float
    expires_at: float
    execution_s: float
    arguments: Mapping[str, Any] | None = field(default=None, repr=False)
    execution_expires_at: float | None = None
    escalates_at: float | None = None
    escalated_at: float | None = None
    due_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    claim: str | None = field(default=None, repr=False)
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    note: str | None = None
    form: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def terms(self) -> Terms:
        """Under what it was asked for."""
        return Terms(self.effect, self.quorum, self.group_name)

    @property
    def groups(self) -> frozenset[str]:
        """Whose members may decide now."""
        escalated = self.escalate_to if self.escalated_at is not None else None
        return frozenset(group for group in (self.group_name, escalated) if group)

    def is_requester(self, key_id: str, name: str) -> bool:
        """Whether that key is the requester's: the same, or one of the same name (a rotated successor)."""
        return self.requester_id == key_id or self.requester_name == name


def approval_of(row: sa.RowMapping) -> Approval:
    """A row of the table as its value."""
    known: dict[str, Any] = {name: row[name] for name in _FIELDS}
    known |= {"status": Status(row["status"]), "risk": Risk(row["risk"]), "effect": Effect(row["effect"])}
    return Approval(**known)


def shown(approval: Approval, said: Sequence[Decision] = ()) -> dict[str, Any]:
    """An approval for people and machines: no secret, no internal token; arguments only while they are kept."""
    hidden = {"claim", "due_at", "execution_s", "group_name"}
    facts = {name: getattr(approval, name) for name in _FIELDS if name not in hidden}
    for name in ("plan", "arguments", "result", "note"):
        facts[name] = scrubber.data(facts[name])
    return facts | {
        "group": approval.group_name,
        "approvals": sum(one.approve for one in said),
        "decisions": [
            {**vars(one), "reason": scrubber.text(one.reason), "values": scrubber.data(one.values)} for one in said
        ],
    }


_FIELDS = tuple(one.name for one in fields(Approval))
