"""What time does to held calls: expiry, escalation, execution by the hub, restarts."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from held import AGENT, ANNA, APPROVE, ByRisk, Clock, Shed, person, shed

from fleetkit.errors import Conflict, Refused, TimedOut, Unavailable
from fleetkit.trust import DEADLINE_META
from master_mcp.approvals.record import Status
from master_mcp.store import approvals

DAY = 24 * 3600.0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Shed]:
    """Where what destroys has to be approved."""
    async with shed(tmp_path) as found:
        yield found


async def ended(place: Shed, approval_id: str) -> str:
    """How a held call ended, waited for; the hub works on it meanwhile."""
    while True:
        found = await place.look(approval_id)
        if found["ended_at"] is not None:
            return str(found["status"])
        await asyncio.sleep(0)


async def test_an_undecided_call_expires(place: Shed) -> None:
    approval_id = await place.held()
    await place.later(DAY - 1)
    assert await place.status(approval_id) == "pending"
    await place.later(1)
    found = await place.look(approval_id)
    assert (found["status"], found["note"], found["arguments"]) == ("expired", "nobody decided in time", None)
    with pytest.raises(Conflict, match="is expired: repeat the call"):
        await place.say(ANNA, approval_id)
    assert await place.held() != approval_id
    assert ("hub", "expired", approval_id) in place.audit_rows()


async def test_a_call_that_expired_is_not_decided_although_nobody_has_looked_since(place: Shed) -> None:
    approval_id = await place.held()
    place.clock.pass_by(DAY)
    with pytest.raises(Conflict, match="expired"):
        await place.say(ANNA, approval_id)
    assert await place.held() != approval_id


async def test_an_approved_call_expires_by_a_time_of_its_own(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, approval_expires_s=10.0, execution_expires_s=100.0)
    approval_id = await place.held()
    place.clock.pass_by(9)
    await place.say(ANNA, approval_id)
    await place.later(99)
    assert await place.status(approval_id) == "approved"
    place.clock.pass_by(1)
    with pytest.raises(Conflict, match=r"is over|expired"):
        await place.approvals.redeem(AGENT, approval_id)
    assert await place.held() != approval_id
    await place.later(0)
    assert await place.status(approval_id) == "expired"
    assert place.done == []


async def test_a_call_that_nobody_decides_escalates_once_to_a_further_group(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, group="masons", escalate_after_s=60.0, escalate_to="operators")
    mason, approval_id = person("mason", "masons"), await place.held()
    place.callers[mason.id] = mason
    with pytest.raises(Refused, match="decided by masons"):
        await place.say(ANNA, approval_id)
    await place.later(60)
    await place.later(60)
    assert place.counted("escalated") == 1
    assert (await place.say(ANNA, approval_id))["status"] == "approved"


async def test_an_escalation_without_a_group_only_tells_again(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, group="masons", escalate_after_s=60.0)
    approval_id = await place.held()
    await place.later(60)
    assert place.counted("escalated") == 1
    with pytest.raises(Refused, match="decided by masons"):
        await place.say(ANNA, approval_id)
    await place.later(DAY)
    assert await place.status(approval_id) == "expired"


# --- run by the hub ---------------------------------------------------------------------------------


async def test_where_the_rule_says_so_the_hub_runs_an_approved_call_itself(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, execute_on_approval=True)
    approval_id = await place.held()
    await place.say(ANNA, approval_id)
    assert await ended(place, approval_id) == "executed"
    assert place.done == ["burn barn"]
    assert (await place.look(approval_id, AGENT))["result"]["structuredContent"] == {"result": "burnt barn"}
    assert place.audit_rows()[-1] == ("id-agent", "ok", approval_id)


async def test_the_hub_runs_nothing_for_a_key_that_is_gone(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, execute_on_approval=True)
    approval_id = await place.held()
    del place.callers[AGENT.id]
    await place.say(ANNA, approval_id)
    assert await ended(place, approval_id) == "failed"
    assert "revoked or has expired" in (await place.look(approval_id))["note"]
    assert place.done == []


async def test_the_hub_runs_after_a_restart_what_was_approved_before(tmp_path: Path) -> None:
    done: list[str] = []
    rules, clock = ByRisk(destroy=replace(APPROVE, execute_on_approval=True)), Clock()
    async with shed(tmp_path, rules, clock, done) as place:
        approval_id = await place.held()
        values = {"status": Status.approved, "due_at": clock(), "execution_expires_at": clock() + 60}
        place.store.write_now(lambda db: db.execute(approvals.update().values(values)))
    async with shed(tmp_path, rules, clock, done) as place:
        assert await ended(place, approval_id) == "executed"
    assert done == ["burn barn"]


async def test_what_the_hub_could_not_send_is_tried_again(place: Shed) -> None:
    place.rules.destroy = replace(APPROVE, execute_on_approval=True)
    approval_id = await place.held()
    place.audit.flush().result()
    spoiled = (
        "CREATE TRIGGER full BEFORE INSERT ON audit WHEN NEW.outcome = 'intent' BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    place.store.write_now(lambda db: db.exec_driver_sql(spoiled))
    await place.say(ANNA, approval_id)
    while place.store.read_now(_retried_at) is None:
        await asyncio.sleep(0)
    place.store.write_now(lambda db: db.exec_driver_sql("DROP TRIGGER full"))
    assert await place.status(approval_id) == "approved"
    place.clock.pass_by(6)
    place.approvals.sweeper.wake()
    assert await ended(place, approval_id) == "executed"
    assert place.done == ["burn barn"]


def _retried_at(db: sa.Connection) -> float | None:
    """When an approval is due whose execution was tried and could not be sent."""
    query = sa.select(approvals.c.due_at).where(
        approvals.c.status == Status.approved, approvals.c.started_at.is_not(None)
    )
    return db.execute(query).scalar()


async def test_a_database_that_cannot_be_read_stops_nothing_for_good(place: Shed) -> None:
    approval_id = await place.held()
    real, place.store.read = place.store.read, _broken  # pyright: ignore[reportAttributeAccessIssue]
    place.clock.pass_by(DAY)
    place.approvals.sweeper.wake()
    for _ in range(5):
        await asyncio.sleep(0)
    place.store.read = real
    place.approvals.sweeper.wake()
    assert await ended(place, approval_id) == "expired"


async def _broken(_work: object) -> object:
    raise Unavailable("the disk is gone")


# --- what was under way -----------------------------------------------------------------------------


async def test_a_call_that_was_under_way_when_the_hub_ended_is_in_doubt_and_never_runs_again(tmp_path: Path) -> None:
    done: list[str] = []
    async with shed(tmp_path, done=done) as place:
        approval_id = await place.approved(tool="shed.hang", arguments={})
        call = asyncio.create_task(place.call("shed.hang", {}))
        while not done:
            await asyncio.sleep(0)
        assert await place.status(approval_id) == "executing"
        with pytest.raises(Conflict, match="is being executed"):
            await place.approvals.redeem(AGENT, approval_id)
        before = place.store.read_now(lambda db: db.execute(sa.select(approvals)).mappings().one())
        call.cancel()
        await asyncio.wait([call])
        place.store.write_now(lambda db: db.execute(approvals.update().values(dict(before))))  # as SIGKILL leaves it
    async with shed(tmp_path, done=done) as place:
        found = await place.look(approval_id)
        assert (found["status"], found["arguments"]) == ("in_doubt", None)
        assert "whether it took effect is unknown" in found["note"]
        with pytest.raises(Conflict, match="outcome is unknown"):
            await place.approvals.redeem(AGENT, approval_id)
        assert await place.held("shed.hang", {}) != approval_id
    assert done == ["hang"]


async def test_a_call_whose_caller_goes_away_is_in_doubt(place: Shed) -> None:
    approval_id = await place.approved(tool="shed.hang", arguments={})
    call = asyncio.create_task(place.call("shed.hang", {}))
    while not place.done:
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    found = await place.look(approval_id)
    assert (found["status"], found["note"].partition(";")[0]) == ("in_doubt", "the caller went away")


async def test_a_call_that_times_out_is_in_doubt(place: Shed) -> None:
    approval_id = await place.approved(tool="shed.hang", arguments={})
    with pytest.raises(TimedOut):
        await place.call("shed.hang", {}, _meta={DEADLINE_META: 0.01})
    assert await place.status(approval_id) == "in_doubt"
    assert place.counted("in_doubt") == 1


async def test_an_execution_that_never_ended_is_in_doubt_after_a_day(place: Shed) -> None:
    approval_id = await place.approved()
    stuck = {"status": Status.executing, "claim": "lost", "due_at": place.clock() + DAY}
    place.store.write_now(lambda db: db.execute(approvals.update().values(stuck)))
    await place.later(DAY)
    assert await place.status(approval_id) == "in_doubt"


async def test_nothing_is_used_up_when_the_spoke_is_known_to_be_down(place: Shed) -> None:
    approval_id = await place.approved()
    place.upstream.lost("down")
    with pytest.raises(Unavailable):
        await place.call()
    assert await place.status(approval_id) == "approved"
    place.upstream.found()
    await place.call()
    assert (place.done, await place.status(approval_id)) == (["burn barn"], "executed")


async def test_nothing_is_used_up_when_the_intent_cannot_be_recorded(place: Shed) -> None:
    approval_id = await place.approved()
    place.audit.flush().result()
    place.store.write_now(lambda db: db.exec_driver_sql("ALTER TABLE audit RENAME TO elsewhere"))
    with pytest.raises(Unavailable, match="audit log cannot be written"):
        await place.call()
    place.store.write_now(lambda db: db.exec_driver_sql("ALTER TABLE elsewhere RENAME TO audit"))
    assert (place.done, await place.status(approval_id)) == ([], "approved")
    await place.approvals.redeem(AGENT, approval_id)
    assert place.done == ["burn barn"]
