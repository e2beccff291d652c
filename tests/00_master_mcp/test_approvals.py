"""A call that may not run alone: held, decided, run."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from held import AGENT, ALLOW, ANNA, APPROVE, BERT, CARL, CONFIRM, DENY, OTHER, ByRisk, Shed, person, shed

from fleetkit import Risk
from fleetkit.errors import Conflict, Invalid, NeedsApproval, NotFound, OverBudget, Refused, Unavailable
from fleetkit.scrub import scrubber
from master_mcp.auth.caller import Caller


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Shed]:
    """Where what destroys has to be approved."""
    async with shed(tmp_path) as found:
        yield found


# --- holding ----------------------------------------------------------------------------------------


async def test_a_held_call_does_nothing_and_says_who_decides_it_and_what_it_would_do(place: Shed) -> None:
    with pytest.raises(NeedsApproval, match=r"shed\.burn would destroy.* until 1 of operators \(never you\)") as held:
        await place.call()
    assert held.value.plan == "run shed.burn with exactly these arguments"
    found = await place.look(str(held.value.approval_id))
    assert place.done == []
    assert (found["status"], found["tool"], found["arguments"]) == ("pending", "shed.burn", {"what": "barn"})
    assert (found["requester_name"], found["risk"], found["rule"]) == ("agent", "destroy", "test: approve")


async def test_the_same_call_of_the_same_key_is_held_once(place: Shed) -> None:
    first = await place.held(arguments={"what": "barn", "size": 1})
    assert await place.held(arguments={"size": 1, "what": "barn"}) == first
    others = {
        await place.held(arguments={"what": "barn", "size": 2}),
        await place.held(arguments={"what": "barn", "size": 1}, by=OTHER),
    }
    assert first not in others
    assert place.counted("held") == 3


async def test_a_key_can_have_only_so_many_calls_waiting(tmp_path: Path) -> None:
    async with shed(tmp_path, max_pending=2) as place:
        first = await place.held(arguments={"what": "a"})
        await place.held(arguments={"what": "b"})
        with pytest.raises(OverBudget, match="2 calls of key 'agent' wait") as full:
            await place.call(arguments={"what": "c"})
        assert full.value.retry_after
        await place.held(arguments={"what": "c"}, by=OTHER)
        await place.say(AGENT, first, approve=False)
        assert await place.held(arguments={"what": "c"})


async def test_a_denied_call_is_never_held(place: Shed) -> None:
    place.rules.destroy = DENY
    with pytest.raises(Refused, match="not here"):
        await place.call()
    assert await place.approvals.listed(ANNA, "all") == []


async def test_a_rule_without_a_reason_is_named(place: Shed) -> None:
    place.rules.destroy = replace(DENY, reason="")
    with pytest.raises(Refused, match="denied by test: deny"):
        await place.call()


async def test_arguments_that_are_known_secrets_are_stored_and_not_shown(place: Shed) -> None:
    scrubber.add("barn-secret-5731")
    approval_id = await place.approved(arguments={"what": "barn-secret-5731"})
    assert (await place.look(approval_id))["arguments"] == {"what": "[secret]"}
    await place.approvals.redeem(AGENT, approval_id)
    assert place.done == ["burn barn-secret-5731"]


# --- tools that assess their arguments --------------------------------------------------------------


async def test_what_a_tool_assesses_as_allowed_runs_at_once(place: Shed) -> None:
    await place.call("shed.paint", {"what": "door"})
    assert place.done == ["paint door"]


async def test_what_a_tool_assesses_as_too_risky_is_held_with_its_plan_and_a_dry_run(place: Shed) -> None:
    with pytest.raises(NeedsApproval) as held:
        await place.call("shed.paint", {"what": "roof"})
    assert held.value.plan == "paint roof\n\n- roof\n+ painted roof"
    assert place.done == []
    assert place.audit_rows()[-1] == ("id-agent", "needs_approval", held.value.approval_id)


@pytest.mark.parametrize(
    ("what", "plan"),
    [
        ("tower", 'paint tower\n\nlook: a painted tower\ncoats: 2\nsides: ["north", "south"]'),
        ("wall", f'paint wall\n\nbricks: ["{"b" * 298}...'),
        ("cellar", "paint cellar"),
    ],
)
async def test_a_dry_run_without_a_diff_shows_its_fields_the_long_ones_cut_and_one_that_fails_nothing(
    place: Shed, what: str, plan: str
) -> None:
    with pytest.raises(NeedsApproval) as held:
        await place.call("shed.paint", {"what": what})
    assert (held.value.plan, place.done) == (plan, [])


async def test_a_call_that_is_a_dry_run_already_is_not_previewed(place: Shed) -> None:
    answer = await place.call("shed.paint", {"what": "roof", "dry_run": True})
    assert (answer["structuredContent"]["diff"], place.done) == ("- roof\n+ painted roof", [])


async def test_a_risk_that_the_rules_allow_after_all_runs_under_that_grant(tmp_path: Path) -> None:
    async with shed(tmp_path, ByRisk(read=ALLOW, change=CONFIRM, destroy=ALLOW)) as place:
        place.rules.highest_allowed = _only_reading  # pyright: ignore[reportAttributeAccessIssue]
        await place.call("shed.paint", {"what": "roof"})
        assert place.done == ["paint roof"]
        await place.held("shed.paint", {"what": "door"})


async def _only_reading(_question: object) -> Risk:
    return Risk.read


async def test_where_not_even_reading_is_allowed_nothing_is_sent(tmp_path: Path) -> None:
    async with shed(tmp_path, ByRisk(read=CONFIRM, change=CONFIRM, destroy=CONFIRM)) as place:
        with pytest.raises(NeedsApproval) as held:
            await place.call("shed.paint", {"what": "nothing"})
        assert "with exactly these arguments" in str(held.value.plan)
        place.rules.destroy = DENY
        with pytest.raises(Refused):
            await place.call("shed.paint", {"what": "nothing"})


async def test_an_approved_call_that_assesses_runs_up_to_the_approved_risk(place: Shed) -> None:
    await place.approved(tool="shed.paint", arguments={"what": "roof"})
    await place.call("shed.paint", {"what": "roof"})
    assert place.done == ["paint roof"]


async def test_an_inner_call_that_is_held_is_not_taken_for_an_assessment(place: Shed) -> None:
    approval_id = await place.approved(tool="shed.fail", arguments={})
    answer = await place.call("shed.fail", {})
    assert answer["structuredContent"]["approval_id"] == "ap_inner"
    assert await place.status(approval_id) == "failed"


# --- deciding ---------------------------------------------------------------------------------------


async def test_an_approved_call_runs_once_when_it_is_repeated(place: Shed) -> None:
    approval_id = await place.approved()
    assert (await place.call())["structuredContent"] == {"result": "burnt barn"}
    found = await place.look(approval_id, AGENT)
    assert (found["status"], found["arguments"]) == ("executed", None)
    assert found["result"]["structuredContent"] == {"result": "burnt barn"}
    assert await place.held() != approval_id
    assert place.done == ["burn barn"]


async def test_an_approved_call_runs_once_when_it_is_redeemed(place: Shed) -> None:
    approval_id = await place.approved()
    found = await place.approvals.redeem(AGENT, approval_id)
    assert (found["status"], found["answer"]["structuredContent"]) == ("executed", {"result": "burnt barn"})
    with pytest.raises(Conflict, match="good for one execution"):
        await place.approvals.redeem(AGENT, approval_id)
    assert place.done == ["burn barn"]


async def test_only_the_requester_redeems(place: Shed) -> None:
    approval_id = await place.approved()
    with pytest.raises(Refused, match="redeemed by the key that asked for it: agent"):
        await place.approvals.redeem(ANNA, approval_id)
    with pytest.raises(NotFound):
        await place.approvals.redeem(OTHER, approval_id)
    with pytest.raises(NotFound, match="fleet approvals list"):
        await place.approvals.redeem(AGENT, "ap_nobody")
    assert place.done == []


async def test_nothing_undecided_is_redeemed(place: Shed) -> None:
    approval_id = await place.held()
    with pytest.raises(Conflict, match="still waits for a decision"):
        await place.approvals.redeem(AGENT, approval_id)
    assert place.done == []


async def test_a_quorum_needs_that_many_different_people(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, quorum=2)
    approval_id = await place.held()
    assert (await place.say(ANNA, approval_id))["status"] == "pending"
    with pytest.raises(Conflict, match="'anna' has decided"):
        await place.say(ANNA, approval_id)
    assert (await place.say(BERT, approval_id))["status"] == "approved"


async def test_who_was_revoked_meanwhile_has_approved_nothing(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, quorum=2)
    approval_id = await place.held()
    await place.say(ANNA, approval_id)
    del place.callers[ANNA.id]
    assert (await place.say(BERT, approval_id))["status"] == "pending"
    assert (await place.say(CARL, approval_id))["status"] == "approved"
    with pytest.raises(Refused, match="decides nothing any more"):
        await place.say(ANNA, approval_id)


async def test_one_denial_ends_it_with_its_reason_and_the_requester_hears_it(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, quorum=2)
    approval_id = await place.held()
    await place.say(ANNA, approval_id)
    found = await place.say(BERT, approval_id, approve=False, reason="not on Fridays")
    assert [(one["decider_name"], one["approve"]) for one in found["decisions"]] == [("anna", True), ("bert", False)]
    assert (found["status"], found["note"], found["arguments"]) == ("denied", "bert: not on Fridays", None)
    with pytest.raises(Refused, match="was denied by bert: not on Fridays"):
        await place.call()
    with pytest.raises(Conflict, match="is denied"):
        await place.approvals.redeem(AGENT, approval_id)
    place.clock.pass_by(601)
    assert await place.held() != approval_id


async def test_who_asked_withdraws(place: Shed) -> None:
    approval_id = await place.held()
    assert (await place.say(AGENT, approval_id, approve=False, channel="mcp"))["status"] == "cancelled"
    assert await place.held() != approval_id


async def test_a_reason_is_bounded(place: Shed) -> None:
    approval_id = await place.held()
    with pytest.raises(Invalid, match="longer than 500"):
        await place.say(ANNA, approval_id, reason="x" * 501)


async def test_a_decision_is_an_audit_row_and_so_is_the_call_under_it(place: Shed) -> None:
    approval_id = await place.approved()
    await place.call()
    assert place.audit_rows() == [
        ("id-agent", "needs_approval", approval_id),
        ("id-anna", "approve", approval_id),
        ("id-agent", "intent", approval_id),
        ("id-agent", "ok", approval_id),
    ]


async def test_a_decision_that_cannot_be_recorded_is_none(place: Shed) -> None:
    approval_id = await place.held()
    place.audit.flush().result()
    place.store.write_now(lambda db: db.exec_driver_sql("ALTER TABLE audit RENAME TO elsewhere"))
    with pytest.raises(Unavailable, match="audit log cannot be written"):
        await place.say(ANNA, approval_id)
    place.store.write_now(lambda db: db.exec_driver_sql("ALTER TABLE elsewhere RENAME TO audit"))
    assert await place.status(approval_id) == "pending"


# --- seeing -----------------------------------------------------------------------------------------


async def test_a_held_call_is_seen_by_who_asked_who_decides_and_operators(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, group="masons")
    approval_id = await place.held()
    mason = person("mason", "masons", role="agent")
    for who in (AGENT, ANNA, mason, Caller("id-new", "agent", "agent", (), ("agents",))):
        assert [one["id"] for one in await place.approvals.listed(who)] == [approval_id]
        assert (await place.look(approval_id, who))["id"] == approval_id
    assert await place.approvals.listed(OTHER) == []
    for attempt in (place.look(approval_id, OTHER), place.say(OTHER, approval_id)):
        with pytest.raises(NotFound, match="'other' may see"):
            await attempt


async def test_lists_are_by_state_and_bounded(place: Shed) -> None:
    first = await place.approved(arguments={"what": "a"})
    second = await place.held(arguments={"what": "b"})
    assert [one["id"] for one in await place.approvals.listed(ANNA)] == [second]
    assert [one["id"] for one in await place.approvals.listed(ANNA, "approved")] == [first]
    assert {one["id"] for one in await place.approvals.listed(ANNA, "all")} == {first, second}
    assert len(await place.approvals.listed(ANNA, "all", limit=1)) == 1
    with pytest.raises(Invalid, match="no state 'open': use all, pending"):
        await place.approvals.listed(ANNA, "open")


async def test_a_result_that_may_hold_a_secret_is_not_kept(place: Shed) -> None:
    approval_id = await place.approved(tool="shed.openSafe", arguments={})
    assert (await place.call("shed.openSafe", {}))["structuredContent"] == {"value": "tresor"}
    found = await place.look(approval_id)
    assert (found["status"], found["result"]) == ("executed", None)
    assert "may hold a secret" in str(found["note"])


async def test_a_large_result_is_not_kept(tmp_path: Path) -> None:
    async with shed(tmp_path, max_result_bytes=10) as place:
        approval_id = await place.approved()
        await place.call()
        found = await place.look(approval_id)
    assert (found["status"], found["result"]) == ("executed", None)
    assert "was not kept" in str(found["note"])


# --- the policy changes meanwhile -------------------------------------------------------------------


async def test_an_approval_counts_only_under_the_terms_it_was_asked_for(place: Shed) -> None:
    approval_id = await place.approved()
    place.rules.destroy = replace(APPROVE, quorum=2)
    with pytest.raises(Refused, match="policy for this call has changed"):
        await place.approvals.redeem(AGENT, approval_id)
    assert await place.held() != approval_id
    place.rules.destroy = DENY
    with pytest.raises(Refused, match="not here"):
        await place.approvals.redeem(AGENT, approval_id)
    place.rules.destroy = ALLOW
    await place.approvals.redeem(AGENT, approval_id)
    assert place.done == ["burn barn"]
