"""The hub's own tools for held calls. Each acts as the key that called, whatever that key's scopes are."""

from typing import Any

from pydantic import BaseModel

from fleetkit import Risk, Spoke, correlation
from fleetkit.errors import Refused
from master_mcp.approvals.record import State
from master_mcp.approvals.room import Approvals
from master_mcp.auth.caller import Caller

CHANNEL = "mcp"


class Said(BaseModel):
    """What one person decided, and filled in where there is a form; `at` is seconds since the epoch."""

    decider_id: str
    decider_name: str
    approve: bool
    reason: str
    channel: str
    at: float
    values: dict[str, Any] | None


class HeldCall(BaseModel):
    """A call that was held. Times are seconds since the epoch; arguments are kept only until it ends.

    `quorum` members of `group` decide (with confirm one, or the person at the requesting client); `approvals` counts
    those that approved. `form` is the JSON Schema of what who approves fills in. `result` is what it answered once it
    ran, `note` why it ended otherwise.
    """

    id: str
    status: str
    service: str
    tool: str
    risk: str
    plan: str
    arguments: dict[str, Any] | None
    requester_id: str
    requester_name: str
    door: str
    correlation_id: str
    rule: str
    effect: str
    quorum: int
    group: str
    escalate_to: str | None
    execute_on_approval: bool
    approvals: int
    decisions: list[Said]
    created_at: float
    expires_at: float
    execution_expires_at: float | None
    escalated_at: float | None
    started_at: float | None
    ended_at: float | None
    result: dict[str, Any] | None
    note: str | None
    form: dict[str, Any] | None


class Redeemed(HeldCall):
    """A held call that has just run; `answer` is the tool's whole result."""

    answer: dict[str, Any]


def add(spoke: Spoke, approvals: Approvals) -> Spoke:
    """`spoke` with the tools for held calls."""

    def caller() -> Caller:
        context = correlation.current()
        if context is None or context.caller is None:
            raise Refused("approvals are decided by a caller with a key: call through the hub")
        return approvals.caller(context.caller.id)

    @spoke.tool(risk=Risk.read)
    async def list_approvals(status: State = "pending", limit: int = 100) -> list[HeldCall]:
        """Held calls that you may see, newest first: your own, those of your groups, for operators all.

        Args:
            status: only those in this state.
            limit: at most so many, up to 500.
        """
        return [HeldCall.model_validate(one) for one in await approvals.listed(caller(), status, limit)]

    @spoke.tool(risk=Risk.read)
    async def get_approval(id: str) -> HeldCall:
        """One held call: its state, its plan, who decided what, and its result once it ran."""
        return HeldCall.model_validate(await approvals.get(caller(), id))

    @spoke.tool(risk=Risk.change)
    async def approve(id: str, reason: str = "", values: dict[str, Any] | None = None) -> HeldCall:
        """Approve another's held call, as a member of the group that decides it. Never your own.

        Args:
            id: the approval.
            reason: why.
            values: what its `form` asks for.
        """
        decided = await approvals.decide(caller(), id, approve=True, reason=reason, channel=CHANNEL, values=values)
        return HeldCall.model_validate(decided)

    @spoke.tool(risk=Risk.change)
    async def deny(id: str, reason: str = "") -> HeldCall:
        """Deny a held call, which ends it; your own you withdraw."""
        decided = await approvals.decide(caller(), id, approve=False, reason=reason, channel=CHANNEL)
        return HeldCall.model_validate(decided)

    @spoke.tool(risk=Risk.change, deadline_s=3600)
    async def redeem_approval(id: str) -> Redeemed:
        """Run your own call that was approved. It runs once; `answer` is what it answered."""
        return Redeemed.model_validate(await approvals.redeem(caller(), id))

    # The decorator registers them; naming them here tells the type checker that they are used.
    _ = (list_approvals, get_approval, approve, deny, redeem_approval)
    return spoke
