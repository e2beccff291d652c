"""Who may decide a held call. Pure: what is known comes in, an error or nothing comes out."""

from collections.abc import Sequence

from fleetkit.errors import Conflict, Refused
from master_mcp.approvals.book import settled
from master_mcp.approvals.record import Approval, Decision, Status
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import OPERATORS, Effect

ELICITATION = "elicitation"
OPERATOR = "operator"  # the role, whatever further groups a key is in
CONSOLES = ("rest", "cli")  # where a person sits, rather than a model that calls tools


def check(
    approval: Approval, said: Sequence[Decision], decider: Caller, *, approve: bool, channel: str, now: float
) -> None:
    """Raises Refused when `decider` may not say this, Conflict when there is nothing left to say.

    `said` holds the decisions that still count: those of keys that live.
    """
    if approval.status is not Status.pending:
        raise settled(approval)
    if approval.expires_at <= now:
        raise Conflict(f"approval {approval.id} has expired: its requester has to repeat the call")
    if approval.is_requester(decider.id, decider.name):
        if approve:
            _check_own(approval, decider, channel)
        return
    if decider.role != OPERATOR:
        raise Refused(f"key {decider.name!r} is an agent's, and agents never decide: use an operator's key")
    if not approval.groups & set(decider.groups):
        groups = " or ".join(sorted(approval.groups))
        raise Refused(f"approval {approval.id} is decided by {groups}: key {decider.name!r} is in none of them")
    if any(one.decider_id == decider.id or one.decider_name == decider.name for one in said):
        raise Conflict(f"key {decider.name!r} has decided approval {approval.id} already: somebody else has to")


def is_enough(approval: Approval, said: Sequence[Decision]) -> bool:
    """Whether enough different people approved."""
    needed = approval.quorum if approval.effect is Effect.approve else 1
    return len({one.decider_name for one in said if one.approve}) >= needed


def _check_own(approval: Approval, decider: Caller, channel: str) -> None:
    if approval.effect is Effect.approve:
        raise Refused(f"approval {approval.id} is your own call: another member of {approval.group_name} has to decide")
    if channel == ELICITATION:
        return
    if OPERATORS not in decider.groups:
        raise Refused(f"approval {approval.id} is your own call: the person at your client or an operator confirms it")
    if channel not in CONSOLES:
        raise Refused(f"confirm your own call where a person sits: `fleet approvals approve {approval.id}`")
