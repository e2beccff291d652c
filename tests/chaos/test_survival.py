"""Parts of a running fleet are killed, frozen, cut off, lied to and starved; the rest goes on.

In every one of these tests the neighbour of what fails answers every call, no change runs twice, and every
change that ran was on record before it did (the fixture `fleet` looks at that after each). They wait for
states, never for times.
"""

import asyncio
import resource
import signal
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from chaos_fleet import Fleet, Stopwatch, code, select
from survival_rows import survives

pytestmark = pytest.mark.timeout(180)  # several processes start on a machine that may be busy


@survives(
    "a spoke is killed (SIGKILL) in the middle of a change",
    callers="the call under way: `unavailable`, its outcome unknown, not repeated; further ones: `unavailable` at once",
    afterwards="started again it answers without anybody reconnecting",
)
async def test_a_killed_spoke(fleet: Fleet, stopwatch: Stopwatch) -> None:
    printed = fleet.hub.process.printed
    with fleet.victim.holding():
        change = await fleet.begun("m1")
        fleet.victim.process.kill()
        assert code(await change) == "unavailable"
    await fleet.said("spoke.unavailable", printed)
    assert code(await fleet.look(fleet.victim)) == "unavailable"
    assert code(await fleet.write(fleet.victim, "m2")) == "unavailable"
    await fleet.bystander_answers()
    await asyncio.to_thread(fleet.victim.start)
    await fleet.first_good(fleet.victim, stopwatch)
    assert fleet.wrote(fleet.victim)[:-1] == ["m1"]


@survives(
    "a spoke is frozen (SIGSTOP)",
    callers="`timed_out` at the deadline, then `unavailable` at once",
    afterwards="thawed (SIGCONT) it answers; what it had been sent before runs once or not at all",
)
async def test_a_frozen_spoke(fleet: Fleet, stopwatch: Stopwatch) -> None:
    printed = fleet.hub.process.printed
    fleet.victim.freeze()
    frozen = [asyncio.create_task(fleet.write(fleet.victim, f"m{n}")) for n in range(2)]
    await fleet.bystander_answers()
    assert {code(await task) for task in frozen} <= {"timed_out", "unavailable"}
    await fleet.said("spoke.unavailable", printed)
    assert code(await fleet.look(fleet.victim)) == "unavailable"
    fleet.victim.thaw()
    await fleet.first_good(fleet.victim, stopwatch)


@survives(
    "a spoke is slow and gets more calls than it takes",
    callers="as many as its `concurrency` are under way, as many wait up to `queue_s`; the rest: `over_budget`",
    afterwards="what was under way ends well",
)
async def test_a_slow_spoke(fleet: Fleet, stopwatch: Stopwatch) -> None:
    with fleet.victim.holding():
        under_way = [await fleet.begun(f"m{n}") for n in range(2)]
        refused = [code(await fleet.write(fleet.victim, f"r{n}")) for n in range(5)]
        await fleet.bystander_answers()
    assert refused == ["over_budget"] * 5
    stopwatch.recovery()
    assert [code(await task) for task in under_way] == ["ok", "ok"]
    stopwatch.good()
    assert fleet.wrote(fleet.victim) == ["m0", "m1"]


async def misled(fleet: Fleet, lies: list[str]) -> None:
    """One change for each lie: sent once, whatever came back."""
    liar = fleet.machinery.liar
    for number, lie in enumerate(lies):
        liar.says(lie)
        assert code(await fleet.write(liar, f"m{number}")) == "unavailable"
        await fleet.bystander_answers(1)
    assert fleet.wrote(liar) == [f"m{number}" for number in range(len(lies))]


@survives(
    "a spoke cuts its sockets in the middle of its answers",
    callers="`unavailable`, the outcome unknown; a change is sent once",
    afterwards="the tool's breaker, open after five, lets one call through to try, and closes",
)
async def test_a_spoke_that_cuts_its_sockets(fleet: Fleet, stopwatch: Stopwatch) -> None:
    await misled(fleet, ["cut_off", "closes_mid_stream", "cut_off", "closes_mid_stream", "cut_off"])
    assert code(await fleet.write(fleet.machinery.liar, "stopped")) == "unavailable"
    assert "stopped" not in fleet.wrote(fleet.machinery.liar)
    fleet.machinery.liar.says("good")
    await fleet.first_good(fleet.machinery.liar, stopwatch)


@survives(
    "a spoke lies: no JSON, another id, neither result nor error, nothing",
    callers="`unavailable` with the reason; a change is sent once",
    afterwards="the tool's breaker, open after five, lets one call through to try, and closes",
)
async def test_a_lying_spoke(fleet: Fleet, stopwatch: Stopwatch) -> None:
    await misled(fleet, ["invalid_json", "wrong_id", "neither", "not_an_object", "empty"])
    fleet.machinery.liar.says("good")
    await fleet.first_good(fleet.machinery.liar, stopwatch)


@survives(
    "the hub is killed (SIGKILL) in the middle of a change",
    callers="the connection is lost; nobody repeats the change",
    afterwards="started again it knows its tools and keys, and the change is on record as begun",
)
async def test_a_killed_hub(fleet: Fleet, stopwatch: Stopwatch) -> None:
    with fleet.victim.holding():
        change = await fleet.begun("m1")
        fleet.hub.process.kill()
        with pytest.raises(aiohttp.ClientError):
            await change
    stopwatch.recovery()
    await asyncio.to_thread(fleet.hub.restart)
    assert code(await fleet.write(fleet.victim, "m2")) == "ok"
    stopwatch.good()
    await fleet.bystander_answers(1)
    assert fleet.wrote(fleet.victim) == ["m1", "m2"]


@contextmanager
def locked(database: Path) -> Generator[None]:
    """Another process (this one) holds the write lock."""
    other = sqlite3.connect(database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


async def reads_go_on(fleet: Fleet) -> None:
    """Reading needs no disk; a change that could not be recorded is refused, and does not happen."""
    for number in range(3):
        assert code(await fleet.look(fleet.victim)) == "ok"
        assert code(await fleet.write(fleet.victim, f"refused{number}")) == "unavailable"
        assert code(await fleet.look(fleet.bystander)) == "ok"
    assert fleet.wrote(fleet.victim) == []


@survives(
    "the hub's database is locked by another process",
    callers="reads go on; a change is refused (`unavailable`) before it is sent, because it cannot be recorded",
    afterwards="once the lock is gone changes go through",
)
async def test_a_locked_database(fleet: Fleet, stopwatch: Stopwatch) -> None:
    with locked(fleet.machinery.data / "hub.db"):
        await reads_go_on(fleet)
    await fleet.first_good(fleet.victim, stopwatch)
    await fleet.bystander_answers(1)


@contextmanager
def no_room(pid: int) -> Generator[None]:
    """No write of this process to any file succeeds (EFBIG), as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@survives(
    "the hub's disk is full",
    callers="reads go on; a change is refused (`unavailable`) before it is sent, because it cannot be recorded",
    afterwards="once there is room changes go through",
)
async def test_a_full_disk(fleet: Fleet, stopwatch: Stopwatch) -> None:
    with no_room(fleet.hub.process.pid):
        await reads_go_on(fleet)
    await fleet.first_good(fleet.victim, stopwatch)
    await fleet.bystander_answers(1)


@survives(
    "the clock of the machine jumps a day ahead, and back two",
    callers="nothing: what was signed before the jump and read after it is refused, the next call is good",
    afterwards="deadlines, limits and breakers follow a clock that does not jump",
)
async def test_a_jumping_clock(fleet: Fleet, stopwatch: Stopwatch) -> None:
    for number, offset in enumerate((86_400, -86_400, 0)):
        fleet.machinery.clock.write_text(str(offset), encoding="utf-8")
        stopwatch.recovery()
        assert code(await fleet.write(fleet.victim, f"m{number}")) == "ok"
        stopwatch.good()
        assert code(await fleet.look(fleet.victim)) == "ok"
        await fleet.bystander_answers(1)
    [(first, last)] = select(fleet.machinery.data / "hub.db", "SELECT min(at), max(at) FROM audit")
    assert last - first > 2 * 86_000  # it did jump


@survives(
    "the hub is stopped (SIGTERM) in the middle of a change",
    callers="the call under way ends well; `/ready` says `draining`; new calls: `unavailable` with `retry_after`",
    afterwards="the hub ends by itself once its last call has, at `drain_s` at the latest",
)
async def test_a_stopping_hub(fleet: Fleet, stopwatch: Stopwatch) -> None:
    printed = fleet.hub.process.printed
    with fleet.victim.holding():
        change = await fleet.begun("m1")
        fleet.hub.process.signal(signal.SIGTERM)
        await fleet.said("hub.draining", printed)
        refused = (await fleet.look(fleet.victim)).result["structuredContent"]
        assert (refused["code"], refused["retry_after"]) == ("unavailable", 2.0)
    stopwatch.recovery()
    assert code(await change) == "ok"
    stopwatch.good()
    assert await asyncio.to_thread(fleet.hub.process.ended) == 0
    await asyncio.to_thread(fleet.hub.restart)
