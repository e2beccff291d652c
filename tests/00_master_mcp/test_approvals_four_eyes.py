"""Who may decide whose call: tables of four-eyes rules, every row one decision."""

from dataclasses import replace

import pytest
from held import AGENT, ANNA, BERT, HELD, OTHER, person

from fleetkit.errors import Conflict, FleetError, Refused
from master_mcp.approvals import eyes
from master_mcp.approvals.record import Approval, Decision, Status
from master_mcp.auth.caller import Caller
from master_mcp.policy.verdict import Effect

NOW = 1000.0
ANNAS = replace(HELD, requester_id=ANNA.id, requester_name=ANNA.name)
CONFIRM = replace(HELD, effect=Effect.confirm)
ANNAS_CONFIRM = replace(ANNAS, effect=Effect.confirm)
OF_AGENTS = replace(HELD, group_name="agents")
OF_MASONS = replace(HELD, group_name="masons")
ESCALATES = replace(HELD, group_name="masons", escalate_to="operators")
ESCALATED = replace(ESCALATES, escalated_at=500.0)

ROTATED_ANNA = Caller("id-anna-2", "anna", "operator", ANNA.scopes, ANNA.groups)
ROTATED_AGENT = Caller("id-agent-2", "agent", "agent", AGENT.scopes, AGENT.groups)
MASON = Caller("id-mason", "mason", "operator", ANNA.scopes, ("masons",))
MASONS_AGENT = person("trowel", "masons", role="agent")
OPERATING_AGENT = person("bot", "operators", role="agent")


def said(who: Caller, approve: bool = True) -> Decision:
    return Decision(who.id, who.name, approve, "", "rest", 1.0)


def outcome(
    approval: Approval, who: Caller, *already: Decision, approve: bool = True, channel: str = "rest", at: float = NOW
) -> type[FleetError] | None:
    """What stops the decision, None when it counts."""
    try:
        eyes.check(approval, already, who, approve=approve, channel=channel, now=at)
    except FleetError as error:
        return type(error)
    return None


@pytest.mark.parametrize("channel", ["rest", "cli", "mcp", "elicitation"])
@pytest.mark.parametrize(
    ("approval", "who", "stopped"),
    [
        (HELD, ANNA, None),
        (HELD, AGENT, Refused),
        (HELD, ROTATED_AGENT, Refused),
        (HELD, OTHER, Refused),
        (HELD, MASON, Refused),
        (HELD, OPERATING_AGENT, Refused),
        (ANNAS, ANNA, Refused),
        (ANNAS, ROTATED_ANNA, Refused),
        (ANNAS, BERT, None),
        (OF_AGENTS, OTHER, Refused),
        (OF_AGENTS, AGENT, Refused),
        (OF_AGENTS, ANNA, Refused),
        (OF_MASONS, MASON, None),
        (OF_MASONS, MASONS_AGENT, Refused),
        (OF_MASONS, ANNA, Refused),
        (ESCALATES, MASON, None),
        (ESCALATES, ANNA, Refused),
        (ESCALATED, MASON, None),
        (ESCALATED, ANNA, None),
        (ESCALATED, AGENT, Refused),
    ],
)
def test_a_call_that_needs_approval_is_approved_by_members_of_its_group_and_never_by_who_asked(
    approval: Approval, who: Caller, channel: str, stopped: type[FleetError] | None
) -> None:
    assert outcome(approval, who, channel=channel) is stopped


@pytest.mark.parametrize(
    ("approval", "who", "channel", "stopped"),
    [
        (CONFIRM, ANNA, "rest", None),
        (CONFIRM, ANNA, "mcp", None),
        (CONFIRM, AGENT, "elicitation", None),
        (CONFIRM, AGENT, "rest", Refused),
        (CONFIRM, AGENT, "cli", Refused),
        (CONFIRM, AGENT, "mcp", Refused),
        (CONFIRM, ROTATED_AGENT, "rest", Refused),
        (CONFIRM, OTHER, "rest", Refused),
        (CONFIRM, OTHER, "elicitation", Refused),
        (ANNAS_CONFIRM, ANNA, "rest", None),
        (ANNAS_CONFIRM, ANNA, "cli", None),
        (ANNAS_CONFIRM, ANNA, "elicitation", None),
        (ANNAS_CONFIRM, ANNA, "mcp", Refused),
        (ANNAS_CONFIRM, ROTATED_ANNA, "cli", None),
        (ANNAS_CONFIRM, BERT, "mcp", None),
        (ANNAS_CONFIRM, AGENT, "rest", Refused),
    ],
)
def test_a_call_that_needs_confirmation_is_confirmed_at_its_client_or_by_an_operator(
    approval: Approval, who: Caller, channel: str, stopped: type[FleetError] | None
) -> None:
    assert outcome(approval, who, channel=channel) is stopped


@pytest.mark.parametrize("approval", [HELD, CONFIRM])
@pytest.mark.parametrize(
    ("who", "stopped"), [(ANNA, None), (AGENT, None), (ROTATED_AGENT, None), (OTHER, Refused), (MASON, Refused)]
)
def test_a_call_is_denied_by_who_may_approve_it_and_withdrawn_by_who_asked(
    approval: Approval, who: Caller, stopped: type[FleetError] | None
) -> None:
    assert outcome(approval, who, approve=False) is stopped


@pytest.mark.parametrize("who", [ANNA, ROTATED_ANNA])
@pytest.mark.parametrize("approve", [True, False])
def test_nobody_decides_twice_not_even_under_a_new_key(who: Caller, approve: bool) -> None:
    assert outcome(replace(HELD, quorum=2), who, said(ANNA), approve=approve) is Conflict
    assert outcome(replace(HELD, quorum=2), BERT, said(ANNA), approve=approve) is None


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.pending])
@pytest.mark.parametrize("approve", [True, False])
def test_what_is_decided_is_not_decided_again(status: Status, approve: bool) -> None:
    assert outcome(replace(HELD, status=status), ANNA, approve=approve) is Conflict


@pytest.mark.parametrize(("at", "stopped"), [(1999.9, None), (2000.0, Conflict), (9999.0, Conflict)])
def test_what_expired_is_not_decided(at: float, stopped: type[FleetError] | None) -> None:
    assert outcome(HELD, ANNA, at=at) is stopped


@pytest.mark.parametrize(
    ("effect", "quorum", "votes", "enough"),
    [
        (Effect.approve, 1, [], False),
        (Effect.approve, 1, [said(ANNA)], True),
        (Effect.approve, 2, [said(ANNA)], False),
        (Effect.approve, 2, [said(ANNA), said(BERT)], True),
        (Effect.approve, 2, [said(ANNA), said(ROTATED_ANNA)], False),
        (Effect.approve, 2, [said(ANNA), said(BERT, approve=False)], False),
        (Effect.approve, 3, [said(ANNA), said(BERT), said(MASON)], True),
        (Effect.confirm, 3, [said(ANNA)], True),
        (Effect.confirm, 1, [], False),
    ],
)
def test_a_quorum_counts_people(effect: Effect, quorum: int, votes: list[Decision], enough: bool) -> None:
    assert eyes.is_enough(replace(HELD, effect=effect, quorum=quorum), votes) is enough
